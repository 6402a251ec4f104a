"""The figures of experiments as a sheet."""

from collections.abc import Iterator
from typing import Any, Final

from attrs import frozen

from gatewright.accounting.experiment_report import ArmReport, ExperimentReport, report
from gatewright.config import Config
from gatewright.route_config import ExperimentConfig, ExperimentState, RouteConfig
from gatewright_cli.sheets import Column, Sheet, as_count, as_flag, as_money, as_ms, as_share
from gatewright_cli.storing import Opened

_COLUMNS: Final = (
    Column("experiment", "EXPERIMENT", right=False),
    Column("route", "ROUTE", right=False),
    Column("arm", "ARM", right=False),
    Column("share", "SHARE", as_share),
    Column("requests", "REQUESTS", as_count),
    Column("units", "UNITS", as_count),
    Column("success", "SUCCESS", as_share),
    Column("success_low", "AT LEAST", as_share),
    Column("success_high", "AT MOST", as_share),
    Column("difference", "DIFFERENCE", as_share),
    Column("difference_low", "AT LEAST", as_share),
    Column("difference_high", "AT MOST", as_share),
    Column("mean_latency_ms", "LATENCY", as_ms),
    Column("mean_cost_usd", "PER CALL", as_money),
    Column("is_stopped", "STOPPED", as_flag, right=False),
    Column("is_promoted", "PROMOTED", as_flag, right=False),
    Column("verdict", "VERDICT", right=False),
)
_SHOWN: Final = (
    "arm", "share", "requests", "units", "success", "success_low", "success_high", "difference",
    "mean_latency_ms", "mean_cost_usd", "verdict",
)  # fmt: skip


@frozen
class Reported:
    """An experiment and what it has shown.

    Attributes:
        route: On which it runs.
        experiment: As it is configured.
        state: What was done to it by hand; None: nothing.
        report: What it has shown.
    """

    route: RouteConfig
    experiment: ExperimentConfig
    state: ExperimentState | None
    report: ExperimentReport


def configured(config: Config | None) -> Iterator[tuple[RouteConfig, ExperimentConfig]]:
    """The experiments of the configuration, and their routes."""
    for route in config.routes if config is not None else ():
        if route.experiment is not None:
            yield route, route.experiment


def reported(opened: Opened, name: str | None = None) -> list[Reported]:
    """What the experiments of the configuration have shown.

    Args:
        opened: The store.
        name: Only this one.
    """
    from gatewright_host.store.analytics_experiments import experiment_book  # noqa: PLC0415  # loads SQLAlchemy

    states = {state.experiment: state for state in opened.store.experiment_states()}
    found = []
    for route, experiment in configured(opened.config):
        if name in {None, experiment.name}:
            state = states.get(experiment.name)
            book = experiment_book(opened.store, experiment.name)
            found.append(Reported(route, experiment, state, report(experiment, book, state)))
    return found


def experiments_sheet(opened: Opened, name: str | None = None) -> Sheet:
    """A row for each arm of each experiment."""
    rows = [_row(each, arm) for each in reported(opened, name) for arm in each.report.arms]
    shown = _SHOWN if name is not None else ("experiment", *_SHOWN)
    return Sheet(
        name="experiments",
        title="Experiments",
        columns=_COLUMNS,
        rows=tuple(rows),
        shown=shown,
        note="The bounds hold however often one looks.",
    )


def _row(each: Reported, arm: ArmReport) -> tuple[Any, ...]:
    effect = arm.effect
    return (
        each.experiment.name,
        each.route.name,
        arm.name,
        arm.share,
        arm.requests,
        arm.units,
        arm.success,
        arm.success_low,
        arm.success_high,
        effect.difference if effect is not None else None,
        effect.low if effect is not None else None,
        effect.high if effect is not None else None,
        arm.mean_latency_ms,
        arm.mean_cost_usd,
        arm.is_stopped,
        arm.is_promoted,
        arm.verdict,
    )
