"""The engine host: the one process of a state directory that owns its engines."""

import asyncio
import logging
import os
import time
from functools import cache
from types import TracebackType
from typing import Final, Self

from gatewright.engines.spec import EngineSpec
from gatewright.events import LeaseAsked, ShutdownRequested, SpecsReplaced, StopAsked
from gatewright.leases import LeaseRequest
from gatewright.tracing.trace import Trace
from gatewright_host.engine_log import EnginesLogFile
from gatewright_host.fleet_driver import Deliver, FleetDriver, make_fleet
from gatewright_host.host_lock import Announcement, HostLock, HostRunning
from gatewright_host.host_socket import HostSocket
from gatewright_host.host_status import EngineReport, HostStatus
from gatewright_host.process_group import memory_bytes
from gatewright_host.records import Records
from gatewright_host.state_dir import StateDir

__all__ = ["EngineHost", "HostLink", "HostRunning"]

FORCED_END_TIMEOUT_S: Final = 10.0
"""A process may resist SIGKILL while a driver holds it; we do not wait for it for ever."""

_logger: Final = logging.getLogger("gatewright.host")


class HostLink:
    """A holder of leases in the host's own event loop; made by `EngineHost.attach`."""

    def __init__(self, driver: FleetDriver, deliver: Deliver) -> None:
        self._driver = driver
        self.holder: Final = driver.attach(deliver)

    def send(self, request: LeaseRequest) -> None:
        """Say something about leases. What follows at once is delivered before this returns.

        Unless it is called out of `deliver`: then it is taken in as soon as what is being delivered is.
        """
        self._driver.feed(LeaseAsked(holder=self.holder, request=request))

    def replace_specs(self, old: tuple[EngineSpec, ...], new: tuple[EngineSpec, ...]) -> None:
        """The configuration was reloaded: engines that only `old` names end once nobody holds them."""
        self._driver.feed(SpecsReplaced(old=old, new=new))

    def close(self) -> None:
        """Give back all leases and hear nothing more. Closing twice is closing once."""
        self._driver.detach(self.holder)


class EngineHost:
    """Runs engines for whoever is attached, in memory or over the socket, as the Fleet says.

    Use it as an asynchronous context manager. Leaving it ends all engines: in good form, or at once where it is
    left by an exception.

    Args:
        state: Its state directory.
        linger_s: Seconds without engines and holders after which it wants to exit (`wait_exit`); None never.
        trace: Told of every event and its commands.

    Attributes:
        state: Its state directory.
    """

    def __init__(self, state: StateDir, *, linger_s: float | None = None, trace: Trace | None = None) -> None:
        self.state = state
        self._linger_s = linger_s
        self._trace = trace
        self._lock = HostLock(state.lock_file)
        self._records = Records(state.records_dir)
        self._started_at = time.monotonic()
        self._driver: FleetDriver | None = None
        self._socket: HostSocket | None = None

    async def __aenter__(self) -> Self:
        """Become the engine host.

        Raises:
            HostRunning: Another process is.
            OSError: The state directory or the socket cannot be used.
        """
        self._lock.acquire()
        try:
            await self._sweep()
            file = EnginesLogFile(self.state.engines_log)
            fleet = make_fleet(self._linger_s, self._trace)
            self._driver = FleetDriver(fleet, self._records, file, self._trace)
            self._socket = HostSocket(self, self._driver)
            path = self.state.choose_socket()
            self._socket.listen(path)
            self._driver.start()
            self._lock.announce(Announcement(os.getpid(), str(path)))
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End all engines and give up the lock; done in any case, even if it is canceled."""
        try:
            async with asyncio.timeout(None if error is None else FORCED_END_TIMEOUT_S):
                await self.shutdown(force=error is not None)
        except TimeoutError:
            # Without its traceback, which would lead to this line only.
            _logger.error("an engine did not end within %g s of SIGKILL", FORCED_END_TIMEOUT_S)  # noqa: TRY400
        finally:
            await self._close()

    async def _sweep(self) -> None:
        if not self._records.all():
            return
        for record in await asyncio.to_thread(self._records.sweep):
            _logger.warning("killed engine %s (pid %d) of a host that was killed", record.label, record.pid)

    async def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._driver is not None:
            self._driver.close()
        self._lock.release()
        # Everything is done; only the event loop has to hear of it.
        if self._driver is not None:
            await self._driver.settle_tasks()
        if self._socket is not None:
            await self._socket.wait_closed()

    @property
    def is_running(self) -> bool:
        """Whether it was entered."""
        return self._driver is not None

    @property
    def driver(self) -> FleetDriver:
        """What drives the Fleet.

        Raises:
            AssertionError: The host was not entered (wrong use).
        """
        assert self._driver is not None, "the engine host is not running"
        return self._driver

    @property
    def is_detached(self) -> bool:
        """Whether it is a process for itself, and not part of a server."""
        return self._linger_s is not None

    def attach(self, deliver: Deliver) -> HostLink:
        """A new holder of leases in this event loop.

        Args:
            deliver: Takes its news, one at a time, in the event loop's thread, often before `send` returns.
                It must return at once and must not raise. It may call `send`.
        """
        return HostLink(self.driver, deliver)

    def stop_engines(self, model: str | None = None, *, force: bool = False) -> None:
        """Have engines stopped: of one model or all, once nobody holds them or by force at once."""
        self.driver.feed(StopAsked(model=model, force=force))

    def status(self) -> HostStatus:
        """What the host and its engines do now."""
        engines = []
        for engine in self.driver.fleet.status(time.monotonic()):
            process = self.driver.processes.get(engine.engine_id) if engine.engine_id is not None else None
            pid = process.pid if process is not None else None
            memory = memory_bytes(pid) if pid is not None else None
            engines.append(EngineReport(engine=engine, pid=pid, memory_bytes=memory))
        return HostStatus(
            pid=os.getpid(),
            version=_version(),
            uptime_s=time.monotonic() - self._started_at,
            detached=self.is_detached,
            holders=self.driver.holders,
            engines=tuple(engines),
        )

    def request_shutdown(self, *, force: bool = False, grace_s: float = 0.0) -> None:
        """Refuse what waits, take back all leases, and end all engines; `wait_exit` tells when that is done.

        Args:
            force: Kill them.
            grace_s: Seconds for which leases that were granted are left alone first.
        """
        self.driver.feed(ShutdownRequested(force=force, grace_s=grace_s))

    async def shutdown(self, *, force: bool = False, grace_s: float = 0.0) -> None:
        """`request_shutdown`, and wait until all engines are gone."""
        self.request_shutdown(force=force, grace_s=grace_s)
        await self.wait_exit()

    async def wait_exit(self) -> str:
        """Wait until the Fleet says that the host has nothing left to do, and return its reason.

        Raises:
            Exception: What the Fleet raised: it has a bug, and the host should end.
        """
        return await asyncio.shield(self.driver.exit_reason)


@cache
def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415  # clients wait for hosts to come up

    try:
        return version("gatewright")
    except PackageNotFoundError:  # run out of a source tree
        return "unknown"
