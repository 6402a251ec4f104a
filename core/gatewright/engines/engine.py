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
DEFAULT_SLOTS: Final = 1


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
        stop_wanted: It is to stop as soon as nobody holds it: an operator or a new configuration says so.
        last_start_s: Duration of its last successful start.
        context_tokens: Context of one slot as the engine itself told, once it did.
    """

    def __init__(self, spec: EngineSpec, counter: Counter) -> None:
        self.spec = spec
        self.state: EngineState = Stopped()
        self.leases: set[tuple[HolderId, LeaseId]] = set()
        self.counts: set[tuple[HolderId, LeaseId]] = set()
        self.stop_wanted = False
        self.last_start_s: float | None = None
        self.context_tokens: int | None = None
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
        match self.state:
            case Ready(slots=slots, suspect=False):
                return slots is None or len(self.leases) < slots
            case _:
                return False

    @property
    def is_well(self) -> bool:
        """Whether it answers, as far as anybody knows."""
        return isinstance(self.state, Ready) and not self.state.suspect

    def base_url(self) -> str:
        """Where a ready engine listens.

        Raises:
            AssertionError: It is not ready (wrong use).
        """
        assert isinstance(self.state, Ready), self.state
        return self.state.base_url

    # --- wanted by the Fleet

    def start(self, now: float, out: list[FleetCommand]) -> None:
        """Spawn the process; a remote provider is ready at once."""
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
            case Stopping(engine_id=engine_id, spawn_id=spawn_id, kill_at=kill_at, then=earlier):
                if not force or kill_at is None:
                    return
                after = earlier
            case Crashed() | Refused():
                if then is None:
                    self._become(Stopped())
                return
            case Stopped():
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
        if isinstance(self.state, Crashed | Refused):
            self._become(Stopped())

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
        if ready.probing is None or not suspect:
            if idle_since == ready.idle_since:
                return ready
            return evolve(ready, idle_since=idle_since)
        return evolve(ready, idle_since=idle_since, suspect=True, probing=evolve(ready.probing, due_at=now))

    # --- told by the host

    def spawned(self, base_url: str, now: float, out: list[FleetCommand]) -> None:
        """The process runs."""
        match self.state:
            case Starting() as starting:
                self._become(evolve(starting, spawn_id=None, base_url=base_url, probing=Probing(None, now)))
            case Stopping(engine_id=engine_id, kill_at=kill_at) as stopping:
                self._become(evolve(stopping, spawn_id=None))
                signal = StopSignal.KILL if kill_at is None else StopSignal.TERMINATE
                out.append(SignalEngine(engine_id=engine_id, signal=signal))
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
        self.context_tokens = None

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
                self._note_properties(event, out)
                slots = self.spec.parallel or event.slots or DEFAULT_SLOTS
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

    def _note_properties(self, event: EngineProbed, out: list[FleetCommand]) -> None:
        self.context_tokens = event.context_tokens
        label, told, configured = self.spec.label, event.context_tokens, self.spec.context_tokens
        if told is not None and told < configured:
            out.append(
                Log(
                    severity=Severity.WARNING,
                    text=f"engine {label} gives a slot only {told} tokens, the configuration says {configured}: "
                    "check -c, -np and -kvu in its args",
                )
            )
        if event.slots is not None and self.spec.parallel is not None and event.slots < self.spec.parallel:
            out.append(
                Log(
                    severity=Severity.WARNING,
                    text=f"engine {label} has {event.slots} slots, the configuration says parallel = "
                    f"{self.spec.parallel}: requests beyond its slots wait inside the engine",
                )
            )

    def _probed_while_ready(self, ready: Ready, event: EngineProbed, now: float) -> Ready:
        assert ready.probing is not None
        if event.health is Health.READY:
            return evolve(ready, suspect=False, probing=Probing(None, now + LEASED_PROBE_PERIOD_S))
        period_s = START_PROBE_PERIOD_S if ready.suspect else LEASED_PROBE_PERIOD_S / HUNG_AFTER_PROBES
        return evolve(ready, probing=Probing(None, now + period_s, ready.probing.failed + 1))

    def _give_up_if_hung(self, now: float, out: list[FleetCommand]) -> None:
        ready = self._answering()
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
        """Do what is due: probes, the end of the start-up timeout, SIGKILL, the idle stop."""
        match self.state:
            case Starting(give_up_at=give_up_at) | Loading(give_up_at=give_up_at) if now >= give_up_at:
                text = (
                    f"engine {self.spec.label} was not ready within "
                    f"{self.spec.timeouts.startup_s:g} s (engine_startup_timeout)"
                )
                self.stop(now, out, then=Refused(EngineStartTimeout(text).problem, now + REFUSED_FOR_S))
            case Stopping(engine_id=engine_id, kill_at=float(kill_at), spawn_id=None) as stopping if (
                now >= kill_at
            ):
                self._become(evolve(stopping, kill_at=None))
                out.append(SignalEngine(engine_id=engine_id, signal=StopSignal.KILL))
            case Ready(idle_since=float(idle_since)) if now >= idle_since + self.spec.timeouts.idle_s:
                self.stop(now, out)
            case _:
                self._probe_if_due(now, out)

    def _probe_if_due(self, now: float, out: list[FleetCommand]) -> None:
        due_at, target = self._probe_due_at(), self._answering()
        if due_at is None or now < due_at:
            return
        assert target is not None
        assert target.probing is not None
        assert target.engine_id is not None
        command_id = self._counter.command()
        probing = evolve(target.probing, command_id=command_id)
        out.append(
            ProbeEngine(
                command_id=command_id,
                engine_id=target.engine_id,
                base_url=target.base_url,
                timeout_s=self.spec.timeouts.health_check_s,
                ask_properties=isinstance(self.state, Starting | Loading),
            )
        )
        match self.state:
            case Starting() | Loading() | Ready() as state:
                self._become(evolve(state, probing=probing))
            case Draining(ready=ready):
                self._become(Draining(evolve(ready, probing=probing)))
            case _:
                raise AssertionError(f"probing in {self.state}")

    def _probe_due_at(self) -> float | None:
        state = self._answering()
        if state is None or state.probing is None or state.probing.command_id is not None:
            return None
        if isinstance(state, Ready) and not (self.is_leased or state.suspect):
            return None
        return state.probing.due_at

    def _answering(self) -> Starting | Loading | Ready | None:
        """The part of the state that probes are about, in the states that have one."""
        state = self.state.ready if isinstance(self.state, Draining) else self.state
        return state if isinstance(state, Starting | Loading | Ready) else None

    @property
    def probe_id(self) -> CommandId | None:
        """The probe under way, if there is one."""
        state = self._answering()
        return state.probing.command_id if state is not None and state.probing is not None else None

    @property
    def spawn_id(self) -> CommandId | None:
        """The spawn under way, if there is one."""
        return self.state.spawn_id if isinstance(self.state, Starting | Stopping) else None

    @property
    def engine_id(self) -> EngineId | None:
        """The process, if there is one."""
        match self.state:
            case Starting(engine_id=engine_id) | Loading(engine_id=engine_id) | Stopping(engine_id=engine_id):
                return engine_id
            case Ready(engine_id=engine_id) | Draining(ready=Ready(engine_id=engine_id)):
                return engine_id
            case Stopped() | Crashed() | Refused():
                return None
            case _ as unreachable:
                assert_never(unreachable)

    @property
    def wake_at(self) -> Deadline | None:
        """When `elapse` has something to do."""
        label = self.spec.label
        due_at = self._probe_due_at()
        wake = Deadline(due_at, f"probe {label}") if due_at is not None else None
        match self.state:
            case Starting(give_up_at=give_up_at) | Loading(give_up_at=give_up_at):
                return earliest(wake, Deadline(give_up_at, f"start-up timeout of {label}"))
            case Stopping(kill_at=float(kill_at), spawn_id=None):
                return Deadline(kill_at, f"kill {label}")
            case Ready(idle_since=float(idle_since)):
                return earliest(
                    wake, Deadline(idle_since + self.spec.timeouts.idle_s, f"idle stop of {label}")
                )
            case _:
                return wake
