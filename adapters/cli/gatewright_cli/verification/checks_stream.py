"""Checks of answers that come piece by piece."""

import time
from http import HTTPStatus
from typing import Any, Final

from gatewright_cli.verification.check import CHAT, NO_MODEL, Checks, Probe
from gatewright_cli.verification.checks_chat import ROOM_TOKENS, TOOL, check_call, choice_of, supported
from gatewright_cli.verification.client import StreamEvent
from gatewright_cli.verification.outcome import (
    CLIENT_ERRORS,
    Skipped,
    error_of,
    expect,
    expect_status,
    parse_object,
    shown,
)

checks = Checks()

DONE: Final = "[DONE]"
_LONG_TOKENS: Final = 96
_TELLING_S: Final = 0.25
"""What is made in less time may well arrive in one piece."""
_SPREAD_SHARE: Final = 0.25


def read_stream(probe: Probe, body: dict[str, Any], *, optional: str | None = None) -> list[StreamEvent]:
    """All events of a streamed answer.

    Args:
        probe: The gateway.
        body: The request.
        optional: What of it a gateway may refuse, if anything.

    Raises:
        Failed: It is no stream.
        Skipped: What is optional is refused.
    """
    with probe.client.stream(CHAT, body) as stream:
        if stream.status != HTTPStatus.OK:
            answer = stream.answer()
            if optional is not None:
                supported(answer, optional)
            expect_status(answer, (HTTPStatus.OK,), "200 and a stream")
        kind = dict(stream.headers).get("content-type", "")
        expect(kind.partition(";")[0] == "text/event-stream", "content-type text/event-stream", kind)
        return list(stream.events())


def chunks_of(events: list[StreamEvent]) -> list[dict[str, Any]]:
    """The documents of a stream that ended well.

    Raises:
        Failed: It did not.
    """
    expect(events, "events", "none")
    expect(events[-1].data == DONE, "[DONE] at the end", events[-1].data)
    chunks = [parse_object(event.data) for event in events[:-1]]
    for chunk in chunks:
        expect(not chunk.get("error"), "no error in the stream", chunk)
    return chunks


def _choices(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [choice for chunk in chunks for choice in chunk.get("choices") or ()]


@checks.check("stream", "a stream is server-sent events up to one finish_reason and [DONE]")
def _stream(probe: Probe) -> None:
    chunks = chunks_of(read_stream(probe, probe.chat_body()))
    kinds = {chunk.get("object") for chunk in chunks}
    expect(kinds == {"chat.completion.chunk"}, "chunks", [*kinds])
    ids = {chunk.get("id") for chunk in chunks}
    expect(len(ids) == 1, "one id in all chunks", [*ids])
    reasons = [choice["finish_reason"] for choice in _choices(chunks) if choice.get("finish_reason")]
    expect(len(reasons) == 1, "one finish_reason", reasons)


@checks.check("stream-usage", "with stream_options.include_usage the stream tells its tokens")
def _usage(probe: Probe) -> None:
    body = probe.chat_body(stream_options={"include_usage": True})
    found = [chunk["usage"] for chunk in chunks_of(read_stream(probe, body)) if chunk.get("usage")]
    expect(found, "usage in one of the chunks", "none")
    expect(found[-1].get("prompt_tokens"), "prompt_tokens above 0", found[-1])


@checks.check("stream-same", "a stream and an answer in one piece say the same at temperature 0")
def _same(probe: Probe) -> None:
    settings: dict[str, Any] = {"temperature": 0, "seed": 1, "max_tokens": 12}
    first, again = (choice_of(probe.completion(**settings)).get("message") or {} for _ in range(2))
    if first.get("content") != again.get("content"):
        raise Skipped("the model does not repeat itself")
    choices = _choices(chunks_of(read_stream(probe, probe.chat_body(**settings))))
    text = "".join((choice.get("delta") or {}).get("content") or "" for choice in choices)
    expect(text == (again.get("content") or ""), f"{shown(again.get('content'))} as in one piece", text)


@checks.check("stream-tools", "a call of a tool arrives whole in a stream")
def _tools(probe: Probe) -> None:
    question = "What is the weather in Rome?"
    body = probe.chat_body(question, max_tokens=ROOM_TOKENS, tools=[TOOL], tool_choice="required")
    choices = _choices(chunks_of(read_stream(probe, body, optional="tools")))
    if any(choice.get("finish_reason") == "length" for choice in choices):
        raise Skipped(f"the call was not complete after {ROOM_TOKENS} tokens")
    pieces = [
        call.get("function") or {}
        for choice in choices
        for call in (choice.get("delta") or {}).get("tool_calls") or ()
        if call.get("index", 0) == 0
    ]
    names = [piece["name"] for piece in pieces if piece.get("name")]
    if not names and any(choice.get("finish_reason") == "stop" for choice in choices):
        raise Skipped("the model answers in words, and calls no tool")
    expect(len(names) == 1, "the tool's name once", names)
    arguments = "".join(piece.get("arguments") or "" for piece in pieces)
    check_call({"function": {"name": names[0], "arguments": arguments}})


@checks.check("stream-flows", "pieces of a stream arrive as they are made")
def _flows(probe: Probe) -> None:
    question = "Count from one to a hundred."

    def run(tokens: int) -> tuple[float, list[StreamEvent]]:
        began_at_s = time.monotonic()
        events = read_stream(probe, probe.chat_body(question, max_tokens=tokens))
        expect(events, "events", "none")
        return events[-1].at_s - began_at_s, events

    run(1)  # an engine may have to start, and reads the prompt
    short_s, _ = run(1)
    long_s, events = run(_LONG_TOKENS)
    making_s = long_s - short_s
    if making_s < _TELLING_S:
        raise Skipped(f"{_LONG_TOKENS} tokens take {max(making_s, 0):.2f} s, too little to tell")
    spread_s = events[-1].at_s - events[0].at_s
    expect(
        spread_s >= _SPREAD_SHARE * making_s,
        f"pieces over {making_s:.1f} s",
        f"all of them within {spread_s:.2f} s at the end",
    )


@checks.check("stream-left", "a client that leaves in the middle of a stream leaves all well behind it")
def _left(probe: Probe) -> None:
    with probe.client.stream(CHAT, probe.chat_body("Tell a story.", max_tokens=ROOM_TOKENS)) as stream:
        if stream.status != HTTPStatus.OK:
            expect_status(stream.answer(), (HTTPStatus.OK,), "200 and a stream")
        next(stream.events(), None)
    probe.completion()


@checks.check("stream-refused", "a stream that cannot begin is refused by its status")
def _refused(probe: Probe) -> None:
    with probe.client.stream(CHAT, probe.chat_body(model=NO_MODEL)) as stream:
        answer = stream.answer()
    error_of(answer, CLIENT_ERRORS, "a status of 4xx")
