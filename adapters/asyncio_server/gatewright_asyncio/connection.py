"""One client's connection: its requests, one after the other."""

import asyncio
import logging
import time
from typing import Final, assert_never

from attrs import evolve

from gatewright.accounting.spending import KeyFacts
from gatewright.api.access import Access, check_access
from gatewright.api.endpoints import MANAGED, Endpoint, match_endpoint, needs_admin
from gatewright.api.facts import ApiFormat
from gatewright.api.request import read_request
from gatewright.errors import InvalidRequest, ModelNotFound, Problem
from gatewright.ids import RequestId
from gatewright.wire.fields import encode_headers
from gatewright.wire.server import (
    BadRequest,
    BodyChunk,
    ConnectionClosed,
    NeedData,
    Paused,
    RequestEnd,
    RequestHead,
    ServerConnection,
)
from gatewright_asyncio.answer import Answer
from gatewright_asyncio.exchange import Exchange
from gatewright_asyncio.service import Service
from gatewright_asyncio.streams import Stream, StreamLost, StreamTimeout
from gatewright_asyncio.threads import ASKED_BY_ALL, MANAGING, run_in
from gatewright_host.local_answers import JSON, LINGER_S, late_request, local_document
from gatewright_host.management import Management, is_waiting_for_keys, wait_for_keys
from gatewright_host.upstream_calls import ClientRequest

logger: Final = logging.getLogger("gatewright.server")


class ClientConnection:
    """One client's connection.

    Args:
        service: What all connections share.
        stream: The socket.
        over_unix_socket: The socket is a Unix one, so that `Host` says nothing.
    """

    def __init__(self, service: Service, stream: Stream, *, over_unix_socket: bool) -> None:
        server = service.config.server
        self._service = service
        self._stream = stream
        self._over_unix_socket = over_unix_socket
        self._wire = ServerConnection(
            max_head_bytes=server.max_head_bytes, max_body_bytes=server.max_body_bytes
        )
        self._busy = False

    @property
    def is_idle(self) -> bool:
        """Whether it is between two requests."""
        return not self._busy

    def close(self) -> None:
        """Close it; what was written is still sent."""
        self._stream.close()

    def abort(self) -> None:
        """Drop it at once."""
        self._stream.abort()

    async def run(self) -> None:
        """Serve requests until either side has enough."""
        try:
            while await self._serve_one():
                self._wire.start_next_cycle()
        except (StreamLost, StreamTimeout):
            pass
        except Exception:
            logger.exception("a connection failed: a defect of this program")
        finally:
            await self._flush_and_close()

    async def _flush_and_close(self) -> None:
        """Close once the client has taken what was written; one that takes nothing is dropped."""
        self._stream.close()
        try:
            async with asyncio.timeout(self._service.config.server.stall_timeout_s):
                await self._stream.wait_closed()
        except TimeoutError:
            self._stream.abort()

    async def _serve_one(self) -> bool:
        """Serve one request; whether another may follow."""
        head = await self._read_head()
        if head is None:
            return False
        self._busy = True
        answer = Answer(self._wire, self._stream)
        request_id = self._service.new_request_id()
        if isinstance(head, BadRequest):
            await self._refuse(answer, request_id, head.problem)
            return False
        await self._answer(answer, request_id, head)
        await self._stream.drain(self._service.config.server.stall_timeout_s)
        self._busy = False
        return not self._wire.must_close and not self._service.closing and self._stream.is_open

    async def _refuse(
        self, answer: Answer, request_id: RequestId, problem: Problem, *, format_: ApiFormat = ApiFormat.OTHER
    ) -> None:
        answer.problem(problem, format_, (("x-request-id", request_id),))
        if not self._wire.must_close:
            return
        # Closing with unread input would reset the connection, and the client might never see the answer.
        self._stream.write_eof()
        try:
            async with asyncio.timeout(LINGER_S):
                while await self._stream.read():
                    pass
        except TimeoutError:
            pass

    async def _read_head(self) -> RequestHead | BadRequest | None:
        server = self._service.config.server
        loop = asyncio.get_running_loop()
        began_at: float | None = None
        while True:
            match self._wire.next_event():
                case NeedData():
                    if self._wire.is_idle:
                        timeout_s = server.keep_alive_timeout_s
                    else:
                        began_at = loop.time() if began_at is None else began_at
                        timeout_s = began_at + server.head_timeout_s - loop.time()
                    try:
                        self._wire.receive(await self._stream.read(max(0.0, timeout_s)))
                    except StreamTimeout:
                        return (
                            None
                            if self._wire.is_idle
                            else BadRequest(late_request("head", server.head_timeout_s))
                        )
                case RequestHead() as head:
                    return head
                case BadRequest() as bad:
                    return bad
                case ConnectionClosed():
                    return None
                case BodyChunk() | RequestEnd() | Paused():
                    raise AssertionError("a request begins with its head")
                case _ as unreachable:
                    assert_never(unreachable)

    async def _read_body(self) -> bytes | Problem:
        timeout_s = self._service.config.server.body_timeout_s
        if go_on := self._wire.continue_100():
            self._stream.write(go_on)
        chunks: list[bytes] = []
        while True:
            match self._wire.next_event():
                case NeedData():
                    try:
                        self._wire.receive(await self._stream.read(timeout_s))
                    except StreamTimeout:
                        return late_request("body", timeout_s)
                case BodyChunk(data=data):
                    chunks.append(data)
                case RequestEnd():
                    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
                case BadRequest(problem=problem):
                    return problem
                case ConnectionClosed():
                    raise StreamLost("the client closed the connection in the middle of its request")
                case RequestHead() | Paused():
                    raise AssertionError("a body follows a head")
                case _ as unreachable:
                    assert_never(unreachable)

    async def _answer(self, answer: Answer, request_id: RequestId, head: RequestHead) -> None:
        service = self._service
        access = self._check(head)
        if is_waiting_for_keys(access, service.keeper):
            await run_in(ASKED_BY_ALL, wait_for_keys, service.keeper)
            access = self._check(head)
        endpoint = access.problem or match_endpoint(head.method, head.target)
        if isinstance(endpoint, Problem):
            self._wire.next_event()  # a request without a body ends here, and need not cost its connection
            await self._refuse(answer, request_id, endpoint)
            return
        body = await self._read_body()
        if isinstance(body, Problem):
            await self._refuse(answer, request_id, body, format_=endpoint.format)
        elif endpoint.kind in MANAGED:
            await self._answer_from_store(answer, request_id, head, endpoint, body, key=access.key)
        elif endpoint.is_local:
            self._answer_locally(answer, request_id, endpoint)
        else:
            await self._answer_by_engine(answer, request_id, head, endpoint, body, key=access.key)

    def _check(self, head: RequestHead) -> Access:
        keeper = self._service.keeper
        return check_access(
            head.method,
            head.target,
            head.headers,
            self._service.config.server,
            keys=keeper.key_book if keeper is not None else None,
            now_s=time.time(),
            local_hosts=self._service.local_hosts,
            over_unix_socket=self._over_unix_socket,
        )

    async def _answer_from_store(
        self,
        answer: Answer,
        request_id: RequestId,
        head: RequestHead,
        endpoint: Endpoint,
        body: bytes,
        *,
        key: KeyFacts | None,
    ) -> None:
        service = self._service
        management = Management(service.office, lambda: service.config)
        pool = MANAGING if needs_admin(head.target) else ASKED_BY_ALL
        status, headers, document = await run_in(pool, management.answer, endpoint, head, body, key)
        answer.whole(status, headers + encode_headers((("x-request-id", request_id),)), document)

    def _answer_locally(self, answer: Answer, request_id: RequestId, endpoint: Endpoint) -> None:
        try:
            document = local_document(endpoint, self._service.config, self._service.started_at)
        except ModelNotFound as error:
            answer.problem(error.problem, endpoint.format, (("x-request-id", request_id),))
            return
        answer.whole(200, JSON + encode_headers((("x-request-id", request_id),)), document)

    async def _answer_by_engine(
        self,
        answer: Answer,
        request_id: RequestId,
        head: RequestHead,
        endpoint: Endpoint,
        body: bytes,
        *,
        key: KeyFacts | None,
    ) -> None:
        try:
            facts = read_request(endpoint, head.headers, body, self._service.config)
        except InvalidRequest as error:
            answer.problem(error.problem, endpoint.format, (("x-request-id", request_id),))
            return
        request = ClientRequest(request_id, head, evolve(facts, key=key), body)
        if self._service.dumps is not None:
            answer.dump = self._service.dumps.begin(request_id, body)
        metrics = self._service.office.metrics if self._service.office is not None else None
        if metrics is not None:
            metrics.begin(request_id)
        try:
            await Exchange(
                self._service.driver, self._service.pool, answer, request, self._service.office
            ).run()
        finally:
            if metrics is not None:
                metrics.gone(request_id)
            if answer.dump is not None:
                answer.dump.close()
