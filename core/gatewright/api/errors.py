"""Write errors the way the official clients read them, and read those of upstreams.

An error once said stays an error: statuses decide about retries, codes about what a program does, messages about what
a person does.
"""

import math
import re
from email.utils import mktime_tz, parsedate_tz
from http import HTTPStatus
from typing import Any, Final

import msgspec
from attrs import asdict, evolve

from gatewright.api.facts import FIRST_ERROR_STATUS, ApiFormat, UpstreamError
from gatewright.errors import Problem
from gatewright.wire.fields import Headers, find_header

_ANTHROPIC_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_CONTENT_TYPE: Final = (b"content-type", b"application/json")


def render_problem(problem: Problem, format: ApiFormat = ApiFormat.OTHER) -> tuple[int, Headers, bytes]:  # noqa: A002 - the word that facts use
    """An error as a whole answer: status, headers and JSON body."""
    headers = [_CONTENT_TYPE]
    if problem.retry_after_s is not None:
        seconds = max(0.0, problem.retry_after_s)
        headers.append((b"retry-after", b"%d" % math.ceil(seconds)))
        headers.append((b"retry-after-ms", b"%d" % math.ceil(seconds * 1000)))
    if problem.should_retry is not None:
        headers.append((b"x-should-retry", b"true" if problem.should_retry else b"false"))
    if problem.status == HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    allow = problem.details.get("allow")
    if problem.status == HTTPStatus.METHOD_NOT_ALLOWED and isinstance(allow, str):
        headers.append((b"allow", allow.encode("latin-1", "replace")))
    return problem.status, tuple(headers), msgspec.json.encode(_envelope(problem, format))


def stream_error(problem: Problem, format: ApiFormat) -> bytes:  # noqa: A002 - the word that facts use
    """The last event of a stream that failed. No `[DONE]` may follow: it would make half an answer a whole one."""
    envelope = _envelope(problem, format)
    if format is ApiFormat.MESSAGES:
        return b"event: error\ndata: %b\n\n" % msgspec.json.encode(envelope)
    if format is ApiFormat.RESPONSES:
        # Its own clients look for the type, general ones for a member named "error".
        event = {"type": "error", "sequence_number": 0, **envelope["error"], **envelope}
        event["type"] = "error"
        return b"event: error\ndata: %b\n\n" % msgspec.json.encode(event)
    return b"data: %b\n\n" % msgspec.json.encode(envelope)


def stream_comment(text: str) -> bytes:
    """A comment in a stream, which every client skips."""
    return b": %b\n\n" % " ".join(text.split()).encode("utf-8", "replace")


def _envelope(problem: Problem, format: ApiFormat) -> dict[str, Any]:  # noqa: A002 - the word that facts use
    error: dict[str, Any] = {
        **problem.details,
        "message": problem.message,
        "type": problem.type,
        "param": problem.param,
        "code": problem.code,
    }
    if problem.attempts:
        error["attempts"] = [asdict(attempt) for attempt in problem.attempts]
    if format is not ApiFormat.MESSAGES:
        return {"error": error}
    client_fault = problem.status < HTTPStatus.INTERNAL_SERVER_ERROR
    fallback = "invalid_request_error" if client_fault else "api_error"
    error["type"] = _ANTHROPIC_TYPES.get(problem.status, fallback)
    return {"type": "error", "error": error}


# --- errors of upstreams

_MAX_MESSAGE_CHARACTERS: Final = 500
_MAX_READ_CHARACTERS: Final = 4096
"""Of an error text, before it is searched and shortened."""
_NAMELESS: Final = "an error that tells nothing of itself"
_LAST_STATUS: Final = 599
_LLAMA_OVERFLOW: Final = "exceed_context_size_error"
_OPENAI_OVERFLOW: Final = "context_length_exceeded"
_LOADING: Final = "loading model"
_TAG: Final = re.compile(r"<(script|style)\b.*?</\1>|<[^<>]*>", re.IGNORECASE | re.DOTALL)
_OVERFLOW_TEXTS: Final = (
    # Anthropic
    re.compile(r"prompt is too long: (?P<prompt>\d+) tokens > (?P<context>\d+)"),
    # vLLM, which goes on: However, you requested 2500 tokens (2000 in the messages, 500 in the completion)
    re.compile(
        r"maximum context length is (?P<context>\d+) tokens.*?\((?P<prompt>\d+) (?:in the messages|of text input|in your prompt)"
    ),
    # OpenAI
    re.compile(r"maximum context length is (?P<context>\d+) tokens.*?resulted in (?P<prompt>\d+) tokens"),
    re.compile(r"maximum context length is (?P<context>\d+) tokens(?P<prompt>)"),
    re.compile(r"prompt is too long(?P<prompt>)(?P<context>)"),
)


def read_upstream_error(status: int, headers: Headers, body: bytes) -> UpstreamError:
    """What an answer with a status of 400 or above says.

    Args:
        status: Its status.
        headers: Its headers, names in lower case.
        body: Its body, or as much of it as was read.
    """
    retry_after_s = _retry_after(headers)
    error = _error_object(body)
    if error is None:
        text = _TAG.sub(" ", body[:_MAX_READ_CHARACTERS].decode("utf-8", "replace"))
        return UpstreamError(message=_one_line(text) or f"HTTP status {status}", retry_after_s=retry_after_s)
    return evolve(_read_error(status, error), retry_after_s=retry_after_s)


def read_answer_error(headers: Headers, document: bytes) -> UpstreamError:
    """What an error says that came with a good status: in the place of an answer, or in the middle of one.

    Args:
        headers: Of the answer, names in lower case.
        document: The JSON that holds the error, alone or among other things.
    """
    error = _error_object(document)
    if error is None:
        text = document[:_MAX_READ_CHARACTERS].decode("utf-8", "replace")
        return UpstreamError(message=_one_line(text) or _NAMELESS, retry_after_s=_retry_after(headers))
    status = _named_status(error)
    return evolve(_read_error(status, error), retry_after_s=_retry_after(headers), status=status)


def _read_error(status: int | None, error: dict[str, Any]) -> UpstreamError:
    message = _text(error.get("message")) or _text(error.get("detail")) or ""
    kind, code = _text(error.get("type")), _text(error.get("code"))
    prompt_tokens, context_tokens = _number(error.get("n_prompt_tokens")), _number(error.get("n_ctx"))
    overflow = kind == _LLAMA_OVERFLOW or code == _OPENAI_OVERFLOW
    if status in {None, 400, 413, 422} and prompt_tokens is None:
        match = next((found for text in _OVERFLOW_TEXTS if (found := text.search(message))), None)
        if match is not None:
            overflow = True
            prompt_tokens, context_tokens = _number(match["prompt"]), _number(match["context"])
    return UpstreamError(
        message=_one_line(message) or (_NAMELESS if status is None else f"HTTP status {status}"),
        type=kind,
        code=code,
        overflow=overflow,
        prompt_tokens=prompt_tokens,
        context_tokens=context_tokens,
        loading=status == HTTPStatus.SERVICE_UNAVAILABLE and _LOADING in message.lower(),
    )


def _named_status(error: dict[str, Any]) -> int | None:
    """The HTTP status that an error names in its own words: a number, in one of the members where it is found."""
    for name in ("code", "status", "status_code"):
        number = _number(error.get(name))
        if number is not None and FIRST_ERROR_STATUS <= number <= _LAST_STATUS:
            return number
    return None


def _error_object(body: bytes) -> dict[str, Any] | None:
    """The object with the message: under "error" in most APIs, the document itself in others."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(document, list) and document:
        document = document[0]  # Google's
    if not isinstance(document, dict):
        return None
    response = document.get("response")
    if isinstance(response, dict) and not document.get("error"):
        document = response  # of an event of OpenAI's responses
    error = document.get("error")
    if isinstance(error, dict):
        return error
    return {**document, "message": error} if isinstance(error, str) else document


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return value[:_MAX_READ_CHARACTERS] or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def _number(value: object) -> int | None:
    if isinstance(value, str):
        return int(value) if value.isdecimal() and len(value) < 19 else None  # noqa: PLR2004 - fits 64 bits
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_MESSAGE_CHARACTERS else line[: _MAX_MESSAGE_CHARACTERS - 1] + "…"


def _retry_after(headers: Headers) -> float | None:
    """Seconds. A date is taken against the upstream's own clock, which `Date` tells (RFC 9110, 10.2.3)."""
    for name, divisor in ((b"retry-after-ms", 1000.0), (b"retry-after", 1.0)):
        value = find_header(headers, name)
        if value is not None:
            try:
                seconds = float(value) / divisor
            except ValueError:
                until, now = _unix_time(value), _unix_time(find_header(headers, b"date"))
                if until is None or now is None:
                    continue
                seconds = float(max(0, until - now))
            if math.isfinite(seconds) and seconds >= 0:
                return seconds
    return None


def _unix_time(date: str | None) -> int | None:
    parts = parsedate_tz(date) if date is not None else None
    try:
        return None if parts is None else mktime_tz(parts)
    except (ValueError, OverflowError):
        return None
