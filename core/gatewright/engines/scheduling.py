"""Who runs, who waits, who yields: the engines of one place and the queue before it.

Engines of one place exclude each other, so at most one of them has a process. The rules, in the order in
which `Place.settle` applies them:

1. Whoever waited longer than its queue timeout, or can be served by no engine any more, is refused.
2. Waiters that the ready engine suits get its free slots in the order of arrival. That may be ahead of
   waiters for another engine, but not of one that has waited for `max_wait_s`: from then on everybody
   behind that one waits too, and the engine drains.
3. An engine that nobody holds makes way for the first waiter that it does not suit, and stops if that is
   wanted (`stop_wanted`). A loading engine makes way if it suits nobody in the queue.
4. Where no engine runs, the first waiter whose engine may be started gets it started. An engine that backs
   off after a crash does not hold up waiters for others.
"""

from typing import Final

from attrs import define

from gatewright.commands import FleetCommand, TellHolder
from gatewright.engines.engine import Engine
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
from gatewright.errors import Problem, QueueTimeout
from gatewright.ids import HolderId, LeaseId
from gatewright.leases import LeaseEngine, LeaseGranted, LeaseProgress, LeaseRefused
from gatewright.timers import Deadline, earliest

PROGRESS_PERIOD_S: Final = 1.0

LeaseKey = tuple[HolderId, LeaseId]


@define(eq=False)
class Waiter:
    """A lease that is asked for and not granted yet.

    Attributes:
        holder: Who asked.
        lease: What was asked.
        variants: Those of its variants that have not failed to start since it came.
        refuse_at: End of its queue timeout.
        overdue_at: From then on nobody passes it.
        failure: Why the last variant that was struck off failed.
        told: Last progress that its holder heard.
    """

    holder: HolderId
    lease: LeaseEngine
    variants: tuple[EngineSpec, ...]
    refuse_at: float
    overdue_at: float
    failure: Problem | None = None
    told: LeaseProgress | None = None


class Place:
    """The engines of one place and their queue.

    Args:
        leases: Every granted lease and its engine; shared by all places of a Fleet.

    Attributes:
        engines: Every engine of the place that was ever asked for, by specification.
        waiters: The queue, in order of arrival.
        closing: Nothing is granted or started any more.
    """

    def __init__(self, leases: dict[LeaseKey, Engine]) -> None:
        self._leases = leases
        self.engines: dict[EngineSpec, Engine] = {}
        self.waiters: list[Waiter] = []
        self.closing = False
        self._progress_at: float | None = None
        self._last_started: Engine | None = None

    @property
    def current(self) -> Engine | None:
        """The engine that takes up the place."""
        engine = self._last_started
        return engine if engine is not None and has_process(engine.state) else None

    def has_room_for(self, lease: LeaseEngine) -> bool:
        """Whether the lease could be granted without waiting, were nobody before it."""
        current = self.current
        return current is not None and current.spec in lease.variants and current.has_free_slot

    def settle(self, now: float, out: list[FleetCommand]) -> None:
        """Apply the rules until nothing more follows from them."""
        current = self.current
        if current is not None:
            current.elapse(now, out)
        self._refuse_hopeless(now, out)
        if self.closing:
            return
        if current is not None:
            self._grant(current, now, out)
            self._yield(current, now, out)
            current = self.current
        if current is None and self.waiters:
            self._start_next(now, out)
        self._tell_progress(now, out)

    def _refuse_hopeless(self, now: float, out: list[FleetCommand]) -> None:
        for waiter in list(self.waiters):
            self._strike_off_failed(waiter, now)
            problem: Problem | None = None
            if not waiter.variants:
                problem = waiter.failure
            elif now >= waiter.refuse_at:
                problem = QueueTimeout(
                    f"no engine for {waiter.lease.variants[0].model} became free within "
                    f"{waiter.lease.queue_timeout_s:g} s (server.queue_timeout)",
                    retry_after_s=waiter.lease.max_wait_s,
                ).problem
            if problem is not None:
                self.waiters.remove(waiter)
                refusal = LeaseRefused(lease_id=waiter.lease.lease_id, problem=problem)
                out.append(TellHolder(holder=waiter.holder, news=refusal))

    def _strike_off_failed(self, waiter: Waiter, now: float) -> None:
        for spec in waiter.variants:
            engine = self.engines[spec]
            match engine.state:
                case Refused(problem=problem, retry_at=retry_at) if now < retry_at:
                    pass
                case Crashed(problem=problem, was_ready=False, retry_at=retry_at) if now < retry_at:
                    pass
                case _:
                    continue
            waiter.failure = problem.with_retry_after(max(1.0, retry_at - now))
            waiter.variants = tuple(other for other in waiter.variants if other != spec)

    def _grant(self, current: Engine, now: float, out: list[FleetCommand]) -> None:
        if current.stop_wanted:
            current.drain()
            return
        current.resume()
        for waiter in list(self.waiters):
            if current.spec not in waiter.variants:
                if now >= waiter.overdue_at:
                    if current.is_leased:
                        current.drain()
                    return
            elif current.has_free_slot:
                self.waiters.remove(waiter)
                key = (waiter.holder, waiter.lease.lease_id)
                self._leases[key] = current
                current.leases.add(key)
                current.leases_changed(now)
                granted = LeaseGranted(
                    lease_id=waiter.lease.lease_id,
                    context_tokens=current.spec.context_tokens,
                    base_url=current.base_url(),
                )
                out.append(TellHolder(holder=waiter.holder, news=granted))

    def _yield(self, current: Engine, now: float, out: list[FleetCommand]) -> None:
        if current.is_leased:
            return
        unserved = [waiter for waiter in self.waiters if current.spec not in waiter.variants]
        match current.state:
            case Starting() | Loading() if unserved and len(unserved) == len(self.waiters):
                current.stop(now, out)
            case Starting() | Loading() if current.stop_wanted and not self.waiters:
                current.stop(now, out)
            case Ready(suspect=False) if unserved:
                current.stop(now, out)
            case Draining():
                current.stop(now, out)
            case _:
                pass

    def _start_next(self, now: float, out: list[FleetCommand]) -> None:
        for waiter in self.waiters:
            engine = self.engines[waiter.variants[0]]
            if isinstance(engine.state, Crashed | Refused) and now < engine.state.retry_at:
                continue
            self._last_started = engine
            engine.start(now, out)
            if isinstance(engine.state, Ready):
                self._grant(engine, now, out)
            return

    def _tell_progress(self, now: float, out: list[FleetCommand]) -> None:
        if not self.waiters:
            self._progress_at = None
            return
        due = self._progress_at is None or now >= self._progress_at
        if due:
            self._progress_at = now + PROGRESS_PERIOD_S
        for position, waiter in enumerate(self.waiters, start=1):
            if waiter.told is None or due:
                self._tell_one(position, waiter, out)

    def _tell_one(self, position: int, waiter: Waiter, out: list[FleetCommand]) -> None:
        wanted = self.engines[waiter.variants[0]]
        current = self.current
        if current is not None and current.spec in waiter.variants:
            wanted = current
        phase = state_name(wanted.state)
        if isinstance(wanted.state, Ready):
            phase = "busy"
        elif current is not None and current is not wanted:
            phase = f"waiting for {current.spec.label} ({state_name(current.state)})"
        progress = LeaseProgress(
            lease_id=waiter.lease.lease_id,
            position=position,
            engine=wanted.spec.label,
            phase=phase,
            expected_s=wanted.last_start_s,
        )
        if progress != waiter.told:
            waiter.told = progress
            out.append(TellHolder(holder=waiter.holder, news=progress))

    @property
    def wake_at(self) -> Deadline | None:
        """When `settle` has something to do."""
        wake: Deadline | None = None
        current = self.current
        if current is not None:
            wake = current.wake_at
        if not self.waiters:
            return wake
        if self._progress_at is not None:
            wake = earliest(wake, Deadline(self._progress_at, "progress"))
        for waiter in self.waiters:
            wake = earliest(wake, Deadline(waiter.refuse_at, "queue timeout"))
            if current is not None:
                continue
            state = self.engines[waiter.variants[0]].state
            if isinstance(state, Crashed | Refused):
                wake = earliest(wake, Deadline(state.retry_at, "backoff"))
        return wake
