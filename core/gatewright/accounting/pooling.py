"""What outcomes at tasks of some difficulty say of tasks of another.

Doing a hundred trivial tasks well says little of expert ones, so rates of success cannot simply be pooled. The selection
takes a task of some complexity for so many tasks of middling difficulty in a row (`exponent_of`), all of which must
succeed. Seen that way a model has one figure, the rate at which it fails per unit of difficulty: a success is that much
difficulty without a failure, and a failure is one somewhere on the way. That rate is estimated as any rate of events is,
by events divided by exposure, with a prior of so many outcomes (Gelman et al., Bayesian Data Analysis, 3rd ed., 2.6: the
Gamma-Poisson model). How far a failed task got nobody knows; the prior's expectation stands for it.
"""

from collections.abc import Iterable
from math import exp, expm1, log
from typing import Final

CERTAIN: Final = 0.005
"""No prior is nearer to 0 or 1 than this, or nothing could be learnt against it."""

_MOST_CERTAIN: Final = 1.0 - CERTAIN
_SMALL: Final = 1e-3

Cell = tuple[float, float, float]
"""Difficulty, outcomes and their success."""


Shape = tuple[float, float, float]
"""Successes, failures and evidence, as in `Belief`, which takes longer to make."""


def as_prior(mean: float) -> float:
    """A chance that leaves something to learn."""
    if mean > _MOST_CERTAIN:
        return _MOST_CERTAIN
    return max(CERTAIN, mean)  # in this order, so that it is for what is no number, too


def transfer(mean: float, strength: float, difficulty: float, cells: Iterable[Cell]) -> float:
    """The chance at tasks of one difficulty, given outcomes at others.

    Args:
        mean: The chance that was believed in before.
        strength: So many outcomes is that worth.
        difficulty: Of the tasks in question, above 0.
        cells: Outcomes at other difficulties.
    """
    mean = as_prior(mean)
    rate = -log(mean) / difficulty
    failures = strength * (1.0 - mean)
    exposure = failures / rate
    for other, count, success in cells:
        failed = count - success
        exposure += success * other
        if failed > 0.0:
            failures += failed
            way = rate * other
            # How far a task gets that fails, in the mean; where the way is short, the formula would subtract large
            # numbers from each other.
            exposure += failed * (1.0 / rate - other / expm1(way) if way > _SMALL else other / 2.0)
    return as_prior(exp(-difficulty * failures / exposure))


def update(belief: Shape, strength: float, difficulty: float, cells: Iterable[Cell]) -> Shape:
    """What is believed of tasks of one difficulty at a finer level, given what is believed at the coarser one.

    Args:
        belief: At the coarser level.
        strength: So many outcomes is its mean worth at the finer one.
        difficulty: Of the tasks in question, above 0.
        cells: Outcomes of the finer level. Those of that difficulty count as they are, the others by `transfer`.
    """
    alpha, beta, evidence = belief
    mean = alpha / (alpha + beta)
    count = success = 0.0
    others = []
    for cell in cells:
        if cell[0] == difficulty:
            count += cell[1]
            success += cell[2]
        elif cell[1] > 0.0:
            others.append(cell)
            evidence += cell[1]
    if others:
        mean = transfer(mean, strength, difficulty, others)
    return (
        strength * mean + success,
        strength * (1.0 - mean) + count - success,
        count + strength * evidence / (strength + evidence),
    )
