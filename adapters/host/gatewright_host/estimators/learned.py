"""The estimator that learned from outcomes: kept in a file, shared by all processes of a state directory."""

import contextlib
import fcntl
import logging
import os
import random
import threading
import time
import zipfile
import zlib
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

from attrs import define, frozen

from gatewright.selection.complexity import ComplexityEstimate
from gatewright.selection.complexity_heuristic import DEFAULT_THRESHOLDS, complexity_at, confidence_at
from gatewright_host.estimators.custom import EstimatorError
from gatewright_host.extras import how_to_install

if TYPE_CHECKING:
    from gatewright_host.estimators.learned_model import Features, LearnedModel

FILE_NAME: Final = "learned.npz"
MOST_FILE_BYTES: Final = 4_000_000
"""The weights take less than a megabyte; a much larger file is none of ours."""

BATCH: Final = 16
"""Outcomes that are learned at a time; one by one costs ten times as much."""
_SAVE_EVERY: Final = 64
_SAVE_AFTER_S: Final = 10.0
"""Fewer outcomes are saved with the first that comes so long after the last time."""
CORRECTED_AT_A_TIME: Final = 4
"""Corrections for which the mean that predicts takes one step: it has gone as far already in the wrong direction."""
CORRECTED: Final = 3
"""So often is learned what feedback makes of an outcome that was taken for something else before."""
_MOST_EARLY: Final = 1024
REPEATED: Final = 4
"""Earlier outcomes that are learned once more, for each new one: with few outcomes, one look at each is too little."""
REMEMBERED: Final = 4096
"""Outcomes of which some are repeated: 4 MB for usual prompts, 12 MB for long ones."""
_MOST_WAITING: Final = 10_000
_LEAST_EVIDENCE: Final = 10
"""Outcomes of a candidate before its chance is told."""

_logger: Final = logging.getLogger("gatewright.estimators")


@frozen
class Prediction:
    """What was learned about one prompt.

    Attributes:
        estimate: How hard it is: the mean chance of failure.
        chances: Chance of success, of each candidate that has outcomes enough.
    """

    estimate: ComplexityEstimate
    chances: dict[str, float]


@define(eq=False)
class _Seen:
    """One outcome.

    Attributes:
        model: Candidate that answered.
        task: Name of the task.
        text: Of the prompt; forgotten once its features are known.
        success: Whether it did well, as far as is known.
        features: Of the prompt, once it was learned.
    """

    model: str
    task: str
    text: str
    success: bool
    features: "Features | None" = None

    @property
    def outcome(self) -> "tuple[str, Features, bool]":
        """As a model learns it."""
        assert self.features is not None
        return self.model, self.features, self.success


class LearnedEstimator:
    """Learns candidates' chances from outcomes. For any thread; of the prompts it keeps hashes of words, no text.

    scikit-learn (the extra `learned`) takes a second to import; a thread does it when the first outcome comes or the first
    estimate is wanted.

    Args:
        directory: Where its file is, and those of other processes that learn into the same one; None keeps it in memory.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._path = None if directory is None else directory / FILE_NAME
        self._lock = threading.RLock()
        self._chance = random.Random(0)  # noqa: S311 - which outcomes are repeated is no secret
        self._library: ModuleType | None = None
        self._missing: str | None = None
        self._loader: threading.Thread | None = None
        self._loaded = threading.Event()
        self._model: LearnedModel | None = None
        self._mark: tuple[int, int] | None = None
        self._warned = False
        self._waiting: deque[_Seen] = deque(maxlen=_MOST_WAITING)
        self._corrected: deque[_Seen] = deque(maxlen=REMEMBERED)
        self._unsaved: list[_Seen] = []
        self._unsaved_corrections: list[_Seen] = []
        self._saved_at = time.monotonic()
        self._remembered: deque[_Seen] = deque(maxlen=REMEMBERED)
        self._by_request: OrderedDict[str, _Seen] = OrderedDict()
        self._early: OrderedDict[str, bool] = OrderedDict()

    @property
    def outcomes(self) -> int:
        """Outcomes that it has learned from, those of other processes as far as they are known."""
        self._begin_to_load()
        self._loaded.wait()
        with self._lock:
            self._refresh()
            self._take_in()
            return 0 if self._model is None else self._model.outcomes

    def learn(self, model: str, text: str, success: bool, *, task: str = "", request_id: str = "") -> None:
        """Remember an outcome; it is learned with the next few, by whoever brings the last of them.

        Args:
            model: Candidate that answered.
            text: Of the prompt.
            success: Whether it did well.
            task: Name of the task; empty where there is none.
            request_id: Of the request whose answer it is, by which feedback finds it; empty if none can.
        """
        self._begin_to_load()
        with self._lock:
            if self._missing is not None:
                return
            seen = _Seen(model, task, text, self._early.pop(request_id, success))
            self._waiting.append(seen)
            if request_id:
                self._by_request[request_id] = seen
                if len(self._by_request) > REMEMBERED:
                    self._by_request.popitem(last=False)
            if len(self._waiting) >= BATCH:
                self._take_in()
            unsaved = len(self._waiting) + len(self._unsaved) + len(self._unsaved_corrections)
            if unsaved >= _SAVE_EVERY or (
                unsaved and time.monotonic() - self._saved_at >= _SAVE_AFTER_S and self._model is not None
            ):
                self.save()

    def take_feedback(self, request_id: str, success: bool) -> None:
        """What somebody says of an answer takes the place of what was believed of it, as long as its prompt is remembered.

        Args:
            request_id: Of the request.
            success: Whether the answer was good.
        """
        with self._lock:
            seen = self._by_request.get(request_id)
            if seen is None:  # somebody else's, or not heard of yet
                self._early[request_id] = success
                if len(self._early) > _MOST_EARLY:
                    self._early.popitem(last=False)
            elif seen.success != success:
                seen.success = success
                if seen.features is not None:
                    self._corrected.append(seen)

    def predict(
        self,
        candidates: Sequence[str],
        text: str,
        *,
        task: str = "",
        min_outcomes: int = 0,
        thresholds: tuple[float, float, float, float] | None = None,
        timeout_s: float = 60.0,
    ) -> Prediction:
        """What was learned about a prompt.

        Args:
            candidates: Models whose chances are wanted.
            text: Of the prompt.
            task: Name of the task; empty where there is none.
            min_outcomes: Outcomes below which it says nothing.
            thresholds: Of chances of failure, for the level.
            timeout_s: Longest wait for the library; only the first estimates wait.

        Raises:
            EstimatorError: It has learned too little, or scikit-learn is not installed.
        """
        self._begin_to_load()
        if not self._loaded.wait(timeout_s):
            raise EstimatorError("scikit-learn is still being loaded")
        with self._lock:
            self._refresh()
            self._take_in()
            model = self._model
            if model is None:
                raise EstimatorError(self._missing or "nothing was learned yet")
            if model.outcomes < min_outcomes:
                raise EstimatorError(f"only {model.outcomes} of {min_outcomes} outcomes were learned so far")
            known = [name for name in candidates if model.candidates.get(name, 0) >= _LEAST_EVIDENCE]
            if not known:
                raise EstimatorError(f"none of the candidates has {_LEAST_EVIDENCE} outcomes yet")
            features = model.features(text, task)
            chances = {name: model.chance(name, features) for name in known}
        failure = 1 - sum(chances.values()) / len(chances)
        limits = thresholds or DEFAULT_THRESHOLDS
        estimate = ComplexityEstimate(
            complexity=complexity_at(failure, limits),
            score=failure,
            confidence=confidence_at(failure, limits),
            estimator="learned",
            reason=f"{len(chances)} candidates fail with a chance of {failure:.0%} on average",
        )
        return Prediction(estimate, chances)

    def save(self) -> None:
        """Write what was learned; what other processes have written meanwhile is taken in first."""
        with self._lock:
            self._take_in()
            if self._path is None or self._model is None or not (self._unsaved or self._unsaved_corrections):
                return
            self._saved_at = time.monotonic()
            try:
                with _alone(self._path):
                    self._refresh()
                    self._write(self._path, self._model)
            except OSError as error:
                if not self._warned:
                    _logger.warning("What was learned cannot be written to %s: %s", self._path, error)
                self._warned = True
                del self._unsaved[:-REMEMBERED], self._unsaved_corrections[:-REMEMBERED]
            else:
                self._warned = False
                self._unsaved.clear()
                self._unsaved_corrections.clear()

    def close(self) -> None:
        """Save it for the last time."""
        if self._loader is not None:
            self._loaded.wait()
        self.save()

    def _begin_to_load(self) -> None:
        if self._loader is not None:
            return
        with self._lock:
            if self._loader is None:
                # A daemon: a process that ends meanwhile need not wait for an import.
                self._loader = threading.Thread(target=self._load, name="learned estimator", daemon=True)
                self._loader.start()

    def _load(self) -> None:
        """Import the library and read the file."""
        try:
            from gatewright_host.estimators import learned_model  # noqa: PLC0415 - takes a second and 100 MB

            model = learned_model.LearnedModel()
        except Exception as error:  # noqa: BLE001 - a broken installation raises anything
            with self._lock:
                self._missing = f"scikit-learn cannot be used ({error}): {how_to_install('learned')}"
                self._waiting.clear()
        else:
            with self._lock:
                self._library = learned_model
                self._model = model
                self._refresh()
        finally:
            self._loaded.set()

    def _refresh(self) -> None:
        """Take over the file if it is another one than was read or written last, and what is ours into it."""
        if self._path is None or self._model is None or self._mark == _mark(self._path):
            return
        theirs = self._read(self._path)
        if theirs is not None:
            self._teach(theirs, self._unsaved)
            self._correct(theirs, self._unsaved_corrections)
            self._model = theirs

    def _take_in(self) -> None:
        """Learn what waits, if the library is there."""
        if self._model is None:
            return
        while self._waiting:
            fresh = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            for seen in fresh:
                seen.features, seen.text = self._model.features(seen.text, seen.task), ""
            self._teach(self._model, fresh)
            self._remembered.extend(fresh)
            if self._path is not None:
                self._unsaved.extend(fresh)
        if self._corrected:
            corrected = list(self._corrected)
            self._corrected.clear()
            self._correct(self._model, corrected)
            if self._path is not None:
                self._unsaved_corrections.extend(corrected)

    def _teach(self, model: "LearnedModel", seen: Sequence[_Seen]) -> None:
        """Have outcomes learned, a few at a time and some earlier ones with them.

        What was learned by itself and what is merged into the model of another process has to be learned in the same way: else
        the same outcomes would be worth less there, and chances would move whenever a process ends.
        """
        for start in range(0, len(seen), BATCH):
            batch, known = seen[start : start + BATCH], self._remembered
            again = self._chance.choices(known, k=REPEATED * len(batch)) if known else ()
            model.learn([each.outcome for each in batch], [each.outcome for each in again])

    def _correct(self, model: "LearnedModel", corrected: Iterable[_Seen]) -> None:
        """Have learned what was learned otherwise."""
        outcomes, known = [each.outcome for each in corrected], self._remembered
        for start in range(0, len(outcomes), CORRECTED_AT_A_TIME):
            few = outcomes[start : start + CORRECTED_AT_A_TIME]
            again = self._chance.choices(known, k=REPEATED * len(few)) if known else ()
            model.learn_better([*few * CORRECTED, *(each.outcome for each in again)])

    def _read(self, path: Path) -> "LearnedModel | None":
        """The model of the file; None if there is no good one."""
        assert self._library is not None
        self._mark = _mark(path)
        if self._mark is None:
            return None
        if self._mark[1] > MOST_FILE_BYTES:
            _logger.warning("%s is too large; learning goes on without it", path)
            return None
        try:
            model: LearnedModel = self._library.read_model(path.read_bytes())
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            _logger.warning("%s cannot be used (%s); learning goes on without it", path, error)
            return None
        return model

    def _write(self, path: Path, model: "LearnedModel") -> None:
        assert self._library is not None
        unfinished = path.with_suffix(f".{os.getpid()}.tmp")
        unfinished.touch(mode=0o600)
        unfinished.write_bytes(self._library.write_model(model))
        unfinished.replace(path)
        self._mark = _mark(path)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """No other process reads and writes meanwhile."""
    handle = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _mark(path: Path) -> tuple[int, int] | None:
    """What tells one state of the file from another; None where there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns ^ found.st_ino, found.st_size
