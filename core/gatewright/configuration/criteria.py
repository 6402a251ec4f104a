"""Criteria and weights as tables: in routes, in an experiment's arms, and in what clients wish for."""

from enum import StrEnum
from typing import Final, TypeVar

from attrs import frozen

from gatewright.configuration.reader import (
    ListOf,
    Place,
    Scalar,
    Table,
    TableOf,
    one_of,
    real,
    usable_text,
    whole,
)
from gatewright.selection.criteria import WEIGHTS, Prefer, ScoringWeights, SelectionCriteria
from gatewright.selection.profiles import Capability, Feature

CRITERIA_FIELDS: Final = (
    "capabilities",
    "features",
    "tags",
    "max_cost_per_1k",
    "max_latency_ms",
    "min_quality",
    "min_context",
)
WEIGHT_FIELDS: Final = ("quality", "cost", "latency", "readiness")

TAG: Final = Scalar("a tag, a non-empty string", usable_text)
SHARE: Final = real("a number from 0 to 1", lambda number: 0 <= number <= 1)
COST: Final = real("a number of US dollars, 0 or more", lambda number: number >= 0)
MILLISECONDS: Final = real("a number of milliseconds above 0", lambda number: number > 0)
CONTEXT: Final = whole("a whole number of tokens above 0", 1)
PREFER: Final = one_of(Prefer)

_WEIGHT: Final = real("a number, 0 or more", lambda number: number >= 0)

E = TypeVar("E", bound=StrEnum)


def values_of(choices: type[E]) -> ListOf[E]:
    """A list of values of an enumeration."""
    return ListOf(one_of(choices))


@frozen
class CriteriaKind:
    """Hard conditions."""

    expected: str = 'a table such as { capabilities = { "code" }, max_cost_per_1k = 0.01 }'

    def read(self, value: object, place: Place) -> SelectionCriteria | None:
        """The criteria."""
        table = TableOf(self.expected).read(value, place)
        if table is None:
            return None
        table.expect_only(CRITERIA_FIELDS, {})
        return SelectionCriteria(
            required_capabilities=frozenset(table.get("capabilities", values_of(Capability), ())),
            required_features=frozenset(table.get("features", values_of(Feature), ())),
            required_tags=frozenset(table.get("tags", ListOf(TAG), ())),
            max_cost_per_1k_tokens=table.find("max_cost_per_1k", COST),
            max_latency_ms=table.find("max_latency_ms", MILLISECONDS),
            min_quality_threshold=table.find("min_quality", SHARE),
            min_context_tokens=table.find("min_context", CONTEXT),
        )


@frozen
class WeightsKind:
    """How much each term of a score counts; what is not named counts nothing."""

    expected: str = "a table such as { quality = 0.6, cost = 0.3, latency = 0.1 }"

    def read(self, value: object, place: Place) -> ScoringWeights | None:
        """The weights."""
        table = TableOf(self.expected).read(value, place)
        if table is None:
            return None
        table.expect_only(WEIGHT_FIELDS, {})
        problems_before = len(place.problems)
        weights = {name: table.get(name, _WEIGHT, 0.0) for name in WEIGHT_FIELDS}
        if not any(weights.values()):
            if len(place.problems) == problems_before:
                place.report(f"nothing counts; expected at least one of {', '.join(WEIGHT_FIELDS)} above 0")
            return None
        return ScoringWeights(**weights)


def read_weights(table: Table) -> ScoringWeights | None:
    """What `prefer` or `weights` says; None if neither is there."""
    prefer, weights = table.find("prefer", PREFER), table.find("weights", WeightsKind())
    if "prefer" in table and "weights" in table:
        table.place.field("weights").report(
            "stands beside prefer, which is a choice of weights; remove one of them"
        )
    return weights if prefer is None else WEIGHTS[prefer]
