"""The table `routes`: names under which clients ask for whichever model suits best."""

from collections.abc import Iterable, Mapping
from typing import Final

from attrs import frozen

from gatewright.config import ModelConfig
from gatewright.configuration.calls import MOST_ATTEMPTS, MOST_FALLBACKS
from gatewright.configuration.criteria import SHARE, TAG, CriteriaKind, read_weights, values_of
from gatewright.configuration.estimators import EstimatorConfigKind
from gatewright.configuration.experiments import ExperimentKind
from gatewright.configuration.names import NAME, ModelName, owners_of_names
from gatewright.configuration.reader import TEXT, ListOf, Place, Table, TableOf, as_list, hint, one_of, whole
from gatewright.configuration.transforms import TransformKind
from gatewright.route_config import FallbackPolicy, FallbackStrategy, JudgeConfig, RouteConfig
from gatewright.selection.criteria import Relaxation, ScoringWeights, SelectionCriteria
from gatewright.selection.decision import Exploration

ROUTE_FIELDS: Final = (
    "candidates",
    "tags",
    "criteria",
    "prefer",
    "weights",
    "relax",
    "estimator",
    "exploration",
    "fallback",
    "transform",
    "experiment",
    "judge",
)
FALLBACK_FIELDS: Final = ("strategies", "max_length", "max_attempts")
JUDGE_FIELDS: Final = ("model", "sample", "instructions")

_LENGTH: Final = whole(f"a whole number of models, 1 to {MOST_FALLBACKS + 1}", 1, MOST_FALLBACKS + 1)
_ATTEMPTS: Final = whole(f"a whole number of calls, 1 to {MOST_ATTEMPTS}", 1, MOST_ATTEMPTS)
_STRATEGY: Final = one_of(FallbackStrategy)
_EXAMPLE: Final = 'routes = { auto = { prefer = "balanced" } }'


def read_routes(value: object, place: Place, models: Iterable[ModelConfig]) -> tuple[RouteConfig, ...]:
    """The routes by name, in alphabetical order as Lua tables have none; those with problems may be incomplete.

    Args:
        value: The global `routes`.
        place: Of it.
        models: All models; those with problems may be missing.
    """
    if value is None:
        return ()
    if as_list(value):
        place.report(f"got a list, expected a table with the routes' names, such as {_EXAMPLE}")
        return ()
    table = TableOf(f"a table such as {_EXAMPLE}").read(value, place)
    if table is None:
        return ()
    owners = owners_of_names(models)
    model = ModelName(owners, frozenset(str(name) for name in table.values))
    routes = []
    experiments: dict[str, str] = {}
    for name, setting in table.values.items():
        where = place.field(name)
        if NAME.accept(name) is None:
            where.report(f"not a name for a route; expected {NAME.expected}")
            continue
        _check_name(str(name), where, owners)
        fields = TableOf('a route such as { prefer = "cost" }').read(setting, where)
        if fields is not None:
            route = _read_route(str(name), fields, model)
            _check_experiment(route, where, experiments)
            routes.append(route)
    return tuple(routes)


def _check_name(name: str, place: Place, owners: Mapping[str, str]) -> None:
    owner = owners.get(name)
    if owner is not None:
        what = "the name" if owner == name else f'an alias of "{owner}", the name'
        place.report(f"{'is already ' + what} of a model; requests could mean either")


def _read_route(name: str, table: Table, model: ModelName) -> RouteConfig:
    table.expect_only(
        ROUTE_FIELDS, {"name": "the route's name stands before the table: routes = { NAME = { ... } }"}
    )
    return RouteConfig(
        name=name,
        candidates=tuple(dict.fromkeys(table.get("candidates", ListOf(model), ()))),
        tags=table.get("tags", ListOf(TAG), ()),
        criteria=table.get("criteria", CriteriaKind(), SelectionCriteria()),
        relax=tuple(dict.fromkeys(table.get("relax", values_of(Relaxation), ()))),
        weights=read_weights(table) or ScoringWeights(),
        estimator=table.get("estimator", EstimatorConfigKind(model), RouteConfig(name=name).estimator),
        exploration=table.get("exploration", one_of(Exploration), Exploration.GREEDY),
        fallback=_read_fallback(table),
        transform=table.find("transform", TransformKind()),
        experiment=table.find("experiment", ExperimentKind(model)),
        judge=table.find("judge", _JudgeKind(model)),
    )


def _read_fallback(table: Table) -> FallbackPolicy:
    if table.values.get("fallback") is False:
        return FallbackPolicy(strategies=(), max_length=1)
    return table.get("fallback", _FallbackKind(), FallbackPolicy())


@frozen
class _FallbackKind:
    """What is done about failures: a strategy, a list of them, or all there is to say."""

    expected: str = f"{_STRATEGY.expected}, a list of these, a table such as {{ max_length = 3 }}, or false for no fallback"

    def read(self, value: object, place: Place) -> FallbackPolicy | None:
        if isinstance(value, str):
            strategy = _STRATEGY.read(value, place)
            return None if strategy is None else FallbackPolicy(strategies=(strategy,))
        if as_list(value):
            return FallbackPolicy(strategies=_distinct(ListOf(_STRATEGY).read(value, place)))
        table = TableOf(self.expected).read(value, place)
        if table is None:
            return None
        table.expect_only(FALLBACK_FIELDS, {})
        default = FallbackPolicy()
        return FallbackPolicy(
            strategies=_distinct(table.get("strategies", ListOf(_STRATEGY), default.strategies)),
            max_length=table.get("max_length", _LENGTH, default.max_length),
            max_attempts=table.find("max_attempts", _ATTEMPTS),
        )


def _distinct(strategies: tuple[FallbackStrategy, ...] | None) -> tuple[FallbackStrategy, ...]:
    return tuple(dict.fromkeys(strategies or ()))


@frozen
class _JudgeKind:
    """A model that says how good answers are."""

    model: ModelName
    expected: str = 'a table such as { model = "gpt-4o", sample = 0.1 }'

    def read(self, value: object, place: Place) -> JudgeConfig | None:
        table = TableOf(self.expected).read(value, place)
        if table is None:
            return None
        table.expect_only(JUDGE_FIELDS, {})
        default = JudgeConfig(model="")
        return JudgeConfig(
            model=table.require("model", self.model) or "",
            sample=table.get("sample", SHARE, default.sample),
            instructions=table.get("instructions", TEXT, default.instructions),
        )


def _check_experiment(route: RouteConfig, place: Place, taken: dict[str, str]) -> None:
    if route.experiment is None or not route.experiment.name:
        return
    where = place.field("experiment").field("name")
    if route.experiment.name in taken:
        where.report(f'"{route.experiment.name}" is already taken by {taken[route.experiment.name]}')
    taken.setdefault(route.experiment.name, where.path)


def check_default_model(
    name: str | None, models: Iterable[ModelConfig], routes: Iterable[RouteConfig], place: Place
) -> None:
    """Note a default that is neither a model nor a route."""
    owners = owners_of_names(models)
    names = [*owners, *(route.name for route in routes)]
    if name is not None and names and name not in names:
        what = "a model or route" if len(names) > len(owners) else "a model"
        place.refuse(name, f"the name of {what}; {hint(name, names)}")
