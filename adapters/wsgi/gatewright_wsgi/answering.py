"""Responses: whole ones, and those whose body comes while the server sends it."""

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast

from flask import Response
from werkzeug.wsgi import ClosingIterator

from gatewright.api.errors import render_problem
from gatewright.api.facts import ApiFormat
from gatewright.errors import Problem
from gatewright.ids import RequestId
from gatewright.wire.fields import Headers, encode_headers
from gatewright_host.blocking.exchange import Exchange
from gatewright_host.request_log import log_record
from gatewright_wsgi.clients import Client, ClientWatch
from gatewright_wsgi.sink import ResponseSink

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

CLIENT_GONE: Final = 499
"""nginx's status for requests whose client did not wait; nobody reads it but the access log."""

_NO_BODY: Final = frozenset((204, 304))


class Answer(Response):
    """A response whose headers are sent as they are: nothing is added, and nothing rewritten.

    Args:
        status: HTTP status.
        headers: Names in lower case, none of the connection's own.
        body: The body, or what it comes from.
        content_length: Size of the body, where it is known.
    """

    default_mimetype = None
    automatically_set_content_length = False

    def __init__(
        self, status: int, headers: Headers, body: bytes | Iterable[bytes], content_length: int | None
    ) -> None:
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        if content_length is not None and status not in _NO_BODY:
            pairs.append(("content-length", str(content_length)))
        super().__init__(
            [body] if isinstance(body, bytes) else body,
            status=_status_line(status),
            headers=pairs,
            direct_passthrough=True,
        )

    def get_wsgi_response(
        self, environ: "WSGIEnvironment"
    ) -> tuple[Iterable[bytes], str, list[tuple[str, str]]]:
        """The body, unless the method or the status has none, the status line and the headers."""
        bodiless = environ["REQUEST_METHOD"] == "HEAD" or self.status_code in _NO_BODY
        body = () if bodiless else cast("Iterable[bytes]", self.response)
        return ClosingIterator(body, self.close), self.status, self.headers.to_wsgi_list()

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer; a server that does not accept the head does not close the body either."""
        try:
            return super().__call__(environ, start_response)
        except BaseException:
            self.close()
            raise


def _status_line(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Unknown"


def whole_answer(status: int, headers: Headers, body: bytes, request_id: RequestId) -> Answer:
    """An answer that is complete."""
    return Answer(status, headers + encode_headers((("x-request-id", request_id),)), body, len(body))


def problem_answer(problem: Problem, request_id: RequestId, format: ApiFormat = ApiFormat.OTHER) -> Answer:  # noqa: A002  # as in facts
    """An error as the whole answer."""
    return whole_answer(*render_problem(problem, format), request_id)


class AnswerBody:
    """A request that goes on as far as the server takes its answer. What was begun has to be closed.

    Args:
        exchange: The request.
        sink: Its sink.
        client: Its client.
        watch: Notices that the client has gone.
    """

    def __init__(self, exchange: Exchange, sink: ResponseSink, client: Client, watch: ClientWatch) -> None:
        self._exchange = exchange
        self._sink = sink
        self._client = client
        self._watch = watch
        self._open = True

    def begin(self) -> Answer:
        """Carry the request as far as the head of its answer."""
        with self._failing():
            self._exchange.begin()
            self._watch.add(self._client)
            while not self._sink.begun and self._step():
                pass
            if self._sink.status in _NO_BODY:
                self._finish()
        if not self._sink.begun:
            return Answer(CLIENT_GONE, (), self, None)
        return Answer(self._sink.status, self._sink.headers, self, self._sink.content_length)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """The next piece of the body, which is at most what the upstream sent at a time.

        Raises:
            StopIteration: It is complete.
            ConnectionResetError: It is not, and never will be: servers close the connection then, without its
                proper end and without a traceback in their logs.
        """
        self._client.taken()
        with self._failing():
            data = self._sink.take()
            while not data and self._step():
                data = self._sink.take()
            if self._sink.ended or self._sink.broken_off:
                # When the client reads its last byte, the engine is free and the record is written.
                self._finish()
        if data:
            self._client.sending()
            return data
        self.close()
        if self._sink.ended:
            raise StopIteration
        raise ConnectionResetError(errno.ECONNRESET, "the answer broke off")

    def close(self) -> None:
        """The server is done with it; a request that has not ended by now has lost its client."""
        if not self._open:
            return
        with self._failing():
            if self._exchange.record is None:
                self._sink.refuse()
                self._exchange.client_lost()
                self._finish()
        self._let_go()

    def _finish(self) -> None:
        while self._step():
            pass

    def _step(self) -> bool:
        """Do one thing; False once there is nothing left to do."""
        if self._exchange.record is not None:
            return False
        goes_on = self._exchange.step()
        if not goes_on:
            self._write_down()
        return goes_on

    def _write_down(self) -> None:
        assert self._exchange.record is not None
        log_record(self._exchange.record)

    def _let_go(self) -> None:
        self._open = False
        self._watch.remove(self._client)
        self._sink.close()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """After a defect, or where a signal ends the process, nothing may be waited for: it might never come."""
        try:
            yield
        except BaseException as error:
            self._let_go()
            if isinstance(error, Exception):
                self._exchange.client_lost()
            raise
