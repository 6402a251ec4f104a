"""Statistics that stay valid however often somebody looks at them, for values from 0 to 1.

A test that is looked at after each outcome and stopped once it is "significant" finds a winner sooner or later, whether
there is one or not. What is computed here does not: it measures evidence by e-values, the winnings of somebody who bets
against a hypothesis at fair odds and began with 1. If the hypothesis is true, the winnings ever reach 1/alpha with a
chance of alpha at most (Ville 1939; Ramdas, Grünwald, Vovk, Shafer: Game-Theoretic Statistics and Safe Anytime-Valid
Inference, Statistical Science 2023). No number of outcomes has to be fixed before, and it may be stopped at any time.

*One mean.* Against "the mean is p", the bet is the likelihood of the outcomes under a Beta(1/2, 1/2) mixture over all
means, divided by their likelihood under p (Robbins 1970; Krichevsky and Trofimov 1981 for the mixture). For outcomes that
are 0 or 1 that is an exact test martingale. For values in between it is a supermartingale, since each factor is a convex
function of the value and so never larger, in the mean, than with the outcomes 0 and 1 of the same mean. All means that are
not refuted make a confidence sequence.

*Two means.* Against "the second is larger by d", the bets on both are multiplied, for the mean that refutes it least
(universal inference: Wasserman, Ramdas, Balakrishnan 2020; for proportions: Turner, Ly, Grünwald, Generic E-variables for
exact sequential k-sample tests that allow for optional stopping, 2021). It does not matter in which order and in which
proportion the outcomes of both come, nor whether that depends on what came before. The price: it takes three to four times
as many outcomes as a test whose number of outcomes is fixed before and that is looked at once.

All of it depends on counts and sums alone.
"""

from collections.abc import Callable
from math import inf, isinf, lgamma, log
from typing import Final

from attrs import frozen

HALVINGS: Final = 44
"""Of an interval, after which its ends are the same but for what nobody prints."""

_ROUNDING: Final = 1e-9
_MIXTURE: Final = 0.5
_LOG_BETA_MIXTURE: Final = 2 * lgamma(_MIXTURE) - lgamma(2 * _MIXTURE)


@frozen
class Sums:
    """Values from 0 to 1.

    Attributes:
        count: How many.
        total: Their sum.
    """

    count: float = 0.0
    total: float = 0.0

    @property
    def mean(self) -> float:
        """Their mean; one half where there are none."""
        return self.successes / self.count if self.count > 0 else 0.5

    @property
    def successes(self) -> float:
        """Their sum, free of what rounding has done to it."""
        nothing = _ROUNDING * self.count
        if self.total <= nothing:
            return 0.0
        return self.count if self.total >= self.count - nothing else self.total


def log_evidence(sums: Sums, mean: float) -> float:
    """Natural logarithm of the e-value against "the mean is this one".

    Args:
        sums: What was seen.
        mean: 0 to 1.
    """
    return _log_mixture(sums) - _log_likelihood(sums, mean)


def mean_bounds(sums: Sums, alpha: float) -> tuple[float, float]:
    """A confidence sequence for the mean: it is outside at any time of all with a chance of `alpha` at most.

    Args:
        sums: What was seen.
        alpha: Above 0, below 1.
    """
    limit = -log(alpha)

    def is_refuted(mean: float) -> bool:
        return log_evidence(sums, mean) >= limit

    return _border(sums.mean, 0.0, is_refuted), _border(sums.mean, 1.0, is_refuted)


def log_difference_evidence(first: Sums, second: Sums, difference: float = 0.0) -> float:
    """Natural logarithm of the e-value against "the mean of the second is larger by this".

    Args:
        first: What was seen of the first.
        second: And of the second.
        difference: -1 to 1; 0 for "both are the same".
    """
    if difference == 0.0:
        pooled = Sums(first.count + second.count, first.successes + second.successes)
        least = pooled.mean
    else:
        least = _least_refuted(first, second, difference)
    return log_evidence(first, least) + log_evidence(second, min(1.0, max(0.0, least + difference)))


def difference_bounds(first: Sums, second: Sums, alpha: float) -> tuple[float, float]:
    """A confidence sequence for the mean of the second less that of the first.

    It excludes 0 exactly when the e-value against "both are the same" is at least 1/alpha.

    Args:
        first: What was seen of the first.
        second: And of the second.
        alpha: Above 0, below 1.
    """
    limit = -log(alpha)

    def is_refuted(difference: float) -> bool:
        return log_difference_evidence(first, second, difference) >= limit

    seen = second.mean - first.mean
    return _border(seen, -1.0, is_refuted), _border(seen, 1.0, is_refuted)


def _border(inside: float, end: float, is_refuted: Callable[[float], bool]) -> float:
    """The last value on the way from inside to an end that is not refuted; what is refuted once stays so up to the end."""
    if not is_refuted(end):
        return end
    near, far = inside, end
    for _ in range(HALVINGS):
        middle = (near + far) / 2
        if is_refuted(middle):
            far = middle
        else:
            near = middle
    return far


def _least_refuted(first: Sums, second: Sums, difference: float) -> float:
    """The mean of the first at which both means, that far apart, are likeliest: where the slope changes its sign."""
    low, high = max(0.0, -difference), min(1.0, 1.0 - difference)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if _slope(first, middle) + _slope(second, middle + difference) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _slope(sums: Sums, mean: float) -> float:
    """Of the likelihood's logarithm."""
    successes = sums.successes
    failures = sums.count - successes
    up = 0.0 if successes == 0 else inf if mean <= 0 else successes / mean
    down = 0.0 if failures == 0 else inf if mean >= 1 else failures / (1 - mean)
    return 0.0 if isinf(up) and isinf(down) else up - down


def _log_mixture(sums: Sums) -> float:
    successes = sums.successes
    failures = sums.count - successes
    return (
        lgamma(successes + _MIXTURE)
        + lgamma(failures + _MIXTURE)
        - lgamma(sums.count + 2 * _MIXTURE)
        - _LOG_BETA_MIXTURE
    )


def _log_likelihood(sums: Sums, mean: float) -> float:
    successes = sums.successes
    return _times_log(successes, mean) + _times_log(sums.count - successes, 1.0 - mean)


def _times_log(times: float, chance: float) -> float:
    if times == 0:
        return 0.0
    return times * log(chance) if chance > 0 else -inf
