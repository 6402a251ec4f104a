"""One request's thread: carries out, in order, what the Gateway commands for it. One method per command."""

import logging
import threading
from collections.abc import Generator
from queue import SimpleQueue
from time import monotonic
from typing import Final, assert_never

from attrs import evolve

from gatewright.api.counting import prompt_text
from gatewright.api.facts import FIRST_ERROR_STATUS
from gatewright.commands import (
    BeginRelay,
    BeginStream,
    CallUpstream,
    CountTokens,
    CutConnection,
    DiscardAnswer,
    FailStream,
    RecordRequest,
    SendComment,
    SendProblem,
)
from gatewright.events import (
    CallFailure,
    ClientGone,
    RelayEnded,
    RelayFailure,
    RequestReceived,
    TokenCountFailed,
    TokensCounted,
    UpstreamAnswered,
    UpstreamFailed,
)
from gatewright.wire.client import BodyData, ResponseEnd, ResponseHead, UpstreamBroken
from gatewright.wire.fields import encode_headers
from gatewright.wire.server import NeedData
from gatewright_host.blocking.driver import Driver
from gatewright_host.blocking.relay import HeldAnswer, Relay
from gatewright_host.blocking.sink import ClientLost, Sink
from gatewright_host.blocking.streams import Stream, StreamLost, StreamTimeout
from gatewright_host.blocking.upstreams import Connection, UpstreamPool
from gatewright_host.driving import RequestCommand
from gatewright_host.tokenizer_program import count_with_program
from gatewright_host.upstream_calls import (
    COUNT_TIMEOUT_S,
    ERROR_BODY_BYTES,
    EVENT_STREAM,
    UNBUFFERED,
    Address,
    ClientRequest,
    UpstreamRequest,
    count_request,
    read_count,
    upstream_answered,
    upstream_request,
)

LOOK_UP_S: Final = 1.0
"""How often a thread that waits for an upstream looks up, to tell its client what it should hear meanwhile."""

Work = Generator[
    None, None, UpstreamAnswered | UpstreamFailed | RelayEnded | TokensCounted | TokenCountFailed
]
"""A command on its way to its completion; stops where its thread may look up."""


logger: Final = logging.getLogger("gatewright.gateway")


class Exchange:
    """One request, from `RequestReceived` to `RecordRequest`.

    Args:
        driver: Where events go.
        pool: Connections to upstreams.
        sink: Way back to the client.
        request: The request.

    Attributes:
        record: How it ended, once it has.
    """

    def __init__(self, driver: Driver, pool: UpstreamPool, sink: Sink, request: ClientRequest) -> None:
        self.record: RecordRequest | None = None
        self._driver = driver
        self._pool = pool
        self._sink = sink
        self._request = request
        self._id = request.request_id
        self._facts = request.facts
        self._commands: SimpleQueue[RequestCommand] = SimpleQueue()
        self._lock = threading.Lock()  # over the next two, for `cancel`
        self._canceled = False
        self._connection: Connection | None = None
        self._held: HeldAnswer | None = None
        self._work: Work | None = None

    # --- called by the driver, in any thread

    def put(self, command: RequestCommand) -> None:
        """Take a command to be carried out in turn."""
        self._commands.put(command)

    def cancel(self) -> None:
        """Stop the call, count or relay under way; an attempt to connect runs into its timeout instead."""
        with self._lock:
            self._canceled = True
            if self._connection is not None:
                self._connection.stream.abort()

    # --- called by whoever knows that the client has gone, in any thread

    def client_lost(self) -> None:
        """Nobody waits for the answer any more."""
        self._driver.submit(ClientGone(request_id=self._id))

    # --- the request's own thread

    def run(self) -> RecordRequest:
        """Carry the request through to its end, and say how it ended."""
        self.begin()
        while self.step():
            pass
        assert self.record is not None
        return self.record

    def begin(self) -> None:
        """Tell the Gateway of the request; `step` has to follow until it returns False."""
        self._driver.open_mailbox(self._id, self)
        self._driver.submit(RequestReceived(request_id=self._id, facts=self._facts))

    def step(self) -> bool:
        """Do one thing, or wait a while for one: a command, or a piece of a call or relay. False after the last.

        Between two steps a generator can pass on what its sink has collected. Whoever has nobody to pass it on to
        any more calls `client_lost` and goes on to the end, which is near then.
        """
        if self._work is not None and self._commands.empty():
            self._go_on(self._work)
        else:
            try:
                self._carry_out(self._commands.get())
            except ClientLost:
                self.client_lost()
        return self.record is None

    def _go_on(self, work: Work) -> None:
        try:
            next(work)
        except StopIteration as end:
            self._work = None
            self._driver.submit(end.value)

    def _carry_out(self, command: RequestCommand) -> None:
        match command:
            case CallUpstream():
                self._work = self._call(command)
            case BeginRelay():
                self._work = self._relay(command)
            case CountTokens():
                self._work = self._count(command)
            case DiscardAnswer():
                self._drop_upstream()
            case BeginStream(headers=headers):
                self._sink.begin(200, EVENT_STREAM + UNBUFFERED + encode_headers(headers), None)
            case SendComment(text=text):
                self._sink.comment(text)
            case SendProblem(problem=problem, headers=headers):
                self._sink.problem(problem, self._facts.format, encode_headers(headers))
            case FailStream(problem=problem):
                self._sink.fail_stream(problem, self._facts.format)
            case CutConnection():
                self._sink.cut()
            case RecordRequest():
                self._drop_upstream()
                self.record = command
            case _ as unreachable:
                assert_never(unreachable)

    def _drop_upstream(self) -> None:
        """Close a connection that is in the middle of an exchange, keep one that is not."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.give_back(connection)
        self._held = None

    # --- calling

    def _call(self, command: CallUpstream) -> Generator[None, None, UpstreamAnswered | UpstreamFailed]:
        try:
            held = yield from self._hold_answer(command)
        except StreamTimeout:
            return self._call_failed(command, CallFailure.TIMEOUT, "no answer in time")
        except OSError as error:
            return self._call_failed(command, CallFailure.UNREACHABLE, f"cannot connect: {error}")
        except StreamLost as error:
            return self._call_failed(command, CallFailure.BROKEN, str(error))
        except Exception as error:
            # Without its completion the request would never end, and its engine never be free again.
            logger.exception("a bug: the call of %s failed", self._id)
            return self._call_failed(command, CallFailure.BROKEN, str(error))
        self._held = held
        return upstream_answered(command, held.head, held.body)

    def _call_failed(self, command: CallUpstream, failure: CallFailure, reason: str) -> UpstreamFailed:
        self._drop_upstream()
        if self._canceled:
            failure = CallFailure.CANCELED
        return UpstreamFailed(command_id=command.command_id, failure=failure, reason=reason)

    def _hold_answer(self, command: CallUpstream) -> Generator[None, None, HeldAnswer]:
        address = self._pool.address_of(command.base_url)
        request = upstream_request(self._request, command)
        connection = None if self._canceled else self._pool.take_idle(address)
        if connection is not None:
            held = yield from self._exchange(connection, request, command.first_byte_timeout_s)
            if held is not None:
                return held
            # The upstream closed a kept connection while the request was on its way: a fresh one tells.
        if self._canceled:
            raise StreamLost("canceled")
        connection = self._connect(address, command.connect_timeout_s)
        held = yield from self._exchange(connection, request, command.first_byte_timeout_s)
        if held is None:
            raise StreamLost("the upstream closed the connection without an answer")
        return held

    def _connect(self, address: Address, timeout_s: float) -> Connection:
        try:
            return self._pool.open(address, timeout_s)
        except StreamTimeout:
            raise TimeoutError(f"no connection within {timeout_s:g} s") from None

    def _attach(self, connection: Connection) -> None:
        """From now on `cancel` breaks this connection; it also does if it came earlier."""
        with self._lock:
            self._connection = connection
            if self._canceled:
                connection.stream.abort()

    def _exchange(
        self, connection: Connection, request: UpstreamRequest, first_byte_timeout_s: float | None
    ) -> Generator[None, None, HeldAnswer | None]:
        """Send a request and wait for the first byte of its answer's body, or all of a small error's.

        Returns:
            None if the connection was closed without a byte of an answer.
        """
        self._attach(connection)
        address = connection.address
        stream, exchange = connection.stream, connection.exchange
        for piece in exchange.request_bytes(
            request.method, address.authority, address.prefix + request.path, request.headers, request.body
        ):
            stream.write(piece, first_byte_timeout_s)
        head: ResponseHead | None = None
        received = b""
        while True:
            match exchange.next_event():
                case NeedData():
                    if received and head is not None and head.status < FIRST_ERROR_STATUS:
                        return HeldAnswer(connection, head, received, ended=False)
                    exchange.receive((yield from self._read(stream, first_byte_timeout_s)))
                case ResponseHead() as head:
                    pass
                case BodyData(data=data):
                    received += data
                    if head is not None and len(received) > ERROR_BODY_BYTES:
                        return HeldAnswer(connection, head, received, ended=False)
                case ResponseEnd():
                    assert head is not None
                    return HeldAnswer(connection, head, received, ended=True)
                case UpstreamBroken(reason=reason, unanswered=unanswered):
                    if head is not None and received and head.status < FIRST_ERROR_STATUS:
                        return HeldAnswer(connection, head, received, ended=False)
                    self._drop_upstream()
                    if unanswered and not self._canceled:
                        return None
                    raise StreamLost(reason)
                case _ as unreachable:
                    assert_never(unreachable)

    def _read(self, stream: Stream, timeout_s: float | None) -> Generator[None, None, bytes]:
        """Wait for bytes, and look up now and then."""
        give_up_at = None if timeout_s is None else monotonic() + timeout_s
        while True:
            rest_s = LOOK_UP_S if give_up_at is None else min(LOOK_UP_S, give_up_at - monotonic())
            try:
                return stream.read(rest_s)
            except StreamTimeout:
                if give_up_at is not None and monotonic() >= give_up_at:
                    raise
            yield

    # --- relaying

    def _relay(self, command: BeginRelay) -> Generator[None, None, RelayEnded]:
        assert self._held is not None
        try:
            ended = yield from Relay(command, self._held, self._sink, self._facts.format).run()
        except Exception as error:
            logger.exception("a bug: the relay of %s failed", self._id)
            ended = RelayEnded(command_id=command.command_id, failure=RelayFailure.BROKEN, reason=str(error))
        if ended.failure is not None and self._canceled:
            ended = evolve(ended, failure=RelayFailure.CANCELED)
        self._drop_upstream()
        return ended

    # --- counting

    def _count(self, command: CountTokens) -> Generator[None, None, TokensCounted | TokenCountFailed]:
        try:
            if command.tokenization is not None:
                text = prompt_text(self._facts, self._request.body)
                tokens = count_with_program(command.tokenization, text, self._facts.messages)
            else:
                assert command.base_url is not None
                tokens = yield from self._count_on_engine(command.base_url)
        except Exception as error:  # noqa: BLE001  # whatever it is: there are other ways to go on than a count
            return TokenCountFailed(command_id=command.command_id, reason=str(error) or type(error).__name__)
        return TokensCounted(command_id=command.command_id, prompt_tokens=tokens)

    def _count_on_engine(self, base_url: str) -> Generator[None, None, int]:
        address = self._pool.address_of(base_url)
        request = count_request(self._request)
        try:
            connection = self._connect(address, COUNT_TIMEOUT_S)
            held = yield from self._exchange(connection, request, COUNT_TIMEOUT_S)
        finally:
            self._drop_upstream()
        if held is None or not held.ended:
            raise ValueError("the engine did not count")
        return read_count(request, held.head.status, held.body)
