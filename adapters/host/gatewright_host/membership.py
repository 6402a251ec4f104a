"""A server's place among the users of the engines: the engine host itself, or attached to one that runs."""

import asyncio
import logging
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

from gatewright.engines.spec import EngineSpec
from gatewright.errors import EngineHostLost
from gatewright.ids import LeaseId
from gatewright.leases import (
    LeaseEngine,
    LeaseGranted,
    LeaseLost,
    LeaseNews,
    LeaseProgress,
    LeaseRefused,
    LeaseRequest,
)
from gatewright_host.engine_host import EngineHost, HostLink
from gatewright_host.fleet_driver import Deliver, Trace
from gatewright_host.host_link import AsyncHostLink
from gatewright_host.host_lock import HostRunning, read_announcement
from gatewright_host.host_protocol import HostLost
from gatewright_host.host_status import HostStatus
from gatewright_host.state_dir import StateDir

JOIN_TIMEOUT_S: Final = 15.0
"""A host that starts has swept what another left by then, or something is wrong."""
_POLL_S: Final = 0.02
_REJOIN_PERIOD_S: Final = 1.0
_LOST_RETRY_S: Final = 1.0

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
        self._granted: dict[LeaseId, bool] = {}
        self._unsent: dict[LeaseId, LeaseEngine] = {}
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

    async def shutdown(self, *, force: bool = False) -> None:
        """End all engines that are ours and wait until they are gone; another host's are left alone."""
        if self._host is not None:
            await self._host.shutdown(force=force)

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
        lease_id = request.lease_id
        if isinstance(request, LeaseEngine):
            if self._link is None:
                self._unsent[lease_id] = request
                return
            self._granted[lease_id] = False
        elif self._unsent.pop(lease_id, None) is not None or self._granted.pop(lease_id, None) is None:
            return  # the host never heard of it, or died with it
        if self._link is not None:
            self._link.send(request)

    def _hear(self, news: LeaseNews) -> None:
        match news:
            case LeaseGranted(lease_id=lease_id):
                if lease_id in self._granted:
                    self._granted[lease_id] = True
            case LeaseRefused(lease_id=lease_id) | LeaseLost(lease_id=lease_id):
                self._granted.pop(lease_id, None)
            case LeaseProgress():
                pass
        self._deliver(news)

    def _lose(self, reason: str) -> None:
        _logger.warning("%s", reason)
        self._link = None
        over, self._granted = self._granted, {}
        self._rejoining = asyncio.get_running_loop().create_task(self._rejoin())
        self._report(over)

    def _report(self, over: dict[LeaseId, bool]) -> None:
        problem = EngineHostLost(
            "the process that owns the engines went away", retry_after_s=_LOST_RETRY_S
        ).problem
        for lease_id, was_granted in over.items():
            if was_granted:
                self._deliver(LeaseLost(lease_id=lease_id, problem=problem))
            else:
                self._deliver(LeaseRefused(lease_id=lease_id, problem=problem))

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
                self._report(dict.fromkeys(unsent, False))
                await asyncio.sleep(_REJOIN_PERIOD_S)
        unsent, self._unsent = self._unsent, {}
        for request in unsent.values():
            self.send(request)
