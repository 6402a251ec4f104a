"""The model that learns from outcomes: hashed words and an online logistic regression. Needs the extra `learned`.

One set of weights says how hard a text is for whoever gets it, and a smaller part of its own says what is different for
each candidate. Learned apart, the candidates would each have to find out anew what is hard; with few outcomes that
predicts worse (docs/complexity.md has the figures).
"""

import io
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from attrs import frozen
from scipy import sparse  # type: ignore[import-untyped]  # ships no type information
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import SGDClassifier

from gatewright.selection.complexity_heuristic import DIMENSIONS, estimate_complexity
from gatewright.selection.complexity_scan import excerpt
from gatewright.selection.signals import signals_of_text

VERSION: Final = 1
"""Of the features and of the file; weights of another version mean something else."""
MOST_CANDIDATES: Final = 256
"""Candidates that are told apart; outcomes of more are not learned from."""
LEARNED_CHARACTERS: Final = 4096
"""Of a prompt: beginning and end."""

_WORDS: Final = 2**15
_COUNTS: Final = len(DIMENSIONS) + 1
_FEATURES: Final = 2 * _WORDS + (1 + MOST_CANDIDATES) * _COUNTS
_WORD_SCALE: Final = 3.0
"""Words have a norm of 1 altogether; less than this, and the counts outweigh them."""
_OWN_SCALE: Final = 0.5
"""Of a candidate's own part: it moves a quarter as fast as what all share, and so needs more outcomes to differ."""
_RATE: Final = 0.1
"""Constant, so that new outcomes count as much as old ones did, and a change is followed."""
_SHRINKAGE: Final = 3e-4
_MEAN_SHARE: Final = 0.01
"""Share of the newest weights in the mean that predicts: single steps are noise."""
_OUTCOMES_OF_A_STEP: Final = 16
"""So many are usually learned at a time; a candidate's part of the mean takes a step for each so many of its outcomes."""
_LEAST, _MOST = 0.02, 0.98
"""Nobody is as sure as a logistic regression."""


@frozen
class Features:
    """What is seen of one prompt; its words cannot be read from it.

    Attributes:
        places: Of its words, hashed.
        values: Their weights.
        counts: Scores of the heuristic's dimensions, and 1.
    """

    places: Any
    values: Any
    counts: Any


Outcome = tuple[str, Features, bool]
"""Candidate, its prompt, and whether it did well."""


class LearnedModel:
    """Chances of success by candidate. Not for several threads at a time.

    Attributes:
        outcomes: Outcomes that it has learned from.
        candidates: Outcomes of each candidate, in the order in which they appeared.
    """

    def __init__(self) -> None:
        self.outcomes = 0
        self.candidates: dict[str, int] = {}
        self._slots: dict[str, int] = {}
        self._steps = 0
        self._weights, self._intercept = np.zeros(_FEATURES), 0.0
        self._words = HashingVectorizer(n_features=_WORDS, norm=None)
        self._line = SGDClassifier(
            loss="log_loss", alpha=_SHRINKAGE, learning_rate="constant", eta0=_RATE, shuffle=False
        )
        # The first call makes the arrays; these rows are empty, and what they teach is undone.
        self._line.partial_fit(sparse.csr_matrix((2, _FEATURES)), [0, 1], classes=[0, 1])
        self._line.intercept_[:] = 0.0

    def features(self, text: str, task: str = "") -> Features:
        """What is seen of a prompt.

        Args:
            text: Its text.
            task: Name of its task; empty where there is none.
        """
        shown = excerpt((text,), LEARNED_CHARACTERS)
        marked = f"gw_task_{'_'.join(task.split())} {shown}" if task else shown
        row = self._words.transform([marked])
        estimate = estimate_complexity(signals_of_text(task, "", {"text": shown}))
        counts = np.array([*(dimension.score for dimension in estimate.dimensions), 1.0])
        values = np.sign(row.data) * np.log1p(
            np.abs(row.data)
        )  # the tenth "the" says little that the first did not
        norm = float(np.linalg.norm(values)) or 1.0
        return Features(
            row.indices.astype(np.int32), (values * (_WORD_SCALE / norm)).astype(np.float32), counts
        )

    def learn(self, outcomes: Iterable[Outcome], again: Iterable[Outcome] = ()) -> None:
        """Take in some outcomes, in the order in which they came.

        Args:
            outcomes: Candidate, its prompt, and whether it did well.
            again: Earlier ones that are learned once more.
        """
        known = [outcome for outcome in outcomes if self._slot(outcome[0]) is not None]
        if not known:
            return
        self._fit(known)
        self._fit([outcome for outcome in again if outcome[0] in self._slots])
        self.outcomes += len(known)
        for candidate, _, _ in known:
            self.candidates[candidate] += 1
        self._follow(known)

    def learn_better(self, outcomes: Iterable[Outcome]) -> None:
        """Take in what has come of outcomes that were learned before and taken for something else; they count once."""
        known = [outcome for outcome in outcomes if outcome[0] in self._slots]
        if known:
            self._fit(known)
            self._follow(known)

    def _follow(self, outcomes: Iterable[Outcome]) -> None:
        """Have the mean that predicts follow the newest weights, which these outcomes have moved."""
        self._steps += 1
        share = max(_MEAN_SHARE, 1 / self._steps)
        newest = self._line.coef_[0]
        behind = newest - self._weights
        self._weights += share * behind
        self._intercept += share * (float(self._line.intercept_[0]) - self._intercept)
        moved: dict[str, list[Any]] = {}
        for candidate, features, _ in outcomes:
            # However much was learned of others: what is a candidate's own begins with its own first outcome.
            if _OUTCOMES_OF_A_STEP / (_OUTCOMES_OF_A_STEP + self.candidates[candidate]) > share:
                moved.setdefault(candidate, []).append(self._own_places(candidate, features))
        for candidate, places in moved.items():
            own = np.unique(np.concatenate(places))
            own_share = _OUTCOMES_OF_A_STEP / (_OUTCOMES_OF_A_STEP + self.candidates[candidate])
            self._weights[own] += (own_share - share) * behind[own]

    def chance(self, candidate: str, features: Features) -> float:
        """A candidate's chance of success, 0.02 to 0.98; of an unknown one, anybody's."""
        places, values = self._place(candidate, features)
        line = float(self._weights[places] @ values) + self._intercept
        return float(np.clip(1 / (1 + np.exp(-np.clip(line, -30, 30))), _LEAST, _MOST))

    def to_arrays(self) -> dict[str, Any]:
        """All of it, for a file."""
        return {
            "version": np.array(VERSION),
            "dimensions": np.array(",".join(DIMENSIONS)),
            "weights": np.stack((self._line.coef_[0], self._weights)).astype(np.float32),
            "intercepts": np.array((float(self._line.intercept_[0]), self._intercept)),
            "steps": np.array(self._steps),
            "outcomes": np.array(self.outcomes),
            "names": np.array(list(self.candidates), dtype=np.str_),
            "counts": np.array(list(self.candidates.values()), dtype=np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: Any) -> "LearnedModel":
        """The model of a file.

        Raises:
            ValueError: It is of another version, or damaged.
            KeyError: Part of it is missing.
        """
        if int(arrays["version"]) != VERSION or str(arrays["dimensions"]) != ",".join(DIMENSIONS):
            raise ValueError("it is of another version")
        weights, names, counts = arrays["weights"], arrays["names"], arrays["counts"]
        if weights.shape != (2, _FEATURES) or names.shape != counts.shape or len(names) > MOST_CANDIDATES:
            raise ValueError("its parts do not fit each other")
        if not np.isfinite(weights).all() or not np.isfinite(arrays["intercepts"]).all():
            raise ValueError("its weights are no numbers")
        model = cls()
        model._line.coef_[0], model._weights = weights[0], weights[1].astype(np.float64)
        model._line.intercept_[0], model._intercept = (float(value) for value in arrays["intercepts"])
        model._steps = int(arrays["steps"])
        model.outcomes = int(arrays["outcomes"])
        for name, count in zip(names.tolist(), counts.tolist(), strict=True):
            model.candidates[name] = count
            model._slots[name] = len(model._slots)
        return model

    def _slot(self, candidate: str) -> int | None:
        """A candidate's number, given at its first outcome."""
        slot = self._slots.get(candidate)
        if slot is None and len(self._slots) < MOST_CANDIDATES:
            slot = self._slots[candidate] = len(self._slots)
            self.candidates[candidate] = 0
        return slot

    def _place(self, candidate: str, features: Features) -> tuple[Any, Any]:
        """Where a prompt's features are when this candidate gets it: once for all, once for itself."""
        counts = np.arange(_COUNTS) + 2 * _WORDS
        slot = self._slots.get(candidate)
        if slot is None:
            return np.concatenate((features.places, counts)), np.concatenate(
                (features.values, features.counts)
            )
        places = np.concatenate((features.places, counts, self._own_places(candidate, features)))
        own = features.counts * _OWN_SCALE
        own[-1] = 1.0  # how good it is at all is learned at full speed
        values = np.concatenate((features.values, features.counts, features.values * _OWN_SCALE, own))
        return places, values

    def _own_places(self, candidate: str, features: Features) -> Any:
        """Where a prompt's features are for one candidate alone."""
        counts = np.arange(_COUNTS) + 2 * _WORDS + (self._slots[candidate] + 1) * _COUNTS
        return np.concatenate(((features.places + _turn(candidate)) % _WORDS + _WORDS, counts))

    def _fit(self, outcomes: Sequence[Outcome]) -> None:
        if not outcomes:
            return
        rows = [self._place(candidate, features) for candidate, features, _ in outcomes]
        ends = np.cumsum([0, *(len(places) for places, _ in rows)])
        matrix = sparse.csr_matrix(
            (
                np.concatenate([values for _, values in rows]),
                np.concatenate([places for places, _ in rows]),
                ends,
            ),
            shape=(len(rows), _FEATURES),
        )
        self._line.partial_fit(matrix, [int(success) for _, _, success in outcomes])


def _turn(candidate: str) -> int:
    """How far a candidate's own words are moved, so that those of two candidates share no place but by chance."""
    return zlib.crc32(candidate.encode("utf-8", "surrogatepass")) % _WORDS


def write_model(model: LearnedModel) -> bytes:
    """The contents of a file that holds it: arrays of numbers and names, compressed."""
    data = io.BytesIO()
    np.savez_compressed(data, **model.to_arrays())
    return data.getvalue()


def read_model(data: bytes) -> LearnedModel:
    """The model of a file.

    Raises:
        ValueError: It is of another version, or damaged; `KeyError`, `EOFError`, `BadZipFile` and others say the same.
    """
    # Never a pickle: whoever may write into the state directory must not run code by it.
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return LearnedModel.from_arrays(arrays)
