"""`gw-cli stop`."""

from time import monotonic, sleep
from typing import Final

import click

from gatewright.fleet import CIRCUIT_OPEN, EngineStatus
from gatewright.ids import EngineId
from gatewright_cli import exits
from gatewright_cli.operating import NO_HOST, engine_model, label_of, watching
from gatewright_cli.options import Common, common_options
from gatewright_host.host_client import BlockingHostClient
from gatewright_host.host_protocol import HostLost
from gatewright_host.host_status import HostStatus

_POLL_S: Final = 0.05
_PATIENCE_S: Final = 60.0
"""More than an engine gets between SIGTERM and SIGKILL, unless it is configured otherwise."""


@click.command()
@click.argument("model", required=False)
@click.option("--all", "all_models", is_flag=True, help="Stop the engines of all models.")
@click.option("--now", is_flag=True, help="Do not wait for requests under way: they fail.")
@common_options
def command(common: Common, /, *, model: str | None, all_models: bool, now: bool) -> int:
    """Stop the engines of a model, or all of them, to have their memory back.

    An engine that is in use stops when its requests are done. The next question for a model starts its engine again.
    Providers that are left alone because they failed are called again.
    With --all --now a detached engine host ends as well.
    """
    if (model is None) is not all_models:
        raise exits.Misuse("name a model, or say --all")
    with watching(common) as client:
        if client is None:
            click.echo(NO_HOST, err=True)
            return exits.DONE
        status = client.status()
        name = engine_model(common, model, status) if model is not None else None
        running = _running(status, name)
        if all_models and now and status.detached:
            client.shutdown()
        else:
            client.stop_engines(name, force=now)
        mended = [
            report.engine
            for report in status.engines
            if report.engine.state == CIRCUIT_OPEN and name in {None, report.engine.model}
        ]
        for engine in mended:
            click.echo(f"{engine.model} is called again")
        if mended and not running:
            return exits.DONE
        return _await(client, running, name, now=now)


def _running(status: HostStatus, model: str | None) -> dict[EngineId, EngineStatus]:
    return {
        engine.engine_id: engine
        for engine in (report.engine for report in status.engines)
        if engine.engine_id is not None and model in {None, engine.model}
    }


def _await(
    client: BlockingHostClient, running: dict[EngineId, EngineStatus], model: str | None, *, now: bool
) -> int:
    """Say of each engine that it has stopped, or why it has not yet."""
    if not running:
        click.echo("no engine is running" if model is None else f"no engine of {model} is running", err=True)
    give_up_at = monotonic() + _PATIENCE_S
    while running:
        try:
            present = _running(client.status(), None)
        except HostLost:  # it was told to end, and has
            present = {}
        for engine_id in running.keys() - present.keys():
            click.echo(f"stopped {label_of(running.pop(engine_id))}")
        for engine_id in [number for number in running if present[number].leases and not now]:
            del running[engine_id]
            busy = present[engine_id]
            requests = "request is" if busy.leases == 1 else f"{busy.leases} requests are"
            click.echo(f"{label_of(busy)} stops when its {requests} done (--now does not wait)")
        if not running:
            break
        if monotonic() >= give_up_at:
            for engine in running.values():
                click.echo(f"gw-cli: {label_of(engine)} has not stopped within {_PATIENCE_S:g} s", err=True)
            return exits.FAILED
        sleep(_POLL_S)
    return exits.DONE
