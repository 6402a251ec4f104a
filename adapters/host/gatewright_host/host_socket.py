"""The socket that an engine host listens on."""

import asyncio
import logging
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gatewright_host.fleet_driver import FleetDriver
from gatewright_host.host_connection import HostConnection

if TYPE_CHECKING:
    from gatewright_host.engine_host import EngineHost

_BACKLOG: Final = 256
_ACCEPTED_AT_A_TIME: Final = 32
_ACCEPT_PAUSE_S: Final = 0.5
_CLOSE_TIMEOUT_S: Final = 2.0

_logger: Final = logging.getLogger("gatewright.host")


class HostSocket:
    """Listens, and keeps the connections.

    It accepts by itself: asyncio's servers lose a connection that comes while they close, and its client waits.

    Args:
        host: Answers what is asked.
        driver: Hears what is said about leases.
    """

    def __init__(self, host: "EngineHost", driver: FleetDriver) -> None:
        self.host = host
        self.driver = driver
        self._loop = asyncio.get_running_loop()
        self._connections: set[HostConnection] = set()
        self._accepting: set[asyncio.Task[None]] = set()
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._is_closed = False
        self._listener: socket.socket | None = None
        self._path: Path | None = None

    def listen(self, path: Path) -> None:
        """Listen at this path. Who holds the host's lock may remove a socket that an earlier one left there.

        Raises:
            OSError: It cannot be done.
        """
        with suppress(FileNotFoundError):
            path.unlink()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.setblocking(False)  # noqa: FBT003  # a positional-only argument
        self._listener.bind(os.fspath(path))
        self._path = path
        path.chmod(0o600)  # nobody could connect before `listen`
        self._listener.listen(_BACKLOG)
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def close(self) -> None:
        """Stop listening, remove the socket, and drop all connections."""
        self._is_closed = True
        if self._listener is not None:
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()
            self._path = None
        for connection in list(self._connections):
            connection.drop(flush=False)

    async def wait_closed(self) -> None:
        """Wait until the event loop has let go of all connections that `close` dropped."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await asyncio.gather(*self._accepting)
                await self._is_empty.wait()

    def add(self, connection: HostConnection) -> bool:
        """A client connected; False if that was too late."""
        self._connections.add(connection)
        self._is_empty.clear()
        return not self._is_closed

    def remove(self, connection: HostConnection) -> None:
        """A client is gone."""
        self._connections.discard(connection)
        if not self._connections:
            self._is_empty.set()

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_A_TIME):
            if self._listener is None:
                return
            try:
                client, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no more descriptors, most likely
                _logger.warning("cannot accept a client: %s", error)
                self._loop.remove_reader(self._listener.fileno())
                self._loop.call_later(_ACCEPT_PAUSE_S, self._resume)
                return
            task = self._loop.create_task(self._connect(client))
            self._accepting.add(task)
            task.add_done_callback(self._accepting.discard)

    def _resume(self) -> None:
        if self._listener is not None:
            self._loop.add_reader(self._listener.fileno(), self._accept)

    async def _connect(self, client: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: HostConnection(self), client)
        except OSError as error:  # it is gone already
            client.close()
            _logger.debug("a client left before it was served: %s", error)
