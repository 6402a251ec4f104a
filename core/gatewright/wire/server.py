"""One client's connection, without the socket: bytes in, events out; answers in, bytes out.

h11 parses heads and chunked bodies; a body of known length is counted off here. Each request gets an `h11.Connection`
of its own (0.7 us), so that h11 needs no share in the answers. Those are written here: a status line, checked fields
and chunk sizes are simple to write, and take a tenth of the time. This class alone decides about keeping the
connection, since it alone sees both sides.

    IDLE/HEAD --RequestHead--> BODY --RequestEnd--> DONE --start_next_cycle--> IDLE/HEAD
       any --BadRequest--> REFUSED        any --EOF--> ConnectionClosed
"""

from enum import Enum
from http import HTTPStatus
from typing import Final

import h11
from attrs import frozen

from gatewright.errors import Problem
from gatewright.wire.fields import Headers, encode_fields, find_header, list_members
from gatewright.wire.framing import LengthBody
from gatewright.wire.refusals import (
    bad_request,
    framing_problem,
    from_absolute_form,
    protocol_problem,
    too_large,
)


@frozen
class RequestHead:
    """Request line and headers.

    Attributes:
        method: As sent, in upper case by convention.
        target: Path and query, printable ASCII, still percent-encoded; "*" for `OPTIONS *`.
        headers: Names in lower case.
        http_version: "1.1" or "1.0".
        expects_continue: The client holds its body back until it is told to go on (or has waited long enough).
        content_length: Size of the body; None if it is chunked.
    """

    method: str
    target: str
    headers: Headers
    http_version: str
    expects_continue: bool
    content_length: int | None

    def get(self, name: str) -> str | None:
        """First value of a header; None where it is absent."""
        return find_header(self.headers, name.lower().encode("latin-1"))


@frozen
class BodyChunk:
    """Some bytes of the body, never empty."""

    data: bytes


@frozen
class RequestEnd:
    """The request is complete."""


@frozen
class NeedData:
    """Nothing to tell before `receive`."""


@frozen
class Paused:
    """More has come already; it waits for `start_next_cycle`."""


@frozen
class ConnectionClosed:
    """The client has closed its side, between requests or in the middle of one."""


@frozen
class BadRequest:
    """Not to be served: answer with the problem, then close.

    Attributes:
        problem: What to answer.
        head: The request's head, if it was read at all.
    """

    problem: Problem
    head: RequestHead | None = None


ServerEvent = RequestHead | BodyChunk | RequestEnd | NeedData | Paused | ConnectionClosed | BadRequest

REQUEST_END: Final = RequestEnd()
NEED_DATA: Final = NeedData()
PAUSED: Final = Paused()
CONNECTION_CLOSED: Final = ConnectionClosed()

_STATUS_LINES: Final = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}
_NO_BODY: Final = frozenset((204, 304))
_READ_BY_US: Final = frozenset((b"host", b"content-length", b"transfer-encoding", b"connection", b"expect"))


class _Reading(Enum):
    """Where the request stands."""

    HEAD = "head"
    BODY = "body"
    DONE = "done"
    REFUSED = "refused"


class _Writing(Enum):
    """Where the answer stands, and how its body is delimited."""

    NOTHING = "nothing"
    LENGTH = "length"
    CHUNKED = "chunked"
    TO_CLOSE = "to close"
    NO_BODY = "no body"
    ENDED = "ended"


class ServerConnection:
    """One client's connection.

    Reading: `receive`, then `next_event` until `NeedData`, `Paused` or `ConnectionClosed`. It never raises.
    Writing: `response_head`, `body`, `end`, or `response` for all three. They raise on wrong use only.

    Args:
        max_head_bytes: Largest request line and headers together.
        max_body_bytes: Largest body.
    """

    def __init__(self, *, max_head_bytes: int, max_body_bytes: int) -> None:
        self._max_head_bytes = max_head_bytes
        self._max_body_bytes = max_body_bytes
        self._rest = bytearray()  # came after the end of the request at hand
        self._eof = False
        self._begin()

    def _begin(self) -> None:
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=self._max_head_bytes)
        self._reading = _Reading.HEAD
        self._writing = _Writing.NOTHING
        self._head: RequestHead | None = None
        self._body: LengthBody | None = None  # None while h11 reads it, chunk by chunk
        self._pending = b""
        self._fed_bytes = 0
        self._body_bytes = 0
        self._left_bytes = 0  # of an answer with Content-Length
        self._keep_alive = False

    # --- getters

    @property
    def is_idle(self) -> bool:
        """Between requests, without a byte of the next one."""
        return self._reading is _Reading.HEAD and not self._fed_bytes

    @property
    def must_close(self) -> bool:
        """The connection cannot take another request. Final only after `end`."""
        return self._writing is not _Writing.ENDED or not self._keep_alive

    # --- reading

    def receive(self, data: bytes) -> None:
        """Take in what the client sent; b"" stands for the end of file."""
        if not data:
            self._eof = True
        elif self._reading is _Reading.DONE:
            self._rest += data
        elif self._body is not None:
            self._pending += self._body.feed(data)
        elif self._reading is not _Reading.REFUSED:
            self._fed_bytes += len(data)
            self._parser.receive_data(data)

    def next_event(self) -> ServerEvent:
        """What the bytes received so far mean."""
        if self._reading is _Reading.DONE:
            if self._rest:
                return PAUSED
            return CONNECTION_CLOSED if self._eof else NEED_DATA
        if self._reading is _Reading.REFUSED:
            return CONNECTION_CLOSED
        if self._body is not None:
            return self._read_body(self._body)
        try:
            event = self._parser.next_event()
        except h11.RemoteProtocolError as error:
            return self._refuse(protocol_problem(error))
        if event is h11.NEED_DATA:
            return CONNECTION_CLOSED if self._eof else NEED_DATA
        if type(event) is h11.Data:
            return self._take_data(bytes(event.data))
        if type(event) is h11.EndOfMessage:
            return self._take_end(self._parser.trailing_data[0])
        assert type(event) is h11.Request, event  # the one kind that is left
        return self._take_head(event)

    def _read_body(self, body: LengthBody) -> ServerEvent:
        if self._pending:
            self._body_bytes += len(self._pending)
            chunk = BodyChunk(self._pending)
            self._pending = b""
            return chunk
        if body.complete:
            return self._take_end(body.surplus)
        return CONNECTION_CLOSED if self._eof else NEED_DATA

    def _take_end(self, rest: bytes) -> RequestEnd:
        self._reading = _Reading.DONE
        self._rest += rest
        return REQUEST_END

    def _take_data(self, data: bytes) -> BodyChunk | BadRequest:
        self._body_bytes += len(data)
        if self._body_bytes > self._max_body_bytes:
            return self._refuse(too_large(self._max_body_bytes))
        return BodyChunk(data)

    def _take_head(self, request: h11.Request) -> RequestHead | BadRequest:
        # h11 minds its limit only while a head is incomplete; one that comes in a single piece is measured here.
        if (
            self._fed_bytes > self._max_head_bytes
            and self._fed_bytes - len(self._parser.trailing_data[0]) > self._max_head_bytes
        ):
            return self._refuse(bad_request("Request line and headers are too large", 431))
        headers = tuple([(name.lower(), value) for name, value in request.headers.raw_items()])
        fields = {name: value for name, value in headers if name in _READ_BY_US}
        connection = [
            member for name, value in headers if name == b"connection" for member in list_members(value)
        ]
        version = request.http_version
        problem = framing_problem(version, fields)
        if problem is not None:
            return self._refuse(problem)

        is_chunked = b"transfer-encoding" in fields
        content_length = None if is_chunked else int(fields.get(b"content-length", b"0"))
        target = request.target.decode("ascii")
        if not target.startswith("/") and target != "*":
            target, headers = from_absolute_form(target, headers)
        head = RequestHead(
            request.method.decode("ascii"),
            target,
            headers,
            version.decode("ascii"),
            content_length != 0
            and version == b"1.1"
            and b"100-continue" in fields.get(b"expect", b"").lower(),
            content_length,
        )
        self._head = head
        self._reading = _Reading.BODY
        if version == b"1.1":
            self._keep_alive = b"close" not in connection
        else:
            self._keep_alive = b"keep-alive" in connection
        if content_length is not None:
            if content_length > self._max_body_bytes:
                return self._refuse(too_large(self._max_body_bytes))
            self._body = LengthBody(content_length)
            rest = self._parser.trailing_data[0]
            if rest:
                self.receive(rest)
        return head

    def _refuse(self, problem: Problem) -> BadRequest:
        self._reading = _Reading.REFUSED
        self._keep_alive = False
        return BadRequest(problem, self._head)

    # --- writing

    def continue_100(self) -> bytes:
        """Tell a client that waits for it to send its body; nothing if none of that is due."""
        due = (
            self._head is not None
            and self._head.expects_continue
            and self._reading is _Reading.BODY
            and self._writing is _Writing.NOTHING
            and not self._body_bytes
        )
        return b"HTTP/1.1 100 Continue\r\n\r\n" if due else b""

    def response_head(self, status: int, headers: Headers, *, content_length: int | None = None) -> bytes:
        """The head of the answer.

        Args:
            status: Final status, 200 or above.
            headers: Without those that belong to the connection (`fields.FRAMING_FIELDS`).
            content_length: Size of the body; None if only its end will tell.

        Raises:
            ValueError: A header is not fit to be sent.
            RuntimeError: There was a head already.
        """
        if self._writing is not _Writing.NOTHING:
            raise RuntimeError("this request has its answer's head already")
        fields = encode_fields(headers)
        is_old = self._head is not None and self._head.http_version != "1.1"
        if status in _NO_BODY:
            framing = b""
            writing = _Writing.NO_BODY
        elif content_length is not None:
            framing = b"content-length: %d\r\n" % content_length
            writing = _Writing.LENGTH
            self._left_bytes = content_length
        elif is_old:
            framing = b""
            writing = _Writing.TO_CLOSE
            self._keep_alive = False
        else:
            framing = b"transfer-encoding: chunked\r\n"
            writing = _Writing.CHUNKED
        if self._head is not None and self._head.method == "HEAD":
            writing = _Writing.NO_BODY
        self._writing = writing
        if self._reading is not _Reading.DONE:
            self._keep_alive = False  # the rest of the request would be taken for the next one
        if not self._keep_alive:
            framing += b"connection: close\r\n"
        elif is_old:
            framing += b"connection: keep-alive\r\n"
        return b"%b%b%b\r\n" % (_status_line(status), fields, framing)

    def body(self, data: bytes) -> bytes:
        """Some bytes of the answer's body, as they go over the wire; nothing where the answer has no body.

        Raises:
            ValueError: More than `content_length`.
            RuntimeError: No head yet, or the end already.
        """
        match self._writing:
            case _Writing.CHUNKED:
                return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            case _Writing.LENGTH:
                if len(data) > self._left_bytes:
                    raise ValueError("the answer is longer than its content-length")
                self._left_bytes -= len(data)
                return data
            case _Writing.TO_CLOSE:
                return data
            case _Writing.NO_BODY:
                return b""
            case _Writing.NOTHING | _Writing.ENDED:
                raise RuntimeError("no answer is under way")

    def end(self) -> bytes:
        """The end of the answer. One shorter than its `content_length` can only be cut off: `must_close`.

        Raises:
            RuntimeError: No head yet, or the end already.
        """
        if self._writing in {_Writing.NOTHING, _Writing.ENDED}:
            raise RuntimeError("no answer is under way")
        last = b"0\r\n\r\n" if self._writing is _Writing.CHUNKED else b""
        if self._writing is _Writing.LENGTH and self._left_bytes:
            self._keep_alive = False
        self._writing = _Writing.ENDED
        return last

    def response(self, status: int, headers: Headers, body: bytes) -> bytes:
        """A whole answer."""
        head = self.response_head(status, headers, content_length=len(body))
        return head + self.body(body) + self.end()

    def start_next_cycle(self) -> None:
        """Turn to the next request; what has come of it already is kept.

        Raises:
            RuntimeError: `must_close`.
        """
        if self.must_close:
            raise RuntimeError("this connection takes no other request")
        rest = bytes(self._rest)
        self._rest.clear()
        self._begin()
        if rest:
            self.receive(rest)


def _status_line(status: int) -> bytes:
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
