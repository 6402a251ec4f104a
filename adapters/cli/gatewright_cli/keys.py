"""`gw-cli keys`: who may use the gateway, and how much."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Final

import click

from gatewright.accounting.keys import KeyRequest, StoredKey, key_to_plain, read_key_request
from gatewright.configuration.reader import Place
from gatewright_cli import exits
from gatewright_cli.groups import Group
from gatewright_cli.options import Common, common_options
from gatewright_cli.refusals import refuse
from gatewright_cli.sheets import Column, Sheet, as_flag, as_money, as_text, format_options, print_sheet
from gatewright_cli.slices import find_key_id
from gatewright_cli.spans import date_text, expiry
from gatewright_cli.storing import Opened, changing, looking
from gatewright_cli.tables import print_json
from gatewright_host.budget_overview import budget_overview

_NO: Final = "none"
_WINDOWS: Final = ("hour", "day", "week", "month")
_ROLLING: Final = "rolling-"

_OPTIONS: Final = {
    "name": "NAME",
    "models": "--model",
    "routes": "--route",
    "requests_per_minute": "--requests-per-minute",
    "tokens_per_minute": "--tokens-per-minute",
    "budget_usd": "--budget",
    "budget_window": "--window",
    "expires_s": "--expires",
    "is_admin": "--admin",
}


def _names_text(names: list[str] | None) -> str:
    return "all" if names is None else as_text(names) or "none"


def _window_text(window: str | dict[str, str]) -> str:
    return window if isinstance(window, str) else f"{_ROLLING}{window['rolling']}"


_COLUMNS: Final = (
    Column("id", "ID", right=False),
    Column("name", "NAME", right=False),
    Column("prefix", "KEY", lambda prefix: f"{prefix}…", right=False),
    Column("is_admin", "ADMIN", as_flag, right=False),
    Column("models", "MODELS", _names_text, right=False),
    Column("routes", "ROUTES", _names_text, right=False),
    Column("requests_per_minute", "RPM"),
    Column("tokens_per_minute", "TPM"),
    Column("budget_usd", "BUDGET", as_money),
    Column("budget_window", "PER", _window_text, right=False),
    Column("created_s", "CREATED", date_text, right=False),
    Column("expires_s", "EXPIRES", date_text, right=False),
)


@click.group(cls=Group)
def command() -> None:
    """Make API keys, and say what they may do.

    Once there is a key, the server lets nobody in without one.
    """


def _limit_options(function: Callable[..., int]) -> Callable[..., int]:
    """Gives a command what may be said of a key, as its argument `wanted`, under the names that the store has."""

    @click.option(
        "-m",
        "--model",
        "models",
        metavar="MODEL",
        multiple=True,
        help="A model that it may use, or all; several times for several.  [default: all]",
    )
    @click.option(
        "--route",
        "routes",
        metavar="ROUTE",
        multiple=True,
        help="A route that it may use, or all; several times for several.  [default: all]",
    )
    @click.option(
        "--requests-per-minute", metavar="N", help="Most requests in a minute, or none for no limit."
    )
    @click.option("--tokens-per-minute", metavar="N", help="Most tokens in a minute, or none for no limit.")
    @click.option("--budget", metavar="USD", help="What it may spend in US dollars, or none for no limit.")
    @click.option(
        "--window",
        type=click.Choice([*_WINDOWS, *(_ROLLING + period for period in _WINDOWS)]),
        help="The time for which that is: the present month, or the last 30 days (rolling-month).  [default: month]",
    )
    @click.option(
        "--expires", metavar="WHEN", help="Until when it is valid: in 90d, on 2027-01-31, or never (none)."
    )
    @click.option(
        "--admin/--no-admin", default=None, help="Whether it may manage models, keys and experiments."
    )
    @wraps(function)
    def wrapper(
        *args: Any,
        models: tuple[str, ...],
        routes: tuple[str, ...],
        requests_per_minute: str | None,
        tokens_per_minute: str | None,
        budget: str | None,
        window: str | None,
        expires: str | None,
        admin: bool | None,
        **options: Any,
    ) -> int:
        wanted: dict[str, object] = {}
        for name, names in (("models", models), ("routes", routes)):
            if names:
                wanted[name] = None if "all" in names else list(names)
        wanted.update(
            _given("requests_per_minute", requests_per_minute, _whole)
            | _given("tokens_per_minute", tokens_per_minute, _whole)
            | _given("budget_usd", budget, _real)
            | _given("expires_s", expires, expiry)
        )
        if window is not None:
            wanted["budget_window"] = _window(window)
        if admin is not None:
            wanted["is_admin"] = admin
        return function(*args, wanted=wanted, **options)

    return wrapper


@command.command("list")
@format_options
@common_options
def list_keys(common: Common, /, *, output: str) -> int:
    """List the keys. The secrets are not kept, only how each begins."""
    with looking(common) as opened:
        keys = opened.store.keys() if opened is not None else ()
    print_sheet(_sheet(keys), output, "" if opened is None else "there are no keys: everybody is let in")
    return exits.DONE


@command.command("show")
@click.argument("key")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common_options
def show_key(common: Common, /, *, key: str, as_json: bool) -> int:
    """Show what a key may do, and what it has spent. KEY is its id, its name or how its secret begins."""
    with _known(common, key) as (opened, found):
        accounts = (f"key/{found.id}", f"/key={found.id}", f"/key={found.name}")
        budgets = opened.config.budgets if opened.config is not None else None
        known = budget_overview(opened.store.budget_use(), budgets, (found,))
        spent = [use for use in known if use.configured and use.account.endswith(accounts)]
    plain = key_to_plain(found)
    if as_json:
        print_json({**plain, "spent_usd": {use.account: use.spent_usd for use in spent}})
        return exits.DONE
    for column in _COLUMNS:
        value = plain[column.name]
        click.echo(f"{click.style(column.head.lower().ljust(9), dim=True)}{column.show(value) or '-'}")
    for use in spent:
        click.echo(f"{click.style('spent'.ljust(9), dim=True)}{as_money(use.spent_usd)} ({use.account})")
    return exits.DONE


@command.command("create")
@click.argument("name")
@_limit_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON: the key with its secret, as `secret`.")
@common_options
def create_key(common: Common, /, *, name: str, wanted: dict[str, object], as_json: bool) -> int:
    """Make a key, and print its secret, which is not kept and cannot be shown again.

    The secret alone is on standard output: gw-cli keys create ci > key.txt
    """
    problems: list[str] = []
    request = read_key_request({"name": name, **wanted}, Place("", problems))
    if request is None:
        raise refuse(problems, _OPTIONS)
    with changing(common) as opened:
        _warn_of_unknown(opened, request)
        is_first = not opened.store.keys() and not _has_own_keys(opened)
        secret, key = opened.store.create_key(request)
    if is_first:
        click.echo("that is the first key: nobody is let in without one now", err=True)
    if as_json:
        print_json({**key_to_plain(key), "secret": secret})
    else:
        click.echo(secret)
        click.echo(f"key {key.id} ({key.name}); this is the only time that its secret is shown", err=True)
    return exits.DONE


@command.command("set")
@click.argument("key")
@click.option("--name", metavar="NAME", help="Another name.")
@_limit_options
@common_options
def set_key(common: Common, /, *, key: str, name: str | None, wanted: dict[str, object]) -> int:
    """Change what a key may do; what is not said stays. Servers know within seconds."""
    if name is not None:
        wanted = {"name": name, **wanted}
    if not wanted:
        raise exits.Misuse("nothing to change: say what, such as --budget 20")
    with _known(common, key) as (opened, found):
        problems: list[str] = []
        request = read_key_request(wanted, Place("", problems), found)
        if request is None:
            raise refuse(problems, _OPTIONS | {"name": "--name"})
        _warn_of_unknown(opened, request)
        opened.store.update_key(found.id, request)
    click.echo(f"changed {found.id} ({request.name})")
    return exits.DONE


@command.command("revoke")
@click.argument("key")
@common_options
def revoke_key(common: Common, /, *, key: str) -> int:
    """Revoke a key: from then on its secret is worth nothing. Servers know within seconds."""
    with _known(common, key) as (opened, found):
        opened.store.delete_key(found.id)
        is_last = not opened.store.keys() and not _has_own_keys(opened)
    click.echo(f"revoked {found.id} ({found.name})")
    if is_last:
        click.echo("that was the last key: everybody is let in now", err=True)
    return exits.DONE


def _has_own_keys(opened: Opened) -> bool:
    return opened.config is not None and bool(opened.config.server.api_keys)


# --- reading


@contextmanager
def _known(common: Common, named: str) -> Iterator[tuple[Opened, StoredKey]]:
    """The store, and the key that somebody names in it.

    Raises:
        Misuse: There is no such key, or there are several.
    """
    with looking(common, quiet=True) as opened:
        if opened is None:
            raise exits.Misuse(f"there is no key '{named}'")
        key_id = find_key_id(opened.store, named)
        yield opened, next(key for key in opened.store.keys() if key.id == key_id)  # noqa: SIM118  # no dict's


def _given(name: str, text: str | None, read: Callable[[str], object]) -> dict[str, object]:
    """What an option says: nothing, no limit, or a value."""
    if text is None:
        return {}
    return {name: None if text.lower() == _NO else read(text)}


def _whole(text: str) -> object:
    return int(text) if text.isascii() and text.isdecimal() else text


def _real(text: str) -> object:
    try:
        return float(text.removeprefix("$"))
    except ValueError:
        return text


def _window(text: str) -> object:
    return {"rolling": text.removeprefix(_ROLLING)} if text.startswith(_ROLLING) else text


def _warn_of_unknown(opened: Opened, request: KeyRequest) -> None:
    """A misspelt name makes a key that can do nothing, and nobody sees why."""
    if opened.config is None:
        return
    models = {alias for model in opened.config.models for alias in (model.name, *model.aliases)}
    models |= {model.name for model in opened.store.models()}
    routes = {route.name for route in opened.config.routes}
    for kind, names, known in (("model", request.models, models), ("route", request.routes, routes)):
        for name in sorted((names or frozenset()) - known):
            click.echo(f"gw-cli: warning: there is no {kind} '{name}' at present", err=True)


# --- showing


def _sheet(keys: Iterable[StoredKey]) -> Sheet:
    plain = [key_to_plain(key) for key in keys]
    rows = tuple(tuple(key[column.name] for column in _COLUMNS) for key in plain)
    shown = tuple(column.name for column in _COLUMNS if column.name != "created_s")
    return Sheet(name="keys", title="API keys", columns=_COLUMNS, rows=rows, shown=shown)
