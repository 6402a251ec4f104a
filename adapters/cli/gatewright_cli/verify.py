"""`gw-cli verify`."""

import http.client
import os
from typing import Final

import click

from gatewright.config import Config, TcpListener, UnixListener
from gatewright_cli import exits
from gatewright_cli.options import Common, common_options
from gatewright_cli.tables import print_json
from gatewright_cli.verification.catalogue import select_checks
from gatewright_cli.verification.client import Client
from gatewright_cli.verification.report import Table, plain_report, summary
from gatewright_cli.verification.runner import Outcome, Reception, receive, run_checks
from gatewright_cli.verification.target import Target

KEY_VARIABLES: Final = ("GATEWRIGHT_API_KEY", "OPENAI_API_KEY")
_ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # where to find who listens everywhere
_TIMEOUT_S: Final = 300.0
_LONGEST_S: Final = 86_400.0


@click.command()
@click.argument("url", required=False)
@click.option("-m", "--model", help="Model to chat with.  [default: the first that is listed]")
@click.option(
    "--embedding-model", metavar="MODEL", help="Model for embeddings.  [default: one with embed in its name]"
)
@click.option(
    "--api-key", metavar="KEY", help="Key to present.  [default: $GATEWRIGHT_API_KEY, $OPENAI_API_KEY]"
)
@click.option("--only", multiple=True, metavar="NAME", help="Run this check only; * stands for anything.")
@click.option("--standard-only", is_flag=True, help="Leave out what only Gatewright promises.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True, max=_LONGEST_S),
    default=_TIMEOUT_S,
    metavar="S",
    help=f"Longest silence, in seconds.  [default: {_TIMEOUT_S:g}]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common_options
def command(
    common: Common,
    /,
    *,
    url: str | None,
    model: str | None,
    embedding_model: str | None,
    api_key: str | None,
    only: tuple[str, ...],
    standard_only: bool,
    timeout_s: float,
    as_json: bool,
) -> int:
    """Check a running gateway: whether it does what clients of OpenAI's API rely on.

    URL is http://HOST:PORT, https://..., or unix:/PATH; without it, the server of the configuration is checked. The
    requests are small, and none of them changes anything. It need not be Gatewright: see --standard-only.
    """
    try:
        checks = select_checks(only, standard_only=standard_only)
    except ValueError as error:
        raise exits.Misuse(str(error)) from None
    key = api_key or next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), None)
    if url is None:
        config = _config_of(common)
        url = _url_of(config)
        key = key or next(iter(config.server.api_keys), None)
    reception = _knock(url, key, timeout_s, model, embedding_model)

    if as_json:
        results = list(run_checks(checks, reception))
        print_json(plain_report(reception, results))
    else:
        table = Table(checks, verbose=common.verbose)
        results = []
        for result in run_checks(checks, reception):
            results.append(result)
            table.add(result)
        click.echo(f"{url}: {summary(results)}", err=True)
    failed = any(result.outcome is Outcome.FAILED for result in results)
    return exits.FAILED if failed else exits.DONE


def _knock(
    url: str, key: str | None, timeout_s: float, model: str | None, embedding_model: str | None
) -> Reception:
    try:
        client = Client(Target.parse(url), key, timeout_s)
    except ValueError as error:
        raise exits.Misuse(str(error)) from None
    if key is not None and not (key.isascii() and key.isprintable()):
        raise exits.Misuse("a key is made of printable ASCII characters")
    try:
        return receive(client, model, embedding_model)
    except TimeoutError:
        raise exits.Misuse(f"{url}: no answer") from None
    except OSError as error:
        raise exits.Misuse(f"{url}: {error.strerror or error}") from None
    except http.client.HTTPException as error:
        reason = str(error) or type(error).__name__
        raise exits.Misuse(f"{url}: this is no HTTP server: {reason}") from None


def _config_of(common: Common) -> Config:
    chosen = common.choose()
    if chosen is None:
        raise exits.Misuse(
            "name the URL of a gateway, such as http://127.0.0.1:8080; there is no configuration"
        )
    return chosen.config


def _url_of(config: Config) -> str:
    """Where the configuration's server listens, first of all."""
    for listener in config.server.listen:
        match listener:
            case TcpListener(host=host, port=port) if port:
                address = _ANY_ADDRESS.get(host, host)
                return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
            case UnixListener(path=path):
                return f"unix:{path}"
            case _:
                continue  # a port that the system chooses; nobody knows it from here
    raise exits.Misuse("name the URL of the gateway; the configuration leaves its port to the system")
