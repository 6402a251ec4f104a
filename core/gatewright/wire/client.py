"""One exchange at a time with an upstream, without the socket: a request becomes bytes, bytes become its answer.

h11 parses the heads of answers, `framing` their bodies. Whatever an upstream sends, `next_event` does not raise.
"""

import re
from enum import Enum
from typing import Final

import h11
from attrs import frozen

from gatewright.api.facts import ApiFormat
from gatewright.wire.fields import Headers, encode_fields, find_header, list_members
from gatewright.wire.framing import Body, ChunkedBody, FramingError, LengthBody, ToCloseBody
from gatewright.wire.server import NEED_DATA, NeedData, RequestHead


@frozen
class ResponseHead:
    """Status and headers of an answer; answers of 1xx are passed over.

    Attributes:
        status: 200 to 999.
        headers: Names in lower case.
        content_length: Size of the body where the head tells.
    """

    status: int
    headers: Headers
    content_length: int | None

    def get(self, name: str) -> str | None:
        """First value of a header; None where it is absent."""
        return find_header(self.headers, name.lower().encode("latin-1"))


@frozen
class BodyData:
    """Some content of the answer, never empty: all that one `receive` brought."""

    data: bytes


@frozen
class ResponseEnd:
    """The answer is complete."""


@frozen
class UpstreamBroken:
    """The connection or its framing broke; close it.

    Attributes:
        reason: One line for people.
        unanswered: Not a byte of an answer had come: where the connection was used before, the upstream may have
            closed it while the request was on its way.
    """

    reason: str
    unanswered: bool


ClientEvent = ResponseHead | BodyData | ResponseEnd | NeedData | UpstreamBroken

RESPONSE_END: Final = ResponseEnd()

MAX_HEAD_BYTES: Final = 65_536
_JOIN_BELOW_BYTES: Final = 65_536
"""Copying a small body is cheaper than a second write."""

_TARGET: Final = re.compile(r"/[\x21-\x7e]*")
_HOST: Final = re.compile(r"[\x21-\x7e]+")
_METHOD: Final = re.compile(r"[A-Z]+")
_WITH_BODY: Final = frozenset(("POST", "PUT", "PATCH"))

_FIRST_DIGIT: Final = len(b"HTTP/1.1 ")
# h11 takes an answer's head without having seen the request, but an informational one (1xx) only after it.
_SENT: Final = h11.Request(method="POST", target="/", headers=[("host", "upstream")])


class _State(Enum):
    """Where the exchange stands."""

    IDLE = "idle"
    HEAD = "head"
    BODY = "body"
    DONE = "done"
    BROKEN = "broken"


class ClientExchange:
    """A connection to an upstream: `request_bytes`, then `receive` and `next_event` up to `ResponseEnd`, and again."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._state = _State.IDLE
        self._parser: h11.Connection | None = None
        self._body: Body = LengthBody(0)
        self._pending = b""  # waits for `next_event`: the first bytes of the head, later content
        self._received = False
        self._eof = False
        self._keep_alive = True
        self._is_head_request = False
        self._broken: UpstreamBroken | None = None

    @property
    def reusable(self) -> bool:
        """Whether the connection can take another request now."""
        if self._state is _State.DONE:
            return self._keep_alive and not self._eof and not self._body.surplus
        return self._state is _State.IDLE and not self._eof

    def next_cycle(self) -> None:
        """Make ready for another request on the same connection.

        Raises:
            RuntimeError: It is not `reusable`.
        """
        if not self.reusable:
            raise RuntimeError("this connection takes no other request")
        self._begin()

    # --- the request

    def request_bytes(
        self, method: str, host: str, path: str, headers: Headers, body: bytes = b""
    ) -> list[bytes]:
        """The whole request, in pieces to be written one after the other.

        Args:
            method: In upper case.
            host: `Host` header: name and port.
            path: Path and query, percent-encoded.
            headers: Without `Host` and those of the connection (`fields.FRAMING_FIELDS`).
            body: All of it.

        Raises:
            ValueError: Something is not fit to be sent.
            RuntimeError: Another exchange is under way (`next_cycle`).
        """
        if self._state is not _State.IDLE or self._eof:
            raise RuntimeError("this connection takes no other request")
        if not (_METHOD.fullmatch(method) and _TARGET.fullmatch(path) and _HOST.fullmatch(host)):
            raise ValueError(f"not a request: {method!r} {path!r} at {host!r}")
        length = f"content-length: {len(body)}\r\n" if body or method in _WITH_BODY else ""
        line = f"{method} {path} HTTP/1.1\r\nhost: {host}\r\n{length}".encode("ascii")
        head = line + encode_fields(headers) + b"\r\n"
        self._is_head_request = method == "HEAD"
        self._state = _State.HEAD
        if not body:
            return [head]
        return [head + body] if len(body) < _JOIN_BELOW_BYTES else [head, body]

    # --- the answer

    def receive(self, data: bytes) -> None:
        """Take in what the upstream sent; b"" stands for the end of file."""
        if self._state is _State.BROKEN:
            return
        try:
            if not data:
                self._eof = True
                if self._state is _State.BODY:
                    self._body.feed_eof()
            elif self._state is _State.BODY:
                self._pending += self._body.feed(data)
            elif self._state is _State.HEAD:
                self._received = True
                if self._parser is None:
                    self._pending += data
                else:
                    self._parser.receive_data(data)
            else:
                self._break("the upstream sent what nobody had asked for")
        except FramingError as error:
            self._pending += error.content
            self._break(f"the upstream's answer is broken: {error}")

    def next_event(self) -> ClientEvent:
        """What the bytes received so far mean."""
        if self._state is _State.HEAD:
            return self._read_head()
        if self._pending:
            event = BodyData(self._pending)
            self._pending = b""
            return event
        if self._broken is not None:
            return self._broken
        if self._state is _State.BODY and self._body.complete:
            self._state = _State.DONE
            return RESPONSE_END
        return NEED_DATA

    def _break(self, reason: str) -> UpstreamBroken:
        self._state = _State.BROKEN
        self._broken = UpstreamBroken(reason, not self._received)
        return self._broken

    def _read_head(self) -> ClientEvent:
        parser = self._parser
        if parser is None:
            if len(self._pending) <= _FIRST_DIGIT:
                if not self._eof:
                    return NEED_DATA
                return self._break("the upstream closed the connection without an answer")
            parser = self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
            if self._pending[_FIRST_DIGIT : _FIRST_DIGIT + 1] == b"1":
                parser.send(_SENT)
            parser.receive_data(self._pending)
            self._pending = b""
        try:
            event = parser.next_event()
            while type(event) is h11.InformationalResponse:
                event = parser.next_event()
        except h11.RemoteProtocolError as error:
            return self._break(f"the upstream's answer is no HTTP: {str(error).partition(':')[0]}")
        if type(event) is not h11.Response:
            return self._break("the upstream's answer broke off in its head") if self._eof else NEED_DATA
        return self._take_head(event, parser.trailing_data[0])

    def _take_head(self, response: h11.Response, rest: bytes) -> ResponseHead:
        headers = tuple([(name.lower(), value) for name, value in response.headers.raw_items()])
        fields = dict(headers)
        is_chunked = b"transfer-encoding" in fields  # h11 lets none but "chunked" pass
        length = None if is_chunked or b"content-length" not in fields else int(fields[b"content-length"])
        connection = [
            member for name, value in headers if name == b"connection" for member in list_members(value)
        ]
        self._keep_alive = response.http_version == b"1.1" and b"close" not in connection
        if self._is_head_request or response.status_code in {204, 304}:
            self._body = LengthBody(0)
        elif is_chunked:
            self._body = ChunkedBody()
            # Two lengths at once: the next answer would begin where only one of them says.
            self._keep_alive = self._keep_alive and b"content-length" not in fields
        elif length is not None:
            self._body = LengthBody(length)
        else:
            self._body = ToCloseBody()
            self._keep_alive = False
        self._parser = None
        self._state = _State.BODY
        if rest:
            self.receive(rest)
        if self._eof:
            self.receive(b"")
        return ResponseHead(response.status_code, headers, length)


# --- which headers pass through

_ABOUT_THE_UPSTREAM: Final = frozenset(
    (
        # hop by hop: RFC 9110, 7.6.1
        b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
        # the connection to the client writes its own
        b"content-length",
        # of the upstream as a site: its name, clock, cookies, transport and other addresses
        b"server", b"date", b"set-cookie", b"set-cookie2", b"alt-svc", b"strict-transport-security", b"via",
        # ours to give
        b"x-request-id", b"x-accel-buffering",
    )
)  # fmt: skip
_ABOUT_THE_UPSTREAM_PREFIXES: Final = (b"proxy-", b"x-gw-", b"access-control-")


def forwardable_headers(headers: Headers) -> Headers:
    """The headers of an upstream's answer that the client gets.

    CORS headers are not among them: an upstream that lets every site read its answers must not decide that for us.
    """
    named = {member for name, value in headers if name == b"connection" for member in list_members(value)}
    return tuple(
        [
            header
            for header in headers
            if header[0] not in _ABOUT_THE_UPSTREAM
            and header[0] not in named
            and not header[0].startswith(_ABOUT_THE_UPSTREAM_PREFIXES)
        ]
    )


_FOR_THE_UPSTREAM: Final = frozenset(
    (
        b"content-type", b"accept", b"user-agent",
        b"anthropic-version", b"anthropic-beta", b"openai-beta",
        b"traceparent", b"tracestate",
    )
)  # fmt: skip


def upstream_headers(
    head: RequestHead,
    *,
    credential: str | None = None,
    format: ApiFormat = ApiFormat.OTHER,  # noqa: A002 - as in facts
) -> Headers:
    """The headers that an upstream gets: few, named one by one, and no credential of the client's among them.

    Args:
        head: The client's request.
        credential: The upstream's own key, if it wants one.
        format: Anthropic's API takes its key in `x-api-key`.
    """
    headers = [header for header in head.headers if header[0] in _FOR_THE_UPSTREAM]
    headers.append((b"accept-encoding", b"identity"))  # the taps read what passes
    if credential is not None:
        key = credential.strip().encode("utf-8")
        headers.append((b"authorization", b"Bearer " + key))
        if format is ApiFormat.MESSAGES:
            headers.append((b"x-api-key", key))
    return tuple(headers)
