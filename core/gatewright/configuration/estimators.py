"""Who says how hard a request is, as a name or a table."""

import re
from itertools import pairwise
from typing import Final

from attrs import frozen

from gatewright.configuration.names import ModelName
from gatewright.configuration.reader import (
    SECONDS,
    ListOf,
    Place,
    Scalar,
    Table,
    TableOf,
    one_of,
    real,
    whole,
)
from gatewright.route_config import EstimatorConfig, EstimatorKind
from gatewright.selection.complexity_heuristic import DIMENSIONS

ESTIMATOR_FIELDS: Final = ("kind", "model", "python", "timeout", "min_outcomes", "thresholds", "weights")

_THRESHOLDS: Final = 4
_FUNCTION_NAME: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_FUNCTION: Final = Scalar(
    'a Python function such as "my_package.my_module:my_function"',
    lambda value: value if isinstance(value, str) and _FUNCTION_NAME.fullmatch(value) else None,
)
_OUTCOMES: Final = whole("a whole number of outcomes, 1 or more", 1)
_THRESHOLD: Final = real("a number between 0 and 1", lambda number: 0 < number < 1)
_WEIGHT: Final = real("a number, 0 or more", lambda number: number >= 0)
_KIND: Final = one_of(EstimatorKind)


@frozen
class EstimatorConfigKind:
    """An estimator."""

    model: ModelName

    @property
    def expected(self) -> str:
        """What is allowed."""
        return f'{_KIND.expected}, or a table such as {{ kind = "model", model = "small" }}'

    def read(self, value: object, place: Place) -> EstimatorConfig | None:
        """The estimator."""
        if isinstance(value, str):
            kind = _KIND.read(value, place)
            if kind in (EstimatorKind.MODEL, EstimatorKind.CUSTOM):
                place.report(f'"{kind.value}" needs to know more; expected a table {_example(kind)}')
                return None
            return None if kind is None else EstimatorConfig(kind=kind)
        table = TableOf(self.expected).read(value, place)
        if table is None:
            return None
        table.expect_only(ESTIMATOR_FIELDS, {})
        default = EstimatorConfig()
        kind = table.get("kind", _KIND, default.kind)
        return EstimatorConfig(
            kind=kind,
            model=self._of_kind(table, "model", kind, EstimatorKind.MODEL, self.model),
            function=self._of_kind(table, "python", kind, EstimatorKind.CUSTOM, _FUNCTION),
            timeout_s=table.get("timeout", SECONDS, default.timeout_s),
            min_outcomes=table.get("min_outcomes", _OUTCOMES, default.min_outcomes),
            thresholds=table.find("thresholds", _ThresholdsKind()),
            weights=table.get("weights", _DimensionWeightsKind(), {}),
        )

    @staticmethod
    def _of_kind(
        table: Table,
        name: str,
        kind: EstimatorKind,
        needs_it: EstimatorKind,
        what: ModelName | Scalar[str],
    ) -> str | None:
        if kind is needs_it:
            return table.require(name, what)
        if name in table:
            table.place.field(name).report(f'only for kind = "{needs_it.value}"')
        return None


def _example(kind: EstimatorKind) -> str:
    if kind is EstimatorKind.MODEL:
        return '{ kind = "model", model = "small" }'
    return '{ kind = "custom", python = "my_module:my_function" }'


@frozen
class _ThresholdsKind:
    """Four scores, rising."""

    expected: str = "four rising numbers between 0 and 1, such as { 0.2, 0.4, 0.6, 0.8 }"

    def read(self, value: object, place: Place) -> tuple[float, float, float, float] | None:
        problems_before = len(place.problems)
        found = ListOf(_THRESHOLD).read(value, place)
        if found is None or len(place.problems) > problems_before:
            return None
        if len(found) != _THRESHOLDS or any(low >= high for low, high in pairwise(found)):
            place.report(f"expected {self.expected}")
            return None
        first, second, third, fourth = found
        return first, second, third, fourth


@frozen
class _DimensionWeightsKind:
    """Weights of the heuristic's dimensions."""

    expected: str = "a table such as { code = 0.2, turns = 0 }"

    def read(self, value: object, place: Place) -> dict[str, float] | None:
        table = TableOf(self.expected).read(value, place)
        if table is None:
            return None
        table.expect_only(DIMENSIONS, {})
        found = {name: table.find(name, _WEIGHT) for name in DIMENSIONS}
        return {name: weight for name, weight in found.items() if weight is not None}
