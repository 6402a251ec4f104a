"""One request's thread: carries out, in order, what the Gateway commands for it. One method per command.

`gatewright_asyncio.exchange` does the same on an event loop.
"""

import logging
import threading
from collections.abc import Generator
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Final, assert_never

from attrs import evolve

from gatewright.api.counting import prompt_text
from gatewright.commands import (
    BeginRelay,
    BeginStream,
    CallUpstream,
    CountTokens,
    CutConnection,
    DiscardAnswer,
    EstimateComplexity,
    FailStream,
    RecordRequest,
    ReserveSpend,
    SendComment,
    SendProblem,
)
from gatewright.events import (
    CallFailure,
    ClientGone,
    ComplexityEstimated,
    EstimationFailed,
    RelayEnded,
    RelayFailure,
    RequestReceived,
    SpendRefused,
    SpendReserved,
    SpendUnknown,
    TokenCountFailed,
    TokensCounted,
    UpstreamAnswered,
    UpstreamFailed,
)
from gatewright.wire.fields import Headers, encode_headers
from gatewright.wire.sent_answer import SentAnswer
from gatewright.wire.server import NeedData
from gatewright.wire.upstream_answer import Begun, CallBroken, Unanswered, UpstreamAnswer
from gatewright_host.back_office import BackOffice, KeptAnswer
from gatewright_host.blocking.driver import Driver
from gatewright_host.blocking.relay import Relay
from gatewright_host.blocking.sink import ClientLost, Sink
from gatewright_host.blocking.streams import LOOK_UP_S, StreamLost, StreamTimeout
from gatewright_host.blocking.upstreams import Connection, UpstreamPool
from gatewright_host.driving import NO_OFFICE, RequestCommand
from gatewright_host.tokenizer_program import count_with_program
from gatewright_host.upstream_calls import (
    EVENT_STREAM,
    UNBUFFERED,
    Address,
    CallStopped,
    ClientRequest,
    Patience,
    UpstreamRequest,
    answered,
    count_call,
    count_request,
    read_count,
    transformed_body,
    upstream_request,
)

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
        office: Keeps records and asks estimators; None where nobody does.

    Attributes:
        record: How it ended, once it has.
    """

    def __init__(
        self,
        driver: Driver,
        pool: UpstreamPool,
        sink: Sink,
        request: ClientRequest,
        office: BackOffice | None = None,
    ) -> None:
        self.record: RecordRequest | None = None
        self._driver = driver
        self._pool = pool
        self._sink = sink
        self._request = request
        self._office = office
        self._kept: bytearray | None = None
        self._kept_headers: Headers = ()
        self._id = request.request_id
        self._facts = request.facts
        self._sent = SentAnswer(request.facts)
        self._commands: SimpleQueue[RequestCommand] = SimpleQueue()
        self._lock = threading.Lock()  # over the next two, for `cancel`
        self._canceled = False
        self._connection: Connection | None = None
        self._upstream: UpstreamAnswer | None = None
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
            return True
        try:
            self._carry_out(self._commands.get(timeout=LOOK_UP_S))
        except Empty:
            pass
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
            case EstimateComplexity():
                self._driver.submit(self._estimate(command))
            case ReserveSpend():
                self._driver.submit(self._reserve(command))
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
                if self._office is not None:
                    answer = KeptAnswer(self._kept_headers, bytes(self._kept)) if self._kept else None
                    self._office.record(command, self._request, answer)
                self.record = command
            case _ as unreachable:
                assert_never(unreachable)

    def _drop_upstream(self) -> None:
        """Close a connection that is in the middle of an exchange, keep one that is not."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.give_back(connection)
        self._upstream = None

    # --- choosing

    def _estimate(self, command: EstimateComplexity) -> ComplexityEstimated | EstimationFailed:
        if self._office is None:
            return EstimationFailed(command_id=command.command_id, reason=NO_OFFICE)
        return self._office.estimate(command, self._request)

    def _reserve(self, command: ReserveSpend) -> SpendReserved | SpendRefused | SpendUnknown:
        if self._office is None:
            return SpendUnknown(command_id=command.command_id, reason=NO_OFFICE)
        return self._office.reserve(command)

    # --- calling

    def _call(self, command: CallUpstream) -> Generator[None, None, UpstreamAnswered | UpstreamFailed]:
        try:
            request = upstream_request(self._request, command, self._sent)
            begun = yield from self._begin_answer(request, command)
        except CallStopped as stopped:
            return self._call_failed(command, stopped.failure, stopped.reason)
        except StreamLost as error:
            return self._call_failed(command, CallFailure.BROKEN, str(error))
        except Exception as error:
            # Without its completion the request would never end, and its engine never be free again.
            logger.exception("a bug: the call of %s failed", self._id)
            return self._call_failed(command, CallFailure.BROKEN, str(error))
        return answered(command, begun, self._upstream)

    def _call_failed(self, command: CallUpstream, failure: CallFailure, reason: str) -> UpstreamFailed:
        self._drop_upstream()
        if self._canceled:
            failure = CallFailure.CANCELED
        return UpstreamFailed(command_id=command.command_id, failure=failure, reason=reason)

    def _begin_answer(self, request: UpstreamRequest, command: CallUpstream) -> Generator[None, None, Begun]:
        address = self._pool.addresses.find(command.base_url)
        connection = None if self._canceled else self._pool.take_idle(address)
        if connection is not None:
            begun = yield from self._hold_answer(connection, request, command)
            if begun is not None:
                return begun
            # The upstream closed a kept connection while the request was on its way: a fresh one tells.
        connection = self._connect(address, command.connect_timeout_s)
        begun = yield from self._hold_answer(connection, request, command)
        if begun is None:
            raise CallStopped(CallFailure.BROKEN, "the upstream closed the connection without an answer")
        return begun

    def _connect(self, address: Address, timeout_s: float) -> Connection:
        if self._canceled:
            raise StreamLost("canceled")
        try:
            return self._pool.open(address, timeout_s)
        except StreamTimeout:
            raise CallStopped(CallFailure.TIMEOUT, f"no connection within {timeout_s:g} s") from None
        except OSError as error:
            raise CallStopped(CallFailure.UNREACHABLE, f"cannot connect: {error}") from None

    def _attach(self, connection: Connection) -> None:
        """From now on `cancel` breaks this connection; it also does if it came earlier."""
        with self._lock:
            self._connection = connection
            if self._canceled:
                connection.stream.abort()

    def _hold_answer(
        self, connection: Connection, request: UpstreamRequest, command: CallUpstream
    ) -> Generator[None, None, Begun | None]:
        """Send a request and wait until its answer has begun.

        Returns:
            None if the connection was closed without a byte of an answer.
        """
        self._attach(connection)
        stream = connection.stream
        upstream = UpstreamAnswer(
            connection.exchange,
            request.facts,
            self._sent,
            command.continuation,
            must_stream=command.must_stream,
            keeps_usage=command.asks_usage,
        )
        patience = Patience(command, monotonic())
        try:
            for piece in request.pieces(connection.exchange, connection.address):
                stream.write(piece, command.head_timeout_s)
        except StreamTimeout:
            raise patience.ended(monotonic(), has_head=False) from None
        while True:
            match upstream.hold():
                case NeedData():
                    has_head = upstream.head is not None
                    try:
                        left_s = patience.left_s(monotonic(), has_head=has_head)
                        upstream.receive((yield from stream.read_in_steps(left_s)))
                    except StreamTimeout:
                        raise patience.ended(monotonic(), has_head=has_head) from None
                case Begun() as begun:
                    self._upstream = upstream
                    return begun
                case Unanswered() if not self._canceled:
                    self._drop_upstream()
                    return None
                case Unanswered():
                    raise StreamLost("canceled")
                case CallBroken(failure=failure, reason=reason):
                    raise CallStopped(failure, reason)
                case _ as unreachable:
                    assert_never(unreachable)

    # --- relaying

    def _relay(self, command: BeginRelay) -> Generator[None, None, RelayEnded]:
        assert self._upstream is not None
        assert self._connection is not None
        try:
            if command.keeps_answer and self._kept is None:
                self._kept = bytearray()
                self._kept_headers = self._upstream.head.headers if self._upstream.head is not None else ()
            relay = Relay(command, self._upstream, self._connection, self._sink, self._sent, kept=self._kept)
            ended = yield from relay.run()
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
                body = transformed_body(self._request, command.transforms, command.provider)
                text = prompt_text(self._facts, body)
                tokens = count_with_program(command.tokenization, text, self._facts.messages)
            else:
                tokens = yield from self._count_on_engine(command)
        except Exception as error:  # noqa: BLE001  # whatever it is: there are other ways to go on than a count
            return TokenCountFailed(command_id=command.command_id, reason=str(error) or type(error).__name__)
        return TokensCounted(command_id=command.command_id, prompt_tokens=tokens)

    def _count_on_engine(self, command: CountTokens) -> Generator[None, None, int]:
        request = count_request(self._request, command)
        try:
            begun = yield from self._begin_answer(request, count_call(command))
            assert self._upstream is not None
            return read_count(request, begun.status, self._upstream.take())
        finally:
            self._drop_upstream()
