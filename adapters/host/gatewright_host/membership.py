"""A server's place among the users of the engines: the engine host itself, or attached to one that runs."""

import asyncio
import logging
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

from gatewright.engines.spec import EngineSpec
from gatewright.ids import LeaseId
from gatewright.leases import (
    AskLoads,
    LeaseEngine,
    LeaseNews,
    LeaseRequest,
    ReleaseLease,
    ReportCall,
    granted_at_once,
)
from gatewright.tracing.trace import Trace
from gatewright_host.engine_host import EngineHost, HostLink
from gatewright_host.fleet_driver import Deliver
from gatewright_host.host_link import AsyncHostLink
from gatewright_host.host_lock import HostRunning, read_announcement
from gatewright_host.host_protocol import HostLost
from gatewright_host.host_status import HostStatus
from gatewright_host.open_leases import OpenLeases, lost
from gatewright_host.state_dir import StateDir

JOIN_TIMEOUT_S: Final = 15.0
"""A host that starts has swept what another left by then, or something is wrong."""
_POLL_S: Final = 0.02
_REJOIN_PERIOD_S: Final = 1.0

_logger: Final = logging.getLogger("gatewright.host")


class FleetMembership:
    """Use it as an asynchronous context manager, in the thread of one event loop.

    Where the engine host is another process and goes away, everything outstanding is reported refused or lost,
    and the membership joins again, as the host itself if nobody else is; what is sent meanwhile waits for that.

    Args:
        state: State directory.
        deliver: Takes the news of leases, in the event loop's thread, often before `send` returns. It must
            return at once and must not raise; it may call `send`.
        trace: Told of every event of the Fleet and its commands while the engines are ours.
    """

    def __init__(self, state: StateDir, deliver: Deliver, *, trace: Trace | None = None) -> None:
        self._state = state
        self._deliver = deliver
        self._trace = trace
        self._stack = AsyncExitStack()
        self._host: EngineHost | None = None
        self._link: HostLink | AsyncHostLink | None = None
        self._open = OpenLeases()
        self._unsent: dict[LeaseId, LeaseEngine | AskLoads] = {}
        self._at_once: set[LeaseId] = set()  # granted without asking anybody
        self._rejoining: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Join.

        Raises:
            HostLost: Another process has the host's lock and does not answer.
            HostRefused: The host is of another version.
            OSError: The state directory cannot be used.
        """
        try:
            async with asyncio.timeout(JOIN_TIMEOUT_S):
                await self._join()
        except TimeoutError as error:
            raise HostLost(f"another process holds {self._state.lock_file} and does not answer") from error
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave; engines that are ours end."""
        if self._rejoining is not None:
            self._rejoining.cancel()
            await asyncio.gather(self._rejoining, return_exceptions=True)
        if self._link is not None:
            self._link.close()
            self._link = None
        await self._stack.__aexit__(kind, error, traceback)

    @property
    def owns_engines(self) -> bool:
        """Whether this process is the engine host."""
        return self._host is not None

    def send(self, request: LeaseRequest) -> None:
        """Say something about leases; never blocks, never fails."""
        if isinstance(request, LeaseEngine):
            granted = granted_at_once(request)
            if granted is not None:
                self._at_once.add(request.lease_id)
                self._deliver(granted)
                return
        elif request.lease_id in self._at_once:
            if isinstance(request, ReleaseLease):
                self._at_once.remove(request.lease_id)
            return
        if self._host is None:
            self._remember(request)
        elif self._link is not None:
            self._link.send(request)

    def replace_specs(self, old: tuple[EngineSpec, ...], new: tuple[EngineSpec, ...]) -> None:
        """The configuration was reloaded: engines that only `old` names end once nobody holds them."""
        if self._link is not None:
            self._link.replace_specs(old, new)

    async def status(self) -> HostStatus:
        """What the host and its engines do now.

        Raises:
            HostLost: There is no host at the moment.
        """
        if self._host is not None:
            return self._host.status()
        if isinstance(self._link, AsyncHostLink):
            return await self._link.status()
        raise HostLost("the engine host is gone; another one is being looked for")

    async def stop_engines(self, model: str | None = None, *, force: bool = False) -> None:
        """Have engines stopped: of one model or all, once nobody holds them or by force at once.

        Raises:
            HostLost: There is no host at the moment.
        """
        if self._host is not None:
            self._host.stop_engines(model, force=force)
        elif isinstance(self._link, AsyncHostLink):
            await self._link.stop_engines(model, force=force)
        else:
            raise HostLost("the engine host is gone; another one is being looked for")

    async def shutdown(self, *, force: bool = False, grace_s: float = 0.0) -> None:
        """Give our leases back, and wait until all engines that are ours are gone; another host's are left alone.

        Args:
            force: Kill them.
            grace_s: Seconds for which leases of others on our engines are left alone first.
        """
        if self._host is not None:
            if self._link is not None:
                self._link.close()
                self._link = None
            await self._host.shutdown(force=force, grace_s=grace_s)

    # --- joining

    async def _join(self) -> None:
        """Become the host or attach to it, whichever is possible first."""
        while True:
            host = EngineHost(self._state, linger_s=None, trace=self._trace)
            try:
                await self._stack.enter_async_context(host)
            except HostRunning:
                if await self._attach():
                    return
            else:
                self._host, self._link = host, host.attach(self._deliver)
                return
            # It is about to listen, or about to end.
            await asyncio.sleep(_POLL_S)

    async def _attach(self) -> bool:
        announcement = read_announcement(self._state.lock_file)
        if announcement is None:
            return False
        try:
            self._link = await AsyncHostLink.connect(announcement.socket, self._hear, self._lose)
        except HostLost:
            return False
        _logger.info("attached to the engine host of process %d", announcement.pid)
        return True

    # --- with another process's host

    def _remember(self, request: LeaseRequest) -> None:
        match request:
            case LeaseEngine(lease_id=lease_id) | AskLoads(lease_id=lease_id) if self._link is None:
                self._unsent[lease_id] = request
            case LeaseEngine(lease_id=lease_id) | AskLoads(lease_id=lease_id):
                self._open.ask(lease_id)
            case ReleaseLease(lease_id=lease_id):
                if self._unsent.pop(lease_id, None) is not None or not self._open.give_back(lease_id):
                    return  # the host never heard of it, or died with it
            case ReportCall():
                pass  # nothing that would have to be made good
        if self._link is not None:
            self._link.send(request)

    def _hear(self, news: LeaseNews) -> None:
        self._open.hear(news)
        self._deliver(news)

    def _lose(self, reason: str) -> None:
        _logger.warning("%s", reason)
        self._link = None
        over = self._open.lose()
        self._rejoining = asyncio.get_running_loop().create_task(self._rejoin())
        for news in over:
            self._deliver(news)

    async def _rejoin(self) -> None:
        while True:
            try:
                async with asyncio.timeout(JOIN_TIMEOUT_S):
                    await self._join()
                break
            except Exception as error:  # noqa: BLE001  # whatever it is, requests must be answered, and tries go on
                reason = (
                    "the one that has the lock does not answer" if isinstance(error, TimeoutError) else error
                )
                _logger.error("no engine host: %s", reason)  # noqa: TRY400  # a traceback says no more
                unsent, self._unsent = self._unsent, {}
                for lease_id in unsent:
                    self._deliver(lost(lease_id, was_granted=False))
                await asyncio.sleep(_REJOIN_PERIOD_S)
        unsent, self._unsent = self._unsent, {}
        for request in unsent.values():
            self.send(request)
