"""Clients that vanish, or take nothing, while their requests are served.

A WSGI application learns of neither: it is told when a write fails, and while it waits for an engine it writes nothing.
Where the server hands out the client's socket, one thread for all requests of the process looks at it instead.
"""

import logging
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

LOOK_S: Final = 0.25
"""How often it looks; between two looks a vanished client keeps its engine busy."""

_SOCKET_KEYS: Final = ("gunicorn.socket", "werkzeug.socket")
# A client that has sent its end of file counts as gone, as in `gw-server`. Where the system does not tell of that,
# one that has closed altogether is found by the next write.
_GONE: Final = getattr(select, "POLLRDHUP", 0)

_logger: Final = logging.getLogger("gatewright.server")


def client_socket(environ: dict[str, Any]) -> socket.socket | None:
    """The socket of the request's client; None where the server shows none, or others share it."""
    if not environ.get("SERVER_PROTOCOL", "").startswith("HTTP/1"):
        return None  # HTTP/2 has many requests on one
    for key in _SOCKET_KEYS:
        found = environ.get(key)
        if isinstance(found, socket.socket):
            return found
    return None


class Client:
    """One request's client.

    Args:
        sock: Its socket; None where there is no access to it.
        on_gone: Called once if it vanishes, in the watching thread.
    """

    def __init__(self, sock: socket.socket | None, on_gone: Callable[[], None]) -> None:
        self.socket = sock
        self.on_gone = on_gone
        self._sending_since: float | None = None

    def sending(self) -> None:
        """The server begins to send it something."""
        self._sending_since = time.monotonic()

    def taken(self) -> None:
        """It has taken what it was sent, as far as the system's buffers tell."""
        self._sending_since = None

    def is_gone(self, stall_timeout_s: float) -> bool:
        """Whether it has gone; one that took nothing for that long is shown the door, and the blocked writer wakes."""
        assert self.socket is not None
        poller = select.poll()
        poller.register(self.socket, _GONE)  # errors are reported unasked
        if poller.poll(0):
            return True
        since = self._sending_since
        if since is None or time.monotonic() < since + stall_timeout_s:
            return False
        with suppress(OSError):
            # Not the method of an SSL socket, which would take the encryption away from its writer.
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)
        return True


class ClientWatch:
    """The clients of one process. Its thread starts with the first of them.

    Args:
        stall_timeout_s: How long a client may take nothing of what it is sent.
    """

    def __init__(self, stall_timeout_s: float) -> None:
        self._stall_timeout_s = stall_timeout_s
        self._clients: set[Client] = set()
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def add(self, client: Client) -> None:
        """Begin to watch a client."""
        if client.socket is None:
            return
        with self._changed:
            self._clients.add(client)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="gatewright-clients", daemon=True)
                self._thread.start()
            self._changed.notify()

    def remove(self, client: Client) -> None:
        """Leave a client alone: from now on its socket may be closed, and its number be another's."""
        with self._changed:
            self._clients.discard(client)

    def close(self) -> None:
        """Watch nobody any more, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _watch(self) -> None:
        while True:
            with self._changed:
                while not self._clients and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                gone = [client for client in self._clients if client.is_gone(self._stall_timeout_s)]
                self._clients.difference_update(gone)
            for client in gone:
                try:
                    client.on_gone()
                except Exception:
                    _logger.exception("a bug: a client that went away was not noticed")
            time.sleep(LOOK_S)
