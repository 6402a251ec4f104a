"""One request's task: carries out, in order, what the Gateway commands for it. One method per command."""

import asyncio
import logging
from collections import deque
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
from gatewright.wire.client import (
    BodyData,
    ResponseEnd,
    ResponseHead,
    UpstreamBroken,
)
from gatewright.wire.server import NeedData
from gatewright_asyncio.answer import Answer
from gatewright_asyncio.driver import Driver
from gatewright_asyncio.relay import HeldAnswer, Relay
from gatewright_asyncio.streams import StreamLost, StreamTimeout
from gatewright_asyncio.upstreams import Connection, UpstreamPool
from gatewright_host.driving import RequestCommand
from gatewright_host.request_log import log_record
from gatewright_host.tokenizer_program import count_with_program
from gatewright_host.upstream_calls import (
    COUNT_TIMEOUT_S,
    ERROR_BODY_BYTES,
    Address,
    ClientRequest,
    UpstreamRequest,
    count_request,
    read_count,
    upstream_answered,
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
    """

    def __init__(self, driver: Driver, pool: UpstreamPool, answer: Answer, request: ClientRequest) -> None:
        self._driver = driver
        self._pool = pool
        self._answer = answer
        self._request = request
        self._id = request.request_id
        self._facts = request.facts
        self._commands: deque[RequestCommand] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._canceled = False
        self._connection: Connection | None = None
        self._held: HeldAnswer | None = None

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

    # --- the task

    async def run(self) -> None:
        """Carry the request through to its end."""
        self._driver.open_mailbox(self._id, self)
        self._answer.stream.on_lost = self._client_lost
        try:
            self._driver.submit(RequestReceived(request_id=self._id, facts=self._facts))
            if self._answer.stream.at_eof:
                self._client_lost()
            while not await self._carry_out(await self._next_command()):
                pass
        finally:
            self._answer.stream.on_lost = None
            self._drop_upstream()

    def _client_lost(self) -> None:
        self._driver.submit(ClientGone(request_id=self._id))

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
                return True
            case _ as unreachable:
                assert_never(unreachable)
        return False

    def _drop_upstream(self) -> None:
        """Close a connection that is in the middle of an exchange, keep one that is not."""
        if self._connection is not None:
            self._pool.give_back(self._connection)
        self._connection = self._held = None

    # --- calling

    async def _call(self, command: CallUpstream) -> UpstreamAnswered | UpstreamFailed:
        try:
            held = await self._hold_answer(command)
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

    async def _hold_answer(self, command: CallUpstream) -> HeldAnswer:
        address = self._pool.address_of(command.base_url)
        request = upstream_request(self._request, command)
        connection = None if self._canceled else self._pool.take_idle(address)
        if connection is not None:
            held = await self._exchange(connection, request, command.first_byte_timeout_s)
            if held is not None:
                return held
            # The upstream closed a kept connection while the request was on its way: a fresh one tells.
        if self._canceled:
            raise StreamLost("canceled")
        connection = await self._connect(address, command.connect_timeout_s)
        held = await self._exchange(connection, request, command.first_byte_timeout_s)
        if held is None:
            raise StreamLost("the upstream closed the connection without an answer")
        return held

    async def _connect(self, address: Address, timeout_s: float) -> Connection:
        try:
            return await self._pool.open(address, timeout_s)
        except StreamTimeout:
            raise TimeoutError(f"no connection within {timeout_s:g} s") from None

    async def _exchange(
        self, connection: Connection, request: UpstreamRequest, first_byte_timeout_s: float | None
    ) -> HeldAnswer | None:
        """Send a request and wait for the first byte of its answer's body, or all of a small error's.

        Returns:
            None if the connection was closed without a byte of an answer.
        """
        self._connection = connection
        address: Address = connection.address
        stream, exchange = connection.stream, connection.exchange
        for piece in exchange.request_bytes(
            request.method, address.authority, address.prefix + request.path, request.headers, request.body
        ):
            stream.write(piece)
        head: ResponseHead | None = None
        received = b""
        while True:
            match exchange.next_event():
                case NeedData():
                    if received and head is not None and head.status < FIRST_ERROR_STATUS:
                        return HeldAnswer(connection, head, received, ended=False)
                    exchange.receive(await stream.read(first_byte_timeout_s))
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
                    stream.abort()
                    self._connection = None
                    if unanswered and not self._canceled:
                        return None
                    raise StreamLost(reason)
                case _ as unreachable:
                    assert_never(unreachable)

    # --- relaying

    async def _relay(self, command: BeginRelay) -> RelayEnded:
        assert self._held is not None
        try:
            ended = await Relay(command, self._held, self._answer, self._facts.format).run()
        except Exception as error:
            logger.exception("a bug: the relay of %s failed", self._id)
            ended = RelayEnded(command_id=command.command_id, failure=RelayFailure.BROKEN, reason=str(error))
        if ended.failure is not None:
            self._held.connection.stream.abort()
            if self._canceled:
                ended = evolve(ended, failure=RelayFailure.CANCELED)
        self._drop_upstream()
        return ended

    # --- counting

    async def _count(self, command: CountTokens) -> TokensCounted | TokenCountFailed:
        try:
            if command.tokenization is not None:
                text = prompt_text(self._facts, self._request.body)
                tokens = await asyncio.to_thread(
                    count_with_program, command.tokenization, text, self._facts.messages
                )
            else:
                assert command.base_url is not None
                tokens = await self._count_on_engine(command.base_url)
        except Exception as error:  # noqa: BLE001  # whatever it is: there are other ways to go on than a count
            return TokenCountFailed(command_id=command.command_id, reason=str(error) or type(error).__name__)
        return TokensCounted(command_id=command.command_id, prompt_tokens=tokens)

    async def _count_on_engine(self, base_url: str) -> int:
        address = self._pool.address_of(base_url)
        request = count_request(self._request)
        try:
            connection = await self._connect(address, COUNT_TIMEOUT_S)
            held = await self._exchange(connection, request, COUNT_TIMEOUT_S)
        finally:
            self._drop_upstream()
        if held is None or not held.ended:
            raise ValueError("the engine did not count")
        return read_count(request, held.head.status, held.body)
