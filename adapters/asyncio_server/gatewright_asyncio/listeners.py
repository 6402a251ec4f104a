"""The addresses and Unix sockets that a server listens on."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final, assert_never

from gatewright.config import Listener, TcpListener, UnixListener
from gatewright.errors import GatewrightError
from gatewright_asyncio.streams import Stream

BACKLOG: Final = 1024
UNIX_SOCKET_MODE: Final = 0o660
"""The operator's group may connect, a reverse proxy for example."""

OnConnected = Callable[[Stream], None]


class CannotListen(GatewrightError):
    """An address is taken, not ours, or not permitted."""


class Listeners:
    """Open listeners by their configuration.

    Args:
        on_connected: Called for each new connection over TCP.
        on_unix_connected: Called for each new connection over a Unix socket.
    """

    def __init__(self, on_connected: OnConnected, on_unix_connected: OnConnected) -> None:
        self._on_connected = on_connected
        self._on_unix_connected = on_unix_connected
        self._open: dict[Listener, asyncio.Server] = {}

    async def change(self, wanted: tuple[Listener, ...]) -> None:
        """Listen on exactly these; what stays the same is not touched.

        Raises:
            CannotListen: One of them cannot be opened; those that were open before still are.
        """
        opened: dict[Listener, asyncio.Server] = {}
        try:
            for listener in wanted:
                if listener not in self._open and listener not in opened:
                    opened[listener] = await self._listen(listener)
        except OSError as error:
            for server in opened.values():
                server.close()
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise CannotListen(f"cannot listen on {describe(listener)}: {reason}") from error
        for listener in self._open.keys() - set(wanted):
            self._close(listener)
        self._open.update(opened)

    async def _listen(self, listener: Listener) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        match listener:
            case TcpListener(host=host, port=port):
                return await loop.create_server(
                    lambda: Stream(self._on_connected), host, port, backlog=BACKLOG, reuse_address=True
                )
            case UnixListener(path=path):
                _remove_stale_socket(path)
                server = await loop.create_unix_server(
                    lambda: Stream(self._on_unix_connected), path, backlog=BACKLOG
                )
                Path(path).chmod(UNIX_SOCKET_MODE)  # noqa: ASYNC240  # once, and quick
                return server
            case _ as unreachable:
                assert_never(unreachable)

    def _close(self, listener: Listener) -> None:
        self._open.pop(listener).close()
        if isinstance(listener, UnixListener):
            with contextlib.suppress(OSError):
                Path(listener.path).unlink()

    def close(self) -> None:
        """Listen on nothing any more; connections stay."""
        for listener in list(self._open):
            self._close(listener)

    @property
    def urls(self) -> tuple[str, ...]:
        """Where to reach the server, with the ports that were chosen."""
        return tuple(url for listener, server in self._open.items() for url in _urls(listener, server))

    @property
    def hosts(self) -> frozenset[str]:
        """Addresses listened on, as a `Host` header may name them."""
        return frozenset(listener.host for listener in self._open if isinstance(listener, TcpListener))


def _urls(listener: Listener, server: asyncio.Server) -> list[str]:
    if isinstance(listener, UnixListener):
        return [f"unix:{listener.path}"]
    addresses = [sock.getsockname() for sock in server.sockets]
    return [
        f"http://[{address[0]}]:{address[1]}" if ":" in address[0] else f"http://{address[0]}:{address[1]}"
        for address in addresses
    ]


def describe(listener: Listener) -> str:
    """A listener for people."""
    match listener:
        case TcpListener(host=host, port=port):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case UnixListener(path=path):
            return path
        case _ as unreachable:
            assert_never(unreachable)


def _remove_stale_socket(path: str) -> None:
    """Remove a socket file that nobody listens on; one in use, or another kind of file, makes `bind` fail."""
    if not Path(path).is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)
