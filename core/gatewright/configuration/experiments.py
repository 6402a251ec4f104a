"""Experiments on routes: arms with shares of the traffic."""

from math import fsum
from typing import Final

from attrs import evolve, frozen

from gatewright.configuration.criteria import SHARE, read_weights
from gatewright.configuration.estimators import EstimatorConfigKind
from gatewright.configuration.names import NAME, ModelName
from gatewright.configuration.reader import COUNT, FLAG, ListOf, Place, Table, TableOf, one_of, real
from gatewright.configuration.transforms import TransformKind
from gatewright.route_config import ArmConfig, ExperimentConfig, Sticky

EXPERIMENT_FIELDS: Final = (
    "name",
    "arms",
    "sticky",
    "alpha",
    "min_success",
    "min_requests",
    "auto_promote",
)
ARM_FIELDS: Final = ("name", "share", "candidates", "prefer", "weights", "estimator", "transform")

_FEWEST_ARMS: Final = 2
_ROUNDING: Final = 0.001
_NO_SHARE: Final = -1.0
_SHARE: Final = real("a share of the traffic above 0, below 1", lambda number: 0 < number < 1)
_ALPHA: Final = real("a chance above 0, at most 0.5", lambda number: 0 < number <= 0.5)  # noqa: PLR2004  # beyond, it is a coin toss


@frozen
class ExperimentKind:
    """A comparison between arms."""

    model: ModelName
    expected: str = 'a table such as { name = "prompts", arms = { { name = "a" }, { name = "b" } } }'

    def read(self, value: object, place: Place) -> ExperimentConfig | None:
        """The experiment."""
        table = TableOf(self.expected).read(value, place)
        if table is None:
            return None
        table.expect_only(EXPERIMENT_FIELDS, {})
        arms = table.require("arms", ListOf(_ArmKind(self.model)))
        name = table.require("name", NAME)
        default = ExperimentConfig(name=name or "", arms=())
        return evolve(
            default,
            arms=self._checked(arms, table) if arms is not None else (),
            sticky=table.get("sticky", one_of(Sticky), default.sticky),
            alpha=table.get("alpha", _ALPHA, default.alpha),
            min_success=table.find("min_success", SHARE),
            min_requests=table.get("min_requests", COUNT, default.min_requests),
            auto_promote=table.get("auto_promote", FLAG, default.auto_promote),
        )

    @staticmethod
    def _checked(arms: tuple[ArmConfig, ...], table: Table) -> tuple[ArmConfig, ...]:
        place = table.place.field("arms")
        if any(path.startswith(f"{place.path}[") for path in place.problems):
            return arms  # they may not be all of them
        if len(arms) < _FEWEST_ARMS:
            place.report(f"{len(arms)} arms; expected at least {_FEWEST_ARMS}: a comparison has two sides")
            return arms
        for number, arm in enumerate(arms):
            if arm.name in [other.name for other in arms[:number]]:
                place.item(number + 1).field("name").report(
                    f'"{arm.name}" is already the name of another arm'
                )
        return _with_shares(arms, place)


def _with_shares(arms: tuple[ArmConfig, ...], place: Place) -> tuple[ArmConfig, ...]:
    """Equal shares where none is given; otherwise each arm has one, and they make a whole."""
    without = [number for number, arm in enumerate(arms, 1) if arm.share == _NO_SHARE]
    if len(without) == len(arms):
        return tuple(evolve(arm, share=1 / len(arms)) for arm in arms)
    if without:
        for number in without:
            place.item(number).field("share").report("missing; expected a share for every arm, or for none")
        return arms
    total = fsum(arm.share for arm in arms)
    if abs(total - 1) > _ROUNDING:
        place.report(f"the shares add up to {total:.6g}; expected 1")
        return arms
    return tuple(evolve(arm, share=arm.share / total) for arm in arms)


@frozen
class _ArmKind:
    """One side of a comparison."""

    model: ModelName
    expected: str = 'an arm such as { name = "short", share = 0.5, transform = { ... } }'

    def read(self, value: object, place: Place) -> ArmConfig | None:
        table = TableOf(self.expected).read(value, place)
        if table is None:
            return None
        table.expect_only(ARM_FIELDS, {})
        return ArmConfig(
            name=table.require("name", NAME) or "",
            share=table.get("share", _SHARE, _NO_SHARE),
            candidates=table.get("candidates", ListOf(self.model), ()),
            weights=read_weights(table),
            estimator=table.find("estimator", EstimatorConfigKind(self.model)),
            transform=table.find("transform", TransformKind()),
        )
