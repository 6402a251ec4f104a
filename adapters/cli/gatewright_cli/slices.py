"""The part of the requests that a report is about, from the command line."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

import click

from gatewright_cli import exits
from gatewright_cli.spans import Span

if TYPE_CHECKING:
    from gatewright_host.store.analytics_sql import Slice
    from gatewright_host.store.store import Store

_OPTIONS: Final = {
    "model": ("MODEL", "Only requests that this model answered."),
    "key": ("KEY", "Only requests with this API key, by id or name."),
    "route": ("ROUTE", "Only requests for this route."),
    "task": ("NAME", "Only requests of this task."),
    "user": ("USER", "Only requests of this user."),
}


def slice_options(function: Callable[..., int]) -> Callable[..., int]:
    """Gives a subcommand `--model`, `--key`, `--route`, `--task` and `--user`, as its argument `only`."""

    @wraps(function)
    def wrapper(*args: Any, **options: Any) -> int:
        given = {name: options.pop(name) for name in _OPTIONS}
        only = {name: value for name, value in given.items() if value is not None}
        return function(*args, only=only, **options)

    for name, (metavar, text) in reversed(_OPTIONS.items()):
        short = ("-m",) if name == "model" else ()
        wrapper = click.option(*short, f"--{name}", metavar=metavar, help=text)(wrapper)
    return wrapper


def slice_of(store: "Store", span: Span, only: Mapping[str, str]) -> "Slice":
    """The conditions for a query.

    Raises:
        Misuse: There is no such key.
    """
    from gatewright_host.store.analytics_sql import Slice  # noqa: PLC0415  # SQLAlchemy takes its time to load

    key_id = find_key_id(store, only["key"]) if "key" in only else None
    return Slice(
        since_s=span.since_s,
        until_s=span.until_s,
        key_id=key_id,
        model=only.get("model"),
        route=only.get("route"),
        task=only.get("task"),
        user=only.get("user"),
    )


def find_key_id(store: "Store", named: str) -> str:
    """The id of a key that somebody names by its id, its name, or how its secret begins.

    Raises:
        Misuse: There is none, or there are several.
    """
    keys = store.keys()
    for key in keys:
        if key.id == named:
            return key.id
    found = [key.id for key in keys if named in {key.name, key.prefix}]
    if len(found) > 1:
        raise exits.Misuse(f"several keys are called '{named}'; name one by its id: {', '.join(found)}")
    if not found:
        raise exits.Misuse(f"there is no key '{named}' (gw-cli keys list shows them)")
    return found[0]
