"""Who runs, who waits, who yields: the engines of one place and the queue before it.

Engines of one place exclude each other, so at most one of them has a process. The rules, in the order in
which `Place.settle` applies them:

1. Whoever waited longer than its queue timeout, or can be served by no engine any more, is refused.
2. Waiters that the ready engine suits get its free slots in the order of arrival. That may be ahead of
   waiters for another engine, but not of one that has waited for `max_wait_s`: from then on everybody
   behind that one waits too, and the engine drains.
3. An engine that nobody holds makes way for the first waiter if it does not suit that one. It stops as well
   where that is wanted (`stop_wanted`) or it was idle for too long, unless somebody waits for it. A loading
   engine makes way if it suits nobody in the queue.
4. Where no engine runs, the first waiter whose engine may be started gets it started. An engine that backs
   off after a crash does not hold up waiters for others.
"""

from math import inf
from typing import Final

from attrs import define

from gatewright.commands import FleetCommand, TellHolder
from gatewright.engines.engine import Counter, Engine, LeaseKey
from gatewright.engines.spec import EngineSpec
from gatewright.engines.states import (
    Crashed,
    Draining,
    Loading,
    Ready,
    Refused,
    Starting,
    has_process,
    state_name,
)
from gatewright.errors import EngineNotReady, EngineStopped, Problem, QueueFull, QueueTimeout
from gatewright.leases import LeaseEngine, LeaseGranted, LeaseLost, LeaseProgress, LeaseRefused
from gatewright.timers import Deadline, earliest

PROGRESS_PERIOD_S: Final = 1.0
QUEUE_FULL_RETRY_S: Final = 5.0


@define(eq=False)
class Waiter:
    """A lease that is asked for and not granted yet.

    Attributes:
        key: Who asked, and its id for it.
        lease: What was asked.
        engines: Its variants, without those that have failed to start since it came.
        refuse_at: End of its queue timeout.
        overdue_at: From then on nobody passes it.
        is_probe: It tries an upstream whose circuit is open.
        failure: Why the last variant that was struck off failed.
        told: Last progress that its holder heard.
    """

    key: LeaseKey
    lease: LeaseEngine
    engines: tuple[Engine, ...]
    refuse_at: float
    overdue_at: float
    is_probe: bool = False
    failure: Problem | None = None
    told: LeaseProgress | None = None

    def strike_off(self, engine: Engine, now: float) -> None:
        """Expect no more from an engine that has failed to start; does nothing while it may still do."""
        failure = engine.start_failure(now)
        if failure is None or engine not in self.engines:
            return
        problem, retry_at = failure
        self.failure = problem.with_retry_after(max(1.0, retry_at - now))
        self.engines = tuple(other for other in self.engines if other is not engine)


class Place:
    """The engines of one place and their queue.

    After each call of a method that takes `now`, `settle` must follow.

    Args:
        counter: Source of ids.
        asked: The place of every lease that waits or is granted; shared by all places of a Fleet.

    Attributes:
        engines: Every engine of the place that was asked for and is still of use, by specification.
        waiters: The queue, in order of arrival.
        wake_at: When `settle` has something to do.
    """

    def __init__(self, counter: Counter, asked: "dict[LeaseKey, Place]") -> None:
        self.engines: dict[EngineSpec, Engine] = {}
        self.waiters: dict[LeaseKey, Waiter] = {}
        self.wake_at: Deadline | None = None
        self._counter = counter
        self._asked = asked
        self._last_started: Engine | None = None
        self._retired: list[Engine] = []
        self._progress_at: float | None = None
        self._refuse_from = inf  # no waiter's queue timeout ends earlier
        self._closing: Problem | None = None
        self._close_at = inf  # leases are taken back

    @property
    def current(self) -> Engine | None:
        """The engine that takes up the place."""
        engine = self._last_started
        return engine if engine is not None and has_process(engine.state) else None

    @property
    def has_process(self) -> bool:
        """Whether a process of it runs, or may still run."""
        current = self.current
        return current is not None and not current.spec.is_remote

    @property
    def is_live(self) -> bool:
        """Whether anything can happen in it that nobody asks it for."""
        return self.wake_at is not None or bool(self.waiters) or self.has_process

    # --- asked by holders

    def ask(
        self,
        key: LeaseKey,
        lease: LeaseEngine,
        now: float,
        out: list[FleetCommand],
        *,
        is_probe: bool = False,
    ) -> None:
        """Queue a lease; `settle` grants it if it can be."""
        is_full = len(self.waiters) >= lease.max_waiting
        waiter = Waiter(
            key=key,
            lease=lease,
            engines=tuple([self.engine(spec) for spec in lease.variants]),
            refuse_at=now + lease.queue_timeout_s,
            overdue_at=now + lease.max_wait_s,
            is_probe=is_probe,
        )
        for engine in waiter.engines:
            waiter.strike_off(engine, now)
        has_room = not is_full or self._has_room(waiter, now)
        self._asked[key] = self
        self.waiters[key] = waiter
        self._refuse_from = min(self._refuse_from, waiter.refuse_at)
        if waiter.failure is not None and not waiter.engines:
            self._refuse(waiter, waiter.failure, out)
        elif not has_room:
            text = f"{lease.max_waiting} requests wait for engines already (server.max_waiting)"
            self._refuse(waiter, QueueFull(text, retry_after_s=QUEUE_FULL_RETRY_S).problem, out)

    def engine(self, spec: EngineSpec) -> Engine:
        """The engine of a specification, known from now on."""
        engine = self.engines.get(spec)
        if engine is None:
            engine = self.engines[spec] = Engine(spec, self._counter)
        return engine

    def _has_room(self, waiter: Waiter, now: float) -> bool:
        current = self.current
        if current is None or current not in waiter.engines or not current.has_free_slot:
            return False
        return not any(now >= other.overdue_at for other in self.waiters.values())

    def ask_to_count(self, key: LeaseKey, lease: LeaseEngine, now: float, out: list[FleetCommand]) -> None:
        """Lend a ready engine without a slot, or refuse, at once."""
        engine = self.current
        if engine is None or not engine.is_well or engine.spec not in lease.variants:
            problem = EngineNotReady(f"no engine of {lease.variants[0].model} is ready").problem
            out.append(TellHolder(holder=key[0], news=LeaseRefused(lease_id=key[1], problem=problem)))
            return
        self._asked[key] = self
        self._lend(engine, engine.counts, key, now, out)

    def _lend(
        self,
        engine: Engine,
        ledger: set[LeaseKey],
        key: LeaseKey,
        now: float,
        out: list[FleetCommand],
        *,
        is_probe: bool = False,
    ) -> None:
        ledger.add(key)
        engine.leases_changed(now)
        granted = LeaseGranted(
            lease_id=key[1],
            context_tokens=engine.spec.context_tokens,
            base_url=engine.base_url(),
            is_probe=is_probe,
        )
        out.append(TellHolder(holder=key[0], news=granted))

    def release(self, key: LeaseKey, now: float, *, suspect: bool = False) -> None:
        """Take a lease back that was asked for here, granted or not."""
        del self._asked[key]
        if self.waiters.pop(key, None) is not None:
            return
        engine = self.current
        assert engine is not None, "a granted lease holds the engine that runs"
        engine.leases.discard(key)
        engine.counts.discard(key)
        engine.leases_changed(now, suspect=suspect)

    def refuse(self, key: LeaseKey, problem: Problem, out: list[FleetCommand]) -> None:
        """Refuse a lease if it still waits; one that is granted stays so."""
        waiter = self.waiters.get(key)
        if waiter is not None:
            self._refuse(waiter, problem, out)

    def _refuse(self, waiter: Waiter, problem: Problem, out: list[FleetCommand]) -> None:
        holder, lease_id = waiter.key
        del self.waiters[waiter.key]
        del self._asked[waiter.key]
        out.append(TellHolder(holder=holder, news=LeaseRefused(lease_id=lease_id, problem=problem)))

    def lose_leases(self, engine: Engine, problem: Problem, out: list[FleetCommand]) -> None:
        """Take back every lease of an engine that is gone or about to go."""
        for key in sorted(engine.leases | engine.counts):
            holder, lease_id = key
            del self._asked[key]
            out.append(TellHolder(holder=holder, news=LeaseLost(lease_id=lease_id, problem=problem)))
        engine.leases.clear()
        engine.counts.clear()

    # --- asked by the operator

    def stop(self, engine: Engine, now: float, out: list[FleetCommand], *, force: bool) -> None:
        """Stop an engine once nobody holds or awaits it; with `force` now, and refuse them."""
        engine.forgive()
        if not force:
            engine.stop_wanted = has_process(engine.state)
            return
        problem = EngineStopped(f"engine {engine.spec.label} was stopped by the operator").problem
        for waiter in [waiter for waiter in self.waiters.values() if engine in waiter.engines]:
            self._refuse(waiter, problem, out)
        self.lose_leases(
            engine, problem, out
        )  # first, so that who hears of it knows why its connection breaks
        engine.stop(now, out)

    def close(
        self, problem: Problem, now: float, out: list[FleetCommand], *, force: bool, grace_s: float
    ) -> None:
        """Refuse the queue, and stop once nobody holds the engine; take back all leases when the grace is over.

        Args:
            problem: What those are told who lose by it.
            now: Seconds, monotonic.
            out: Takes the commands.
            force: Take back and end everything now.
            grace_s: For how long leases are left alone; a call after another can only hasten the end.
        """
        self._closing = problem
        self._close_at = min(self._close_at, now if force else now + grace_s)
        for waiter in list(self.waiters.values()):
            self._refuse(waiter, problem, out)
        self._stop_if_closing(now, out, force=force)

    def _stop_if_closing(self, now: float, out: list[FleetCommand], *, force: bool = False) -> None:
        current = self.current
        if self._closing is None or current is None or (current.is_leased and now < self._close_at):
            return
        self.lose_leases(current, self._closing, out)
        current.stop(now, out, force=force)

    def retire(self, spec: EngineSpec) -> None:
        """No configuration names this engine any more: stop and forget it once nobody holds or awaits it."""
        engine = self.engines.get(spec)
        if engine is not None and not engine.retired:
            engine.retired = engine.stop_wanted = True
            self._retired.append(engine)

    def renew(self, spec: EngineSpec) -> None:
        """A configuration names this engine again."""
        engine = self.engines.get(spec)
        if engine is not None and engine.retired:
            engine.retired = engine.stop_wanted = False
            self._retired.remove(engine)

    # --- the rules

    def settle(self, now: float, out: list[FleetCommand]) -> None:
        """Apply the rules until nothing more follows from them."""
        current = self.current
        if current is not None:
            current.elapse(now, out)
        self._stop_if_closing(now, out)
        if self.waiters:
            self._refuse_hopeless(now, out)
        if current is not None:
            self._grant(current, now, out)
            self._yield(current, now, out)
        if self.waiters and self.current is None:
            self._start_next(now, out)
        self._tell_progress(now, out)
        if self._retired:
            self._forget_retired()
        self.wake_at = self._next_deadline()

    def _refuse_hopeless(self, now: float, out: list[FleetCommand]) -> None:
        engine = self._last_started  # others have been struck off when they failed, or when a waiter came
        if engine is not None and engine.start_failure(now) is not None:
            for waiter in list(self.waiters.values()):
                waiter.strike_off(engine, now)
                if waiter.failure is not None and not waiter.engines:
                    self._refuse(waiter, waiter.failure, out)
        if now < self._refuse_from:
            return
        for waiter in list(self.waiters.values()):
            if now >= waiter.refuse_at:
                text = (
                    f"no engine for {waiter.lease.variants[0].model} became free within "
                    f"{waiter.lease.queue_timeout_s:g} s (server.queue_timeout)"
                )
                self._refuse(waiter, QueueTimeout(text, retry_after_s=waiter.lease.max_wait_s).problem, out)
        self._refuse_from = min((waiter.refuse_at for waiter in self.waiters.values()), default=inf)

    def _grant(self, current: Engine, now: float, out: list[FleetCommand]) -> None:
        current.resume()
        for waiter in tuple(self.waiters.values()):
            if current in waiter.engines:
                if current.has_free_slot:
                    del self.waiters[waiter.key]
                    self._lend(current, current.leases, waiter.key, now, out, is_probe=waiter.is_probe)
            elif now >= waiter.overdue_at:
                if current.is_leased:
                    current.drain()
                return

    def _yield(self, current: Engine, now: float, out: list[FleetCommand]) -> None:
        if current.is_leased:
            return
        first = next(iter(self.waiters.values()), None)
        is_awaited = any(current in waiter.engines for waiter in self.waiters.values())
        match current.state:
            case Starting() | Loading():
                has_to_go = not is_awaited and (first is not None or current.stop_wanted)
            case Ready() | Draining():
                idle_until = current.idle_until()
                has_to_go = (first is not None and current not in first.engines) or (
                    not is_awaited and (current.stop_wanted or (idle_until is not None and now >= idle_until))
                )
            case _:
                return
        if has_to_go:
            current.stop(now, out)

    def _start_next(self, now: float, out: list[FleetCommand]) -> None:
        for waiter in self.waiters.values():
            engine = waiter.engines[0]
            if engine.may_start(now):
                self._last_started = engine
                engine.start(now, out)
                self._grant(engine, now, out)  # a remote provider is ready at once
                return

    def _forget_retired(self) -> None:
        for engine in list(self._retired):
            awaited = any(engine in waiter.engines for waiter in self.waiters.values())
            if not awaited and not has_process(engine.state):
                self._retired.remove(engine)
                del self.engines[engine.spec]

    # --- news and time

    def _tell_progress(self, now: float, out: list[FleetCommand]) -> None:
        if not self.waiters:
            self._progress_at = None
            return
        if self._progress_at is None or now >= self._progress_at:
            self._progress_at = now + PROGRESS_PERIOD_S
            for position, waiter in enumerate(self.waiters.values(), start=1):
                self._tell_one(position, waiter, out)
            return
        last = next(reversed(self.waiters.values()))  # all before it have been told
        if last.told is None:
            self._tell_one(len(self.waiters), last, out)

    def _tell_one(self, position: int, waiter: Waiter, out: list[FleetCommand]) -> None:
        current = self.current
        wanted = current if current in waiter.engines else waiter.engines[0]
        phase = state_name(wanted.state)
        if isinstance(wanted.state, Ready):
            phase = "busy"
        elif current is not None and current is not wanted:
            phase = f"waiting for {current.spec.label} ({state_name(current.state)})"
        progress = LeaseProgress(
            lease_id=waiter.key[1],
            position=position,
            engine=wanted.spec.label,
            phase=phase,
            expected_s=wanted.last_start_s,
        )
        if progress != waiter.told:
            waiter.told = progress
            out.append(TellHolder(holder=waiter.key[0], news=progress))

    def _next_deadline(self) -> Deadline | None:
        current = self.current
        wake = current.wake_at if current is not None else None
        if current is not None and current.is_leased and self._close_at < inf:
            wake = earliest(wake, Deadline(self._close_at, "end of the grace"))
        if not self.waiters:
            idle_until = current.idle_until() if current is not None else None
            if current is None or idle_until is None:
                return wake
            return earliest(wake, Deadline(idle_until, f"idle stop of {current.spec.label}"))
        if self._progress_at is not None:
            wake = earliest(wake, Deadline(self._progress_at, "progress"))
        wake = earliest(wake, Deadline(self._refuse_from, "queue timeout"))
        if current is None:
            for waiter in self.waiters.values():
                state = waiter.engines[0].state
                if isinstance(state, Crashed | Refused):
                    wake = earliest(wake, Deadline(state.retry_at, "backoff"))
        return wake
