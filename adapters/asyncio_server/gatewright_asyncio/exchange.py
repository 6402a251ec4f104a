"""One request's task: carries out, in order, what the Gateway commands for it. One method per command.

`gatewright_host.blocking.exchange` does the same for a thread.
"""

import asyncio
import logging
from collections import deque
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
from gatewright.wire.fields import Headers
from gatewright.wire.sent_answer import SentAnswer
from gatewright.wire.server import NeedData
from gatewright.wire.upstream_answer import Begun, CallBroken, Unanswered, UpstreamAnswer
from gatewright_asyncio.answer import Answer
from gatewright_asyncio.driver import Driver
from gatewright_asyncio.relay import Relay
from gatewright_asyncio.streams import StreamLost, StreamTimeout
from gatewright_asyncio.threads import ESTIMATING, RESERVING, run_in
from gatewright_asyncio.upstreams import Connection, UpstreamPool
from gatewright_host.back_office import BackOffice, KeptAnswer
from gatewright_host.driving import NO_OFFICE, RequestCommand
from gatewright_host.request_log import log_record
from gatewright_host.tokenizer_program import count_with_program
from gatewright_host.upstream_calls import (
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

logger: Final = logging.getLogger("gatewright.gateway")


class Exchange:
    """One request, from `RequestReceived` to `RecordRequest`.

    Args:
        driver: Where events go.
        pool: Connections to upstreams.
        answer: Way back to the client.
        request: The request.
        office: Keeps records and asks estimators; None where nobody does.
    """

    def __init__(
        self,
        driver: Driver,
        pool: UpstreamPool,
        answer: Answer,
        request: ClientRequest,
        office: BackOffice | None = None,
    ) -> None:
        self._driver = driver
        self._pool = pool
        self._answer = answer
        self._request = request
        self._office = office
        self._kept: bytearray | None = None
        self._kept_headers: Headers = ()
        self._id = request.request_id
        self._facts = request.facts
        self._sent = SentAnswer(request.facts)
        self._commands: deque[RequestCommand] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._canceled = False
        self._connection: Connection | None = None
        self._upstream: UpstreamAnswer | None = None

    # --- called by the driver

    def put(self, command: RequestCommand) -> None:
        """Take a command: to be carried out in turn, or at once where it speaks to a client that waits for a call."""
        if isinstance(command, BeginStream):
            self._answer.begin_stream(command.headers)
            return
        if isinstance(command, SendComment):
            self._answer.comment(command.text)
            return
        self._commands.append(command)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def cancel(self) -> None:
        """Stop the call, count or relay under way."""
        self._canceled = True
        if self._connection is not None:
            self._connection.stream.abort()
        self._answer.stream.give_up_draining()

    # --- called by whoever knows that the client has gone

    def client_lost(self) -> None:
        """Nobody waits for the answer any more."""
        self._driver.submit(ClientGone(request_id=self._id))

    # --- the task

    async def run(self) -> None:
        """Carry the request through to its end."""
        self._driver.open_mailbox(self._id, self)
        self._answer.stream.on_lost = self.client_lost
        try:
            self._driver.submit(RequestReceived(request_id=self._id, facts=self._facts))
            if self._answer.stream.at_eof:
                self.client_lost()
            while not await self._carry_out(await self._next_command()):
                pass
        except BaseException:
            self.client_lost()  # whatever it was: nobody is left who would answer
            raise
        finally:
            self._answer.stream.on_lost = None
            self._drop_upstream()

    async def _next_command(self) -> RequestCommand:
        while not self._commands:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        return self._commands.popleft()

    async def _carry_out(self, command: RequestCommand) -> bool:
        """Carry one command out; True after the last one."""
        match command:
            case CallUpstream():
                self._driver.submit(await self._call(command))
            case BeginRelay():
                self._driver.submit(await self._relay(command))
            case CountTokens():
                self._driver.submit(await self._count(command))
            case EstimateComplexity():
                self._driver.submit(await self._estimate(command))
            case ReserveSpend():
                self._driver.submit(await self._reserve(command))
            case DiscardAnswer():
                self._drop_upstream()
            case BeginStream() | SendComment():
                raise AssertionError("carried out by `put`")
            case SendProblem(problem=problem, headers=headers):
                self._answer.problem(problem, self._facts.format, headers)
            case FailStream(problem=problem):
                self._answer.fail_stream(problem, self._facts.format)
            case CutConnection():
                self._answer.cut()
            case RecordRequest():
                log_record(command)
                if self._office is not None:
                    answer = KeptAnswer(self._kept_headers, bytes(self._kept)) if self._kept else None
                    self._office.record(command, self._request, answer)
                return True
            case _ as unreachable:
                assert_never(unreachable)
        return False

    def _drop_upstream(self) -> None:
        """Close a connection that is in the middle of an exchange, keep one that is not."""
        if self._connection is not None:
            self._pool.give_back(self._connection)
        self._connection = self._upstream = None

    # --- choosing

    async def _estimate(self, command: EstimateComplexity) -> ComplexityEstimated | EstimationFailed:
        if self._office is None:
            return EstimationFailed(command_id=command.command_id, reason=NO_OFFICE)
        return await run_in(ESTIMATING, self._office.estimate, command, self._request)

    async def _reserve(self, command: ReserveSpend) -> SpendReserved | SpendRefused | SpendUnknown:
        if self._office is None:
            return SpendUnknown(command_id=command.command_id, reason=NO_OFFICE)
        return await run_in(RESERVING, self._office.reserve, command)

    # --- calling

    async def _call(self, command: CallUpstream) -> UpstreamAnswered | UpstreamFailed:
        try:
            request = upstream_request(self._request, command, self._sent)
            begun = await self._begin_answer(request, command)
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

    async def _begin_answer(self, request: UpstreamRequest, command: CallUpstream) -> Begun:
        address = self._pool.addresses.find(command.base_url)
        connection = None if self._canceled else self._pool.take_idle(address)
        if connection is not None:
            begun = await self._hold_answer(connection, request, command)
            if begun is not None:
                return begun
            # The upstream closed a kept connection while the request was on its way: a fresh one tells.
        connection = await self._connect(address, command.connect_timeout_s)
        begun = await self._hold_answer(connection, request, command)
        if begun is None:
            raise CallStopped(CallFailure.BROKEN, "the upstream closed the connection without an answer")
        return begun

    async def _connect(self, address: Address, timeout_s: float) -> Connection:
        if self._canceled:
            raise StreamLost("canceled")
        try:
            return await self._pool.open(address, timeout_s)
        except StreamTimeout:
            raise CallStopped(CallFailure.TIMEOUT, f"no connection within {timeout_s:g} s") from None
        except OSError as error:
            raise CallStopped(CallFailure.UNREACHABLE, f"cannot connect: {error}") from None

    async def _hold_answer(
        self, connection: Connection, request: UpstreamRequest, command: CallUpstream
    ) -> Begun | None:
        """Send a request and wait until its answer has begun.

        Returns:
            None if the connection was closed without a byte of an answer.
        """
        self._connection, stream = connection, connection.stream
        upstream = UpstreamAnswer(
            connection.exchange,
            request.facts,
            self._sent,
            command.continuation,
            must_stream=command.must_stream,
            keeps_usage=command.asks_usage,
        )
        patience = Patience(command, monotonic())
        for piece in request.pieces(connection.exchange, connection.address):
            stream.write(piece)
        while True:
            match upstream.hold():
                case NeedData():
                    has_head = upstream.head is not None
                    try:
                        upstream.receive(await stream.read(patience.left_s(monotonic(), has_head=has_head)))
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

    async def _relay(self, command: BeginRelay) -> RelayEnded:
        assert self._upstream is not None
        assert self._connection is not None
        try:
            if command.keeps_answer and self._kept is None:
                self._kept = bytearray()
                self._kept_headers = self._upstream.head.headers if self._upstream.head is not None else ()
            relay = Relay(
                command, self._upstream, self._connection, self._answer, self._sent, kept=self._kept
            )
            ended = await relay.run()
        except Exception as error:
            logger.exception("a bug: the relay of %s failed", self._id)
            ended = RelayEnded(command_id=command.command_id, failure=RelayFailure.BROKEN, reason=str(error))
        if ended.failure is not None and self._canceled:
            ended = evolve(ended, failure=RelayFailure.CANCELED)
        self._drop_upstream()
        return ended

    # --- counting

    async def _count(self, command: CountTokens) -> TokensCounted | TokenCountFailed:
        try:
            if command.tokenization is not None:
                body = transformed_body(self._request, command.transforms, command.provider)
                text = prompt_text(self._facts, body)
                tokens = await asyncio.to_thread(
                    count_with_program, command.tokenization, text, self._facts.messages
                )
            else:
                tokens = await self._count_on_engine(command)
        except Exception as error:  # noqa: BLE001  # whatever it is: there are other ways to go on than a count
            return TokenCountFailed(command_id=command.command_id, reason=str(error) or type(error).__name__)
        return TokensCounted(command_id=command.command_id, prompt_tokens=tokens)

    async def _count_on_engine(self, command: CountTokens) -> int:
        request = count_request(self._request, command)
        try:
            begun = await self._begin_answer(request, count_call(command))
            assert self._upstream is not None
            return read_count(request, begun.status, self._upstream.take())
        finally:
            self._drop_upstream()
