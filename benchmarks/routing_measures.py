"""How well scores tell which prompts need the strong model: AUROC and APGR, with bootstrap intervals."""

from typing import Any

import numpy as np
from attrs import field, frozen

Array = Any
"""Of numpy, one-dimensional."""


@frozen
class Measured:
    """One figure.

    Attributes:
        value: On all prompts.
        low: Bound of the 95% interval.
        high: The other.
        draws: The figure in each round of the bootstrap.
    """

    value: float
    low: float
    high: float
    draws: Array = field(repr=False, eq=False, default=None)

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def exceeds(self, other: "Measured") -> bool:
        """Whether it is surely the higher one, by the difference in each round: both saw the same prompts."""
        return bool(np.nanpercentile(self.draws - other.draws, 2.5) > 0)


class Ranking:
    """Prompts in the order of their scores; equal ones stand together.

    Args:
        scores: One for each prompt.
    """

    def __init__(self, scores: Array) -> None:
        _, self._groups = np.unique(np.asarray(scores, dtype=float), return_inverse=True)

    def auroc(self, failed: Array, times: Array) -> float:
        """Chance that a prompt on which the weak model failed has the higher score than one on which it did not.

        Args:
            failed: Whether the weak model failed.
            times: How often each prompt counts.
        """
        bad = np.bincount(self._groups, weights=times * failed)
        good = np.bincount(self._groups, weights=times * ~failed)
        pairs = bad.sum() * good.sum()
        if not pairs:
            return float("nan")
        below = np.cumsum(good) - good
        return float((bad * (below + good / 2)).sum() / pairs)

    def apgr(self, gains: Array, times: Array) -> float:
        """Average performance gap recovered: what is won over what could be, as an area over the share of strong calls.

        The prompts go to the strong model from the highest score on; of equal scores, each is as likely to. Chance gives
        0.5. More than 1 is possible, since the weak model is the better one on some prompts.

        Args:
            gains: Score of the strong model less that of the weak one.
            times: How often each prompt counts.
        """
        calls = np.bincount(self._groups, weights=times)[::-1]
        won = np.cumsum(np.bincount(self._groups, weights=times * gains)[::-1])
        if won[-1] <= 0:
            return float("nan")
        share = np.concatenate(([0.0], np.cumsum(calls) / calls.sum()))
        recovered = np.concatenate(([0.0], won / won[-1]))
        return float(((recovered[1:] + recovered[:-1]) / 2 * np.diff(share)).sum())


def measure(
    scores: Array, gain_scores: Array, failed: Array, gains: Array, *, rounds: int, seed: int = 0
) -> tuple[Measured, Measured]:
    """AUROC and APGR of an estimator, with intervals over prompts drawn anew.

    Args:
        scores: How likely the weak model is to fail.
        gain_scores: How much the strong model would be better; often the same.
        failed: Whether the weak model failed.
        gains: How much better the strong model was.
        rounds: Of the bootstrap.
        seed: Of its draws; the same for all estimators, so that they see the same prompts.
    """
    draw = np.random.default_rng(seed)
    by_failure, by_gain = Ranking(scores), Ranking(gain_scores)
    once, count = np.ones(len(failed)), len(failed)
    drawn = []
    for _ in range(rounds):
        times = np.bincount(draw.integers(0, count, count), minlength=count).astype(float)
        drawn.append((by_failure.auroc(failed, times), by_gain.apgr(gains, times)))
    aurocs, apgrs = np.array(drawn).T
    return _measured(by_failure.auroc(failed, once), aurocs), _measured(by_gain.apgr(gains, once), apgrs)


def measure_chance(
    scores: Array, failed: Array, gains: Array, *, rounds: int, seed: int = 0
) -> tuple[Measured, Measured]:
    """The same for scores that are dealt out anew in each round: what comes out where nothing is known.

    An estimator whose figure lies within this interval has shown nothing.
    """
    draw = np.random.default_rng(seed)
    once = np.ones(len(failed))
    drawn = []
    for _ in range(rounds):
        shuffled = Ranking(draw.permutation(scores))
        drawn.append((shuffled.auroc(failed, once), shuffled.apgr(gains, once)))
    aurocs, apgrs = np.array(drawn).T
    return _measured(float(aurocs.mean()), aurocs), _measured(float(apgrs.mean()), apgrs)


def _measured(value: float, draws: Array) -> Measured:
    low, high = np.nanpercentile(draws, (2.5, 97.5))
    return Measured(value, float(low), float(high), draws)
