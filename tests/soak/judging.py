"""Whether an answer is one that a gateway may give."""

import json
from typing import Any

from attrs import frozen

from tests.soak.http import Outcome


class Violation(Exception):
    """An answer that nobody may get."""


@frozen(kw_only=True)
class Expected:
    """What a request may be answered with.

    Attributes:
        text: The text of the answer; None if any will do that is not empty.
        may_fail: Whether an error is an answer, too.
        is_odd: What the upstream says with a status of 200 is no answer: it may pass as it is.
        statuses: If not empty, only these.
    """

    text: str | None = None
    may_fail: bool = False
    is_odd: bool = False
    statuses: tuple[int, ...] = ()


def judge(outcome: Outcome, expected: Expected, *, streamed: bool) -> str:
    """What kind of answer it is, in a word or two.

    Raises:
        Violation: It is none that is allowed.
    """
    kind = _kind(outcome, expected, streamed=streamed)
    if expected.statuses and outcome.status not in expected.statuses:
        raise Violation(f"{kind}, expected {expected.statuses}")
    return kind


def _kind(outcome: Outcome, expected: Expected, *, streamed: bool) -> str:
    if outcome.status is None:
        raise Violation("no answer, or none in time")
    if outcome.status >= 400:
        return _error(outcome, expected)
    if outcome.status != 200:
        raise Violation(f"status {outcome.status}")
    if outcome.is_stream:
        return _stream(outcome, expected)
    if not outcome.is_whole:
        if streamed or not expected.may_fail:
            raise Violation("an answer that breaks off")
        return "cut"
    if expected.is_odd:
        return "odd"
    try:
        choice = json.loads(outcome.body)["choices"][0]
    except (ValueError, LookupError, TypeError):
        raise Violation(f"200 with {outcome.body[:200]!r}") from None
    _check_text(choice.get("text") or (choice.get("message") or {}).get("content"), expected)
    return "answered"


def _error(outcome: Outcome, expected: Expected) -> str:
    if not outcome.is_whole:
        raise Violation(f"an error {outcome.status} that breaks off")
    try:
        error = json.loads(outcome.body)["error"]
        message = error["message"]
    except (ValueError, LookupError, TypeError):
        raise Violation(f"{outcome.status} with {outcome.body[:200]!r}") from None
    if not message or "x-request-id" not in outcome.headers:
        raise Violation(f"{outcome.status} without a message or an id: {outcome.headers}")
    if not expected.may_fail and outcome.status not in expected.statuses:
        raise Violation(f"{outcome.status} {message}")
    return f"error {outcome.status}"


def _stream(outcome: Outcome, expected: Expected) -> str:
    if not outcome.is_whole:
        raise Violation("a stream that ends without its last chunk")
    events = [data for event in outcome.body.split(b"\n\n") if (data := _data(event)) is not None]
    if not outcome.body.endswith(b"\n\n") or not events:
        raise Violation(f"a stream that ends in the middle of an event, or has none: {outcome.body[-200:]!r}")
    chunks = [_parsed(data) for data in events]
    text = ""
    for chunk in chunks[:-1]:
        if not isinstance(chunk, dict):
            if not expected.is_odd:
                raise Violation(f"an event that is no JSON object: {chunk!r}")
            continue
        if chunk.get("error"):
            raise Violation(f"something follows an error: {events[-1]!r}")
        for choice in chunk.get("choices") or ():
            text += choice.get("text") or (choice.get("delta") or {}).get("content") or ""
    last = chunks[-1]
    if events[-1].strip() == b"[DONE]":
        if not expected.is_odd:
            _check_text(text, expected)
        return "streamed"
    if isinstance(last, dict) and last.get("error"):
        if not expected.may_fail:
            raise Violation(f"an error in the stream: {last['error']}")
        return "error event"
    raise Violation(f"a stream that ends with neither [DONE] nor an error: {events[-1]!r}")


def _data(event: bytes) -> bytes | None:
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data


def _check_text(text: object, expected: Expected) -> None:
    if expected.text is not None and text != expected.text:
        raise Violation(f"the wrong text: {text!r}")
    if not text:
        raise Violation("an answer without text")
