"""One choice of a model on its way, and what it goes by."""

from collections.abc import Mapping
from typing import TypeVar

from attrs import define, field

from gatewright.api.transforms import Transform
from gatewright.config import Config, ModelConfig
from gatewright.leases import EngineLoad
from gatewright.route_config import ArmConfig, EstimatorConfig, JudgeConfig, RouteConfig
from gatewright.selection.catalogue import Catalogue
from gatewright.selection.complexity import ComplexityEstimate
from gatewright.selection.criteria import ScoringWeights, SelectionCriteria


@define(eq=False)
class Choice:
    """A choice on its way.

    Attributes:
        config: That it began with, and in which the chosen are found: by its end another may hold.
        route: Route that the request named.
        candidates: The models among which it chooses.
        catalogue: Their profiles.
        weights: Of the score.
        estimator: Who says how hard the request is.
        began_at: Seconds, on the Gateway's clock.
        arm: Of the experiment that the request takes part in.
        propensity: Probability of that arm.
        unit: For whom the arm stays the same.
        estimate: How hard the request is, once somebody has said so.
        chances: Chance of success by model, where the estimator told.
        loads: By model, what it would cost now to run it.
        ended_at: When it was made; None until then.
        judge: Model that is to judge the answer; None where this one was not drawn.
    """

    config: Config
    route: RouteConfig
    candidates: tuple[ModelConfig, ...]
    catalogue: Catalogue
    weights: ScoringWeights
    estimator: EstimatorConfig
    began_at: float
    arm: ArmConfig | None = None
    propensity: float = 1.0
    unit: str | None = None
    estimate: ComplexityEstimate | None = None
    chances: Mapping[str, float] = field(factory=dict)
    loads: dict[str, EngineLoad] = field(factory=dict)
    ended_at: float | None = None
    judge: JudgeConfig | None = None

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """The route's and the arm's."""
        found = (self.route.transform, self.arm.transform if self.arm is not None else None)
        return tuple([transform for transform in found if transform is not None])

    @property
    def duration_s(self) -> float:
        """Time that it took."""
        return 0.0 if self.ended_at is None else self.ended_at - self.began_at


def both_criteria(route: SelectionCriteria, wished: SelectionCriteria | None) -> SelectionCriteria:
    """What a model has to meet that has to meet both."""
    if wished is None:
        return route
    return SelectionCriteria(
        required_capabilities=route.required_capabilities | wished.required_capabilities,
        required_features=route.required_features | wished.required_features,
        required_tags=route.required_tags | wished.required_tags,
        max_cost_per_1k_tokens=_least(route.max_cost_per_1k_tokens, wished.max_cost_per_1k_tokens),
        max_latency_ms=_least(route.max_latency_ms, wished.max_latency_ms),
        min_quality_threshold=_most(route.min_quality_threshold, wished.min_quality_threshold),
        min_context_tokens=_most(route.min_context_tokens, wished.min_context_tokens),
    )


def _least(one: float | None, other: float | None) -> float | None:
    return min([bound for bound in (one, other) if bound is not None], default=None)


_Bound = TypeVar("_Bound", int, float)


def _most(one: _Bound | None, other: _Bound | None) -> _Bound | None:
    return max([bound for bound in (one, other) if bound is not None], default=None)
