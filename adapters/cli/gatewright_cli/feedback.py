"""`gw-cli feedback`."""

import click

from gatewright.accounting.outcomes import Feedback
from gatewright_cli import exits
from gatewright_cli.options import Common, common_options
from gatewright_cli.storing import NOTHING, looking
from gatewright_host.metrics import Metrics
from gatewright_host.state_dir import StateDir
from gatewright_host.store.vocabulary import Missing


@click.command()
@click.argument("request_id", metavar="REQUEST_ID")
@click.option("--success", is_flag=True, help="The answer was good.")
@click.option("--failure", is_flag=True, help="It was not.")
@click.option("--score", type=click.FloatRange(0, 1), metavar="X", help="How good it was, 0 to 1.")
@click.option("--comment", metavar="TEXT", default="", help="What to say about it besides.")
@click.option("--by", metavar="NAME", default="user", show_default=True, help="Who says it.")
@common_options
def command(
    common: Common,
    /,
    *,
    request_id: str,
    success: bool,
    failure: bool,
    score: float | None,
    comment: str,
    by: str,
) -> int:
    """Say how good an answer was, from which the choice of models learns.

    REQUEST_ID is the answer's x-request-id; gw-cli ask -v shows it. Whoever says something again takes back what was
    said before.
    """
    if success + failure + (score is not None) != 1:
        raise exits.Misuse("say one of --success, --failure and --score X")
    value = float(success) if score is None else score
    with looking(common, quiet=True) as opened:
        if opened is None:
            return _fail(NOTHING)
        try:
            opened.store.add_feedback(
                Feedback(request_id=request_id, score=value, at=opened.now_s, by=by, comment=comment)
            )
        except Missing:
            return _fail(f"no request '{request_id}' is recorded")
        found = opened.store.find_request(request_id)
        _count(common.state(opened.config), found.record.model if found is not None else None, value)
    click.echo(f"{request_id}: {value:g}")
    return exits.DONE


def _count(state: StateDir, model: str | None, score: float) -> None:
    """For `/metrics`: whichever server is asked next takes over what this process has counted."""
    metrics = Metrics(state)
    metrics.observe_feedback(model, score)
    metrics.close()


def _fail(text: str) -> int:
    click.echo(f"gw-cli: {text}", err=True)
    return exits.FAILED
