"""The estimator that learned from outcomes: kept in a file, shared by all processes of a state directory."""

import contextlib
import fcntl
import logging
import os
import random
import threading
import zipfile
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

from attrs import frozen

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
        self._waiting: deque[tuple[str, str, str, bool]] = deque(maxlen=_MOST_WAITING)
        self._unsaved: list[tuple[str, Features, bool]] = []
        self._remembered: deque[tuple[str, Features, bool]] = deque(maxlen=REMEMBERED)

    @property
    def outcomes(self) -> int:
        """Outcomes that it has learned from, those of other processes as far as they are known."""
        self._begin_to_load()
        self._loaded.wait()
        with self._lock:
            self._refresh()
            self._take_in()
            return 0 if self._model is None else self._model.outcomes

    def learn(self, model: str, text: str, success: bool, *, task: str = "") -> None:
        """Remember an outcome; it is learned with the next few, by whoever brings the last of them.

        Args:
            model: Candidate that answered.
            text: Of the prompt.
            success: Whether it did well.
            task: Name of the task; empty where there is none.
        """
        self._begin_to_load()
        with self._lock:
            if self._missing is None:
                self._waiting.append((model, task, text, success))
            if len(self._waiting) >= BATCH:
                self._take_in()
                if len(self._unsaved) >= _SAVE_EVERY:
                    self.save()

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
            if self._path is None or self._model is None or not self._unsaved:
                return
            try:
                with _alone(self._path):
                    if self._mark != _mark(self._path) and (theirs := self._read(self._path)) is not None:
                        self._teach(theirs, self._unsaved)
                        self._model = theirs
                    self._write(self._path, self._model)
            except OSError as error:
                if not self._warned:
                    _logger.warning("What was learned cannot be written to %s: %s", self._path, error)
                self._warned = True
                del self._unsaved[:-REMEMBERED]
            else:
                self._warned = False
                self._unsaved.clear()

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
        """Take over the file if it is another one than was read or written last, and nothing of ours would be lost."""
        if self._path is None or self._model is None or self._unsaved or self._mark == _mark(self._path):
            return
        self._model = self._read(self._path) or self._model

    def _take_in(self) -> None:
        """Learn what waits, if the library is there."""
        if self._model is None:
            return
        while self._waiting:
            fresh = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            seen = [
                (model, self._model.features(text, task), success) for model, task, text, success in fresh
            ]
            self._teach(self._model, seen)
            self._remembered.extend(seen)
            if self._path is not None:
                self._unsaved.extend(seen)

    def _teach(self, model: "LearnedModel", seen: "Sequence[tuple[str, Features, bool]]") -> None:
        """Have outcomes learned, a few at a time and some earlier ones with them.

        What was learned by itself and what is merged into the model of another process has to be learned in the same way: else
        the same outcomes would be worth less there, and chances would move whenever a process ends.
        """
        for start in range(0, len(seen), BATCH):
            batch, known = seen[start : start + BATCH], self._remembered
            model.learn(batch, self._chance.choices(known, k=REPEATED * len(batch)) if known else ())

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
