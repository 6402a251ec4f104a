"""The Fleet: the engines of one machine, who may use them, and who waits.

It knows no configuration: each lease says what would serve it, so that any number of Gateways with any
configurations share one Fleet. The states of one engine are in `engines/states.py`, the rules of the queue in
`engines/scheduling.py`; here events find the engine that they concern, and leases are kept in balance.
"""

from typing import Final, assert_never

from attrs import frozen

from gatewright.commands import ExitHost, FleetCommand, Log, Severity, TellHolder
from gatewright.engines.engine import Counter, Engine
from gatewright.engines.scheduling import LeaseKey, Place, Waiter
from gatewright.engines.spec import EngineSpec
from gatewright.engines.states import Crashed, Draining, Ready, Refused, has_process, state_name
from gatewright.errors import EngineNotReady, EngineStopped, Problem, QueueFull, ShuttingDown
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
from gatewright.leases import LeaseEngine, LeaseGranted, LeaseLost, LeasePurpose, LeaseRefused
from gatewright.timers import Deadline, earliest

QUEUE_FULL_RETRY_S: Final = 5.0
SHUTDOWN_RETRY_S: Final = 5.0


@frozen(kw_only=True)
class EngineStatus:
    """One engine as `ps` shows it.

    Attributes:
        model: Name of the model.
        context_tokens: Context of one slot.
        state: Name of its state.
        engine_id: Its process, if there is one.
        base_url: Where it listens, if it does.
        slots: Requests at a time; None if unlimited or not known yet.
        leases: Slots taken.
        waiting: Requests in the queue that it would suit.
        idle_s: Seconds without a lease; None while it is leased or not ready.
        problem: Why it crashed or is refused.
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
        stale: Completions that matched nothing in state and were ignored.
    """

    def __init__(self, *, linger_s: float | None = None, now: float = 0.0) -> None:
        self.stale = 0
        self._linger_s = linger_s
        self._alone_since: float | None = now
        self._counter = Counter()
        self._places: dict[str, Place] = {}
        self._leases: dict[LeaseKey, Engine] = {}
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
        match event:
            case LeaseAsked(holder=holder, request=request):
                if isinstance(request, LeaseEngine):
                    self._ask(holder, request, now, out)
                else:
                    self._release((holder, request.lease_id), now, suspect=request.suspect)
            case HolderAttached(holder=holder):
                self._holders.add(holder)
            case HolderGone(holder=holder):
                self._forget_holder(holder, now)
            case EngineSpawned() | EngineSpawnFailed() | EngineProbed():
                self._complete(event, now, out)
            case EngineExited():
                self._exit(event, now, out)
            case StopAsked():
                self._stop(event, now, out)
            case SpecsReplaced(old=old, new=new):
                self._replace_specs(old, new)
            case ShutdownRequested(force=force):
                self._close(now, out, force=force)
            case Woke():
                pass
            case _ as unreachable:
                assert_never(unreachable)
        for place in self._places.values():
            place.settle(now, out)
        self._exit_when_done(now, out)
        return out

    # --- leases

    def _ask(self, holder: HolderId, lease: LeaseEngine, now: float, out: list[FleetCommand]) -> None:
        place_name = lease.variants[0].place
        place = self._places.get(place_name)
        if place is None:
            place = self._places[place_name] = Place(self._leases)
        for spec in lease.variants:
            if spec not in place.engines:
                place.engines[spec] = Engine(spec, self._counter)
        problem = self._closing
        if problem is None and lease.purpose is LeasePurpose.COUNT:
            problem = self._grant_count(place, holder, lease, now, out)
        elif problem is None and len(place.waiters) >= lease.max_waiting and not place.has_room_for(lease):
            text = f"{lease.max_waiting} requests wait for engines already (server.max_waiting)"
            problem = QueueFull(text, retry_after_s=QUEUE_FULL_RETRY_S).problem
        elif problem is None:
            place.waiters.append(
                Waiter(
                    holder=holder,
                    lease=lease,
                    variants=lease.variants,
                    refuse_at=now + lease.queue_timeout_s,
                    overdue_at=now + lease.max_wait_s,
                )
            )
        if problem is not None:
            out.append(TellHolder(holder=holder, news=LeaseRefused(lease_id=lease.lease_id, problem=problem)))

    def _grant_count(
        self, place: Place, holder: HolderId, lease: LeaseEngine, now: float, out: list[FleetCommand]
    ) -> Problem | None:
        engine = place.current
        if engine is None or engine.spec not in lease.variants or not engine.is_well:
            return EngineNotReady(f"no engine of {lease.variants[0].model} is ready").problem
        key = (holder, lease.lease_id)
        engine.counts.add(key)
        engine.leases_changed(now)
        self._leases[key] = engine
        granted = LeaseGranted(
            lease_id=lease.lease_id, context_tokens=engine.spec.context_tokens, base_url=engine.base_url()
        )
        out.append(TellHolder(holder=holder, news=granted))
        return None

    def _release(self, key: LeaseKey, now: float, *, suspect: bool) -> None:
        engine = self._leases.pop(key, None)
        if engine is not None:
            engine.leases.discard(key)
            engine.counts.discard(key)
            engine.leases_changed(now, suspect=suspect)
            return
        for place in self._places.values():
            for waiter in place.waiters:
                if (waiter.holder, waiter.lease.lease_id) == key:
                    place.waiters.remove(waiter)
                    return
        self.stale += 1

    def _forget_holder(self, holder: HolderId, now: float) -> None:
        self._holders.discard(holder)
        for key in [key for key in self._leases if key[0] == holder]:
            self._release(key, now, suspect=False)
        for place in self._places.values():
            place.waiters = [waiter for waiter in place.waiters if waiter.holder != holder]

    def _lose_leases(self, engine: Engine, problem: Problem, out: list[FleetCommand]) -> None:
        for key in sorted(engine.leases | engine.counts):
            holder, lease_id = key
            del self._leases[key]
            out.append(TellHolder(holder=holder, news=LeaseLost(lease_id=lease_id, problem=problem)))
        engine.leases.clear()
        engine.counts.clear()

    # --- engines

    def _engines(self) -> list[Engine]:
        return [place.current for place in self._places.values() if place.current is not None]

    def _complete(
        self, event: EngineSpawned | EngineSpawnFailed | EngineProbed, now: float, out: list[FleetCommand]
    ) -> None:
        for engine in self._engines():
            match event:
                case EngineSpawned() if engine.spawn_id == event.command_id:
                    engine.spawned(event.base_url, now, out)
                case EngineSpawnFailed() if engine.spawn_id == event.command_id:
                    engine.spawn_failed(event.reason, now)
                case EngineProbed() if engine.probe_id == event.command_id:
                    engine.probed(event, now, out)
                case _:
                    continue
            return
        self.stale += 1

    def _exit(self, event: EngineExited, now: float, out: list[FleetCommand]) -> None:
        for engine in self._engines():
            if engine.engine_id != event.engine_id:
                continue
            engine.exited(event.reason, now)
            if isinstance(engine.state, Crashed | Refused):
                problem = engine.state.problem
                out.append(Log(severity=Severity.ERROR, text=problem.message))
            else:
                problem = EngineStopped(f"engine {engine.spec.label} was stopped").problem
            self._lose_leases(engine, problem, out)
            return
        self.stale += 1

    def _stop(self, event: StopAsked, now: float, out: list[FleetCommand]) -> None:
        for place in self._places.values():
            for engine in place.engines.values():
                if event.model is not None and engine.spec.model != event.model:
                    continue
                engine.forgive()
                if event.force:
                    self._stop_now(place, engine, now, out)
                elif has_process(engine.state):
                    engine.stop_wanted = True

    def _stop_now(self, place: Place, engine: Engine, now: float, out: list[FleetCommand]) -> None:
        problem = EngineStopped(f"engine {engine.spec.label} was stopped by the operator").problem
        for waiter in [waiter for waiter in place.waiters if engine.spec in waiter.variants]:
            place.waiters.remove(waiter)
            refusal = LeaseRefused(lease_id=waiter.lease.lease_id, problem=problem)
            out.append(TellHolder(holder=waiter.holder, news=refusal))
        engine.stop(now, out)
        self._lose_leases(engine, problem, out)

    def _replace_specs(self, old: tuple[EngineSpec, ...], new: tuple[EngineSpec, ...]) -> None:
        gone = set(old) - set(new)
        for place in self._places.values():
            for spec in gone & place.engines.keys():
                engine = place.engines[spec]
                if has_process(engine.state):
                    engine.stop_wanted = True
                elif not any(spec in waiter.lease.variants for waiter in place.waiters):
                    del place.engines[spec]
            for spec in place.engines.keys() - gone:
                engine = place.engines[spec]
                if isinstance(engine.state, Refused | Crashed):
                    engine.forgive()

    # --- the end

    def _close(self, now: float, out: list[FleetCommand], *, force: bool) -> None:
        self._closing = ShuttingDown("the engine host shuts down", retry_after_s=SHUTDOWN_RETRY_S).problem
        for place in self._places.values():
            place.closing = True
            for waiter in place.waiters:
                refusal = LeaseRefused(lease_id=waiter.lease.lease_id, problem=self._closing)
                out.append(TellHolder(holder=waiter.holder, news=refusal))
            place.waiters.clear()
        for engine in self._engines():
            self._lose_leases(engine, self._closing, out)
            engine.stop(now, out, force=force)

    def _exit_when_done(self, now: float, out: list[FleetCommand]) -> None:
        busy = any(not engine.spec.is_remote or engine.is_leased for engine in self._engines())
        alone = not self._holders and not busy
        if not alone:
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = now
        if self._exited or busy:
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
        for place in self._places.values():
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
            _status(engine, place, now)
            for place in self._places.values()
            for engine in place.engines.values()
        )


def _status(engine: Engine, place: Place, now: float) -> EngineStatus:
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
        state=state_name(state),
        engine_id=engine.engine_id,
        base_url=base_url,
        slots=slots,
        leases=len(engine.leases),
        waiting=sum(engine.spec in waiter.variants for waiter in place.waiters),
        idle_s=idle_s,
        problem=problem,
    )
