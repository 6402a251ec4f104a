from typing import Any

import pytest

from gatewright.commands import Log, ProbeEngine, Severity, SignalEngine, SpawnEngine
from gatewright.engines.engine import Counter, Engine
from gatewright.engines.spec import EngineSpec
from gatewright.engines.states import (
    TRANSITIONS,
    Crashed,
    Draining,
    Loading,
    Probing,
    Ready,
    Refused,
    Starting,
    Stopped,
    Stopping,
    check_transition,
    engine_id_of,
    has_process,
    probe_id_of,
    spawn_id_of,
)
from gatewright.errors import EngineCrashed, EngineStartFailed, EngineStartTimeout
from gatewright.events import EngineProbed, Health
from gatewright.timers import Deadline
from tests.core.machines.build import HOLDER, KILL, TERM, cid, eid, lid, remote_spec, spec

SPEC = spec("qwen", 4096, startup_s=20, idle_s=100, stop_s=5, health_check_s=2)
URL = "http://engine"


class Life:
    """An engine, its clock, and what it commands."""

    def __init__(self, of: EngineSpec = SPEC) -> None:
        self.engine = Engine(of, Counter())
        self.now = 0.0

    def at(self, now: float, method: str, *args: Any, **kwargs: Any) -> list[Any]:
        """Call a method of the engine; its commands."""
        self.now = now
        call = getattr(self.engine, method)
        out: list[Any] = []
        takes_out = method in {"start", "stop", "spawned", "probed", "elapse"}
        call(*args, now, *([out] if takes_out else []), **kwargs)
        return out

    def probe(self, now: float, health: Health, **facts: Any) -> list[Any]:
        """Have the probe under way, or the one that is due, come back."""
        out = self.at(now, "elapse") if self.probe_id is None else []
        assert self.probe_id is not None
        return out + self.at(now, "probed", EngineProbed(command_id=self.probe_id, health=health, **facts))

    @property
    def probe_id(self):
        return probe_id_of(self.engine.state)

    @property
    def state(self):
        return self.engine.state

    def lease(self, now: float, number: int = 1) -> None:
        self.engine.leases.add((HOLDER, lid(number)))
        self.engine.leases_changed(now)

    def release(self, now: float, number: int = 1, *, suspect: bool = False) -> None:
        self.engine.leases.discard((HOLDER, lid(number)))
        self.engine.leases_changed(now, suspect=suspect)


def started(of: EngineSpec = SPEC) -> Life:
    life = Life(of)
    life.at(0, "start")
    return life


def spawned() -> Life:
    life = started()
    life.at(0, "spawned", URL)
    return life


def ready(now: float = 1) -> Life:
    life = spawned()
    life.probe(now, Health.READY)
    return life


def crashed(now: float = 2) -> Life:
    life = ready()
    life.at(now, "exited", "signal 11")
    return life


# --- starting


def test_start_spawns_a_process():
    life = Life()
    assert life.at(0, "start") == [SpawnEngine(command_id=cid(2), engine_id=eid(1), spec=SPEC)]
    assert life.state == Starting(eid(1), cid(2), since=0, give_up_at=20)
    assert life.engine.wake_at == Deadline(20, "start-up timeout of qwen@4096")


def test_spawned_process_is_probed_every_quarter_second():
    life = started()
    assert life.at(0.1, "spawned", URL) == []
    assert life.engine.wake_at == Deadline(0.1, "probe qwen@4096")
    probe = ProbeEngine(command_id=cid(3), engine_id=eid(1), base_url=URL, timeout_s=2, ask_properties=True)
    assert life.at(0.1, "elapse") == [probe]
    assert life.engine.wake_at == Deadline(20, "start-up timeout of qwen@4096")
    assert life.at(0.2, "elapse") == []
    assert life.probe(0.5, Health.UNREACHABLE) == []
    assert life.engine.wake_at == Deadline(0.75, "probe qwen@4096")
    assert life.at(0.7, "elapse") == []
    assert len(life.at(0.75, "elapse")) == 1


@pytest.mark.parametrize("health", [Health.UNREACHABLE, Health.WRONG])
def test_nobody_is_hung_while_it_starts(health):
    life = spawned()
    for tenth in range(20):
        life.probe(tenth / 2, health)
    assert isinstance(life.state, Starting)


def test_loading_then_ready():
    life = spawned()
    life.probe(1, Health.LOADING)
    assert life.state == Loading(eid(1), since=0, give_up_at=20, base_url=URL, probing=Probing(None, 1.25))
    life.probe(2, Health.READY)
    assert life.state == Ready(
        eid(1), URL, since=2, slots=1, idle_since=2, suspect=False, probing=Probing(None, 17)
    )
    assert life.engine.last_start_s == 2
    assert life.engine.base_url() == URL


@pytest.mark.parametrize(
    ("configured", "told", "slots"),
    [(None, 4, 4), (None, None, 1), (None, 0, 1), (None, -3, 1), (2, 4, 2), (2, None, 2)],
)
def test_slots_are_what_is_configured_or_else_told(configured, told, slots):
    life = started(spec(parallel=configured))
    life.at(0, "spawned", URL)
    life.probe(1, Health.READY, slots=told)
    assert life.state.slots == slots


def test_operator_hears_of_an_engine_that_is_not_as_configured():
    life = started(spec(parallel=4))
    life.at(0, "spawned", URL)
    *_, small, few = life.probe(1, Health.READY, slots=2, context_tokens=1024)
    assert small == Log(
        severity=Severity.WARNING,
        text="engine qwen@4096 gives a slot only 1024 tokens, the configuration says 4096: "
        "check -c, -np and -kvu in its args",
    )
    assert few == Log(
        severity=Severity.WARNING,
        text="engine qwen@4096 has 2 slots, the configuration says parallel = 4: "
        "requests beyond its slots wait inside the engine",
    )


def test_spawn_failure_is_a_refusal_for_a_minute():
    life = started()
    life.at(1, "spawn_failed", "no such file")
    problem = EngineStartFailed("engine qwen@4096 cannot be started: no such file").problem
    assert life.state == Refused(problem, retry_at=61)
    assert life.engine.start_failure(60) == (problem, 61)
    assert life.engine.start_failure(61) is None
    assert not life.engine.may_start(60)
    assert life.engine.may_start(61)


def test_exit_while_it_starts_is_a_failed_start():
    life = spawned()
    life.at(1, "exited", "exit code 1")
    problem = EngineStartFailed("engine qwen@4096 did not start: exit code 1").problem
    assert life.state == Crashed(problem, was_ready=False, retry_at=2)
    assert life.engine.start_failure(1.5) == (problem, 2)


def test_start_up_timeout_stops_it_and_refuses():
    life = spawned()
    life.probe(1, Health.LOADING)
    assert life.at(20, "elapse") == [SignalEngine(engine_id=eid(1), signal=TERM)]
    text = "engine qwen@4096 was not ready within 20 s (engine_startup_timeout)"
    refused = Refused(EngineStartTimeout(text).problem, retry_at=80)
    assert life.state == Stopping(eid(1), None, kill_at=25, then=refused)
    assert life.engine.start_failure(21) == (refused.problem, 80)  # waiters hear of it before the end
    life.at(21, "exited", "exit code 0")
    assert life.state == refused


def test_start_up_timeout_while_the_spawn_is_under_way():
    life = started()
    assert life.at(20, "elapse") == []
    assert life.engine.wake_at is None
    assert life.at(30, "spawned", URL) == [SignalEngine(engine_id=eid(1), signal=TERM)]
    assert life.engine.wake_at == Deadline(35, "kill qwen@4096")


# --- crashes


def crash_again(life: Life, at: float) -> float:
    """Start it, let it crash at once; the backoff that follows."""
    life.at(at, "start")
    life.at(at, "spawned", URL)
    life.probe(at, Health.READY)
    life.at(at, "exited", "signal 11")
    return float(life.state.retry_at - at)


def test_backoff_doubles_from_one_second_to_sixty():
    life = Life()
    assert [crash_again(life, 100 * n) for n in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_minute_of_health_resets_the_backoff():
    life = Life()
    assert [crash_again(life, 100 * n) for n in range(3)] == [1, 2, 4]
    life.at(300, "start")
    life.at(300, "spawned", URL)
    life.probe(310, Health.READY)
    life.at(369, "exited", "signal 11")
    assert life.state.retry_at == 369 + 8
    life.at(400, "start")
    life.at(400, "spawned", URL)
    life.probe(410, Health.READY)
    life.at(470, "exited", "signal 11")
    assert life.state.retry_at == 470 + 1


def test_crash_of_a_ready_engine_is_no_failed_start():
    life = crashed()
    assert life.state == Crashed(
        EngineCrashed("engine qwen@4096 died: signal 11").problem, was_ready=True, retry_at=3
    )
    assert life.engine.start_failure(2.5) is None
    assert not life.engine.may_start(2.9)
    assert life.engine.may_start(3)


def test_forgiving_forgets_failures():
    life = crashed()
    life.engine.forgive()
    assert life.state == Stopped()
    assert crash_again(life, 10) == 1


def test_forgiving_an_engine_that_is_being_stopped():
    life = spawned()
    life.at(20, "elapse")
    life.engine.forgive()
    life.at(21, "exited", "exit code 0")
    assert life.state == Stopped()


# --- stopping


@pytest.mark.parametrize("make", [spawned, ready])
def test_stop_is_sigterm_then_sigkill(make):
    life = make()
    assert life.at(10, "stop") == [SignalEngine(engine_id=eid(1), signal=TERM)]
    assert life.engine.wake_at == Deadline(15, "kill qwen@4096")
    assert life.at(11, "stop") == []
    assert life.at(14, "elapse") == []
    assert life.at(15, "elapse") == [SignalEngine(engine_id=eid(1), signal=KILL)]
    assert life.engine.wake_at is None
    assert life.at(16, "elapse") == []
    assert life.at(16, "stop", force=True) == []
    life.at(17, "exited", "signal 9")
    assert life.state == Stopped()


def test_stop_by_force_is_sigkill_at_once():
    life = ready()
    assert life.at(2, "stop", force=True) == [SignalEngine(engine_id=eid(1), signal=KILL)]


def test_force_hastens_a_stop():
    life = ready()
    life.at(2, "stop")
    assert life.at(3, "stop", force=True) == [SignalEngine(engine_id=eid(1), signal=KILL)]


def test_a_draining_engine_stops():
    life = ready()
    life.lease(1)
    life.engine.drain()
    assert life.at(2, "stop") == [SignalEngine(engine_id=eid(1), signal=TERM)]


@pytest.mark.parametrize(("force", "signal"), [(False, TERM), (True, KILL)])
def test_stop_while_the_spawn_is_under_way(force, signal):
    life = started()
    assert life.at(1, "stop", force=force) == []
    assert life.at(9, "elapse") == []
    assert life.at(10, "spawned", URL) == [SignalEngine(engine_id=eid(1), signal=signal)]
    assert life.at(14.9, "elapse") == []
    assert len(life.at(15, "elapse")) == (0 if force else 1)


def test_stop_while_a_spawn_is_under_way_that_fails():
    life = started()
    life.at(1, "stop")
    life.at(2, "spawn_failed", "no such file")
    assert life.state == Stopped()


@pytest.mark.parametrize("make", [Life, crashed])
def test_stopping_what_does_not_run_does_nothing(make):
    life = make()
    before = life.state
    assert life.at(2, "stop", force=True) == []
    assert life.state == before


# --- leases, slots, idleness


def test_slots_are_free_until_they_are_leased():
    life = started(spec(parallel=2))
    assert not life.engine.has_free_slot
    life.at(0, "spawned", URL)
    life.probe(1, Health.READY)
    assert life.engine.has_free_slot
    life.lease(1, 1)
    assert life.engine.has_free_slot
    life.lease(1, 2)
    assert not life.engine.has_free_slot
    life.release(2, 1)
    assert life.engine.has_free_slot


def test_idle_from_the_last_release_on():
    life = ready()
    assert life.engine.idle_until() == 101
    life.lease(2, 1)
    life.lease(2, 2)
    assert life.engine.idle_until() is None
    life.release(3, 1)
    assert life.engine.idle_until() is None
    life.release(4, 2)
    assert life.engine.idle_until() == 104


def test_a_draining_engine_grants_nothing_until_it_resumes():
    life = ready()
    life.engine.drain()
    assert isinstance(life.state, Draining)
    assert not life.engine.has_free_slot
    assert not life.engine.is_well
    life.engine.resume()
    assert life.engine.has_free_slot


def test_draining_and_resuming_anything_else_does_nothing():
    life = started()
    life.engine.drain()
    life.engine.resume()
    assert isinstance(life.state, Starting)


# --- health


def test_only_leased_engines_are_probed():
    life = ready(now=1)
    assert life.at(50, "elapse") == []
    assert life.engine.wake_at is None
    life.lease(60)
    probe = ProbeEngine(command_id=cid(4), engine_id=eid(1), base_url=URL, timeout_s=2)
    assert life.at(60, "elapse") == [probe]
    life.probe(61, Health.READY)
    assert life.engine.wake_at == Deadline(76, "probe qwen@4096")


@pytest.mark.parametrize("drained", [False, True])
def test_three_failed_probes_in_a_row_are_a_hung_engine(drained):
    life = ready()
    life.lease(1)
    if drained:
        life.engine.drain()
    times = (16, 21, 26)
    for now in times[:2]:
        life.at(now, "elapse")
        assert life.probe(now, Health.UNREACHABLE) == []
    life.at(times[2], "elapse")
    assert life.probe(times[2], Health.UNREACHABLE) == [SignalEngine(engine_id=eid(1), signal=KILL)]
    life.at(27, "exited", "signal 9")
    text = "engine qwen@4096 hung: 3 health probes in a row failed; it was killed"
    assert life.state == Crashed(EngineCrashed(text).problem, was_ready=True, retry_at=27)


def test_a_good_probe_in_between_starts_the_count_again():
    life = ready()
    life.lease(1)
    for now, health in enumerate([Health.WRONG, Health.LOADING, Health.READY, Health.WRONG, Health.LOADING]):
        life.probe(20 * (now + 1), health)
    assert isinstance(life.state, Ready)


def test_a_suspect_engine_is_probed_at_once_and_grants_nothing_until_then():
    life = ready()
    life.lease(2)
    life.release(3, suspect=True)
    assert not life.engine.has_free_slot
    assert not life.engine.is_well
    assert life.engine.wake_at == Deadline(3, "probe qwen@4096")
    life.probe(3, Health.UNREACHABLE)
    assert life.engine.wake_at == Deadline(3.25, "probe qwen@4096")
    life.probe(3.25, Health.READY)
    assert life.engine.has_free_slot


def test_a_probe_that_was_under_way_clears_no_suspicion():
    life = ready()
    life.lease(2)
    life.at(16, "elapse")
    old = life.probe_id
    life.release(16.5, suspect=True)
    assert life.probe_id is None
    (probe,) = life.at(16.5, "elapse")
    assert probe.command_id not in {None, old}


def test_a_suspect_draining_engine_stays_suspect():
    life = ready()
    life.lease(2)
    life.engine.drain()
    life.release(3, suspect=True)
    life.engine.resume()
    assert not life.engine.has_free_slot


# --- remote providers


def test_a_remote_provider_is_ready_at_once_and_never_stopped_for_idleness():
    life = Life(remote_spec(parallel=None))
    assert life.at(0, "start") == []
    assert life.engine.has_free_slot
    assert life.engine.base_url() == "https://api.example.com"
    assert life.engine.wake_at is None
    assert life.engine.idle_until() is None
    life.lease(1)
    life.release(2, suspect=True)
    assert life.engine.has_free_slot
    assert life.at(3, "stop") == []
    assert life.state == Stopped()


def test_a_remote_provider_may_have_slots():
    life = Life(remote_spec(parallel=1))
    life.at(0, "start")
    life.lease(1)
    assert not life.engine.has_free_slot


# --- every state and every event


def in_state(name: str) -> Life:
    match name:
        case "Stopped":
            return Life()
        case "Starting":
            return started()
        case "Starting, spawned":
            return spawned()
        case "Loading":
            life = spawned()
            life.probe(1, Health.LOADING)
            return life
        case "Ready":
            return ready()
        case "Draining":
            life = ready()
            life.lease(1)
            life.engine.drain()
            return life
        case "Stopping":
            life = ready()
            life.at(2, "stop")
            return life
        case "Stopping, spawning":
            life = started()
            life.at(2, "stop")
            return life
        case "Crashed":
            return crashed()
        case _:
            life = started()
            life.at(1, "spawn_failed", "no such file")
            return life


STATES = [
    "Stopped",
    "Starting",
    "Starting, spawned",
    "Loading",
    "Ready",
    "Draining",
    "Stopping",
    "Stopping, spawning",
    "Crashed",
    "Refused",
]
CALLS: dict[str, tuple[Any, ...]] = {
    "start": (),
    "stop": (),
    "elapse": (),
    "spawned": (URL,),
    "spawn_failed": ("no such file",),
    "exited": ("signal 9",),
    "probed": (EngineProbed(command_id=cid(99), health=Health.READY),),
    "leases_changed": (),
}
WRONG_USE = {
    # the place starts only what does not run
    "start": {
        "Starting",
        "Starting, spawned",
        "Loading",
        "Ready",
        "Draining",
        "Stopping",
        "Stopping, spawning",
    },
    # the Fleet passes on only what was matched by its id
    "spawned": {"Stopped", "Loading", "Ready", "Draining", "Crashed", "Refused"},
    "spawn_failed": {"Stopped", "Loading", "Ready", "Draining", "Crashed", "Refused"},
    "exited": {"Stopped", "Crashed", "Refused"},
    "probed": {"Stopped", "Stopping", "Stopping, spawning", "Crashed", "Refused"},
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("call", CALLS)
def test_every_state_takes_every_event_but_wrong_use(state, call):
    life = in_state(state)
    assert type(life.state).__name__ == state.partition(",")[0]
    if state in WRONG_USE.get(call, ()):
        with pytest.raises(AssertionError):
            life.at(1000, call, *CALLS[call])
    else:
        life.at(1000, call, *CALLS[call])
        assert (engine_id_of(life.state) is not None) == has_process(life.state)


def test_every_illegal_transition_raises():
    samples = {type(in_state(name).state): in_state(name).state for name in STATES}
    assert set(samples) == set(TRANSITIONS)
    for old in samples.values():
        for new in samples.values():
            if type(new) in TRANSITIONS[type(old)]:
                check_transition(old, new)
            else:
                with pytest.raises(AssertionError, match="no transition from"):
                    check_transition(old, new)


@pytest.mark.parametrize("state", STATES)
def test_ids_are_there_in_the_states_that_have_them(state):
    life = in_state(state)
    assert (spawn_id_of(life.state) is not None) == (state in {"Starting", "Stopping, spawning"})
    running = state not in {"Stopped", "Crashed", "Refused"}
    assert has_process(life.state) == running
