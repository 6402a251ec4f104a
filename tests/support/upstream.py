"""A small upstream on a real socket: each connection is served by a function that may do anything."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

Serve = Callable[[socket.socket, bytes, bytes], None]
"""Called with the connection and the head and body of each request on it."""

CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}\n\n'
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def reply(body: bytes, status: bytes = b"200 OK", headers: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n"
    return head % (status, len(body), headers) + body


class Upstream:
    """Listens on a port of its own while it is entered.

    Args:
        serve: Answers one request.
        tls: For an upstream that is called `localhost` and speaks TLS.
    """

    def __init__(self, serve: Serve, tls: ssl.SSLContext | None = None) -> None:
        self._serve = serve
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}" if tls is None else f"https://localhost:{port}"
        self.requests: list[tuple[bytes, bytes]] = []
        self.connections = 0
        self._open: list[socket.socket] = []

    def lua(self, name: str, extra: str = "") -> str:
        """Its model in a configuration."""
        return f'{{ name = "{name}", engine = presets.engines.openai, connect = "{self.url}", {extra} }}'

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            connection.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._open.append(connection)
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        data = b""
        with contextlib.suppress(OSError):
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
                self._open.append(connection)
            while True:
                while b"\r\n\r\n" not in data:
                    piece = connection.recv(65536)
                    if not piece:
                        return
                    data += piece
                head, _, data = data.partition(b"\r\n\r\n")
                length = (
                    int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                    if b"ontent-" in head
                    else 0
                )
                while len(data) < length:
                    data += connection.recv(65536)
                body, data = data[:length], data[length:]
                self.requests.append((head, body))
                self._serve(connection, head, body)
