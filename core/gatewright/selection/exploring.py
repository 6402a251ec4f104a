"""Thompson sampling: the choice goes by one draw from what is believed of each, and how likely such a choice was.

Only the best few by expectation take part: among thousands of models, draws from all would try one stranger after
another. The probability of a choice (its propensity) is not estimated by further draws, which would cost more than the
choice, but by a sum: over cells of the chosen one's distribution, the chance that all others stay below.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from math import exp, lgamma, log, pow, sqrt  # noqa: A004  # of floats, which ** says less clearly
from typing import Final

from attrs import frozen

from gatewright.selection.beliefs import Belief, Chance
from gatewright.selection.scoring import Scored, Scorer

SHORTLIST: Final = 16
"""Models that take part in a draw."""
LEAST_PROPENSITY: Final = 0.001
"""Whoever learns from outcomes divides by the propensity."""

_CELLS: Final = 24
_END_PARTS: Final = tuple((number + 0.5) / 8 for number in range(8))
"""A cell at an end stands for so many points."""
_REACH: Final = 6.0
"""Standard deviations on either side of the mean beyond which nothing is expected."""
_LEAST_COUNT: Final = 1e-3
_MOST_COUNT: Final = 1e9
_LEAST: Final = 1e-15
"""Distributions that are narrower are all the same to a float."""


@frozen
class Draw:
    """One draw.

    Attributes:
        chosen: Index in the shortlist.
        scores: Score of each with what was drawn.
        qualities: What was drawn of each.
        beliefs: From what.
    """

    chosen: int
    scores: tuple[float, ...]
    qualities: tuple[float, ...]
    beliefs: tuple[Belief, ...]


def draw(shortlist: Sequence[Scored], scorer: Scorer, chance: Chance) -> Draw:
    """Draw a quality for each, in the order of the list, and choose who scores best with it.

    Args:
        shortlist: Models, best first; never empty.
        scorer: That scored them.
        chance: The generator; each model takes one Beta draw from it.
    """
    weight = scorer.weights.quality
    beliefs = tuple([scorer.belief(each.row) for each in shortlist])
    qualities = tuple([chance.betavariate(*_counts(belief)) for belief in beliefs])
    scores = tuple(
        [min(1.0, each.rest + weight * quality) for each, quality in zip(shortlist, qualities, strict=True)]
    )
    order = [(-score, each.cost_usd, each.name) for score, each in zip(scores, shortlist, strict=True)]
    return Draw(order.index(min(order)), scores, qualities, beliefs)


def propensity(shortlist: Sequence[Scored], beliefs: Sequence[Belief], chosen: int, weight: float) -> float:
    """The probability that a draw chooses this one; exact to about 0.02, for the width of the cells.

    Args:
        shortlist: Who takes part.
        beliefs: What is believed of each.
        chosen: Index of the one.
        weight: Of quality in the score.
    """
    if weight <= 0.0:
        return 1.0  # nothing depends on what is drawn
    cells = _Cells(beliefs[chosen])
    lowest = cells.edges[0]
    others = []
    for index, each in enumerate(shortlist):
        if index == chosen:
            continue
        shift = (shortlist[chosen].rest - each.rest) / weight
        alpha, beta = _counts(beliefs[index])
        highest = min(1.0, alpha / (alpha + beta) + _REACH * _deviation(alpha, beta))
        if highest > lowest + shift:
            others.append((_Cells(beliefs[index]), shift))
    total = 0.0
    for quality, mass in cells.nodes():
        below = mass
        for other, shift in others:
            below *= other.share_below(quality + shift)
            if below <= 0.0:
                break
        total += below
    return min(1.0, max(LEAST_PROPENSITY, total))


class _Cells:
    """A Beta distribution as masses of cells.

    At 0 and at 1 its density may be infinite, or all of it may lie there: in these cells it is taken for the power that it
    comes to there.
    """

    def __init__(self, belief: Belief) -> None:
        alpha, beta = _counts(belief)
        mean, reach = alpha / (alpha + beta), _REACH * _deviation(alpha, beta)
        low, high = max(0.0, mean - reach), min(1.0, mean + reach)
        width = max((high - low) / _CELLS, _LEAST)
        self._alpha, self._beta = alpha, beta
        self._at_0, self._at_1 = low == 0.0, high == 1.0
        self.edges: Final = [low + width * number for number in range(_CELLS)] + [high]
        scale = lgamma(alpha + beta) - lgamma(alpha) - lgamma(beta)
        masses = []
        for number in range(_CELLS):
            middle = min(max(low + width * (number + 0.5), _LEAST), 1.0 - _LEAST)
            masses.append(exp(scale + (alpha - 1) * log(middle) + (beta - 1) * log(1 - middle)) * width)
        if self._at_0:
            masses[0] = exp(scale + alpha * log(width) + (beta - 1) * log(1 - width / 2)) / alpha
        if self._at_1:
            masses[-1] = exp(scale + beta * log(width) + (alpha - 1) * log(1 - width / 2)) / beta
        total = sum(masses) or 1.0
        self.masses: Final = [mass / total for mass in masses]
        sums = [0.0]
        for mass in self.masses:
            sums.append(sums[-1] + mass)
        self._sums: Final = sums
        self._width: Final = width

    def nodes(self) -> Iterator[tuple[float, float]]:
        """Points that stand for the distribution, and the probability of each."""
        width, last = self._width, _CELLS - 1
        for number, mass in enumerate(self.masses):
            if (number == 0 and self._at_0) or (number == last and self._at_1):
                for part in _END_PARTS:
                    if number == 0:
                        yield width * pow(part, 1 / self._alpha), mass / len(_END_PARTS)
                    else:
                        yield 1.0 - width * pow(part, 1 / self._beta), mass / len(_END_PARTS)
            elif mass > 0.0:
                yield (self.edges[number] + self.edges[number + 1]) / 2, mass

    def share_below(self, quality: float) -> float:
        """The probability of less than this."""
        number = bisect_right(self.edges, quality)
        if number == 0:
            return 0.0
        if number > _CELLS:
            return 1.0
        part = (quality - self.edges[number - 1]) / self._width
        if number == 1 and self._at_0:
            return self._sums[1] * pow(min(1.0, part), self._alpha)
        if number == _CELLS and self._at_1:
            return 1.0 - self.masses[-1] * pow(max(0.0, 1.0 - part), self._beta)
        return self._sums[number - 1] + self.masses[number - 1] * part


def _counts(belief: Belief) -> tuple[float, float]:
    """Successes and failures as far as a float can tell such distributions apart."""
    return (
        min(max(belief.alpha, _LEAST_COUNT), _MOST_COUNT),
        min(max(belief.beta, _LEAST_COUNT), _MOST_COUNT),
    )


def _deviation(alpha: float, beta: float) -> float:
    total = alpha + beta
    return sqrt(alpha * beta / (total * total * (total + 1)))
