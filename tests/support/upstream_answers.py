"""Upstreams' answers for `UpstreamAnswer`: written down in one line, driven to their end in pieces of any size."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import msgspec
from attrs import frozen

from gatewright.api.facts import ApiFormat, Continuation, RequestFacts, Resumable, Usage
from gatewright.wire.client import ClientExchange
from gatewright.wire.sent_answer import SentAnswer
from gatewright.wire.server import NeedData
from gatewright.wire.upstream_answer import Begun, UpstreamAnswer
from gatewright.wire.verdicts import CallBroken, HoldVerdict, PassVerdict

EVENTS = "text/event-stream"
JSON = "application/json"
DONE = b"data: [DONE]\n\n"


def facts(api_format: ApiFormat = ApiFormat.CHAT, choices: int = 1) -> RequestFacts:
    return RequestFacts(path="/x", format=api_format, stream=True, choices=choices)


def event(document: Any) -> bytes:
    return b"data: " + msgspec.json.encode(document) + b"\n\n"


def delta(finish_reason: str | None = None, index: int = 0, **members: Any) -> bytes:
    """A chunk of chat, as the first upstream sends it."""
    choice = {"index": index, "delta": members, "finish_reason": finish_reason}
    return event({"id": "one", "object": "chat.completion.chunk", "created": 1, "choices": [choice]})


def response(
    body: bytes,
    content_type: str | None = EVENTS,
    status: int = 200,
    framing: str = "length",
    headers: str = "",
) -> bytes:
    """A whole answer; `framing` is "length", "chunked" (many chunks) or "close"."""
    head = f"HTTP/1.1 {status} X\r\n{headers}"
    if content_type is not None:
        head += f"Content-Type: {content_type}\r\n"
    if framing == "length":
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    if framing == "close":
        return f"{head}\r\n".encode() + body
    pieces = [body[at : at + 50] for at in range(0, len(body), 50)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n"


@frozen(kw_only=True)
class Outcome:
    """All that can be seen of an answer from outside; of what came behind a broken call, nothing."""

    held: HoldVerdict | NeedData
    passed: PassVerdict | NeedData | None
    out: bytes
    usage: Usage | None
    relayed_tokens: int
    finish_reason: str | None
    is_event_stream: bool
    is_finished: bool
    resumable: Resumable


def drive(
    pieces: list[bytes],
    request: RequestFacts,
    sent: SentAnswer | None = None,
    continuation: Continuation | None = None,
    *,
    eof: bool = True,
) -> Outcome:
    """Receive piece after piece and, with `eof`, the end of the connection."""
    exchange = ClientExchange()
    exchange.request_bytes("POST", "upstream", "/x", (), b"{}")
    sent = sent or SentAnswer(request)
    answer = UpstreamAnswer(exchange, request, sent, continuation)
    held: HoldVerdict | NeedData = answer.hold()
    passed: PassVerdict | NeedData | None = None
    out = b""
    for piece in [*pieces, b""] if eof else pieces:
        answer.receive(piece)
        if isinstance(held, NeedData):
            held = answer.hold()
        if isinstance(held, Begun):
            passed = answer.pass_on()
            out += answer.take()
    assert answer.take() == b""
    assert answer.relayed_bytes == len(out)
    is_broken = isinstance(held, CallBroken)
    return Outcome(
        held=held,
        passed=passed,
        out=out,
        usage=None if is_broken else answer.usage,
        relayed_tokens=0 if is_broken else answer.relayed_tokens,
        finish_reason=None if is_broken else answer.finish_reason,
        is_event_stream=answer.is_event_stream,
        is_finished=answer.is_finished and not is_broken,
        resumable=sent.resumable,
    )


def splits(data: bytes, step: int = 1) -> Iterator[list[bytes]]:
    """Whole, split at every point, byte by byte."""
    yield [data]
    for at in range(1, len(data), step):
        yield [data[:at], data[at:]]
    yield [data[at : at + 1] for at in range(len(data))]


def cut(data: bytes, points: list[int]) -> list[bytes]:
    """Split at these points, as far as they are within."""
    bounds = [0, *sorted(point for point in set(points) if 0 < point < len(data)), len(data)]
    return [data[a:b] for a, b in pairwise(bounds)]
