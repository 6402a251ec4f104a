"""Bytes to and from a socket, by one thread that blocks and others that may wake it."""

import socket
import struct
from collections.abc import Generator
from contextlib import suppress
from select import POLLIN, poll
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ssl import SSLContext

READ_BYTES: Final = 65_536
LOOK_UP_S: Final = 1.0
"""How often a thread that waits looks up, to tell its client what it should hear meanwhile."""


_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""A `struct linger`: linger, for no time."""


class StreamLost(Exception):
    """The connection broke, or `abort` was called."""


class StreamTimeout(Exception):
    """Nothing happened in time."""


class Stream:
    """One connection. One thread reads, writes and closes; `abort` alone may be called by others.

    Args:
        sock: The connected socket.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._timeout_s = sock.gettimeout()
        self._aborted = False
        self._at_eof = False

    @property
    def is_open(self) -> bool:
        """Whether it can be read and written as far as anybody knows, and nothing waits to be read."""
        if self._aborted or self._at_eof:
            return False
        poller = poll()
        poller.register(self._socket, POLLIN)  # whatever else may be reported is no good news either
        return not poller.poll(0)

    def read(self, timeout_s: float | None = None) -> bytes:
        """Wait for bytes; b"" once the peer has closed, in good form or not.

        Args:
            timeout_s: Longest wait; None waits for ever.

        Raises:
            StreamTimeout: Nothing came in time.
            StreamLost: `abort` was called.
        """
        data = b""
        try:
            self._limit(timeout_s)
            data = self._socket.recv(READ_BYTES)
        except TimeoutError:
            if not self._aborted:
                raise StreamTimeout from None
        except OSError:
            pass  # a reset is an end like any other: the protocol knows whether it came too early
        if self._aborted:
            raise StreamLost("aborted")
        self._at_eof = not data
        return data

    def read_in_steps(self, timeout_s: float | None) -> Generator[None, None, bytes]:
        """Wait for bytes as `read` does, and look up now and then."""
        give_up_at = None if timeout_s is None else monotonic() + timeout_s
        while True:
            rest_s = LOOK_UP_S if give_up_at is None else min(LOOK_UP_S, give_up_at - monotonic())
            try:
                return self.read(rest_s)
            except StreamTimeout:
                if give_up_at is not None and monotonic() >= give_up_at:
                    raise
            yield

    def write(self, data: bytes, timeout_s: float | None = None) -> None:
        """Send everything.

        A peer that takes no more is not complained of here: it may have answered before it closed, and who reads
        will learn that, or find the end.

        Args:
            data: What to send.
            timeout_s: Until the last byte is on its way; None waits for ever.

        Raises:
            StreamTimeout: The peer does not take it in time.
            StreamLost: `abort` was called.
        """
        try:
            self._limit(timeout_s)
            self._socket.sendall(data)
        except TimeoutError:
            if not self._aborted:
                raise StreamTimeout from None
        except OSError:
            pass
        if self._aborted:
            raise StreamLost("aborted")

    def _limit(self, timeout_s: float | None) -> None:
        if timeout_s != self._timeout_s:
            # 0 would mean not to wait at all, and to fail otherwise than by a timeout.
            self._socket.settimeout(timeout_s if timeout_s is None else max(timeout_s, 0.001))
            self._timeout_s = timeout_s

    def abort(self) -> None:
        """Break the connection, from any thread: whoever waits on it gets `StreamLost` now. It still has to be closed.

        The socket is not closed here, since its number could become another connection's under the reader's hands.
        """
        self._aborted = True
        with suppress(OSError):
            # Closing resets the connection. A peer whose window is closed would not learn of a proper end before its
            # kernel has forgotten the connection, a minute later, and an engine would generate for nobody meanwhile.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            # Not the method of an SSL socket, which would take the encryption away from its reader.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the socket."""
        self._aborted = True
        with suppress(OSError):
            self._socket.close()


def connect(host: str, port: int, *, tls: "SSLContext | None", timeout_s: float) -> Stream:
    """Open a connection.

    Args:
        host: Name or address.
        port: Port.
        tls: Context for an encrypted connection; None for a plain one.
        timeout_s: For each address of the host, and for the handshake.

    Raises:
        StreamTimeout: It does not stand in time.
        OSError: There is nobody, or no such name; `ssl.SSLError` is one of these.
    """
    try:
        sock = socket.create_connection((host, port), timeout=timeout_s)
    except TimeoutError:
        raise StreamTimeout from None
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            sock = tls.wrap_socket(sock, server_hostname=host)
    except TimeoutError:
        sock.close()
        raise StreamTimeout from None
    except BaseException:
        sock.close()
        raise
    return Stream(sock)
