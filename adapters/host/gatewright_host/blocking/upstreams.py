"""Connections to upstreams, kept alive between requests and shared by all threads of a process."""

import os
import threading
from time import monotonic
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from attrs import define

from gatewright.wire.client import ClientExchange
from gatewright_host.blocking.streams import Stream, connect
from gatewright_host.upstream_calls import Address, AddressBook

if TYPE_CHECKING:
    from ssl import SSLContext

IDLE_PER_UPSTREAM: Final = 64
IDLE_S: Final = 60.0
"""Kept connections are closed after this time. Nobody watches them meanwhile, and an engine that has ended does not
come back at its address: its connections would stay for ever."""


@define(eq=False)
class Connection:
    """A connection to an upstream; one thread's at a time.

    Attributes:
        address: Where to.
        stream: The socket.
        exchange: The protocol on it.
        idle_since: When it was given back, in seconds of `monotonic`.
    """

    address: Address
    stream: Stream
    exchange: ClientExchange
    idle_since: float = 0.0


class UpstreamPool:
    """Idle connections by upstream.

    Attributes:
        addresses: Where upstreams are.
    """

    def __init__(self) -> None:
        self.addresses = AddressBook()
        self._tls: SSLContext | None = None
        self.start_anew()
        _POOLS.add(self)

    def start_anew(self) -> None:
        """Begin with no connections, as a forked child has to: those that it inherited are its parent's."""
        self._lock = threading.Lock()
        self._idle: dict[Address, list[Connection]] = {}
        self._pruned_at = monotonic()

    def take_idle(self, address: Address) -> Connection | None:
        """A kept connection that is still open, the one used last first."""
        while True:
            with self._lock:
                idle = self._idle.get(address)
                if not idle:
                    return None
                connection = idle.pop()
            if connection.stream.is_open:
                return connection
            connection.stream.close()

    def open(self, address: Address, timeout_s: float) -> Connection:
        """A new connection.

        Raises:
            StreamTimeout: It does not stand in time.
            OSError: There is nobody, or no such name.
        """
        tls = self._tls_context() if address.tls else None
        return Connection(
            address, connect(address.host, address.port, tls=tls, timeout_s=timeout_s), ClientExchange()
        )

    def _tls_context(self) -> "SSLContext":
        if self._tls is None:
            # Engines of one's own are asked without encryption, and `gw-cli` is in a hurry.
            from ssl import create_default_context  # noqa: PLC0415

            self._tls = create_default_context()
        return self._tls

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for later if it can be used again, else close it."""
        if not connection.exchange.reusable or not connection.stream.is_open:
            connection.stream.close()
            return
        connection.exchange.next_cycle()
        connection.idle_since = now = monotonic()
        with self._lock:
            surplus = self._prune(now)
            idle = self._idle.setdefault(connection.address, [])
            if len(idle) < IDLE_PER_UPSTREAM:
                idle.append(connection)
            else:
                surplus.append(connection)
        for old in surplus:
            old.stream.close()

    def _prune(self, now: float) -> list[Connection]:
        """Take out what has been idle for too long, now and then."""
        if now < self._pruned_at + IDLE_S:
            return []
        self._pruned_at = now
        old: list[Connection] = []
        for address, idle in list(self._idle.items()):
            old += [each for each in idle if now >= each.idle_since + IDLE_S]
            self._idle[address] = [each for each in idle if now < each.idle_since + IDLE_S]
            if not self._idle[address]:
                del self._idle[address]
        return old

    def close(self) -> None:
        """Close all idle connections."""
        with self._lock:
            idle, self._idle = self._idle, {}
        for connection in [each for kept in idle.values() for each in kept]:
            connection.stream.close()


_POOLS: Final[WeakSet[UpstreamPool]] = WeakSet()


def _after_fork() -> None:
    for pool in list(_POOLS):
        pool.start_anew()


# A child must neither wait for a lock that no thread of it holds nor talk on its parent's connections.
os.register_at_fork(after_in_child=_after_fork)
