"""Passing an upstream's answer on to the client, byte for byte through a tap."""

from collections.abc import Generator
from contextlib import suppress
from typing import assert_never

from attrs import define

from gatewright.api.facts import FIRST_ERROR_STATUS, ApiFormat
from gatewright.commands import BeginRelay
from gatewright.events import RelayEnded, RelayFailure
from gatewright.wire.client import BodyData, ResponseEnd, ResponseHead, UpstreamBroken, forwardable_headers
from gatewright.wire.fields import encode_headers
from gatewright.wire.server import NeedData
from gatewright.wire.taps import StreamTap, make_tap
from gatewright_host.blocking.sink import ClientLost, Sink
from gatewright_host.blocking.streams import StreamLost, StreamTimeout
from gatewright_host.blocking.upstreams import Connection
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
        sink: Way to the client.
        format: API family of the request.
    """

    def __init__(self, command: BeginRelay, held: HeldAnswer, sink: Sink, format: ApiFormat) -> None:  # noqa: A002  # as in facts
        self._command = command
        self._held = held
        self._sink = sink
        self._tap = make_tap(format, held.head.get("content-type"), held.head.get("content-encoding"))
        self._relayed_bytes = 0

    def run(self) -> Generator[None, None, RelayEnded]:
        """Pass everything on, up to the end or a failure; the caller deals with the connection.

        Stops before each wait for the upstream.
        """
        failure: RelayFailure | None = None
        reason = ""
        try:
            yield from self._pass_on()
        except RelayStopped as stopped:
            failure, reason = stopped.failure, stopped.reason
            if self._tap.in_event:
                # Whatever error event follows must not become part of half an event.
                with suppress(ClientLost):
                    self._sink.write(b"\n\n")
        except ClientLost as error:
            failure, reason = RelayFailure.CLIENT_GONE, str(error)
        return RelayEnded(
            command_id=self._command.command_id,
            failure=failure,
            reason=reason,
            usage=self._tap.usage,
            finish_reason=self._tap.finish_reason,
            relayed_bytes=self._relayed_bytes,
        )

    def _pass_on(self) -> Generator[None, None, None]:
        head = self._held.head
        if not self._sink.begun:
            headers = forwardable_headers(head.headers) + encode_headers(self._command.headers)
            if isinstance(self._tap, StreamTap):
                headers += UNBUFFERED
            self._sink.begin(head.status, headers, head.content_length)
        self._take(self._tap.feed(self._held.body))
        while not self._held.ended:
            yield
            self._receive()
        self._take(self._tap.finish())
        if not self._tap.complete and head.status < FIRST_ERROR_STATUS:
            raise RelayStopped(RelayFailure.INCOMPLETE, "the upstream's stream ended without its last event")
        self._sink.end()

    def _take(self, data: bytes) -> None:
        if data:
            self._relayed_bytes += len(data)
            self._sink.write(data)

    def _receive(self) -> None:
        exchange, stream = self._held.connection.exchange, self._held.connection.stream
        match exchange.next_event():
            case NeedData():
                try:
                    exchange.receive(stream.read(self._command.stall_timeout_s))
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
