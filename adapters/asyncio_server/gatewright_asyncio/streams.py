"""Bytes to and from a socket, with backpressure both ways and prompt news of a peer that went away.

anyio's own socket streams stop reading while nobody receives, so a client that vanishes while its request waits
for an engine would go unnoticed; a second task for each request would be needed to watch it. This protocol reads
ahead by a bounded amount instead, and calls `on_lost` as soon as the peer closes.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Final, cast

READ_AHEAD_BYTES: Final = 262_144
WRITE_AHEAD_BYTES: Final = 65_536


class StreamLost(Exception):
    """The peer closed, the connection broke, or `abort` was called."""


class StreamTimeout(Exception):
    """Nothing happened in time."""


class Stream(asyncio.Protocol):
    """One connection.

    Args:
        on_connected: Called once the connection stands; None for connections that we open.

    Attributes:
        on_lost: Called once, when the peer has closed or the connection broke; None calls nobody.
        at_eof: Whether the peer has closed.
    """

    def __init__(self, on_connected: "Callable[[Stream], None] | None" = None) -> None:
        self.on_lost: Callable[[], None] | None = None
        self.at_eof = False
        self._on_connected = on_connected
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._reading_paused = False
        self._writing_paused = False
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._aborted = False

    # --- called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        # Not checked at run time: uvloop's transports are none of asyncio's classes.
        self._transport = transport = cast("asyncio.Transport", transport)
        transport.set_write_buffer_limits(high=WRITE_AHEAD_BYTES)
        if self._on_connected is not None:
            self._on_connected(self)

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        self._received += data
        if (
            len(self._received) >= READ_AHEAD_BYTES
            and not self._reading_paused
            and self._transport is not None
        ):
            self._reading_paused = True
            self._transport.pause_reading()
        _wake(self._reader)

    def eof_received(self) -> bool:
        """The peer sends no more; what we have to say may still reach it."""
        self._lose()
        # TLS has no half-closed connections, and event loops warn of a True there.
        return self._transport is not None and self._transport.get_extra_info("ssl_object") is None

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # the reason does not matter here
        """The connection is gone."""
        self._lose()
        _wake(self._writer)
        if not self._closed.done():
            self._closed.set_result(None)

    def pause_writing(self) -> None:
        """The peer does not keep up."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """It does again."""
        self._writing_paused = False
        _wake(self._writer)

    def _lose(self) -> None:
        if self.at_eof:
            return
        self.at_eof = True
        _wake(self._reader)
        if self.on_lost is not None:
            self.on_lost()

    # --- called by us

    @property
    def peer(self) -> str:
        """Address of the other side, for logs."""
        if self._transport is None:
            return ""
        name = self._transport.get_extra_info("peername")
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "unix"

    @property
    def is_open(self) -> bool:
        """Whether it can be read and written."""
        return not (self.at_eof or self._aborted or self._transport is None or self._transport.is_closing())

    def read_now(self) -> bytes:
        """What has been received and not been read; b"" if that is nothing."""
        data = bytes(self._received)
        self._received.clear()
        if self._reading_paused and self._transport is not None and not self._transport.is_closing():
            self._reading_paused = False
            self._transport.resume_reading()
        return data

    async def read(self, timeout_s: float | None = None) -> bytes:
        """The next bytes; b"" if the peer has closed.

        Args:
            timeout_s: Longest silence; None waits for ever.

        Raises:
            StreamTimeout: Nothing came in time.
            StreamLost: `abort` was called.
        """
        if not self._received and not self.at_eof and not self._aborted:
            self._reader = self._loop.create_future()
            await self._wait(self._reader, timeout_s)
        if self._aborted:
            raise StreamLost("aborted")
        return self.read_now()

    def write(self, data: bytes) -> None:
        """Send without waiting; `drain` before sending much more."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def drain(self, timeout_s: float | None = None) -> None:
        """Wait until the peer keeps up.

        Args:
            timeout_s: Longest wait; None waits for ever.

        Raises:
            StreamTimeout: It does not take anything any more.
            StreamLost: The connection is gone.
        """
        if self._writing_paused and not self._aborted:
            self._writer = self._loop.create_future()
            await self._wait(self._writer, timeout_s)
        if self._aborted or self._transport is None or self._transport.is_closing():
            raise StreamLost("connection lost")

    async def _wait(self, future: "asyncio.Future[None]", timeout_s: float | None) -> None:
        if timeout_s is None:
            await future
            return
        timer = self._loop.call_later(timeout_s, _expire, future)
        try:
            await future
        finally:
            timer.cancel()

    def abort(self) -> None:
        """Drop the connection at once; whoever waits on it gets `StreamLost`."""
        self._aborted = True
        if self._transport is not None:
            self._transport.abort()
        _wake(self._reader)
        _wake(self._writer)

    def write_eof(self) -> None:
        """Say that nothing more follows; reading goes on."""
        if (
            self._transport is not None
            and not self._transport.is_closing()
            and self._transport.can_write_eof()
        ):
            self._transport.write_eof()

    def give_up_draining(self) -> None:
        """Drop the connection if somebody waits for its peer to keep up."""
        if self._writer is not None and not self._writer.done():
            self.abort()

    def close(self) -> None:
        """Close once everything written has been sent."""
        if self._transport is not None:
            self._transport.close()

    async def wait_closed(self) -> None:
        """Wait until the connection is gone."""
        await asyncio.shield(self._closed)


def _wake(future: "asyncio.Future[None] | None") -> None:
    if future is not None and not future.done():
        future.set_result(None)


def _expire(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_exception(StreamTimeout())


async def connect(host: str, port: int, *, tls: ssl.SSLContext | None, timeout_s: float) -> Stream:
    """Open a connection.

    Args:
        host: Name or address.
        port: Port.
        tls: Context for an encrypted connection; None for a plain one.
        timeout_s: Until the connection stands, handshake included.

    Raises:
        StreamTimeout: It does not stand in time.
        OSError: There is nobody, or no such name; `ssl.SSLError` is one of these.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            _, stream = await loop.create_connection(
                Stream, host, port, ssl=tls, server_hostname=host if tls is not None else None
            )
    except TimeoutError:
        raise StreamTimeout from None
    return stream
