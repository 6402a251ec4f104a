"""The Fleet: the engines of one machine, who may use them, and who waits.

It knows no configuration: each lease says what would serve it, so that any number of Gateways with any
configurations share one Fleet. The states of one engine are in `engines/states.py`, the rules of the queue in
`engines/scheduling.py`; here events find the engine that they concern, and leases are kept in balance.
"""

from collections.abc import Iterable
from typing import Final, assert_never

from attrs import frozen

from gatewright.commands import ExitHost, FleetCommand, Log, Severity, TellHolder
from gatewright.engines.circuits import Circuits
from gatewright.engines.engine import Counter, Engine, LeaseKey
from gatewright.engines.loads import loads_of
from gatewright.engines.scheduling import Place
from gatewright.engines.spec import EngineSpec
from gatewright.engines.states import (
    Crashed,
    Draining,
    Ready,
    Refused,
    engine_id_of,
    probe_id_of,
    spawn_id_of,
    state_name,
)
from gatewright.errors import EngineStopped, Problem, ShuttingDown
from gatewright.events import (
    EngineExited,
    EngineProbed,
    EngineSpawned,
    EngineSpawnFailed,
    FleetEvent,
    HolderAttached,
    HolderGone,
    LeaseAsked,
    ShutdownRequested,
    SpecsReplaced,
    StopAsked,
    Woke,
)
from gatewright.ids import EngineId, HolderId
from gatewright.leases import (
    AskLoads,
    LeaseEngine,
    LeaseLost,
    LeasePurpose,
    LeaseRefused,
    LeaseRequest,
    LoadsTold,
    ReleaseLease,
    ReportCall,
)
from gatewright.timers import Deadline, earliest

SHUTDOWN_RETRY_S: Final = 5.0
CIRCUIT_OPEN: Final = "circuit open"
"""State of a remote engine that is ready, but not called for a while."""


@frozen(kw_only=True)
class EngineStatus:
    """One engine as `ps` shows it.

    Attributes:
        model: Name of the model.
        context_tokens: Context of one slot.
        state: Name of its state, or `CIRCUIT_OPEN`.
        engine_id: Its process, if there is one.
        base_url: Where it listens, if it does.
        slots: Requests at a time; None if unlimited or not known yet.
        leases: Slots taken.
        waiting: Requests in the queue that it would suit.
        idle_s: Seconds without a lease; None while it is leased or not ready.
        problem: Why it crashed, is refused or is not called.
    """

    model: str
    context_tokens: int
    state: str
    engine_id: EngineId | None = None
    base_url: str = ""
    slots: int | None = None
    leases: int = 0
    waiting: int = 0
    idle_s: float | None = None
    problem: str = ""


class Fleet:
    """Machine over `FleetEvent` and `FleetCommand`.

    Args:
        linger_s: Seconds without engines and holders after which the host is told to exit; None never.
        now: Seconds, monotonic: when the host started.

    Attributes:
        stale: Completions and messages of holders that matched nothing in state and were ignored.
    """

    def __init__(self, *, linger_s: float | None = None, now: float = 0.0) -> None:
        self.stale = 0
        self._linger_s = linger_s
        self._alone_since: float | None = now
        self._counter = Counter()
        self._places: dict[str, Place] = {}
        self._live: dict[Place, None] = {}
        self._asked: dict[LeaseKey, Place] = {}
        self._circuits = Circuits()
        self._holders: set[HolderId] = set()
        self._closing: Problem | None = None
        self._exited = False

    def handle(self, event: FleetEvent, now: float) -> list[FleetCommand]:
        """Take in one fact.

        Args:
            event: What happened.
            now: Seconds, monotonic, never less than before.

        Returns:
            What to do, in this order.
        """
        out: list[FleetCommand] = []
        for place in self._take_in(event, now, out):
            place.settle(now, out)
            if place.is_live:
                self._live[place] = None
            else:
                self._live.pop(place, None)
        for command in tuple(out):
            match command:
                case TellHolder(holder=holder, news=LeaseRefused() | LeaseLost() as news):
                    self._circuits.ended((holder, news.lease_id), now, out)
                case _:
                    pass
        self._exit_when_done(now, out)
        return out

    def _take_in(self, event: FleetEvent, now: float, out: list[FleetCommand]) -> Iterable[Place]:
        """Apply an event, and say in which places something may follow from it."""
        concerned: Iterable[Place] = ()
        match event:
            case LeaseAsked(holder=holder, request=request):
                concerned = self._hear(holder, request, now, out)
            case EngineSpawned() | EngineSpawnFailed() | EngineProbed():
                concerned = self._complete(event, now, out)
            case EngineExited():
                concerned = self._exit(event, now, out)
            case Woke():
                concerned = [
                    place for place in self._live if place.wake_at is not None and now >= place.wake_at.at
                ]
            case HolderAttached(holder=holder):
                self._holders.add(holder)
            case HolderGone(holder=holder):
                concerned = self._forget_holder(holder, now, out)
            case StopAsked():
                concerned = self._stop(event, now, out)
            case SpecsReplaced(old=old, new=new):
                concerned = self._replace_specs(old, new)
            case ShutdownRequested():
                concerned = self._close(event, now, out)
            case _ as unreachable:
                assert_never(unreachable)
        return concerned

    # --- leases

    def _hear(
        self, holder: HolderId, request: LeaseRequest, now: float, out: list[FleetCommand]
    ) -> Iterable[Place]:
        match request:
            case LeaseEngine():
                return self._ask(holder, request, now, out)
            case ReleaseLease():
                return self._release(holder, request, now, out)
            case ReportCall(lease_id=lease_id, result=result):
                if (holder, lease_id) not in self._asked:
                    self.stale += 1
                shut_out = self._circuits.reported((holder, lease_id), result, now, out)
                return self._shut_out(shut_out, out)
            case AskLoads():
                self._tell_loads(holder, request, now, out)
                return ()
            case _ as unreachable:
                assert_never(unreachable)

    def _tell_loads(self, holder: HolderId, asked: AskLoads, now: float, out: list[FleetCommand]) -> None:
        if holder not in self._holders:
            self.stale += 1
            return
        told = LoadsTold(lease_id=asked.lease_id, loads=loads_of(asked, self._places, self._circuits, now))
        out.append(TellHolder(holder=holder, news=told))

    def _ask(
        self, holder: HolderId, lease: LeaseEngine, now: float, out: list[FleetCommand]
    ) -> Iterable[Place]:
        key = (holder, lease.lease_id)
        if key in self._asked or holder not in self._holders:
            self.stale += 1
            return ()
        if self._closing is not None:
            refusal = LeaseRefused(lease_id=lease.lease_id, problem=self._closing)
            out.append(TellHolder(holder=holder, news=refusal))
            return ()
        name = lease.variants[0].place
        place = self._places.get(name)
        if place is None:
            place = self._places[name] = Place(self._counter, self._asked)
        if lease.purpose is LeasePurpose.COUNT:
            place.ask_to_count(key, lease, now, out)
            return (place,)
        admitted = self._circuits.admit(key, lease, now)
        if isinstance(admitted, Problem):
            place.engine(lease.variants[0])  # so that an operator sees it, and can close its circuit
            refusal = LeaseRefused(lease_id=lease.lease_id, problem=admitted)
            out.append(TellHolder(holder=holder, news=refusal))
            return ()
        place.ask(key, lease, now, out, is_probe=admitted)
        return (place,)

    def _release(
        self, holder: HolderId, release: ReleaseLease, now: float, out: list[FleetCommand]
    ) -> Iterable[Place]:
        key = (holder, release.lease_id)
        place = self._asked.get(key)
        if place is None:
            self.stale += 1
            return ()
        place.release(key, now, suspect=release.suspect)
        shut_out = self._circuits.ended(
            key, now, out, result=release.result, retry_after_s=release.retry_after_s
        )
        return {place: None, **self._shut_out(shut_out, out)}

    def _shut_out(
        self, leases: Iterable[tuple[LeaseKey, Problem]], out: list[FleetCommand]
    ) -> dict[Place, None]:
        """Their circuit has opened: refuse those that wait."""
        concerned: dict[Place, None] = {}
        for key, problem in leases:
            place = self._asked[key]
            place.refuse(key, problem, out)
            concerned[place] = None
        return concerned

    def _forget_holder(self, holder: HolderId, now: float, out: list[FleetCommand]) -> Iterable[Place]:
        self._holders.discard(holder)
        keys = [key for key in self._asked if key[0] == holder]
        concerned = dict.fromkeys(self._asked[key] for key in keys)
        for key in keys:
            self._asked[key].release(key, now)
            self._circuits.ended(key, now, out)
        return concerned

    # --- engines

    def _complete(
        self, event: EngineSpawned | EngineSpawnFailed | EngineProbed, now: float, out: list[FleetCommand]
    ) -> Iterable[Place]:
        for place in self._live:
            engine = place.current
            if engine is None:
                continue
            match event:
                case EngineSpawned() if spawn_id_of(engine.state) == event.command_id:
                    engine.spawned(event.base_url, now, out)
                case EngineSpawnFailed() if spawn_id_of(engine.state) == event.command_id:
                    engine.spawn_failed(event.reason, now)
                    self._report_failure(engine, out)
                case EngineProbed() if probe_id_of(engine.state) == event.command_id:
                    engine.probed(event, now, out)
                case _:
                    continue
            return (place,)
        self.stale += 1
        return ()

    def _exit(self, event: EngineExited, now: float, out: list[FleetCommand]) -> Iterable[Place]:
        for place in self._live:
            engine = place.current
            if engine is None or engine_id_of(engine.state) != event.engine_id:
                continue
            engine.exited(event.reason, now)
            problem = self._report_failure(engine, out)
            if problem is None:
                problem = EngineStopped(f"engine {engine.spec.label} was stopped").problem
            place.lose_leases(engine, problem, out)
            return (place,)
        self.stale += 1
        return ()

    def _report_failure(self, engine: Engine, out: list[FleetCommand]) -> Problem | None:
        if not isinstance(engine.state, Crashed | Refused):
            return None
        out.append(Log(severity=Severity.ERROR, text=engine.state.problem.message))
        return engine.state.problem

    # --- the operator

    def _stop(self, event: StopAsked, now: float, out: list[FleetCommand]) -> Iterable[Place]:
        concerned = []
        for place in self._places.values():
            for engine in place.engines.values():
                if event.model is None or engine.spec.model == event.model:
                    place.stop(engine, now, out, force=event.force)
                    self._circuits.forgive(engine.spec, out)
                    concerned.append(place)
        return dict.fromkeys(concerned)

    def _replace_specs(self, old: tuple[EngineSpec, ...], new: tuple[EngineSpec, ...]) -> Iterable[Place]:
        names, before = set(new), set(old)
        for spec in old:
            if spec not in names and spec.place in self._places:
                self._places[spec.place].retire(spec)
        for spec in new:
            place = self._places.get(spec.place)
            if place is None:
                continue
            if spec not in before:
                place.renew(spec)
            if (engine := place.engines.get(spec)) is not None:
                engine.forgive()  # what kept it from starting may be mended
        return list(self._places.values())

    def _close(self, event: ShutdownRequested, now: float, out: list[FleetCommand]) -> Iterable[Place]:
        self._closing = ShuttingDown("the engine host shuts down", retry_after_s=SHUTDOWN_RETRY_S).problem
        for place in self._places.values():
            place.close(self._closing, now, out, force=event.force, grace_s=event.grace_s)
        return list(self._places.values())

    def _exit_when_done(self, now: float, out: list[FleetCommand]) -> None:
        is_busy = bool(self._asked) or any(place.has_process for place in self._live)
        if self._holders or is_busy:
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = now
        if self._exited or is_busy:
            return
        if self._closing is not None:
            self._exited = True
            out.append(ExitHost(reason="shut down"))
        elif (
            self._linger_s is not None
            and self._alone_since is not None
            and now >= self._alone_since + self._linger_s
        ):
            self._exited = True
            out.append(ExitHost(reason=f"no engine and nobody attached for {self._linger_s:g} s"))

    # --- looking at it

    @property
    def wake_at(self) -> Deadline | None:
        """When `Woke` is due, or None while nothing is timed."""
        wake: Deadline | None = None
        for place in self._live:
            wake = earliest(wake, place.wake_at)
        if self._linger_s is not None and self._alone_since is not None and not self._exited:
            wake = earliest(wake, Deadline(self._alone_since + self._linger_s, "nobody is left"))
        return wake

    def status(self, now: float) -> tuple[EngineStatus, ...]:
        """All engines that were asked for, for display: advice that may be old when it is read.

        Args:
            now: Seconds, on the clock of `handle`.
        """
        return tuple(
            _status(engine, place, self._circuits.trouble(engine.spec, now), now)
            for place in self._places.values()
            for engine in place.engines.values()
        )


def _status(engine: Engine, place: Place, trouble: str | None, now: float) -> EngineStatus:
    state = engine.state
    ready = state.ready if isinstance(state, Draining) else state
    slots, idle_s, base_url, problem = engine.spec.parallel, None, "", ""
    if isinstance(ready, Ready):
        slots, base_url = ready.slots, ready.base_url
        idle_s = None if ready.idle_since is None else now - ready.idle_since
    elif isinstance(state, Crashed | Refused):
        problem = state.problem.message
    return EngineStatus(
        model=engine.spec.model,
        context_tokens=engine.spec.context_tokens,
        state=state_name(state) if trouble is None else CIRCUIT_OPEN,
        engine_id=engine_id_of(state),
        base_url=base_url,
        slots=slots,
        leases=len(engine.leases),
        waiting=sum(engine in waiter.engines for waiter in place.waiters.values()),
        idle_s=idle_s,
        problem=trouble or problem,
    )
