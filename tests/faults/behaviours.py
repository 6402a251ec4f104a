"""What a fault's name means: the table of faults, read into behaviours.

The names are listed with their meaning in `tests.faults.upstream`.
"""

import functools
import json
import re
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, Final, Literal

from attrs import evolve, field, frozen

WORDS: Final = 20
"""Tokens of an answer, unless the upstream or the model's name says otherwise."""

How = Literal["silence", "close", "reset"]
Place = Literal["before-head", "head", "first-event", "finish"]


@frozen
class Document:
    """An answer of one piece that is not what was asked for."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


@frozen(kw_only=True)
class Behaviour:
    """What an upstream does with one request; by default it answers well.

    Attributes:
        document: Sent instead of an answer.
        stop: How the answer breaks off, if it does.
        stop_at: Where it does: a place, or the number of tokens that were sent.
        head_delay_s: Pause before the head.
        first_token_delay_s: Pause before the first token; before the head if nothing is streamed.
        token_delay_s: Pause before every token; before the head if nothing is streamed.
        comments: Comments between the head and the first event.
        comment_delay_s: If not None, comments without end at this interval, and no event ever.
        broken_events: Events that are no JSON; the first is number 0.
        error_event: Number of the event in whose place an error ends the stream.
        events: Whether there are events before `[DONE]`.
        content: Whether there are tokens.
        finish: Whether a finish reason is sent.
        done: Whether `[DONE]` is sent.
        length_error: Added to the `Content-Length` of an answer that is not streamed.
        letter: What the words of the text begin with.
        drops_next: Whether the connection, announced to be kept, is closed when the next request arrives on it.
    """

    document: Document | None = None
    stop: How | None = None
    stop_at: Place | int = "before-head"
    head_delay_s: float = 0.0
    first_token_delay_s: float = 0.0
    token_delay_s: float = 0.0
    comments: int = 0
    comment_delay_s: float | None = None
    broken_events: range = range(0)
    error_event: int | None = None
    events: bool = True
    content: bool = True
    finish: bool = True
    done: bool = True
    length_error: int = 0
    letter: str = "w"
    drops_next: bool = False


@frozen
class Past:
    """What a fault's name has seen up to now.

    Attributes:
        calls: Requests, this one included.
        seconds: Time since the first of them.
    """

    calls: int
    seconds: float


_Turn = tuple[Callable[..., Behaviour], tuple[float, ...]]
"""What makes a behaviour, and the numbers that it is given."""


@frozen
class Fault:
    """A fault's name, read.

    Attributes:
        words: Tokens of its answers, if the name says so.
    """

    words: int | None
    _turns: tuple[_Turn, ...] = field(repr=False)

    def behaviour(self, past: Past) -> Behaviour:
        """What it does now: a turn for each request, and the last one for all that follow."""
        before = min(past.calls, len(self._turns)) - 1
        build, numbers = self._turns[before]
        return build(evolve(past, calls=past.calls - before), *numbers)


OK: Final = Behaviour()

ERROR: Final[dict[str, Any]] = {
    "message": "The server had an error while processing your request. Sorry about that!",
    "type": "server_error",
    "param": None,
    "code": None,
}


def problem(status: int, error: dict[str, Any] | None = None, **headers: str) -> Behaviour:
    """An error of OpenAI's shape; underscores in the headers' names are hyphens."""
    body = b"" if status in {204, 304} else json.dumps({"error": {**ERROR, **(error or {})}}).encode()
    fields = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Behaviour(document=Document(status, body, headers=fields))


def _rate_limited(**headers: str) -> Behaviour:
    error = {
        "message": "Rate limit reached for requests per min (RPM): Limit 3, Used 3, Requested 1.",
        "type": "requests",
        "code": "rate_limit_exceeded",
    }
    return problem(429, error, **headers)


def _invalid(status: int, code: str, message: str, param: str | None = None) -> Behaviour:
    return problem(
        status, {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    )


def _document(body: bytes, content_type: str = "application/json") -> Behaviour:
    return Behaviour(document=Document(200, body, content_type))


def _number(value: float) -> str:
    return f"{value:g}"


def _stop(how: How, at: Place | float) -> Behaviour:
    return Behaviour(stop=how, stop_at=at if isinstance(at, str) else int(at))


# Forms as the table names them; each is given the past and its numbers.
_FORMS: Final[dict[str, Callable[..., Behaviour]]] = {
    "ok": lambda _: OK,
    "ok-slow-<ms>": lambda _, ms: Behaviour(token_delay_s=ms / 1000),
    "wrong-text": lambda _: Behaviour(letter="x"),
    "reset-before-head": lambda _: _stop("reset", "before-head"),
    "close-before-head": lambda _: _stop("close", "before-head"),
    "silent": lambda _: _stop("silence", "before-head"),
    "silent-after-head": lambda _: _stop("silence", "head"),
    "role-then-silent": lambda _: _stop("silence", "first-event"),
    "slow-head-<s>": lambda _, s: Behaviour(head_delay_s=s),
    "slow-first-token-<s>": lambda _, s: Behaviour(first_token_delay_s=s),
    "comments-then-silent": lambda _: evolve(_stop("silence", "head"), comments=3),
    "comments-every-<ms>": lambda _, ms: Behaviour(comment_delay_s=ms / 1000),
    "cut-after-<n>": lambda _, n: _stop("close", n),
    "reset-after-<n>": lambda _, n: _stop("reset", n),
    "stall-after-<n>": lambda _, n: _stop("silence", n),
    "cut-after-<n>-once": lambda past, n: _stop("close", n) if past.calls == 1 else OK,
    "reset-after-<n>-once": lambda past, n: _stop("reset", n) if past.calls == 1 else OK,
    "stall-after-<n>-once": lambda past, n: _stop("silence", n) if past.calls == 1 else OK,
    "malformed-event-<n>": lambda _, n: Behaviour(broken_events=range(int(n), int(n) + 1)),
    "malformed-all": lambda _: Behaviour(broken_events=range(1, 1_000_000)),
    "error-event-<n>": lambda _, n: Behaviour(error_event=int(n)),
    "no-done": lambda _: Behaviour(done=False),
    "no-finish": lambda _: Behaviour(finish=False, done=False),
    "done-without-content": lambda _: Behaviour(events=False),
    "empty-answer": lambda _: Behaviour(content=False),
    "hang-after-finish": lambda _: _stop("silence", "finish"),
    "wrong-length-short": lambda _: Behaviour(length_error=-10),
    "wrong-length-long": lambda _: Behaviour(length_error=10),
    "html-200": lambda _: _document(b"<html><body>Welcome to the captive portal</body></html>", "text/html"),
    "empty-200": lambda _: _document(b""),
    "bad-json-200": lambda _: _document(b'{"id": "chatcmpl-1", "choices": [{"index": 0, '),
    "error-200": lambda _: _document(json.dumps({"error": ERROR}).encode()),
    "status-<code>": lambda _, code: problem(int(code)),
    "429": lambda _: _rate_limited(),
    "429-retry-after-<s>": lambda _, s: _rate_limited(retry_after=_number(s)),
    "429-retry-after-ms-<ms>": lambda _, ms: _rate_limited(retry_after_ms=_number(ms)),
    "429-retry-after-date-<s>": lambda _, s: _rate_limited(retry_after=_date_in(s), date=_date_in(0)),
    "503-retry-after-<s>": lambda _, s: problem(503, retry_after=_number(s)),
    "insufficient-quota": lambda _: problem(
        429,
        {
            "message": "You exceeded your current quota, please check your plan and billing details.",
            "type": "insufficient_quota",
            "code": "insufficient_quota",
        },
    ),
    "context-length": lambda _: _invalid(
        400,
        "context_length_exceeded",
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens. "
        "Please reduce the length of the messages.",
        "messages",
    ),
    "content-policy": lambda _: _invalid(
        400,
        "content_policy_violation",
        "Your request was rejected as a result of our safety system.",
    ),
    "bad-key": lambda _: _invalid(401, "invalid_api_key", "Incorrect API key provided: sk-****."),
    "payment": lambda _: problem(402, {"message": "Insufficient credits.", "type": None, "code": 402}),
    "forbidden": lambda _: problem(
        403,
        {
            "message": "Country, region, or territory not supported",
            "type": "request_forbidden",
            "code": "unsupported_country_region_territory",
        },
    ),
    "flapping-<s>": lambda past, s: problem(503) if past.seconds < s else OK,
    "fail-<n>": lambda past, n: problem(500) if past.calls <= n else OK,
    "fail-<n>-reset": lambda past, n: _stop("reset", "before-head") if past.calls <= n else OK,
    "close-idle": lambda _: Behaviour(drops_next=True),
}
FORMS: Final = tuple(_FORMS)
"""The forms of all names, with `<...>` where numbers stand."""

_NUMBERS: Final = {"<n>": r"(\d+)", "<code>": r"([2-5]\d\d)", "<s>": r"(\d+(?:\.\d+)?)", "<ms>": r"(\d+)"}


def _date_in(seconds: float) -> str:
    return formatdate(time.time() + seconds, usegmt=True)


@functools.cache
def _patterns() -> tuple[tuple[re.Pattern[str], Callable[..., Behaviour]], ...]:
    return tuple(
        (re.compile(re.sub(r"<\w+>", lambda match: _NUMBERS[match[0]], form)), build)
        for form, build in _FORMS.items()
    )


def read_fault(name: str) -> Fault | None:
    """The fault of this name; None if there is none."""
    base, _, words = name.partition("@")
    if words and not words.isdecimal():
        return None
    turns = [turn for part in base.split("|") if (turn := _read_turn(part)) is not None]
    if len(turns) <= base.count("|"):
        return None
    return Fault(int(words) if words else None, tuple(turns))


def _read_turn(name: str) -> _Turn | None:
    for pattern, build in _patterns():
        if match := pattern.fullmatch(name):
            return build, tuple(float(number) for number in match.groups())
    return None
