"""Driving the Fleet: facts go in one at a time, each command is carried out by one function, nothing is decided."""

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any, Final

from gatewright.commands import (
    ExitHost,
    Log,
    ProbeEngine,
    SignalEngine,
    SpawnEngine,
    TellHolder,
)
from gatewright.events import (
    EngineExited,
    EngineProbed,
    EngineSpawned,
    EngineSpawnFailed,
    FleetEvent,
    FleetStarted,
    Health,
    HolderAttached,
    HolderGone,
    Woke,
)
from gatewright.fleet import Fleet
from gatewright.ids import EngineId, HolderId
from gatewright.leases import LeaseNews
from gatewright.tracing.trace import Trace, TraceLine, handle_traced
from gatewright_host.engine_log import EnginesLogFile
from gatewright_host.log_setup import log_level_of
from gatewright_host.ports import Ports
from gatewright_host.process import EngineProcess, SpawnError
from gatewright_host.records import Records

Deliver = Callable[[LeaseNews], None]
"""Takes the news of one holder; must return at once and must not raise."""

MACHINE: Final = "fleet"
"""Name of the machine in traces."""

_logger: Final = logging.getLogger("gatewright.fleet")


class FleetDriver:
    """A Fleet in an event loop. All its methods belong to the loop's thread.

    Args:
        fleet: The machine.
        records: Where running engines are recorded.
        file: Where engines' lines go; `close` closes it.
        trace: Told of every event and its commands.

    Attributes:
        fleet: The machine, for `status`.
        processes: Engines that run, by id.
        exit_reason: Resolved with the reason of `ExitHost`, or with what the Fleet raised.
    """

    def __init__(
        self, fleet: Fleet, records: Records, file: EnginesLogFile, trace: Trace | None = None
    ) -> None:
        self.fleet = fleet
        self.processes: dict[EngineId, EngineProcess] = {}
        self._loop = asyncio.get_running_loop()
        self.exit_reason: asyncio.Future[str] = self._loop.create_future()
        self._records = records
        self._file = file
        self._trace = trace
        self._ports = Ports()
        self._run_id = secrets.token_hex(8)
        self._holder_ids = count(1)
        self._holders: dict[HolderId, Deliver] = {}
        self._inbox: deque[FleetEvent] = deque()
        self._is_feeding = False
        self._closed = False
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._carry_out: dict[type, Callable[[Any], None]] = {
            TellHolder: self._tell_holder,
            SpawnEngine: self._spawn_engine,
            ProbeEngine: self._probe_engine,
            SignalEngine: self._signal_engine,
            ExitHost: self._exit_host,
            Log: self._log,
        }

    def start(self) -> None:
        """Set the clock for what the Fleet waits for from the beginning."""
        self._set_alarm()

    @property
    def holders(self) -> int:
        """Number of holders attached."""
        return len(self._holders)

    def attach(self, deliver: Deliver) -> HolderId:
        """A new holder of leases, whose news go to `deliver`."""
        holder = HolderId(next(self._holder_ids))
        self._holders[holder] = deliver
        self.feed(HolderAttached(holder=holder))
        return holder

    def detach(self, holder: HolderId) -> None:
        """The holder is gone; it hears nothing more."""
        if self._holders.pop(holder, None) is not None:
            self.feed(HolderGone(holder=holder))

    def feed(self, event: FleetEvent) -> None:
        """Tell the Fleet a fact, and carry out what it answers before this returns.

        Called while a command is being carried out, the fact waits in line: `handle` is never re-entered.
        """
        if self._closed:
            return
        self._inbox.append(event)
        if not self._is_feeding:
            self._drain()

    def _drain(self) -> None:
        self._is_feeding = True
        try:
            while self._inbox:
                self._handle(self._inbox.popleft())
        except Exception as error:
            # The machine has a bug, and what it knows cannot be relied on: whoever waits for the host's end hears
            # of it. What still waits in line is true all the same, and may free somebody.
            if not self.exit_reason.done():
                self.exit_reason.set_exception(error)
            if self._inbox:
                self._loop.call_soon(self._drain)
            raise
        finally:
            self._is_feeding = False
        self._set_alarm()

    def _handle(self, event: FleetEvent) -> None:
        now = time.monotonic()
        for command in handle_traced(self.fleet, MACHINE, event, now, self._trace):
            try:
                self._carry_out[type(command)](command)
            except Exception:
                _logger.exception("a bug: carrying out %s failed", command)

    def close(self) -> None:
        """Stop driving: kill at once what still runs, hear and tell nothing more."""
        self._closed = True
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        for task in self._tasks:
            task.cancel()
        for engine in self.processes.values():
            engine.kill_and_forget()
            self._records.remove(engine.pid)
        self.processes.clear()
        self._holders.clear()
        self._file.close()
        if not self.exit_reason.done():
            self.exit_reason.set_result("closed")
        self.exit_reason.exception()  # heard of, though perhaps nobody waited

    async def settle_tasks(self) -> None:
        """Wait for tasks that `close` has canceled."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- the clock

    def _set_alarm(self) -> None:
        """See that `Woke` comes in time. One that comes early does no harm, so only an earlier deadline re-arms."""
        deadline = self.fleet.wake_at
        if self._alarm is not None:
            if deadline is None or deadline.at >= self._alarm_at:
                return
            self._alarm.cancel()
            self._alarm = None
        if deadline is None or self._closed:
            return
        self._alarm_at = deadline.at
        # The loop's own clock may be coarse or late (uvloop's is), so it is given a distance and not a time.
        self._alarm = self._loop.call_later(max(0.0, deadline.at - time.monotonic()), self._wake)

    def _wake(self) -> None:
        self._alarm = None
        self.feed(Woke())

    # --- the commands

    def _tell_holder(self, command: TellHolder) -> None:
        deliver = self._holders.get(command.holder)
        if deliver is not None:
            deliver(command.news)

    def _spawn_engine(self, command: SpawnEngine) -> None:
        engine_id, label = command.engine_id, command.spec.label
        marker = f"{self._run_id}/{engine_id}"

        def exited(reason: str) -> None:
            self._engine_exited(engine_id, reason)

        try:
            engine = EngineProcess.spawn(command.spec, self._ports, self._file, marker, exited)
        except SpawnError as error:
            self.feed(EngineSpawnFailed(command_id=command.command_id, reason=str(error)))
            return
        except Exception as error:
            _logger.exception("a bug: spawning %s failed", label)
            reason = f"{type(error).__name__}: {error}"
            self.feed(EngineSpawnFailed(command_id=command.command_id, reason=reason))
            return
        self.processes[engine_id] = engine
        try:
            self._records.add(label, engine.pid, marker)
        except OSError as error:
            _logger.warning("engine %s (pid %d) is not recorded: %s", label, engine.pid, error)
        _logger.info("engine %s started: pid %d, %s", label, engine.pid, engine.base_url)
        self.feed(EngineSpawned(command_id=command.command_id, pid=engine.pid, base_url=engine.base_url))

    def _engine_exited(self, engine_id: EngineId, reason: str) -> None:
        engine = self.processes.pop(engine_id)
        self._records.remove(engine.pid)
        _logger.info("engine %s (pid %d) ended: %s", engine.label, engine.pid, reason)
        self.feed(EngineExited(engine_id=engine_id, reason=reason))

    def _probe_engine(self, command: ProbeEngine) -> None:
        self._start(self._probe(command))

    async def _probe(self, command: ProbeEngine) -> None:
        from gatewright_host.probe import probe_engine  # noqa: PLC0415  # clients wait for hosts to come up

        try:
            probed = await probe_engine(command)
        except Exception as error:
            _logger.exception("a bug: probing %s failed", command.base_url)
            detail = f"{type(error).__name__}: {error}"
            probed = EngineProbed(command_id=command.command_id, health=Health.WRONG, detail=detail)
        self.feed(probed)

    def _signal_engine(self, command: SignalEngine) -> None:
        engine = self.processes.get(command.engine_id)
        if engine is not None:
            engine.send_signal(command.signal)

    def _exit_host(self, command: ExitHost) -> None:
        if not self.exit_reason.done():
            self.exit_reason.set_result(command.reason)

    def _log(self, command: Log) -> None:
        _logger.log(log_level_of(command.severity), "%s", command.text)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def make_fleet(linger_s: float | None, trace: Trace | None) -> Fleet:
    """A new Fleet, whose trace begins with how it was made.

    Args:
        linger_s: Seconds without engines and holders after which it wants its host to exit; None never.
        trace: Told of every event and its commands; None tells nobody.
    """
    now = time.monotonic()
    if trace is not None:
        started = FleetStarted(linger_s=linger_s, now=now)
        trace(TraceLine(machine=MACHINE, now=now, event=started, commands=()))
    return Fleet(linger_s=linger_s, now=now)
