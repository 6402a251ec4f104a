"""Stretches of time on the command line: `7d`, a date, or everything."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from typing import Any, Final

import click
from attrs import frozen

from gatewright_cli import exits

_AGO: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d|w)")
_SECONDS: Final = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_EVERYTHING: Final = "all"
DEFAULT: Final = "30d"


@frozen
class Span:
    """A stretch of time.

    Attributes:
        since_s: Unix time of its beginning; None for the beginning of all.
        until_s: Unix time of its end; None for now.
        text: What people call it.
    """

    since_s: float | None
    until_s: float | None
    text: str


def moment(text: str, option: str) -> float | None:
    """The Unix time of a moment: so long ago, or a date (UTC unless it says otherwise); None for the beginning of all.

    Args:
        text: What was said.
        option: Where.

    Raises:
        Misuse: It is neither.
    """
    text = text.strip()
    if text == _EVERYTHING:
        return None
    ago = _AGO.fullmatch(text)
    try:
        return time.time() - float(ago[1]) * _SECONDS[ago[2]] if ago is not None else _date(text)
    except ValueError:
        expected = "30min, 12h, 7d, 4w, 2026-01-31, 2026-01-31T12:00, all"
        raise exits.Misuse(f"{option}: {text!r} is none of {expected}") from None


def span_options(default: str = DEFAULT) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Gives a subcommand `--since` and `--until`, as its argument `span`."""

    def decorate(function: Callable[..., int]) -> Callable[..., int]:
        @click.option(
            "--since",
            metavar="WHEN",
            default=default,
            show_default=True,
            help="From when on: so long ago (30min, 12h, 7d, 4w), a date (2026-01-31), or all.",
        )
        @click.option("--until", metavar="WHEN", help="Up to when, in the same way.  [default: now]")
        @wraps(function)
        def wrapper(*args: Any, since: str, until: str | None, **options: Any) -> int:
            until_s = moment(until, "--until") if until is not None else None
            span = Span(moment(since, "--since"), until_s, _text(since, until))
            return function(*args, span=span, **options)

        return wrapper

    return decorate


def _text(since: str, until: str | None) -> str:
    begun = "everything" if since == _EVERYTHING else f"since {_spoken(since)}"
    return begun if until is None else f"{begun}, until {_spoken(until)}"


def _spoken(text: str) -> str:
    return f"{text} ago" if _AGO.fullmatch(text.strip()) else text


def expiry(text: str) -> float:
    """The Unix time of an end: in so long, or on a date.

    Raises:
        Misuse: It is neither, or has passed.
    """
    now_s = time.time()
    ahead = _AGO.fullmatch(text.strip())
    try:
        at_s = now_s + float(ahead[1]) * _SECONDS[ahead[2]] if ahead is not None else _date(text)
    except ValueError:
        raise exits.Misuse(f"--expires: {text!r} is none of 90d, 2027-01-31, none") from None
    if at_s <= now_s:
        raise exits.Misuse(f"--expires: {text!r} has passed; gw-cli keys revoke ends a key at once")
    return at_s


def _date(text: str) -> float:
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()


def date_text(at_s: float | None) -> str:
    """A Unix time as people read it, in UTC; nothing for None."""
    if at_s is None:
        return ""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M")
