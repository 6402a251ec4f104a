"""What each model would have achieved with all requests, from outcomes of requests that chose among several.

Whoever compares the mean success of models compares their requests as well: a strong model gets the hard ones. Where
choices were partly left to chance, and each was logged with its probability (the propensity), outcomes can be weighted by
its inverse instead, so that those of each model stand for all requests (Horvitz and Thompson 1952). Here the weights are
divided by their sum ("self-normalised": Swaminathan and Joachims, The Self-Normalized Estimator for Counterfactual
Learning, NIPS 2015), which costs a little bias and saves much variance.

That works as far as each model had a chance with each request. A greedy choice gives none to all but one; `coverage` tells
how much of the traffic a model's outcomes stand for.
"""

from collections.abc import Callable, Iterable
from math import sqrt
from statistics import NormalDist
from typing import Final

from attrs import define, frozen

from gatewright.accounting.outcomes import ModelOutcome
from gatewright.accounting.recent import success_of

LEAST_PROPENSITY: Final = 0.01
"""Smaller ones count as this: no outcome stands for more than 100 requests, so that a few cannot decide everything."""
COVERED: Final = (0.8, 1.25)
"""Coverage within which an estimate stands for all requests; by chance it is not exactly 1."""


@frozen(kw_only=True)
class ModelValue:
    """One model, as if it had had all requests.

    Attributes:
        model: Its name.
        requests: Requests that it had in truth.
        effective_requests: What they are worth, unequal weights considered.
        observed: Mean success of those, of whatever difficulty they were.
        success: Estimated mean success over all requests.
        low: Lower end of its interval.
        high: Upper end.
        cost_usd: Estimated mean cost over all requests.
        latency_ms: Estimated mean latency; None where no outcome tells one.
        coverage: Part of all requests that its outcomes stand for: about 1 where it had a chance with each of them.
    """

    model: str
    requests: int
    effective_requests: float
    observed: float
    success: float
    low: float
    high: float
    cost_usd: float
    latency_ms: float | None
    coverage: float

    @property
    def is_comparable(self) -> bool:
        """Whether the estimate stands for all requests, not only for those that the model was chosen for."""
        return COVERED[0] <= self.coverage <= COVERED[1]


@define(eq=False)
class _Sums:
    requests: int = 0
    weight: float = 0.0
    squares: float = 0.0
    success: float = 0.0
    unweighted: float = 0.0
    cost_usd: float = 0.0
    timed: float = 0.0
    latency_ms: float = 0.0

    def add(self, outcome: ModelOutcome, weight: float) -> None:
        success = success_of(outcome)
        self.requests += 1
        self.weight += weight
        self.squares += weight * weight
        self.success += weight * success
        self.unweighted += success
        self.cost_usd += weight * outcome.cost_usd
        if outcome.latency_ms is not None:
            self.timed += weight
            self.latency_ms += weight * outcome.latency_ms

    def value(self, name: str, requests: int, alpha: float) -> ModelValue:
        effective = self.weight * self.weight / self.squares
        success = min(1.0, self.success / self.weight)
        low, high = wilson_bounds(success, effective, alpha)
        return ModelValue(
            model=name,
            requests=self.requests,
            effective_requests=effective,
            observed=self.unweighted / self.requests,
            success=success,
            low=low,
            high=high,
            cost_usd=self.cost_usd / self.weight,
            latency_ms=self.latency_ms / self.timed if self.timed else None,
            coverage=self.weight / requests,
        )


def model_values(outcomes: Iterable[ModelOutcome], *, alpha: float = 0.05) -> tuple[ModelValue, ...]:
    """Each model, as if it had had all requests; the best first.

    Args:
        outcomes: First calls of their requests count; all others were not chosen but followed from a failure. Feedback
            is to be in their scores.
        alpha: Each interval misses with about this chance.
    """
    by_model: dict[str, _Sums] = {}
    requests = 0
    for outcome in _first_choices(outcomes):
        requests += 1
        by_model.setdefault(outcome.model, _Sums()).add(outcome, 1.0 / _propensity(outcome))
    values = [sums.value(model, requests, alpha) for model, sums in by_model.items()]
    return tuple(sorted(values, key=lambda value: (-value.success, value.model)))


def policy_value(
    name: str,
    chance: Callable[[ModelOutcome], float],
    outcomes: Iterable[ModelOutcome],
    *,
    alpha: float = 0.05,
) -> ModelValue | None:
    """Another way to choose, as if it had had all requests; None if it agrees with none of the choices that were made.

    Args:
        name: What to call it.
        chance: With which probability it would have chosen the outcome's model for the outcome's request (its task, its
            complexity).
        outcomes: As for `model_values`.
        alpha: The interval misses with about this chance.
    """
    sums, requests = _Sums(), 0
    for outcome in _first_choices(outcomes):
        requests += 1
        wanted = chance(outcome)
        if wanted > 0:
            sums.add(outcome, wanted / _propensity(outcome))
    return sums.value(name, requests, alpha) if sums.requests else None


def wilson_bounds(mean: float, count: float, alpha: float) -> tuple[float, float]:
    """Wilson's interval for a proportion (1927); it stays within 0 and 1 and is of use for few outcomes as well.

    Args:
        mean: What was seen.
        count: In so many outcomes, above 0.
        alpha: It misses with about this chance. It is for one look, unlike those of `sequential`.
    """
    quantile = NormalDist().inv_cdf(1 - alpha / 2)
    square = quantile * quantile
    middle = (mean + square / (2 * count)) / (1 + square / count)
    half = quantile * sqrt(mean * (1 - mean) / count + square / (4 * count * count)) / (1 + square / count)
    # The mean itself is inside, whatever rounding does at its ends.
    return min(mean, max(0.0, middle - half)), max(mean, min(1.0, middle + half))


def _first_choices(outcomes: Iterable[ModelOutcome]) -> Iterable[ModelOutcome]:
    return (outcome for outcome in outcomes if outcome.sequence == 0 and outcome.is_available)


def _propensity(outcome: ModelOutcome) -> float:
    return min(1.0, max(LEAST_PROPENSITY, outcome.propensity))
