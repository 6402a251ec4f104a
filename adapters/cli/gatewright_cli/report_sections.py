"""What a report consists of: its sections, each a sheet, and what their plots need besides."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from attrs import field, frozen

from gatewright_cli.experiment_figures import experiments_sheet
from gatewright_cli.figures import (
    budgets_sheet,
    calibration_sheet,
    comparison_sheet,
    estimators_sheet,
    ranking_sheet,
    usage_sheet,
    values_sheet,
)
from gatewright_cli.sheets import Sheet
from gatewright_cli.storing import Opened
from gatewright_host.budget_overview import budget_overview
from gatewright_host.store.analytics import UsageRow, usage_rows
from gatewright_host.store.analytics_comparison import comparison_rows, value_rows
from gatewright_host.store.analytics_estimators import calibration_rows, estimator_rows
from gatewright_host.store.analytics_ranking import ranking_rows
from gatewright_host.store.analytics_sql import By, Slice

_FINE_S: Final = 3 * 86_400
_COARSE_S: Final = 200 * 86_400

_SELECTION: Final = ("requests", "decided", "select_mean_ms", "select_p95_ms")
_FALLBACKS: Final = ("requests", "fallbacks", "fallback_successes", "errors")


@frozen
class Source:
    """What sections are made from.

    Attributes:
        opened: The store.
        within: The requests that the report is about.
        key_names: Names of API keys by id.
    """

    opened: Opened
    within: Slice
    key_names: Mapping[str, str]

    @property
    def time(self) -> By:
        """The stretches that the whole is cut into, so that a plot has neither three bars nor a thousand."""
        since_s = self.within.since_s
        if since_s is None:
            since_s = _first_s(self.opened, self.within)
        until_s = self.within.until_s if self.within.until_s is not None else self.opened.now_s
        length_s = until_s - since_s
        return By.HOUR if length_s <= _FINE_S else By.DAY if length_s <= _COARSE_S else By.MONTH

    def usage(self, *by: By) -> tuple[UsageRow, ...]:
        """Usage by group."""
        return usage_rows(self.opened.store, by, within=self.within)


@frozen(kw_only=True)
class Section:
    """One section.

    Attributes:
        sheet: Its figures.
        over_time: The same by time and group, with which the plots over time are drawn.
        key_names: Names of the groups that are keys.
    """

    sheet: Sheet
    over_time: tuple[UsageRow, ...] = ()
    key_names: Mapping[str, str] = field(factory=dict)

    def labels(self) -> list[str]:
        """Names of the groups in `over_time`, row by row."""
        return [self.key_names.get(row.group[-1], row.group[-1]) or "none" for row in self.over_time]


def collect(source: Source, names: Sequence[str]) -> list[Section]:
    """These sections, in the order of `SECTIONS`."""
    return [make(source) for name, make in SECTIONS.items() if name in names]


def _first_s(opened: Opened, within: Slice) -> float:
    from sqlalchemy import func, select  # noqa: PLC0415  # with the store's modules

    from gatewright_host.store import tables  # noqa: PLC0415  # the same

    with opened.store.reading() as connection:
        first = connection.scalar(select(func.min(tables.requests.c.at_s)).where(*within.of_requests()))
    return opened.now_s if first is None else float(first)


def _overview(source: Source) -> Section:
    sheet = usage_sheet("overview", "Overview", (), source.usage(), {})
    return Section(sheet=sheet)


def _by(name: str, title: str, by: By) -> Callable[[Source], Section]:
    def make(source: Source) -> Section:
        return Section(
            sheet=usage_sheet(name, title, (by.value,), source.usage(by), source.key_names),
            over_time=source.usage(source.time, by),
            key_names=source.key_names if by is By.KEY else {},
        )

    return make


def _tasks(source: Source) -> Section:
    return Section(sheet=ranking_sheet(ranking_rows(source.opened.store, within=source.within)))


def _budgets(source: Source) -> Section:
    store, config = source.opened.store, source.opened.config
    budgets = config.budgets if config is not None else None
    return Section(sheet=budgets_sheet(budget_overview(store.budget_use(), budgets, store.keys())))


def _fallbacks(source: Source) -> Section:
    sheet = usage_sheet(
        "fallbacks",
        "Fallbacks",
        ("route",),
        source.usage(By.ROUTE),
        {},
        shown=_FALLBACKS,
        note="SAVED are the requests that got an answer because another model was asked.",
    )
    return Section(sheet=sheet, over_time=source.usage(source.time))


def _selection(source: Source) -> Section:
    sheet = usage_sheet(
        "selection",
        "Time to choose a model",
        ("estimator",),
        source.usage(By.ESTIMATOR),
        {},
        shown=_SELECTION,
        note="It includes the wait for the estimator.",
    )
    return Section(sheet=sheet, over_time=source.usage(source.time, By.ESTIMATOR))


def _estimators(source: Source) -> Section:
    return Section(sheet=estimators_sheet(estimator_rows(source.opened.store, within=source.within)))


def _calibration(source: Source) -> Section:
    return Section(sheet=calibration_sheet(calibration_rows(source.opened.store, within=source.within)))


def _comparison(source: Source) -> Section:
    return Section(sheet=comparison_sheet(comparison_rows(source.opened.store, within=source.within)))


def _values(source: Source) -> Section:
    return Section(sheet=values_sheet(value_rows(source.opened.store, within=source.within)))


def _experiments(source: Source) -> Section:
    return Section(sheet=experiments_sheet(source.opened))


SECTIONS: Final[Mapping[str, Callable[[Source], Section]]] = {
    "overview": _overview,
    "models": _by("models", "Models", By.MODEL),
    "keys": _by("keys", "API keys", By.KEY),
    "routes": _by("routes", "Routes", By.ROUTE),
    "tasks": _tasks,
    "budgets": _budgets,
    "fallbacks": _fallbacks,
    "selection": _selection,
    "estimators": _estimators,
    "calibration": _calibration,
    "comparison": _comparison,
    "values": _values,
    "experiments": _experiments,
}
