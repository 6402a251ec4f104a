"""HTTP as it goes over the wire: requests one by one, on one connection, as bytes, and streams with their times.

Python's `http.client` and bare sockets, and nothing of Gatewright's own: an error in how the gateway writes must not
meet the same error in who reads it.
"""

import contextlib
import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from attrs import evolve, field, frozen

from gatewright_cli.verification.target import Target

CONNECT_S: Final = 10.0
_READ_BYTES: Final = 65_536
_SHOWN_BYTES: Final = 600


@frozen
class Answer:
    """A whole answer.

    Attributes:
        status: HTTP status.
        headers: Names in lower case, values; repeated ones repeat.
        body: Without transfer coding.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def get(self, name: str) -> str | None:
        """First value of a header; None where it is absent."""
        return next(iter(self.values(name)), None)

    def values(self, name: str) -> list[str]:
        """All values of a header."""
        return [value for found, value in self.headers if found == name]


@frozen
class StreamEvent:
    """One server-sent event.

    Attributes:
        data: Its data lines, joined.
        at_s: When its last byte was read, in seconds of a monotonic clock.
    """

    data: str
    at_s: float


class Stream:
    """An answer that is read as it comes.

    Attributes:
        status: HTTP status.
        headers: Names in lower case, values.
    """

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers = _headers_of(response)

    def events(self) -> Iterator[StreamEvent]:
        """Events up to the end of the answer; comments are passed over.

        Raises:
            OSError: The connection broke.
            http.client.HTTPException: So did the answer.
        """
        held = b""
        while piece := self._response.read1(_READ_BYTES):
            now = time.monotonic()
            *whole, held = (held + piece).replace(b"\r\n", b"\n").split(b"\n\n")
            for block in whole:
                lines = [line for line in block.split(b"\n") if line.startswith(b"data:")]
                if lines:
                    data = b"\n".join(line[5:].removeprefix(b" ") for line in lines)
                    yield StreamEvent(data.decode("utf-8", "replace"), now)

    def answer(self) -> Answer:
        """All of it, for an answer that is no stream after all."""
        return Answer(self.status, self.headers, self._response.read())


class _Connection(http.client.HTTPConnection):
    """Over TCP, TLS or a Unix socket, whatever the target is."""

    def __init__(self, client: "Client") -> None:
        super().__init__(client.target.host, client.target.port or None, timeout=client.timeout_s)
        self._client = client

    def connect(self) -> None:
        self.sock = self._client.connect()


@frozen
class Client:
    """Talks to one gateway.

    Attributes:
        target: Where it is.
        key: API key to present, if any.
        timeout_s: Longest silence that is borne, in seconds.
        notes: The last exchanges, for people; filled as they happen.
    """

    target: Target
    key: str | None = field(default=None, repr=False)
    timeout_s: float = 300.0
    notes: list[str] = field(factory=list)

    def with_key(self, key: str | None) -> "Client":
        """The same with another key, or none."""
        return evolve(self, key=key)

    def connect(self) -> socket.socket:
        """A connection of one's own.

        Raises:
            OSError: There is nobody, or TLS cannot be agreed upon.
        """
        target = self.target
        if target.socket_path is not None:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.settimeout(CONNECT_S)
                connection.connect(target.socket_path)
            except OSError:
                connection.close()
                raise
        else:
            connection = socket.create_connection((target.host, target.port), min(CONNECT_S, self.timeout_s))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if target.tls:
                connection = ssl.create_default_context().wrap_socket(connection, server_hostname=target.host)
        connection.settimeout(self.timeout_s)
        return connection

    @contextmanager
    def session(self) -> Iterator[http.client.HTTPConnection]:
        """A connection for several requests, each by `exchange`."""
        connection = _Connection(self)
        try:
            yield connection
        finally:
            connection.close()

    def exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        """Send a request on a connection, and return its answer with its body unread.

        Args:
            connection: From `session`.
            method: Such as "POST".
            path: Behind the root of the target, from "/v1" on for most.
            body: A document, or bytes as they are; None for no body.
            headers: Besides `Host`, the key and the type of the body; they win.
        """
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        given = {name.lower(): value for name, value in (headers or {}).items()}
        default = {"host": self.target.host_header, "user-agent": "gw-cli", "accept": "*/*"}
        if data is not None:
            default["content-type"] = "application/json"
        if self.key is not None:
            default["authorization"] = f"Bearer {self.key}"
        self.notes[:] = [f"{method} {path} {_brief(data or b'')}".rstrip()]
        connection.request(method, self.target.root + path, data, default | given)
        response = connection.getresponse()
        self.notes.append(f"{response.status} {response.reason}")
        self.notes.extend(f"{name}: {value}" for name, value in response.getheaders())
        return response

    def send(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request on a connection of its own; arguments as of `exchange`.

        Raises:
            OSError: No connection, or it broke.
            http.client.HTTPException: What came is no HTTP, or not all of it came.
        """
        with self.session() as connection:
            response = self.exchange(connection, method, path, body, headers)
            answer = Answer(response.status, _headers_of(response), response.read())
        self.notes.append(_brief(answer.body))
        return answer

    def get(self, path: str, **headers: str) -> Answer:
        """`send` a GET."""
        return self.send("GET", path, headers=headers)

    def post(self, path: str, document: object, **headers: str) -> Answer:
        """`send` a POST of a document."""
        return self.send("POST", path, document, headers)

    @contextmanager
    def stream(self, path: str, document: Mapping[str, Any]) -> Iterator[Stream]:
        """POST a document with `stream: true`; leaving closes the connection, wherever the answer is.

        Raises:
            OSError: No connection, or it broke.
            http.client.HTTPException: What came is no HTTP.
        """
        with self.session() as connection:
            response = self.exchange(connection, "POST", path, {**document, "stream": True})
            # Without this the socket lives on in the response until that is collected.
            with contextlib.closing(response):
                yield Stream(response)

    def request_bytes(
        self, method: str, path: str, body: bytes = b"", fields: Sequence[str] = (), *, version: str = "1.1"
    ) -> bytes:
        """A request as it goes over the wire.

        Args:
            method: Such as "POST".
            path: Behind the root of the target.
            body: As it is sent; its length is told unless the fields tell of a transfer coding or length.
            fields: Further header lines.
            version: Of HTTP.
        """
        names = {line.partition(":")[0].lower() for line in fields}
        lines = [f"{method} {self.target.root}{path} HTTP/{version}"]
        if "host" not in names:
            lines.append(f"Host: {self.target.host_header}")
        if self.key is not None and "authorization" not in names:
            lines.append(f"Authorization: Bearer {self.key}")
        if body and "content-type" not in names:
            lines.append("Content-Type: application/json")
        if method == "POST" and not names & {"content-length", "transfer-encoding"}:
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*lines, *fields, "", ""]).encode("latin-1") + body

    def raw(self, data: bytes, *, quiet_s: float | None = None) -> bytes:
        """Send bytes and return all that comes back until the other side closes.

        Args:
            data: To send; a side that closes before it has read them all is no error.
            quiet_s: Longest silence to wait for more, in seconds; None for the timeout.

        Raises:
            TimeoutError: The connection stayed open, and silent for the timeout.
            OSError: There is nobody.
        """
        self.notes[:] = [_brief(data)]
        received = b""
        with contextlib.closing(self.connect()) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(data)
            connection.settimeout(self.timeout_s if quiet_s is None else quiet_s)
            try:
                while piece := connection.recv(_READ_BYTES):
                    received += piece
            except ConnectionError:
                pass  # refused in the middle of what it was sent; what it said before is what counts
            except TimeoutError:
                if quiet_s is None:
                    raise
        self.notes.append(_brief(received))
        return received


def _headers_of(response: http.client.HTTPResponse) -> tuple[tuple[str, str], ...]:
    return tuple((name.lower(), value.strip()) for name, value in response.getheaders())


def _brief(data: bytes) -> str:
    text = data[:_SHOWN_BYTES].decode("utf-8", "replace")
    return f"{text}… ({len(data)} bytes)" if len(data) > _SHOWN_BYTES else text
