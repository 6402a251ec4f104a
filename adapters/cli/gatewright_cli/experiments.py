"""`gw-cli experiments`: what comparisons between arms have shown, and what is done about it by hand."""

from typing import Final

import click

from gatewright.accounting.experiment_actions import ExperimentAction, act
from gatewright.errors import InvalidRequest, NameTaken
from gatewright.route_config import ExperimentConfig
from gatewright_cli import exits
from gatewright_cli.experiment_figures import Reported, configured, experiments_sheet, reported
from gatewright_cli.groups import Group
from gatewright_cli.options import Common, common_options
from gatewright_cli.sheets import TEXT, Column, Sheet, as_count, format_options, print_sheet
from gatewright_cli.storing import Opened, changing, looking

_COLUMNS: Final = (
    Column("experiment", "EXPERIMENT", right=False),
    Column("route", "ROUTE", right=False),
    Column("arms", "ARMS", right=False),
    Column("requests", "REQUESTS", as_count),
    Column("state", "STATE", right=False),
    Column("verdict", "VERDICT", right=False),
)
_NONE: Final = "no route has an experiment"


@click.group(cls=Group)
def command() -> None:
    """Show what experiments have shown, and stop or promote their arms."""


@command.command("list")
@format_options
@common_options
def list_experiments(common: Common, /, *, output: str) -> int:
    """List the experiments of the configuration's routes."""
    with looking(common) as opened:
        found = reported(opened) if opened is not None else []
    sheet = Sheet(
        name="experiments",
        title="Experiments",
        columns=_COLUMNS,
        rows=tuple(_row(each) for each in found),
    )
    print_sheet(sheet, output, _NONE if output == TEXT and opened is not None else "")
    return exits.DONE


@command.command("report")
@click.argument("name")
@format_options
@common_options
def report_experiment(common: Common, /, *, name: str, output: str) -> int:
    """Show an experiment's arms: success with bounds, the difference from the first arm, latency, cost, and a verdict.

    It may be looked at as often as one likes: the bounds take that into account.
    """
    with looking(common) as opened:
        if opened is None:
            print_sheet(None, output, "")
            return exits.DONE
        _find(opened, name)
        sheet = experiments_sheet(opened, name)
        (found,) = reported(opened, name) if output == TEXT else (None,)
    print_sheet(sheet, output, "")
    if found is not None:
        click.echo(f"\n{found.report.verdict}")
    return exits.DONE


@command.command("stop")
@click.argument("name")
@click.argument("arm")
@common_options
def stop_arm(common: Common, /, *, name: str, arm: str) -> int:
    """Stop an arm: it gets no more requests, and its users go to the others."""
    return _act(common, name, ExperimentAction.STOP, arm, f"stopped {arm} of {name}")


@command.command("promote")
@click.argument("name")
@click.argument("arm")
@common_options
def promote_arm(common: Common, /, *, name: str, arm: str) -> int:
    """Promote an arm: it gets all requests."""
    return _act(common, name, ExperimentAction.PROMOTE, arm, f"{arm} of {name} gets all requests")


@command.command("end")
@click.argument("name")
@common_options
def end_experiment(common: Common, /, *, name: str) -> int:
    """End an experiment: its route is as if there were none. What it has shown stays."""
    return _act(common, name, ExperimentAction.END, None, f"ended {name}")


@command.command("resume")
@click.argument("name")
@click.argument("arm", required=False)
@common_options
def resume_experiment(common: Common, /, *, name: str, arm: str | None) -> int:
    """Take back what was done by hand, to the whole experiment or to one arm."""
    what = name if arm is None else f"{arm} of {name}"
    return _act(common, name, ExperimentAction.RESUME, arm, f"resumed {what}")


def _act(common: Common, name: str, action: ExperimentAction, arm: str | None, done: str) -> int:
    with changing(common) as opened:
        experiment = _find(opened, name)
        states = {state.experiment: state for state in opened.store.experiment_states()}
        try:
            state = act(experiment, states.get(name), action, arm)
        except (InvalidRequest, NameTaken) as error:
            raise exits.Misuse(error.problem.message) from None
        opened.store.set_experiment_state(state)
    click.echo(done)
    return exits.DONE


def _find(opened: Opened, name: str) -> ExperimentConfig:
    experiments = {each.name: each for _, each in configured(opened.config)}
    if name not in experiments:
        known = f"; experiments: {', '.join(experiments)}" if experiments else f": {_NONE}"
        raise exits.Misuse(f"there is no experiment '{name}'{known}")
    return experiments[name]


def _row(each: Reported) -> tuple[object, ...]:
    arms = each.report.arms
    return (
        each.experiment.name,
        each.route.name,
        [arm.name for arm in arms],
        sum(arm.requests for arm in arms),
        _state_text(each),
        each.report.verdict,
    )


def _state_text(each: Reported) -> str:
    if each.report.is_ended:
        return "ended"
    promoted = [arm.name for arm in each.report.arms if arm.is_promoted]
    return f"promoted {promoted[0]}" if promoted else "running"
