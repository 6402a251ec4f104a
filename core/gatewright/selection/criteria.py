"""What a request or a route asks of the model that answers, and what counts how much among those that can."""

from enum import StrEnum
from types import MappingProxyType
from typing import Final

from attrs import frozen


@frozen(kw_only=True)
class SelectionCriteria:
    """Hard conditions; None where there is none.

    Attributes:
        required_capabilities: Values of `Capability`, all of which the model must have.
        required_features: Values of `Feature`, the same.
        required_tags: The operator's own words, the same.
        max_cost_per_1k_tokens: US dollars: mean of the prices of 1,000 prompt and 1,000 completion tokens.
        max_latency_ms: Expected time of the whole answer, loading and queue included, in milliseconds.
        min_quality_threshold: Expected quality at middling difficulty, 0 to 1; the learned estimator's chance where it told one.
        min_context_tokens: Least context.
    """

    required_capabilities: frozenset[str] = frozenset()
    required_features: frozenset[str] = frozenset()
    required_tags: frozenset[str] = frozenset()
    max_cost_per_1k_tokens: float | None = None
    max_latency_ms: float | None = None
    min_quality_threshold: float | None = None
    min_context_tokens: int | None = None


class Prefer(StrEnum):
    """What matters most; names the presets of `ScoringWeights`."""

    BALANCED = "balanced"
    QUALITY = "quality"
    COST = "cost"
    SPEED = "speed"


@frozen(kw_only=True)
class ScoringWeights:
    """How much each term of a score counts; they need not add up to 1.

    Attributes:
        quality: Chance that the answer is good.
        cost: What it costs in money.
        latency: How long it takes.
        readiness: What it costs to run now: queue, load time, whom it would evict.
    """

    quality: float = 0.5
    cost: float = 0.2
    latency: float = 0.2
    readiness: float = 0.1


WEIGHTS: Final = MappingProxyType(
    {
        Prefer.BALANCED: ScoringWeights(),
        Prefer.QUALITY: ScoringWeights(quality=0.85, cost=0.05, latency=0.05, readiness=0.05),
        Prefer.COST: ScoringWeights(quality=0.35, cost=0.5, latency=0.05, readiness=0.1),
        Prefer.SPEED: ScoringWeights(quality=0.35, cost=0.05, latency=0.4, readiness=0.2),
    }
)
"""The presets: judgement, not measurement; a route's own `weights` take their place."""


class Relaxation(StrEnum):
    """Criteria that may be given up, one after the other, where no model meets all of them."""

    LATENCY = "latency"
    COST = "cost"
    QUALITY = "quality"
    TAGS = "tags"
    CAPABILITIES = "capabilities"
