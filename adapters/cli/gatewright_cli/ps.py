"""`gw-cli ps`."""

from typing import Any

import attrs
import click

from gatewright.engines.spec import UNBOUNDED_CONTEXT_TOKENS
from gatewright.engines.states import Stopped, state_name
from gatewright.fleet import EngineStatus
from gatewright_cli import exits
from gatewright_cli.operating import NO_HOST, label_of, watching
from gatewright_cli.options import Common, common_options
from gatewright_cli.tables import bytes_text, print_json, print_table, seconds_text
from gatewright_cli.terminal import printable
from gatewright_host.host_status import EngineReport, HostStatus

HEADS = ("MODEL", "CONTEXT", "STATE", "SLOTS", "WAITING", "MEMORY", "IDLE", "PID")
_NUMBERS = frozenset((1, 4, 5, 6, 7))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common_options
def command(common: Common, /, *, as_json: bool) -> int:
    """Show the engines that run, are waited for or have failed; with --json also those that have stopped.

    SLOTS are requests under way and how many the engine takes at a time; IDLE is the time since the last one.
    """
    with watching(common) as client:
        status = client.status() if client is not None else None
    if as_json:
        print_json(plain_status(status))
    elif status is None:
        click.echo(NO_HOST, err=True)
    else:
        _print(status, verbose=common.verbose)
    return exits.DONE


def _print(status: HostStatus, *, verbose: bool) -> None:
    if verbose:
        kind = "detached" if status.detached else "part of a server"
        click.echo(
            f"engine host {status.pid} ({kind}), gatewright {status.version}, up {seconds_text(status.uptime_s)}, "
            f"{status.holders} attached",
            err=True,
        )
    shown = [report for report in status.engines if _is_telling(report.engine)]
    if not shown:
        click.echo("no engine is running", err=True)
        return
    print_table(HEADS, [_as_row(report) for report in shown], right=_NUMBERS)
    for report in shown:
        if report.engine.problem:
            click.echo(f"{label_of(report.engine)}: {printable(report.engine.problem)}", err=True)


def _is_telling(engine: EngineStatus) -> bool:
    """Whether there is more to say of it than that it is stopped, as variants are that nobody has needed."""
    return engine.state != state_name(Stopped()) or engine.waiting > 0


def _as_row(report: EngineReport) -> tuple[str, ...]:
    engine = report.engine
    slots = str(engine.slots) if engine.slots is not None else "-"
    return (
        engine.model,
        str(engine.context_tokens) if engine.context_tokens != UNBOUNDED_CONTEXT_TOKENS else "",
        engine.state,
        f"{engine.leases}/{slots}",
        str(engine.waiting),
        bytes_text(report.memory_bytes) if report.memory_bytes is not None else "",
        seconds_text(engine.idle_s) if engine.idle_s is not None else "",
        str(report.pid) if report.pid is not None else "",
    )


def plain_status(status: HostStatus | None) -> dict[str, Any]:
    """The status as `--json` prints it: the host, if there is one, and each engine in one object."""
    if status is None:
        return {"host": None, "engines": []}
    host = attrs.asdict(status, filter=lambda field, _: field.name != "engines")
    engines = [
        {**attrs.asdict(report.engine), "pid": report.pid, "memory_bytes": report.memory_bytes}
        for report in status.engines
    ]
    return {"host": host, "engines": engines}
