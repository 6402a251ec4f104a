"""One engine: from its events to its next state and commands. Knows nothing of queues and other engines."""

from typing import Final, assert_never

from attrs import evolve

from gatewright.commands import (
    FleetCommand,
    Log,
    ProbeEngine,
    Severity,
    SignalEngine,
    SpawnEngine,
    StopSignal,
)
from gatewright.engines.spec import EngineSpec
from gatewright.engines.states import (
    Crashed,
    Draining,
    EngineState,
    Loading,
    Probing,
    Ready,
    Refused,
    Starting,
    Stopped,
    Stopping,
    check_transition,
    has_process,
    probed_part,
)
from gatewright.errors import EngineCrashed, EngineStartFailed, EngineStartTimeout, Problem
from gatewright.events import EngineProbed, Health
from gatewright.ids import CommandId, EngineId, HolderId, LeaseId
from gatewright.timers import Deadline, earliest

START_PROBE_PERIOD_S: Final = 0.25
LEASED_PROBE_PERIOD_S: Final = 15.0
HUNG_AFTER_PROBES: Final = 3
FIRST_BACKOFF_S: Final = 1.0
LONGEST_BACKOFF_S: Final = 60.0
HEALTHY_AFTER_S: Final = 60.0
REFUSED_FOR_S: Final = 60.0
LEAST_SLOTS: Final = 1
"""Of an engine that tells none, or nonsense."""

LeaseKey = tuple[HolderId, LeaseId]


class Counter:
    """Source of command and engine ids for all engines of a Fleet."""

    def __init__(self) -> None:
        self._next = 0

    def command(self) -> CommandId:
        """A new command id."""
        self._next += 1
        return CommandId(self._next)

    def engine(self) -> EngineId:
        """A new engine id."""
        self._next += 1
        return EngineId(self._next)


class Engine:
    """State of one engine specification.

    Methods are the events of its life; each takes `now` in seconds and appends commands to `out`.

    Attributes:
        spec: What it runs.
        state: Present state; changed only by `_become`.
        leases: Leases that occupy a slot.
        counts: Leases for counting, which occupy none.
        stop_wanted: It is to stop as soon as nobody holds or awaits it.
        retired: No configuration names it any more.
        last_start_s: Duration of its last successful start.
    """

    def __init__(self, spec: EngineSpec, counter: Counter) -> None:
        self.spec = spec
        self.state: EngineState = Stopped()
        self.leases: set[LeaseKey] = set()
        self.counts: set[LeaseKey] = set()
        self.stop_wanted = False
        self.retired = False
        self.last_start_s: float | None = None
        self._counter = counter
        self._failures = 0

    def _become(self, state: EngineState) -> None:
        check_transition(self.state, state)
        self.state = state

    @property
    def is_leased(self) -> bool:
        """Whether anybody holds it."""
        return bool(self.leases or self.counts)

    @property
    def has_free_slot(self) -> bool:
        """Whether a lease can be granted now."""
        state = self.state
        return (
            isinstance(state, Ready)
            and not state.suspect
            and (state.slots is None or len(self.leases) < state.slots)
        )

    @property
    def is_well(self) -> bool:
        """Whether it answers, as far as anybody knows."""
        return isinstance(self.state, Ready) and not self.state.suspect

    def start_failure(self, now: float) -> tuple[Problem, float] | None:
        """Why it could not be started, and when that may be tried again; None unless that is to come."""
        state = self.state.then if isinstance(self.state, Stopping) else self.state
        match state:
            case Refused(problem=problem, retry_at=retry_at) if now < retry_at:
                return problem, retry_at
            case Crashed(problem=problem, was_ready=False, retry_at=retry_at) if now < retry_at:
                return problem, retry_at
            case _:
                return None

    def may_start(self, now: float) -> bool:
        """Whether it is not running, and not backing off after a failure."""
        match self.state:
            case Crashed(retry_at=retry_at) | Refused(retry_at=retry_at):
                return now >= retry_at
            case state:
                return isinstance(state, Stopped)

    def idle_until(self) -> float | None:
        """When it will have been idle for too long; None while that is not certain."""
        match self.state:
            case Ready(engine_id=int(), idle_since=idle_since) if idle_since is not None:
                return idle_since + self.spec.timeouts.idle_s
            case _:
                return None

    def base_url(self) -> str:
        """Where a ready engine listens.

        Raises:
            AssertionError: It is not ready (wrong use).
        """
        assert isinstance(self.state, Ready), self.state
        return self.state.base_url

    # --- wanted by its place

    def start(self, now: float, out: list[FleetCommand]) -> None:
        """Spawn the process; a remote provider is ready at once."""
        assert not has_process(self.state), self.state
        self.stop_wanted = self.retired
        if self.spec.is_remote:
            self._become(
                Ready(None, self.spec.connect, now, self.spec.parallel, now, suspect=False, probing=None)
            )
            return
        engine_id, spawn_id = self._counter.engine(), self._counter.command()
        self._become(Starting(engine_id, spawn_id, now, now + self.spec.timeouts.startup_s))
        out.append(SpawnEngine(command_id=spawn_id, engine_id=engine_id, spec=self.spec))

    def stop(
        self,
        now: float,
        out: list[FleetCommand],
        *,
        force: bool = False,
        then: Stopped | Crashed | Refused | None = None,
    ) -> None:
        """End the process: SIGTERM now and SIGKILL after the stop timeout, or with `force` SIGKILL now.

        Does nothing where there is no process; a second call can only hasten the end. The caller deals
        with the leases.
        """
        after = then or Stopped()
        match self.state:
            case Starting(engine_id=engine_id, spawn_id=spawn_id):
                pass
            case Loading(engine_id=engine_id) | Ready(engine_id=int(engine_id)):
                spawn_id = None
            case Draining(ready=Ready(engine_id=int(engine_id))):
                spawn_id = None
            case Ready() | Draining():
                self._become(Stopped())
                return
            case Stopping(engine_id=engine_id, spawn_id=spawn_id, kill_at=kill_at, then=after):
                if not force or kill_at is None:
                    return
            case Stopped() | Crashed() | Refused():
                return
            case _ as unreachable:
                assert_never(unreachable)
        kill_at = None if force else now + self.spec.timeouts.stop_s
        self._become(Stopping(engine_id, spawn_id, kill_at, after))
        if spawn_id is None:
            signal = StopSignal.KILL if force else StopSignal.TERMINATE
            out.append(SignalEngine(engine_id=engine_id, signal=signal))

    def drain(self) -> None:
        """Grant nothing more; `resume` takes it back."""
        if isinstance(self.state, Ready):
            self._become(Draining(self.state))

    def resume(self) -> None:
        """Grant again."""
        if isinstance(self.state, Draining):
            self._become(self.state.ready)

    def forgive(self) -> None:
        """Forget earlier failures: the operator asked for a clean start."""
        self._failures = 0
        match self.state:
            case Crashed() | Refused():
                self._become(Stopped())
            case Stopping(then=Crashed() | Refused()) as stopping:
                self._become(evolve(stopping, then=Stopped()))
            case _:
                pass

    def leases_changed(self, now: float, *, suspect: bool = False) -> None:
        """Call after each change of `leases` or `counts`."""
        match self.state:
            case Ready() as ready:
                self._become(self._with_leases(ready, now, suspect=suspect))
            case Draining(ready=ready):
                self._become(Draining(self._with_leases(ready, now, suspect=suspect)))
            case _:
                pass

    def _with_leases(self, ready: Ready, now: float, *, suspect: bool) -> Ready:
        idle_since = None if self.is_leased else (ready.idle_since if ready.idle_since is not None else now)
        probing = ready.probing
        if suspect and probing is not None:
            # A probe that is under way may have seen the engine before it broke: it becomes stale.
            return evolve(
                ready, idle_since=idle_since, suspect=True, probing=Probing(None, now, probing.failed)
            )
        if idle_since == ready.idle_since:
            return ready
        return Ready(
            ready.engine_id, ready.base_url, ready.since, ready.slots, idle_since, ready.suspect, probing
        )

    # --- told by the host

    def spawned(self, base_url: str, now: float, out: list[FleetCommand]) -> None:
        """The process runs."""
        match self.state:
            case Starting() as starting:
                self._become(evolve(starting, spawn_id=None, base_url=base_url, probing=Probing(None, now)))
            case Stopping(engine_id=engine_id, kill_at=None) as stopping:
                self._become(evolve(stopping, spawn_id=None))
                out.append(SignalEngine(engine_id=engine_id, signal=StopSignal.KILL))
            case Stopping(engine_id=engine_id) as stopping:
                kill_at = now + self.spec.timeouts.stop_s
                self._become(evolve(stopping, spawn_id=None, kill_at=kill_at))
                out.append(SignalEngine(engine_id=engine_id, signal=StopSignal.TERMINATE))
            case _:
                raise AssertionError(f"spawned in {self.state}")

    def spawn_failed(self, reason: str, now: float) -> None:
        """There is no process, and trying again soon would not help."""
        problem = EngineStartFailed(f"engine {self.spec.label} cannot be started: {reason}").problem
        match self.state:
            case Starting():
                self._become(Refused(problem, now + REFUSED_FOR_S))
            case Stopping(then=then):
                self._become(then)
            case _:
                raise AssertionError(f"spawn failed in {self.state}")

    def exited(self, reason: str, now: float) -> None:
        """The process has ended."""
        label = self.spec.label
        match self.state:
            case Starting() | Loading():
                problem = EngineStartFailed(f"engine {label} did not start: {reason}").problem
                self._become(self._crash(problem, now, ready_since=None))
            case Ready(since=since) | Draining(ready=Ready(since=since)):
                problem = EngineCrashed(f"engine {label} died: {reason}").problem
                self._become(self._crash(problem, now, ready_since=since))
            case Stopping(then=then):
                self._become(then)
            case Stopped() | Crashed() | Refused():
                raise AssertionError(f"exited in {self.state}")
            case _ as unreachable:
                assert_never(unreachable)

    def _crash(self, problem: Problem, now: float, *, ready_since: float | None) -> Crashed:
        if ready_since is not None and now - ready_since >= HEALTHY_AFTER_S:
            self._failures = 0
        delay_s = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(self._failures, 10))
        self._failures += 1
        return Crashed(problem, ready_since is not None, now + delay_s)

    def probed(self, event: EngineProbed, now: float, out: list[FleetCommand]) -> None:
        """A probe came back; the caller has matched it to `probing.command_id`."""
        match self.state:
            case Starting() | Loading() as state:
                self._probed_while_starting(state, event, now, out)
            case Ready() as ready:
                self._become(self._probed_while_ready(ready, event, now))
            case Draining(ready=ready):
                self._become(Draining(self._probed_while_ready(ready, event, now)))
            case _:
                raise AssertionError(f"probed in {self.state}")
        self._give_up_if_hung(now, out)

    def _probed_while_starting(
        self, state: Starting | Loading, event: EngineProbed, now: float, out: list[FleetCommand]
    ) -> None:
        again = Probing(None, now + START_PROBE_PERIOD_S)
        match event.health:
            case Health.READY:
                self.last_start_s = now - state.since
                out.extend(_doubts(self.spec, event))
                slots = max(self.spec.parallel or event.slots or 0, LEAST_SLOTS)
                probing = Probing(None, now + LEASED_PROBE_PERIOD_S)
                self._become(
                    Ready(state.engine_id, state.base_url, now, slots, now, suspect=False, probing=probing)
                )
            case Health.LOADING:
                self._become(Loading(state.engine_id, state.since, state.give_up_at, state.base_url, again))
            case Health.UNREACHABLE | Health.WRONG:
                self._become(evolve(state, probing=again))
            case _ as unreachable:
                assert_never(unreachable)

    def _probed_while_ready(self, ready: Ready, event: EngineProbed, now: float) -> Ready:
        assert ready.probing is not None
        if event.health is Health.READY:
            return evolve(ready, suspect=False, probing=Probing(None, now + LEASED_PROBE_PERIOD_S))
        period_s = START_PROBE_PERIOD_S if ready.suspect else LEASED_PROBE_PERIOD_S / HUNG_AFTER_PROBES
        return evolve(ready, probing=Probing(None, now + period_s, ready.probing.failed + 1))

    def _give_up_if_hung(self, now: float, out: list[FleetCommand]) -> None:
        ready = probed_part(self.state)
        if not isinstance(ready, Ready) or ready.probing is None or ready.probing.failed < HUNG_AFTER_PROBES:
            return
        text = (
            f"engine {self.spec.label} hung: {HUNG_AFTER_PROBES} health probes in a row failed; it was killed"
        )
        self.stop(
            now, out, force=True, then=self._crash(EngineCrashed(text).problem, now, ready_since=ready.since)
        )

    # --- told by the clock

    def elapse(self, now: float, out: list[FleetCommand]) -> None:
        """Do what is due: probes, the end of the start-up timeout, SIGKILL."""
        match self.state:
            case Starting(give_up_at=give_up_at) | Loading(give_up_at=give_up_at) if now >= give_up_at:
                text = (
                    f"engine {self.spec.label} was not ready within "
                    f"{self.spec.timeouts.startup_s:g} s (engine_startup_timeout)"
                )
                self.stop(now, out, then=Refused(EngineStartTimeout(text).problem, now + REFUSED_FOR_S))
            case Stopping(engine_id=engine_id, kill_at=kill_at, spawn_id=None) as stopping if (
                kill_at is not None and now >= kill_at
            ):
                self._become(evolve(stopping, kill_at=None))
                out.append(SignalEngine(engine_id=engine_id, signal=StopSignal.KILL))
            case _:
                self._probe_if_due(now, out)

    def _probe_if_due(self, now: float, out: list[FleetCommand]) -> None:
        due_at, part = self._probe_due_at(), probed_part(self.state)
        if due_at is None or now < due_at:
            return
        assert part is not None
        assert part.probing is not None
        assert part.engine_id is not None
        command_id = self._counter.command()
        out.append(
            ProbeEngine(
                command_id=command_id,
                engine_id=part.engine_id,
                base_url=part.base_url,
                timeout_s=self.spec.timeouts.health_check_s,
                ask_properties=not isinstance(part, Ready),
            )
        )
        probing = evolve(part.probing, command_id=command_id)
        match self.state:
            case Draining(ready=ready):
                self._become(Draining(evolve(ready, probing=probing)))
            case _:
                self._become(evolve(part, probing=probing))

    def _probe_due_at(self) -> float | None:
        state = probed_part(self.state)
        if state is None or state.probing is None or state.probing.command_id is not None:
            return None
        if isinstance(state, Ready) and not (state.suspect or self.is_leased):
            return None
        return state.probing.due_at

    @property
    def wake_at(self) -> Deadline | None:
        """When `elapse` has something to do."""
        label = self.spec.label
        due_at = self._probe_due_at()
        wake = Deadline(due_at, f"probe {label}") if due_at is not None else None
        match self.state:
            case Starting(give_up_at=give_up_at) | Loading(give_up_at=give_up_at):
                return earliest(wake, Deadline(give_up_at, f"start-up timeout of {label}"))
            case Stopping(kill_at=kill_at, spawn_id=None) if kill_at is not None:
                return Deadline(kill_at, f"kill {label}")
            case _:
                return wake


def _doubts(spec: EngineSpec, event: EngineProbed) -> list[Log]:
    """What the operator should hear of an engine that is ready and not as its configuration says."""
    texts = []
    if event.context_tokens is not None and event.context_tokens < spec.context_tokens:
        texts.append(
            f"engine {spec.label} gives a slot only {event.context_tokens} tokens, the configuration says "
            f"{spec.context_tokens}: check -c, -np and -kvu in its args"
        )
    if event.slots is not None and spec.parallel is not None and event.slots < spec.parallel:
        texts.append(
            f"engine {spec.label} has {event.slots} slots, the configuration says parallel = {spec.parallel}: "
            "requests beyond its slots wait inside the engine"
        )
    return [Log(severity=Severity.WARNING, text=text) for text in texts]
