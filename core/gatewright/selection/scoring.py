"""The score of one model for one request: what it is made of, and what it is made from.

`score = wq * quality + wc * value of the cost + wl * value of the time + wr * readiness`, the weights scaled so that
they add up to 1.
"""

from collections.abc import Mapping
from math import inf, pow  # noqa: A004  # of floats, which ** says less clearly
from typing import Final, NamedTuple

from attrs import frozen

from gatewright.accounting.costs import TOKENS_PER_PRICE
from gatewright.leases import EngineLoad
from gatewright.selection.beliefs import Belief, LatencyBelief, PastOutcomes
from gatewright.selection.catalogue import Row
from gatewright.selection.criteria import ScoringWeights
from gatewright.selection.decision import Requirements
from gatewright.selection.values import (
    SECONDS_PER_HOUR,
    cost_value,
    exponent_of,
    latency_value,
    loading_s,
    readiness_value,
    waiting_ahead,
)

PRIOR_STRENGTH: Final = 4.0
"""Outcomes that a prior is worth where no experience says otherwise."""
CHANCE_STRENGTH: Final = 20.0
"""Outcomes that a learned estimator's word is worth."""
LATENCY_PRIOR_STRENGTH: Final = 5.0
"""Answers that a profile's time is worth against those that were seen."""

_LEAST_COUNT: Final = 1e-3


class Scored(NamedTuple):
    """One model's score. The smaller, the better it is: higher score, then lower cost, then name.

    Attributes:
        minus_score: The score, negative.
        cost_usd: Estimate for this request.
        name: Of the model.
        row: The model.
        quality: Chance of success that went into the score.
        answer_ms: Expected time of the answer.
        wait_ms: Expected time before it begins.
        readiness: Value of its readiness.
        rest: The score without the part that quality has in it.
    """

    minus_score: float
    cost_usd: float
    name: str
    row: Row
    quality: float
    answer_ms: float
    wait_ms: float
    readiness: float
    rest: float


@frozen(kw_only=True)
class Needs:
    """The conditions on figures.

    Attributes:
        context_tokens: Least context.
        mean_usd: Highest mean price of 1,000 tokens.
        latency_ms: Longest expected time.
        quality: Least quality at middling difficulty.
    """

    context_tokens: int = 0
    mean_usd: float = inf
    latency_ms: float = inf
    quality: float = 0.0


def needs_of(requirements: Requirements) -> Needs:
    """The conditions that requirements put on figures."""
    criteria = requirements.criteria
    price, latency_ms = criteria.max_cost_per_1k_tokens, criteria.max_latency_ms
    return Needs(
        context_tokens=max(requirements.need_tokens, criteria.min_context_tokens or 0),
        mean_usd=inf if price is None else price,
        latency_ms=inf if latency_ms is None else latency_ms,
        quality=criteria.min_quality_threshold or 0.0,
    )


class Scorer:
    """Scores models for one request.

    Args:
        requirements: The request.
        weights: What counts how much.
        past: What was learnt.
        loads: What it would cost now to run a model, by name.
        now: Seconds, on the clock of the outcomes.
    """

    def __init__(
        self,
        requirements: Requirements,
        weights: ScoringWeights,
        past: PastOutcomes | None = None,
        loads: Mapping[str, EngineLoad] | None = None,
        now: float = 0.0,
    ) -> None:
        self.requirements: Final = requirements
        self.past: Final = past
        self.loads: Final[Mapping[str, EngineLoad]] = {} if loads is None else loads
        self.now: Final = now
        self.complexity: Final = (
            None if requirements.complexity is None else requirements.complexity.complexity
        )
        self.exponent: Final = exponent_of(self.complexity)
        self.weights: Final = _scaled(weights)

    # --- figures

    def prior(self, row: Row) -> float:
        """Chance at middling difficulty, before anything was learnt."""
        task = self.requirements.task
        if task and task in row.by_task:
            return min(max(row.by_task[task], 0.0), 1.0)
        return row.quality

    def belief(self, row: Row) -> Belief:
        """What is believed of the chance that the model does this task."""
        told = self.requirements.chances.get(row.name)
        if told is not None:
            return prior_belief(min(max(told, 0.0), 1.0), CHANCE_STRENGTH, evidence=CHANCE_STRENGTH)
        prior = pow(self.prior(row), self.exponent)
        if self.past is None:
            return prior_belief(prior, PRIOR_STRENGTH)
        return self.past.success(row.name, self.requirements.task, self.complexity, prior, self.now)

    def quality(self, row: Row) -> float:
        """Expected chance that the model does this task."""
        told = self.requirements.chances.get(row.name)
        if told is not None:
            return min(max(told, 0.0), 1.0)
        prior = pow(self.prior(row), self.exponent)
        if self.past is None or not self.past.has_any(row.name):
            return prior
        task, now = self.requirements.task, self.now
        return self.past.success(row.name, task, self.complexity, prior, now).mean

    def usual_quality(self, row: Row) -> float:
        """The quality that a threshold is about: at middling difficulty, so that it says something of the model alone.

        Where a learned estimator told the chance of this very request, it is that chance.
        """
        told = self.requirements.chances.get(row.name)
        if told is not None:
            return min(max(told, 0.0), 1.0)
        prior = self.prior(row)
        if self.past is None or not self.past.has_any(row.name):
            return prior
        return self.past.success(row.name, self.requirements.task, None, prior, self.now).mean

    def past_latency(self, row: Row) -> LatencyBelief | None:
        """What was learnt of the model's time."""
        if self.past is None or not self.past.has_any(row.name):
            return None
        return self.past.latency(row.name, self.complexity, self.now)

    def answer_ms(self, row: Row) -> float:
        """Expected time of the answer: the profile's for so many tokens, and what was seen, by evidence."""
        tokens = self.requirements.answer_tokens
        profile_ms = max(row.least_ms, row.start_ms + tokens * row.token_ms)
        seen = self.past_latency(row)
        if seen is None:
            return profile_ms
        total = LATENCY_PRIOR_STRENGTH + seen.evidence
        return (profile_ms * LATENCY_PRIOR_STRENGTH + seen.mean_ms * seen.evidence) / total

    def cost_usd(self, row: Row, answer_ms: float) -> float:
        """What the request would cost; the same sum as `accounting.costs.cost_usd`."""
        needs = self.requirements
        tokens = needs.prompt_tokens * row.input_usd + needs.answer_tokens * row.output_usd
        return tokens / TOKENS_PER_PRICE + row.hour_usd * (answer_ms / 1000) / SECONDS_PER_HOUR

    def wait_ms(self, row: Row, answer_ms: float) -> float:
        """Expected time before the answer begins: loading, and those who wait before."""
        load = self.loads.get(row.name)
        if load is None:
            return 0.0
        return loading_s(load) * 1000 + waiting_ahead(load) * answer_ms

    # --- scores

    def score(self, row: Row) -> Scored:
        """The score of any model, whether it meets the criteria or not."""
        answer_ms, usd, wait_ms, readiness, rest = self.besides_quality(row)
        quality = self.quality(row)
        score = min(1.0, self.weights.quality * quality + rest)
        return Scored(-score, usd, row.name, row, quality, answer_ms, wait_ms, readiness, rest)

    def besides_quality(self, row: Row) -> tuple[float, float, float, float, float]:
        """Time of the answer, cost, time before it, readiness, and the score that these make up."""
        answer_ms = self.answer_ms(row)
        usd = self.cost_usd(row, answer_ms)
        load = self.loads.get(row.name)
        wait_ms = 0.0 if load is None else self.wait_ms(row, answer_ms)
        readiness = 1.0 if load is None else readiness_value(load)
        weights = self.weights
        rest = (
            weights.cost * cost_value(usd)
            + weights.latency * latency_value(answer_ms + wait_ms)
            + weights.readiness * readiness
        )
        return answer_ms, usd, wait_ms, readiness, rest

    def meets(self, row: Row, needs: Needs) -> bool:
        """Whether a model meets the conditions on figures."""
        if row.context_tokens < needs.context_tokens or row.mean_usd > needs.mean_usd:
            return False
        if needs.quality and self.usual_quality(row) < needs.quality:
            return False
        if needs.latency_ms == inf:
            return True
        answer_ms = self.answer_ms(row)
        return answer_ms + self.wait_ms(row, answer_ms) <= needs.latency_ms


def _scaled(weights: ScoringWeights) -> ScoringWeights:
    """The weights so that they add up to 1; where nothing counts, the usual ones."""
    if weights.quality + weights.cost + weights.latency + weights.readiness <= 0.0:
        weights = ScoringWeights()
    total = weights.quality + weights.cost + weights.latency + weights.readiness
    return ScoringWeights(
        quality=weights.quality / total,
        cost=weights.cost / total,
        latency=weights.latency / total,
        readiness=weights.readiness / total,
    )


def prior_belief(mean: float, strength: float, evidence: float = 0.0) -> Belief:
    """A chance that was told, not learnt, as if so many outcomes had told it."""
    return Belief(
        alpha=max(mean * strength, _LEAST_COUNT),
        beta=max((1 - mean) * strength, _LEAST_COUNT),
        evidence=evidence,
    )
