"""Connections to upstreams, kept alive between requests."""

import ssl
from typing import Final

from attrs import define

from gatewright.wire.client import ClientExchange
from gatewright_asyncio.streams import Stream, connect
from gatewright_host.upstream_calls import Address, AddressBook

IDLE_PER_UPSTREAM: Final = 64


@define(eq=False)
class Connection:
    """A connection to an upstream.

    Attributes:
        address: Where to.
        stream: The socket.
        exchange: The protocol on it.
    """

    address: Address
    stream: Stream
    exchange: ClientExchange


class UpstreamPool:
    """Idle connections by upstream.

    Attributes:
        addresses: Where upstreams are.
    """

    def __init__(self) -> None:
        self.addresses = AddressBook()
        self._idle: dict[Address, list[Connection]] = {}
        self._tls: ssl.SSLContext | None = None

    def take_idle(self, address: Address) -> Connection | None:
        """A kept connection that is still open, the one used last first."""
        idle = self._idle.get(address)
        while idle:
            connection = idle.pop()
            connection.stream.on_lost = None
            if connection.stream.is_open:
                return connection
            connection.stream.abort()
        return None

    async def open(self, address: Address, timeout_s: float) -> Connection:
        """A new connection.

        Raises:
            StreamTimeout: It does not stand in time.
            OSError: There is nobody, or no such name.
        """
        if address.tls and self._tls is None:
            self._tls = ssl.create_default_context()
        tls = self._tls if address.tls else None
        return Connection(
            address, await connect(address.host, address.port, tls=tls, timeout_s=timeout_s), ClientExchange()
        )

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for later if it can be used again, else close it."""
        idle = self._idle.setdefault(connection.address, [])
        if (
            not connection.exchange.reusable
            or not connection.stream.is_open
            or len(idle) >= IDLE_PER_UPSTREAM
        ):
            connection.stream.abort()
            return
        connection.exchange.next_cycle()
        connection.stream.on_lost = lambda: self._forget(connection)
        idle.append(connection)

    def _forget(self, connection: Connection) -> None:
        idle = self._idle.get(connection.address, [])
        if connection in idle:
            idle.remove(connection)
        if not idle:
            self._idle.pop(connection.address, None)
        connection.stream.abort()

    def close(self) -> None:
        """Close all idle connections."""
        for idle in self._idle.values():
            for connection in idle:
                connection.stream.on_lost = None
                connection.stream.abort()
        self._idle.clear()
