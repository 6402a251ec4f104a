"""A client that tells how an answer ended, and one that leaves before it does."""

import contextlib
import http.client
import json
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from attrs import frozen

TIMEOUT_S = 20.0
"""Nothing takes so long; an answer that does counts as none."""

Connect = Callable[[], socket.socket]
"""Opens a connection to the gateway."""


@frozen
class Outcome:
    """What came back for one request.

    Attributes:
        status: None if the connection ended without one, or the answer took too long.
        headers: By name in lower case.
        body: As far as it came.
        is_whole: Whether HTTP says that this is all.
        took_s: Until the end.
    """

    status: int | None
    headers: dict[str, str]
    body: bytes
    is_whole: bool
    took_s: float = 0.0

    @property
    def is_stream(self) -> bool:
        """Whether it is made of events."""
        return self.headers.get("content-type", "").startswith("text/event-stream")


class KeptConnection(http.client.HTTPConnection):
    """Connects as it is told, and knows whether it has carried a request before."""

    def __init__(self, connect: Connect) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._connect = connect
        self.is_used = False

    def connect(self) -> None:
        self.sock = self._connect()
        self.sock.settimeout(TIMEOUT_S)
        self.is_used = False


class SoakClient:
    """Sends requests one after the other, on a kept connection where the server keeps it.

    Args:
        connect: Opens a connection.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._kept = KeptConnection(connect)

    def close(self) -> None:
        """Close the kept connection."""
        self._kept.close()

    def ask(self, body: Any, path: str = "/v1/chat/completions", method: str = "POST") -> Outcome:
        """One request, and all that comes back."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        while True:
            was_used = self._kept.is_used and self._kept.sock is not None
            outcome = self._ask(method, path, data)
            # A kept connection may be closed while the request is on its way: every client asks again.
            if outcome.status is not None or not was_used:
                return outcome

    def _ask(self, method: str, path: str, data: bytes | None) -> Outcome:
        began = time.monotonic()
        try:
            self._kept.request(method, path, data, {"Content-Type": "application/json"})
            response = self._kept.getresponse()
        except (http.client.HTTPException, OSError):
            self._kept.close()
            return Outcome(None, {}, b"", is_whole=False, took_s=time.monotonic() - began)
        headers = {name.lower(): value for name, value in response.getheaders()}
        received, is_whole = b"", False
        try:
            while piece := response.read1(65536):
                received += piece
                if time.monotonic() > began + TIMEOUT_S:
                    self._kept.close()
                    return Outcome(None, headers, received, is_whole=False, took_s=TIMEOUT_S)
            is_whole = not response.length
        except (http.client.HTTPException, OSError):
            pass
        if is_whole:
            self._kept.is_used = True
        else:
            self._kept.close()
        return Outcome(response.status, headers, received, is_whole, time.monotonic() - began)

    def leave(
        self, body: Any, *, after_bytes: int, after_s: float, rudely: bool, send_bytes: int = -1
    ) -> None:
        """Send a request, or some bytes of it, and close the connection.

        Args:
            body: Of the request.
            after_bytes: Read this much of the answer first, if it comes.
            after_s: Wait this long at most.
            rudely: Reset the connection.
            send_bytes: How much of the request to send; all of it if negative.
        """
        data = json.dumps(body).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n"
        )
        request = head.encode() + data
        end = time.monotonic() + after_s
        with self._connect() as sock, contextlib.suppress(OSError):
            sock.sendall(request if send_bytes < 0 else request[:send_bytes])
            received = 0
            while received < after_bytes and (left := end - time.monotonic()) > 0:
                sock.settimeout(left)
                piece = sock.recv(4096)
                if not piece:
                    break
                received += len(piece)
            if not after_bytes:
                time.sleep(after_s)
            if rudely:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
