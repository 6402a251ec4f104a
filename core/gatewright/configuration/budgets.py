"""The list `budgets`: how much may be spent, by whom, over which time."""

from collections.abc import Iterable
from typing import Final

from attrs import evolve

from gatewright.accounting.spending import BudgetConfig, BudgetScope
from gatewright.config import ModelConfig
from gatewright.configuration.names import NAME, ModelName, owners_of_names
from gatewright.configuration.reader import TEXT, Place, Scalar, Table, TableOf, as_list, hint, one_of, real
from gatewright.configuration.windows import PERIOD, WindowValue
from gatewright.route_config import RouteConfig

BUDGET_FIELDS: Final = ("name", "limit", "window", "per", "of", "action", "warn_at")
ACTIONS: Final = {"refuse": True, "warn": False}

_EXAMPLE: Final = '{ name = "monthly", limit = 50 }'
_LIMIT: Final = real("a number of US dollars above 0", lambda number: number > 0)
_WARN_AT: Final = real("a share of the limit above 0, at most 1", lambda number: 0 < number <= 1)
_WINDOW: Final = WindowValue(f'{PERIOD.expected}, or a table such as {{ rolling = "day" }}')
_ACTION: Final = Scalar(
    " or ".join(f'"{action}"' for action in ACTIONS),
    lambda value: ACTIONS.get(value.lower()) if isinstance(value, str) else None,
)


def read_budgets(
    value: object, place: Place, models: Iterable[ModelConfig], routes: Iterable[RouteConfig]
) -> tuple[BudgetConfig, ...]:
    """The budgets, in the file's order if they are a list; those with problems may be incomplete.

    Args:
        value: The global `budgets`: a list of tables with names, or a table by name.
        place: Of it.
        models: All models.
        routes: All routes.
    """
    model = ModelName(owners_of_names(models))
    names = [route.name for route in routes]
    budgets = []
    taken: dict[str, str] = {}
    for name, table in _tables(value, place):
        if name is None:
            name = table.require("name", NAME)  # noqa: PLW2901  # the same name, from its other place
            where = table.place.field("name")
        else:
            where = table.place
        if name is not None and "/" in name:  # "key/..." are the accounts of keys' own budgets
            where.report(f'"{name}" has a slash in it, which separates a budget from whose it is')
        if name is not None and name in taken:
            where.report(f'"{name}" is already taken by {taken[name]}')
        if name is not None:
            taken.setdefault(name, where.path)
        budgets.append(_read_budget(name or "", table, model, names))
    return tuple(budgets)


def _tables(value: object, place: Place) -> Iterable[tuple[str | None, Table]]:
    kind = TableOf(f"a budget such as {_EXAMPLE}")
    if value is None:
        return
    items = as_list(value)
    if items is not None:
        for number, item in enumerate(items, 1):
            if item is None:
                place.item(number).report_hole()
                continue
            table = kind.read(item, place.item(number))
            if table is not None:
                table.expect_only(BUDGET_FIELDS, {})
                yield None, table
        return
    whole = TableOf(f"a list of budgets such as {{ {_EXAMPLE} }}").read(value, place)
    for name, setting in whole.values.items() if whole is not None else ():
        where = place.field(name)
        if NAME.accept(name) is None:
            where.report(f"not a name for a budget; expected {NAME.expected}")
            continue
        table = kind.read(setting, where)
        if table is not None:
            table.expect_only(
                BUDGET_FIELDS[1:], {"name": "the budget's name stands before the table already"}
            )
            yield str(name), table


def _read_budget(name: str, table: Table, model: ModelName, routes: list[str]) -> BudgetConfig:
    scope = table.get("per", one_of(BudgetScope), BudgetScope.EVERYONE)
    default = BudgetConfig(name=name, limit_usd=0.0)
    return evolve(
        default,
        limit_usd=table.require("limit", _LIMIT) or 0.0,
        window=table.get("window", _WINDOW, default.window),
        scope=scope,
        of=_read_owner(table, scope, model, routes),
        hard=table.get("action", _ACTION, default.hard),
        warn_at=table.get("warn_at", _WARN_AT, default.warn_at),
    )


def _read_owner(table: Table, scope: BudgetScope, model: ModelName, routes: list[str]) -> str | None:
    """Whose budget it is. Tags and keys may come to be while the server runs, and are taken as they are written."""
    if scope is BudgetScope.MODEL:
        return table.find("of", model)
    owner = table.find("of", TEXT)
    if owner is None:
        return None
    place = table.place.field("of")
    if scope is BudgetScope.EVERYONE:
        place.report('needs to know what it names; expected per = "key", "model", "route" or "tag" beside it')
    elif scope is BudgetScope.ROUTE and owner not in routes:
        place.refuse(owner, f"the name of a route; {hint(owner, routes) if routes else 'there is none'}")
    return owner
