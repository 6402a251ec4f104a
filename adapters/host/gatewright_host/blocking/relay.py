"""Passing an upstream's answer on to the client.

`gatewright_asyncio.relay` does the same on an event loop.
"""

from collections.abc import Generator
from contextlib import suppress
from typing import assert_never

from gatewright.api.facts import Resumable
from gatewright.commands import BeginRelay
from gatewright.events import RelayEnded, RelayFailure
from gatewright.wire.client import forwardable_headers
from gatewright.wire.fields import encode_headers
from gatewright.wire.sent_answer import SentAnswer
from gatewright.wire.server import NeedData
from gatewright.wire.upstream_answer import AnswerEnded, RelayBroken, UpstreamAnswer
from gatewright_host.blocking.sink import ClientLost, Sink
from gatewright_host.blocking.streams import StreamLost, StreamTimeout
from gatewright_host.blocking.upstreams import Connection
from gatewright_host.upstream_calls import LAST_WORDS_S, MOST_KEPT_BYTES, UNBUFFERED, RelayStopped


class Relay:
    """One answer on its way.

    Args:
        command: What the Gateway said.
        upstream: The answer, which has begun.
        connection: Where the rest of it comes from.
        sink: Way to the client.
        sent: What the client has of it.
        kept: Takes a copy of the body, up to `MOST_KEPT_BYTES`; None where none is wanted.
    """

    def __init__(
        self,
        command: BeginRelay,
        upstream: UpstreamAnswer,
        connection: Connection,
        sink: Sink,
        sent: SentAnswer,
        *,
        kept: bytearray | None = None,
    ) -> None:
        self._command = command
        self._upstream = upstream
        self._stream = connection.stream
        self._sink = sink
        self._sent = sent
        self._kept = kept

    def run(self) -> Generator[None, None, RelayEnded]:
        """Pass everything on, up to the end or a failure; the caller deals with the connection.

        Stops before each wait for the upstream, and now and then while it waits.
        """
        stopped: RelayStopped | None = None
        try:
            yield from self._pass_on()
        except RelayStopped as reason:
            stopped = reason
            if self._upstream.in_event:
                # Whatever error event follows must not become part of half an event.
                with suppress(ClientLost):
                    self._sink.write(b"\n\n")
        except ClientLost as error:
            stopped = RelayStopped(RelayFailure.CLIENT_GONE, str(error))
        return RelayEnded(
            command_id=self._command.command_id,
            failure=stopped.failure if stopped is not None else None,
            reason=stopped.reason if stopped is not None else "",
            usage=self._upstream.usage,
            finish_reason=self._upstream.finish_reason,
            relayed_bytes=self._upstream.relayed_bytes,
            relayed_tokens=self._upstream.relayed_tokens,
            error=stopped.error if stopped is not None else None,
            resumable=self._sent.resumable if stopped is not None else Resumable.NO,
        )

    def _pass_on(self) -> Generator[None, None, None]:
        if not self._sink.begun:
            self._begin()
        while True:
            match self._upstream.pass_on():
                case NeedData():
                    self._take()
                    yield
                    yield from self._receive()
                case AnswerEnded():
                    self._take()
                    self._sink.end()
                    return
                case RelayBroken(failure=failure, reason=reason, error=error):
                    self._take()
                    raise RelayStopped(failure, reason, error)
                case _ as unreachable:
                    assert_never(unreachable)

    def _begin(self) -> None:
        head = self._upstream.head
        assert head is not None
        headers = forwardable_headers(head.headers) + encode_headers(self._command.headers)
        if self._upstream.is_event_stream:
            headers += UNBUFFERED
        self._sink.begin(head.status, headers, self._upstream.content_length)

    def _take(self) -> None:
        if data := self._upstream.take():
            if self._kept is not None:
                self._kept += data[: MOST_KEPT_BYTES - len(self._kept)]
            self._sink.write(data)

    def _receive(self) -> Generator[None, None, None]:
        timeout_s = self._command.stall_timeout_s
        if self._upstream.is_finished:
            timeout_s = min(timeout_s, LAST_WORDS_S)
        try:
            self._upstream.receive((yield from self._stream.read_in_steps(timeout_s)))
        except StreamTimeout:
            self._upstream.give_up(RelayFailure.STALLED, f"the upstream was silent for {timeout_s:g} s")
        except StreamLost as error:
            self._upstream.give_up(RelayFailure.BROKEN, str(error))
