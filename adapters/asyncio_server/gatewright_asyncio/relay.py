"""Passing an upstream's answer on to the client, byte for byte through a tap."""

from typing import assert_never

from attrs import define

from gatewright.api.facts import FIRST_ERROR_STATUS, ApiFormat
from gatewright.commands import BeginRelay
from gatewright.events import RelayEnded, RelayFailure
from gatewright.wire.client import BodyData, ResponseEnd, ResponseHead, UpstreamBroken, forwardable_headers
from gatewright.wire.fields import encode_headers
from gatewright.wire.server import NeedData
from gatewright.wire.taps import StreamTap, make_tap
from gatewright_asyncio.answer import Answer
from gatewright_asyncio.streams import StreamLost, StreamTimeout
from gatewright_asyncio.upstreams import Connection
from gatewright_host.upstream_calls import UNBUFFERED, RelayStopped


@define(eq=False)
class HeldAnswer:
    """An upstream's answer that is not passed on yet.

    Attributes:
        connection: Where the rest comes from.
        head: Its head.
        body: What has come of its body.
        ended: Whether that is all.
    """

    connection: Connection
    head: ResponseHead
    body: bytes
    ended: bool


class Relay:
    """One answer on its way.

    Args:
        command: What the Gateway said.
        held: The upstream's answer.
        answer: Way to the client.
        format_: API family of the request.
    """

    def __init__(self, command: BeginRelay, held: HeldAnswer, answer: Answer, format_: ApiFormat) -> None:
        self._command = command
        self._held = held
        self._answer = answer
        self._tap = make_tap(format_, held.head.get("content-type"), held.head.get("content-encoding"))
        self._pieces: list[bytes] = []
        self._relayed_bytes = 0

    async def run(self) -> RelayEnded:
        """Pass everything on, up to the end or a failure; the caller deals with the connection."""
        failure: RelayFailure | None = None
        reason = ""
        try:
            await self._pass_on()
        except RelayStopped as stopped:
            failure, reason = stopped.failure, stopped.reason
            if self._tap.in_event:
                # Whatever error event follows must not become part of half an event.
                self._answer.stream.write(self._answer.body(b"\n\n"))
        return RelayEnded(
            command_id=self._command.command_id,
            failure=failure,
            reason=reason,
            usage=self._tap.usage,
            finish_reason=self._tap.finish_reason,
            relayed_bytes=self._relayed_bytes,
        )

    async def _pass_on(self) -> None:
        head = self._held.head
        if not self._answer.begun:
            headers = forwardable_headers(head.headers) + encode_headers(self._command.headers)
            if isinstance(self._tap, StreamTap):
                headers += UNBUFFERED
            self._pieces.append(self._answer.head(head.status, headers, head.content_length))
        self._take(self._tap.feed(self._held.body))
        while not self._held.ended:
            await self._flush()
            await self._receive()
        self._take(self._tap.finish())
        if self._tap.complete or self._held.head.status >= FIRST_ERROR_STATUS:
            self._pieces.append(self._answer.end())
            self._write()
        else:
            self._write()
            raise RelayStopped(RelayFailure.INCOMPLETE, "the upstream's stream ended without its last event")

    def _take(self, data: bytes) -> None:
        if data:
            self._relayed_bytes += len(data)
            self._pieces.append(self._answer.body(data))

    def _write(self) -> None:
        self._answer.stream.write(self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces))
        self._pieces.clear()

    async def _flush(self) -> None:
        if not self._pieces:
            return
        self._write()
        try:
            await self._answer.stream.drain(self._command.stall_timeout_s)
        except StreamTimeout:
            self._answer.stream.abort()
            raise RelayStopped(RelayFailure.CLIENT_GONE, "the client takes nothing any more") from None
        except StreamLost:
            raise RelayStopped(RelayFailure.CLIENT_GONE, "the client closed the connection") from None

    async def _receive(self) -> None:
        exchange, stream = self._held.connection.exchange, self._held.connection.stream
        match exchange.next_event():
            case NeedData():
                try:
                    exchange.receive(await stream.read(self._command.stall_timeout_s))
                except StreamTimeout:
                    text = f"the upstream was silent for {self._command.stall_timeout_s:g} s"
                    raise RelayStopped(RelayFailure.STALLED, text) from None
                except StreamLost as error:
                    raise RelayStopped(RelayFailure.BROKEN, str(error)) from None
            case BodyData(data=data):
                self._take(self._tap.feed(data))
            case ResponseEnd():
                self._held.ended = True
            case UpstreamBroken(reason=reason):
                raise RelayStopped(RelayFailure.BROKEN, reason)
            case ResponseHead():
                raise AssertionError("a second head")
            case _ as unreachable:
                assert_never(unreachable)
