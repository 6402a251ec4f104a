"""Passing an upstream's answer on to the client.

`gatewright_host.blocking.relay` does the same for a thread.
"""

from typing import assert_never

from gatewright.api.facts import Resumable
from gatewright.commands import BeginRelay
from gatewright.events import RelayEnded, RelayFailure
from gatewright.wire.client import forwardable_headers
from gatewright.wire.fields import encode_headers
from gatewright.wire.sent_answer import SentAnswer
from gatewright.wire.server import NeedData
from gatewright.wire.upstream_answer import AnswerEnded, RelayBroken, UpstreamAnswer
from gatewright_asyncio.answer import Answer
from gatewright_asyncio.streams import StreamLost, StreamTimeout
from gatewright_asyncio.upstreams import Connection
from gatewright_host.upstream_calls import LAST_WORDS_S, MOST_KEPT_BYTES, UNBUFFERED, RelayStopped


class Relay:
    """One answer on its way.

    Args:
        command: What the Gateway said.
        upstream: The answer, which has begun.
        connection: Where the rest of it comes from.
        answer: Way to the client.
        sent: What the client has of it.
        kept: Takes a copy of the body, up to `MOST_KEPT_BYTES`; None where none is wanted.
    """

    def __init__(
        self,
        command: BeginRelay,
        upstream: UpstreamAnswer,
        connection: Connection,
        answer: Answer,
        sent: SentAnswer,
        *,
        kept: bytearray | None = None,
    ) -> None:
        self._command = command
        self._upstream = upstream
        self._stream = connection.stream
        self._answer = answer
        self._sent = sent
        self._kept = kept
        self._pieces: list[bytes] = []

    async def run(self) -> RelayEnded:
        """Pass everything on, up to the end or a failure; the caller deals with the connection."""
        stopped: RelayStopped | None = None
        try:
            await self._pass_on()
        except RelayStopped as reason:
            stopped = reason
            if self._upstream.in_event:
                # Whatever error event follows must not become part of half an event.
                self._answer.stream.write(self._answer.body(b"\n\n"))
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

    async def _pass_on(self) -> None:
        if not self._answer.begun:
            self._begin()
        while True:
            match self._upstream.pass_on():
                case NeedData():
                    await self._flush()
                    await self._receive()
                case AnswerEnded():
                    self._take()
                    self._pieces.append(self._answer.end())
                    self._write()
                    return
                case RelayBroken(failure=failure, reason=reason, error=error):
                    self._take()
                    self._write()
                    raise RelayStopped(failure, reason, error)
                case _ as unreachable:
                    assert_never(unreachable)

    def _begin(self) -> None:
        head = self._upstream.head
        assert head is not None
        headers = forwardable_headers(head.headers) + encode_headers(self._command.headers)
        if self._upstream.is_event_stream:
            headers += UNBUFFERED
        self._pieces.append(self._answer.head(head.status, headers, self._upstream.content_length))

    def _take(self) -> None:
        if data := self._upstream.take():
            if self._kept is not None:
                self._kept += data[: MOST_KEPT_BYTES - len(self._kept)]
            self._pieces.append(self._answer.body(data))

    def _write(self) -> None:
        if self._pieces:
            self._answer.stream.write(self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces))
            self._pieces.clear()

    async def _flush(self) -> None:
        self._take()
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
        timeout_s = self._command.stall_timeout_s
        if self._upstream.is_finished:
            timeout_s = min(timeout_s, LAST_WORDS_S)
        try:
            self._upstream.receive(await self._stream.read(timeout_s))
        except StreamTimeout:
            self._upstream.give_up(RelayFailure.STALLED, f"the upstream was silent for {timeout_s:g} s")
        except StreamLost as error:
            self._upstream.give_up(RelayFailure.BROKEN, str(error))
