import pytest

from gatewright.commands import ExitHost, Log, ProbeEngine, Severity, SignalEngine, SpawnEngine
from gatewright.engines.spec import EngineSpec
from gatewright.errors import (
    EngineCrashed,
    EngineNotReady,
    EngineStartFailed,
    EngineStopped,
    QueueFull,
    QueueTimeout,
    ShuttingDown,
)
from gatewright.events import (
    EngineExited,
    EngineProbed,
    EngineSpawned,
    EngineSpawnFailed,
    Health,
    HolderAttached,
    HolderGone,
    ShutdownRequested,
    SpecsReplaced,
    Woke,
)
from gatewright.fleet import EngineStatus, Fleet
from gatewright.ids import HolderId
from gatewright.timers import Deadline
from tests.core.machines.build import HOLDER, KILL, TERM, cid, eid, remote_spec, spec
from tests.core.machines.fleet_tester import (
    FleetTester,
    granted,
    lost,
    progress,
    refused,
    signals,
    url,
    without_progress,
)

SMALL, LARGE = spec("qwen", 4096), spec("qwen", 16384)
LLAMA = spec("llama", 8192)
WIDE = spec("qwen", 4096, parallel=2)


def with_ready(*specs: EngineSpec):
    """A Fleet in which these engines are ready and idle, at second 1."""
    fleet = FleetTester()
    for number, each in enumerate(specs, start=100):
        fleet.ask(0, number, each)
        fleet.bring_up(1, each)
        fleet.release(1, number)
    return fleet


# --- the way of one lease


def test_first_lease_starts_its_engine():
    fleet = FleetTester()
    assert fleet.ask(0, 1, SMALL, LARGE) == [
        SpawnEngine(command_id=cid(2), engine_id=eid(1), spec=SMALL),
        progress(1, 1, "qwen@4096", "starting"),
    ]
    assert fleet.fleet.wake_at == Deadline(1, "progress")
    probe = ProbeEngine(
        command_id=cid(3), engine_id=eid(1), base_url=url(1), timeout_s=5, ask_properties=True
    )
    assert fleet.spawned(0.5, SMALL) == [probe]
    assert fleet.probed(0.6, SMALL, Health.LOADING) == []
    assert fleet.wake(1) == [
        ProbeEngine(command_id=cid(4), engine_id=eid(1), base_url=url(1), timeout_s=5, ask_properties=True),
        progress(1, 1, "qwen@4096", "loading"),
    ]
    assert fleet.probed(1.1, SMALL) == [granted(1, 4096, 1)]
    assert fleet.release(2, 1) == []
    assert fleet.fleet.wake_at == Deadline(602, "idle stop of qwen@4096")
    assert fleet.fleet.stale == 0


def test_warm_engine_is_granted_at_once():
    fleet = with_ready(SMALL)
    assert fleet.ask(2, 1, SMALL) == [granted(1, 4096, 1)]


def test_slots_are_granted_in_the_order_of_arrival():
    fleet = with_ready(WIDE)
    assert fleet.ask(2, 1, WIDE) == [granted(1, 4096, 1)]
    assert fleet.ask(2, 2, WIDE) == [granted(2, 4096, 1)]
    assert fleet.ask(2, 3, WIDE) == [progress(3, 1, "qwen@4096", "busy", 1.0)]
    assert fleet.ask(2, 4, WIDE) == [progress(4, 2, "qwen@4096", "busy", 1.0)]
    assert fleet.release(2.5, 2) == [granted(3, 4096, 1)]
    assert fleet.release(2.6, 3) == [granted(4, 4096, 1)]
    assert fleet.status(WIDE).leases == 2


def test_progress_is_told_each_second_where_it_changed():
    fleet = with_ready(SMALL)
    fleet.ask(2, 1, SMALL)
    fleet.ask(2, 2, SMALL)
    fleet.ask(2.5, 3, SMALL)
    assert fleet.wake(3) == []
    fleet.release(3.5, 2)
    assert fleet.wake(3.9) == []
    assert fleet.wake(4) == [progress(3, 1, "qwen@4096", "busy", 1.0)]
    assert fleet.wake(5) == []


def test_a_waiter_can_give_up():
    fleet = FleetTester()
    fleet.ask(0, 1, SMALL)
    assert fleet.release(0.5, 1) == []
    assert fleet.fleet.stale == 0
    assert fleet.bring_up(1, SMALL) == []


def test_a_waiter_can_give_up_while_no_engine_runs():
    fleet = with_ready(SMALL)
    fleet.ask(2, 1, SMALL)
    fleet.exited(2, SMALL, "signal 11")
    fleet.ask(2.1, 2, SMALL)
    assert fleet.release(2.2, 2) == []
    assert fleet.fleet.wake_at is None


# --- counting


def test_ready_engine_counts_for_all_variants_and_takes_no_slot():
    fleet = with_ready(LARGE)
    fleet.ask(2, 1, LARGE)
    assert fleet.count(2, 2, SMALL, LARGE) == [granted(2, 16384, 1)]
    assert fleet.status(LARGE).leases == 1
    assert fleet.release(3, 2) == []


def test_counting_starts_nothing_and_is_answered_at_once():
    fleet = FleetTester()
    not_ready = EngineNotReady("no engine of qwen is ready").problem
    assert fleet.count(0, 1, SMALL, LARGE) == [refused(1, not_ready)]
    fleet.ask(0, 2, SMALL)
    assert fleet.count(0, 3, SMALL, LARGE) == [refused(3, not_ready)]
    fleet.bring_up(1, SMALL)
    assert fleet.count(1, 4, LLAMA) == [refused(4, EngineNotReady("no engine of llama is ready").problem)]
    fleet.release(2, 2, suspect=True)
    assert fleet.count(2, 5, SMALL) == [refused(5, not_ready)]


def test_an_engine_that_counts_is_not_stopped():
    fleet = with_ready(SMALL)
    fleet.count(2, 1, SMALL)
    assert without_progress(fleet.ask(3, 2, LLAMA)) == []
    assert signals(fleet.release(4, 1)) == [(1, TERM)]


def test_counting_does_not_starve_a_waiter():
    fleet = with_ready(SMALL)
    fleet.count(2, 1, SMALL)
    fleet.ask(3, 2, LLAMA, max_wait_s=5)
    fleet.count(7, 3, SMALL)
    fleet.wake(8)
    not_ready = EngineNotReady("no engine of qwen is ready").problem
    assert fleet.count(9, 4, SMALL) == [refused(4, not_ready)]


# --- swaps, fairness, oversize


def test_swap_waits_until_the_leases_are_back():
    fleet = with_ready(WIDE)
    fleet.ask(2, 1, WIDE)
    fleet.ask(2, 2, WIDE)
    assert fleet.ask(3, 3, LLAMA) == [progress(3, 1, "llama@8192", "waiting for qwen@4096 (ready)")]
    assert fleet.release(4, 1) == []
    assert fleet.release(5, 2) == [
        SignalEngine(engine_id=eid(1), signal=TERM),
        progress(3, 1, "llama@8192", "waiting for qwen@4096 (stopping)"),
    ]
    assert fleet.exited(6, WIDE) == [
        SpawnEngine(command_id=cid(5), engine_id=eid(4), spec=LLAMA),
        progress(3, 1, "llama@8192", "starting"),
    ]
    assert fleet.bring_up(7, LLAMA) == [granted(3, 8192, 4)]


def test_idle_engine_makes_way_at_once():
    fleet = with_ready(SMALL)
    assert signals(fleet.ask(2, 1, LLAMA)) == [(1, TERM)]


def test_overlapping_traffic_does_not_starve_a_waiter():
    fleet = with_ready(WIDE)
    fleet.ask(2, 1, WIDE)
    fleet.ask(3, 2, LLAMA, max_wait_s=30)
    number = 1
    for now in range(4, 33):  # somebody always holds the engine
        number += 2
        assert granted(number, 4096, 1) in fleet.ask(now, number, WIDE, max_wait_s=30)
        fleet.release(now + 0.5, 1 if number == 3 else number - 2)
    assert granted(99, 4096, 1) not in fleet.ask(33, 99, WIDE)
    assert fleet.status(WIDE).state == "draining"
    assert signals(fleet.release(34, number)) == [(1, TERM)]
    fleet.exited(35, WIDE)
    assert granted(2, 8192, 5) in fleet.bring_up(36, LLAMA)
    assert signals(fleet.release(37, 2)) == [(5, TERM)]  # and then it is the other model's turn


def test_who_came_before_an_overdue_waiter_still_gets_a_slot():
    fleet = with_ready(SMALL)
    fleet.ask(2, 1, SMALL)
    fleet.ask(3, 2, SMALL)
    fleet.ask(4, 3, LLAMA, max_wait_s=5)
    assert granted(2, 4096, 1) in fleet.release(20, 1)


def test_draining_ends_when_the_overdue_waiter_gives_up():
    fleet = with_ready(WIDE)
    fleet.ask(2, 1, WIDE)
    fleet.ask(3, 2, LLAMA, max_wait_s=5)
    fleet.ask(9, 3, WIDE)
    assert fleet.release(10, 2) == [granted(3, 4096, 1)]
    assert fleet.status(WIDE).state == "ready"


def test_larger_loaded_variant_serves_small_requests():
    fleet = with_ready(LARGE)
    assert fleet.ask(2, 1, SMALL, LARGE) == [granted(1, 16384, 1)]


def test_loaded_variant_that_is_not_acceptable_is_swapped():
    fleet = with_ready(LARGE)
    assert signals(fleet.ask(2, 1, SMALL)) == [(1, TERM)]


def test_loading_engine_that_suits_nobody_in_the_queue_makes_way():
    fleet = FleetTester()
    fleet.ask(0, 1, SMALL)
    fleet.spawned(0.1, SMALL)
    assert signals(fleet.ask(0.2, 2, LLAMA)) == []
    assert signals(fleet.release(0.3, 1)) == [(1, TERM)]


def test_loading_engine_is_left_to_load_where_nobody_waits():
    fleet = FleetTester()
    fleet.ask(0, 1, SMALL)
    fleet.spawned(0.1, SMALL)
    assert fleet.release(0.2, 1) == []
    assert fleet.probed(1, SMALL) == []
    assert fleet.status(SMALL).state == "ready"


# --- places


def test_secondary_engines_run_beside_the_primary_one():
    embed = spec("embed", 512, place="secondary:embed")
    fleet = with_ready(SMALL)
    fleet.ask(2, 1, SMALL)
    fleet.ask(2, 2, embed)
    assert fleet.bring_up(3, embed) == [granted(2, 512, 4)]
    assert signals(fleet.ask(4, 3, LLAMA)) == []
    assert signals(fleet.release(5, 1)) == [(1, TERM)]
    assert fleet.status(embed).leases == 1


def test_remote_providers_need_no_process():
    remote = remote_spec()
    fleet = FleetTester()
    assert fleet.ask(0, 1, remote) == [granted(1, 128_000, "https://api.example.com")]
    assert fleet.ask(0, 2, remote) == [granted(2, 128_000, "https://api.example.com")]
    assert fleet.release(1, 1, suspect=True) == []
    assert fleet.release(1, 2) == []
    assert fleet.fleet.wake_at is None
    assert fleet.status(remote).state == "ready"


def test_remote_slots_are_kept():
    remote = remote_spec(parallel=1)
    fleet = FleetTester()
    fleet.ask(0, 1, remote)
    assert without_progress(fleet.ask(0, 2, remote)) == []
    assert fleet.release(1, 1) == [granted(2, 128_000, "https://api.example.com")]


# --- limits of waiting


def test_full_queue():
    fleet = with_ready(SMALL)
    fleet.ask(2, 1, SMALL)
    fleet.ask(2, 2, SMALL, max_waiting=1)
    full = QueueFull("1 requests wait for engines already (server.max_waiting)", retry_after_s=5.0).problem
    assert fleet.ask(2, 3, SMALL, max_waiting=1) == [refused(3, full)]
    fleet.release(3, 3)
    assert fleet.fleet.stale == 1
    assert fleet.status(SMALL).waiting == 1


def test_full_queue_does_not_matter_to_who_need_not_wait():
    fleet = with_ready(WIDE)
    fleet.ask(2, 1, WIDE)
    fleet.ask(2, 2, LLAMA, max_waiting=1)
    assert fleet.ask(3, 3, WIDE, max_waiting=1) == [granted(3, 4096, 1)]


def test_full_queue_with_an_overdue_waiter_takes_nobody():
    fleet = with_ready(WIDE)
    fleet.ask(2, 1, WIDE)
    fleet.ask(2, 2, LLAMA, max_waiting=1, max_wait_s=5)
    (refusal,) = without_progress(fleet.ask(8, 3, WIDE, max_waiting=1))
    assert refusal.news.problem.kind == "QueueFull"


def test_queue_timeout():
    fleet = with_ready(SMALL)
    fleet.ask(2, 1, SMALL)
    fleet.ask(3, 2, SMALL, queue_timeout_s=10)
    fleet.ask(3, 3, SMALL, queue_timeout_s=20)
    assert without_progress(fleet.wake_until(12.9)) == []
    text = "no engine for qwen became free within 10 s (server.queue_timeout)"
    timeout = QueueTimeout(text, retry_after_s=30.0).problem
    assert fleet.wake(13) == [refused(2, timeout), progress(3, 1, "qwen@4096", "busy", 1.0)]


# --- engines that fail


def test_engine_that_cannot_be_spawned():
    fleet = FleetTester()
    fleet.ask(0, 1, SMALL)
    text = "engine qwen@4096 cannot be started: no such file"
    problem = EngineStartFailed(text).problem
    assert fleet.spawn_failed(1, SMALL) == [
        Log(severity=Severity.ERROR, text=text),
        refused(1, problem.with_retry_after(60)),
    ]
    assert fleet.ask(31, 2, SMALL) == [refused(2, problem.with_retry_after(30))]
    assert fleet.status(SMALL).problem == text
    assert isinstance(fleet.ask(61, 3, SMALL)[0], SpawnEngine)


def test_engine_that_exits_while_it_loads():
    fleet = FleetTester()
    fleet.ask(0, 1, SMALL)
    fleet.spawned(0, SMALL)
    text = "engine qwen@4096 did not start: exit code 1: out of memory"
    problem = EngineStartFailed(text).problem
    assert fleet.exited(1, SMALL, "exit code 1: out of memory") == [
        Log(severity=Severity.ERROR, text=text),
        refused(1, problem.with_retry_after(1)),
    ]


def test_waiter_with_another_variant_goes_on_to_that():
    fleet = FleetTester()
    fleet.ask(0, 1, SMALL, LARGE)
    assert fleet.spawn_failed(1, SMALL)[1:] == [
        SpawnEngine(command_id=cid(4), engine_id=eid(3), spec=LARGE),
        progress(1, 1, "qwen@16384", "starting"),
    ]
    assert fleet.bring_up(2, LARGE) == [granted(1, 16384, 3)]


def test_start_up_timeout_is_told_at_once():
    slow = spec("slow", 4096, startup_s=10, stop_s=5)
    fleet = FleetTester()
    fleet.ask(0, 1, slow)
    fleet.spawned(0, slow)
    fleet.probed(0.1, slow, Health.LOADING)
    told = without_progress(fleet.wake(10))
    assert [type(command).__name__ for command in told] == ["SignalEngine", "TellHolder"]
    assert told[1].news.problem.kind == "EngineStartTimeout"
    assert told[1].news.problem.retry_after_s == 60
    assert signals(fleet.wake(15)) == [(1, KILL)]
    (log,) = fleet.exited(16, slow, "signal 9")
    assert log == Log(
        severity=Severity.ERROR, text="engine slow@4096 was not ready within 10 s (engine_startup_timeout)"
    )


def test_crash_while_leased_and_while_waited_for():
    fleet = with_ready(SMALL)
    fleet.ask(2, 1, SMALL)
    fleet.ask(2, 2, SMALL)
    text = "engine qwen@4096 died: signal 11"
    assert fleet.exited(3, SMALL, "signal 11")[:2] == [
        Log(severity=Severity.ERROR, text=text),
        lost(1, EngineCrashed(text).problem),
    ]
    assert fleet.wake(3.9) == []
    assert fleet.fleet.wake_at == Deadline(4, "progress")
    assert SpawnEngine(command_id=cid(5), engine_id=eid(4), spec=SMALL) in fleet.wake(4)
    assert fleet.bring_up(5, SMALL) == [granted(2, 4096, 4)]


def test_backoff_of_one_engine_does_not_hold_up_waiters_for_others():
    fleet = with_ready(SMALL)
    fleet.ask(2, 1, SMALL)
    fleet.exited(3, SMALL, "signal 11")
    fleet.ask(3.1, 2, SMALL)
    assert SpawnEngine(command_id=cid(5), engine_id=eid(4), spec=LLAMA) in fleet.ask(3.2, 3, LLAMA)


def test_hung_engine_is_killed_and_its_waiters_get_another_start():
    fleet = with_ready(SMALL)
    fleet.ask(2, 1, SMALL)
    fleet.ask(2, 2, SMALL)
    fleet.wake(16)
    fleet.probed(20, SMALL, Health.UNREACHABLE)
    fleet.wake(25)
    fleet.probed(30, SMALL, Health.UNREACHABLE)
    fleet.wake(35)
    assert signals(fleet.probed(40, SMALL, Health.UNREACHABLE)) == [(1, KILL)]
    text = "engine qwen@4096 hung: 3 health probes in a row failed; it was killed"
    told = fleet.exited(41, SMALL, "signal 9")
    assert told[:2] == [Log(severity=Severity.ERROR, text=text), lost(1, EngineCrashed(text).problem)]
    assert isinstance(told[2], SpawnEngine)  # the backoff ran while it was being killed


def test_suspect_engine_is_probed_before_the_next_grant():
    fleet = with_ready(SMALL)
    fleet.ask(2, 1, SMALL)
    fleet.ask(2, 2, SMALL)
    told = fleet.release(3, 1, suspect=True)
    assert told[0] == ProbeEngine(command_id=cid(4), engine_id=eid(1), base_url=url(1), timeout_s=5)
    assert granted(2, 4096, 1) not in told
    assert granted(2, 4096, 1) in fleet.probed(3.1, SMALL)


def test_suspect_engine_does_not_hold_up_the_first_waiter_for_another():
    fleet = with_ready(SMALL)
    fleet.ask(2, 1, SMALL)
    fleet.ask(2, 2, LLAMA)
    assert signals(fleet.release(3, 1, suspect=True)) == [(1, TERM)]


# --- idle engines


def test_idle_engine_is_stopped():
    fleet = with_ready(SMALL)
    assert fleet.fleet.wake_at == Deadline(601, "idle stop of qwen@4096")
    assert fleet.wake(600.9) == []
    assert fleet.wake(601) == [SignalEngine(engine_id=eid(1), signal=TERM)]
    assert fleet.wake(611) == [SignalEngine(engine_id=eid(1), signal=KILL)]
    assert fleet.exited(612, SMALL) == []
    assert fleet.fleet.wake_at is None
    assert fleet.status(SMALL).state == "stopped"


def test_request_that_comes_before_the_idle_stop_is_carried_out_finds_the_engine_warm():
    fleet = with_ready(SMALL)
    assert fleet.ask(5000, 1, SMALL) == [granted(1, 4096, 1)]


# --- the operator


def test_stop_waits_for_who_uses_and_awaits_it():
    fleet = with_ready(SMALL)
    fleet.ask(2, 1, SMALL)
    fleet.ask(2, 2, SMALL)
    assert without_progress(fleet.stop(3, "qwen")) == []
    assert granted(2, 4096, 1) in fleet.release(4, 1)
    assert fleet.release(5, 2) == [SignalEngine(engine_id=eid(1), signal=TERM)]


def test_next_request_starts_a_stopped_engine_and_it_stays():
    fleet = with_ready(SMALL)
    assert fleet.stop(2) == [SignalEngine(engine_id=eid(1), signal=TERM)]
    fleet.exited(3, SMALL)
    assert isinstance(fleet.ask(4, 1, SMALL)[0], SpawnEngine)
    assert fleet.bring_up(5, SMALL) == [granted(1, 4096, 4)]
    assert fleet.release(6, 1) == []
    assert fleet.status(SMALL).state == "ready"


def test_stop_of_another_model_touches_nothing():
    fleet = with_ready(SMALL)
    assert fleet.stop(2, "llama", force=True) == []
    assert fleet.status(SMALL).state == "ready"


def test_stop_of_a_loading_engine():
    fleet = FleetTester()
    fleet.ask(0, 1, SMALL)
    fleet.spawned(0, SMALL)
    assert signals(fleet.stop(1)) == []  # somebody awaits it
    assert signals(fleet.release(2, 1)) == [(1, TERM)]


def test_stop_by_force():
    fleet = with_ready(SMALL)
    fleet.ask(2, 1, SMALL)
    fleet.ask(2, 2, SMALL)
    fleet.ask(2, 3, LLAMA)
    problem = EngineStopped("engine qwen@4096 was stopped by the operator").problem
    assert without_progress(fleet.stop(3, "qwen", force=True)) == [
        refused(2, problem),
        lost(1, problem),
        SignalEngine(engine_id=eid(1), signal=TERM),
    ]
    assert isinstance(fleet.exited(4, SMALL)[0], SpawnEngine)  # llama's turn
    assert fleet.release(5, 1) == []
    assert fleet.fleet.stale == 1


def test_stop_by_force_of_a_remote_provider():
    fleet = FleetTester()
    fleet.ask(0, 1, remote_spec())
    problem = EngineStopped("engine gpt@128000 was stopped by the operator").problem
    assert fleet.stop(1, force=True) == [lost(1, problem)]


def test_stop_gives_a_failed_engine_a_clean_start():
    fleet = FleetTester()
    fleet.ask(0, 1, SMALL)
    fleet.spawn_failed(1, SMALL)
    assert fleet.stop(2) == []
    assert isinstance(fleet.ask(3, 2, SMALL)[0], SpawnEngine)


# --- reload


def replaced(old, new):
    return SpecsReplaced(old=tuple(old), new=tuple(new))


def test_reload_touches_only_what_changed():
    secondary = spec("embed", 512, place="secondary:embed")
    fleet = with_ready(SMALL, secondary)
    changed = spec("qwen", 4096, binary="llama-server-2")
    old, new = (SMALL, LARGE, secondary), (changed, LARGE, secondary)
    assert signals(fleet.tell(2, replaced(old, new))) == [(1, TERM)]
    assert fleet.status(secondary).state == "ready"
    fleet.exited(3, SMALL)
    assert [status.model for status in fleet.fleet.status(3)] == ["embed"]


def test_reload_leaves_a_leased_engine_to_who_holds_and_awaits_it():
    fleet = with_ready(SMALL)
    fleet.ask(2, 1, SMALL)
    fleet.ask(2, 2, SMALL)
    changed = spec("qwen", 4096, binary="llama-server-2")
    assert fleet.tell(3, replaced([SMALL], [changed])) == []
    fleet.ask(4, 3, changed)
    assert granted(2, 4096, 1) in fleet.release(5, 1)
    assert signals(fleet.release(6, 2)) == [(1, TERM)]
    assert isinstance(fleet.exited(7, SMALL)[0], SpawnEngine)


def test_reload_that_takes_a_change_back():
    fleet = with_ready(SMALL)
    fleet.ask(2, 1, SMALL)
    fleet.tell(3, replaced([SMALL], [LARGE]))
    fleet.tell(4, replaced([LARGE], [SMALL]))
    assert fleet.release(5, 1) == []
    assert fleet.status(SMALL).state == "ready"


def test_reload_gives_failed_engines_a_clean_start():
    fleet = FleetTester()
    fleet.ask(0, 1, SMALL)
    fleet.spawn_failed(1, SMALL)
    fleet.tell(2, replaced([SMALL], [SMALL]))
    assert isinstance(fleet.ask(3, 2, SMALL)[0], SpawnEngine)


def test_reload_forgets_what_never_ran():
    fleet = FleetTester()
    fleet.ask(0, 1, SMALL, LARGE)
    fleet.release(0, 1)
    fleet.tell(1, replaced([SMALL, LARGE], [SMALL]))
    assert [status.context_tokens for status in fleet.fleet.status(1)] == [4096]


def test_reload_twice_with_the_same_change():
    fleet = with_ready(SMALL)
    fleet.ask(2, 1, SMALL)
    for now in (3, 4):
        assert fleet.tell(now, replaced([SMALL], [LARGE])) == []
    assert signals(fleet.release(5, 1)) == [(1, TERM)]
    fleet.exited(6, SMALL)
    assert fleet.fleet.status(6) == ()


# --- holders


def test_holder_that_is_gone_holds_and_awaits_nothing():
    fleet = with_ready(SMALL)
    fleet.tell(2, HolderAttached(holder=HolderId(2)))
    fleet.ask(2, 1, SMALL, holder=2)
    fleet.ask(2, 1, SMALL)
    fleet.ask(2, 2, SMALL, holder=2)
    assert granted(1, 4096, 1) in fleet.tell(3, HolderGone(holder=HolderId(2)))
    assert fleet.status(SMALL).leases == 1
    assert fleet.status(SMALL).waiting == 0


def test_holders_choose_the_same_ids_without_harm():
    fleet = with_ready(WIDE)
    fleet.tell(2, HolderAttached(holder=HolderId(2)))
    assert fleet.ask(2, 1, WIDE) == [granted(1, 4096, 1)]
    assert fleet.ask(2, 1, WIDE, holder=2) == [granted(1, 4096, 1, holder=2)]
    fleet.release(3, 1)
    assert fleet.status(WIDE).leases == 1


def test_who_is_not_attached_gets_nothing():
    fleet = FleetTester(attached=False)
    assert fleet.ask(0, 1, SMALL) == []
    assert fleet.fleet.stale == 1


def test_the_same_lease_asked_for_twice_is_stale():
    fleet = with_ready(SMALL)
    fleet.ask(2, 1, SMALL)
    assert fleet.ask(2, 1, SMALL) == []
    fleet.ask(2, 2, SMALL)
    assert fleet.ask(2, 2, SMALL) == []
    assert fleet.fleet.stale == 2


# --- the end


SHUT = ShuttingDown("the engine host shuts down", retry_after_s=5.0).problem


@pytest.mark.parametrize(("force", "signal"), [(False, TERM), (True, KILL)])
def test_shutdown(force, signal):
    fleet = with_ready(SMALL)
    fleet.ask(2, 1, SMALL)
    fleet.ask(2, 2, LLAMA)
    assert fleet.tell(3, ShutdownRequested(force=force)) == [
        refused(2, SHUT),
        lost(1, SHUT),
        SignalEngine(engine_id=eid(1), signal=signal),
    ]
    assert fleet.ask(4, 3, SMALL) == [refused(3, SHUT)]
    assert fleet.exited(5, SMALL) == [ExitHost(reason="shut down")]
    assert fleet.fleet.wake_at is None
    assert fleet.tell(6, ShutdownRequested()) == []


def test_shutdown_with_a_grace_leaves_leases_alone():
    fleet = with_ready(WIDE)
    fleet.ask(2, 1, WIDE)
    fleet.count(2, 2, WIDE)
    fleet.ask(2, 3, LLAMA)
    assert fleet.tell(3, ShutdownRequested(grace_s=30)) == [refused(3, SHUT)]
    assert fleet.ask(4, 4, WIDE) == [refused(4, SHUT)]  # though it has a free slot
    assert fleet.release(5, 1) == []
    assert fleet.release(6, 2) == [SignalEngine(engine_id=eid(1), signal=TERM)]
    assert fleet.exited(7, WIDE) == [ExitHost(reason="shut down")]
    assert fleet.fleet.wake_at is None


def test_shutdown_with_a_grace_takes_leases_back_when_it_is_over():
    fleet = with_ready(SMALL)
    fleet.ask(2, 1, SMALL)
    fleet.tell(3, ShutdownRequested(grace_s=4))
    assert fleet.fleet.wake_at == Deadline(7, "end of the grace")
    assert fleet.wake(6.9) == []
    assert fleet.wake(7) == [lost(1, SHUT), SignalEngine(engine_id=eid(1), signal=TERM)]
    assert fleet.fleet.wake_at == Deadline(17, "kill qwen@4096")


def test_shutdown_with_a_grace_stops_at_once_what_nobody_holds():
    remote, embed = remote_spec(), spec("embed", 512, place="secondary:embed")
    fleet = with_ready(SMALL)
    fleet.ask(2, 1, remote)
    fleet.ask(2, 2, embed)
    assert fleet.tell(3, ShutdownRequested(grace_s=30)) == [
        SignalEngine(engine_id=eid(1), signal=TERM),
        refused(2, SHUT),
    ]
    fleet.spawned(3, embed)
    fleet.exited(4, embed)
    assert fleet.exited(4, SMALL) == []
    assert fleet.wake_until(33) == [lost(1, SHUT), ExitHost(reason="shut down")]


def test_a_holder_that_goes_ends_the_grace():
    fleet = with_ready(SMALL)
    fleet.ask(2, 1, SMALL)
    fleet.tell(3, ShutdownRequested(grace_s=30))
    assert signals(fleet.tell(4, HolderGone(holder=HOLDER))) == [(1, TERM)]


def test_an_engine_that_crashes_within_the_grace_is_not_started_again():
    fleet = with_ready(SMALL)
    fleet.ask(2, 1, SMALL)
    fleet.tell(3, ShutdownRequested(grace_s=30))
    died = EngineCrashed("engine qwen@4096 died: signal 9").problem
    assert fleet.exited(4, SMALL, "signal 9") == [
        Log(severity=Severity.ERROR, text=died.message),
        lost(1, died),
        ExitHost(reason="shut down"),
    ]


@pytest.mark.parametrize(
    ("again", "signal"),
    [
        (ShutdownRequested(), TERM),
        (ShutdownRequested(force=True), KILL),
        (ShutdownRequested(force=True, grace_s=30), KILL),
        (ShutdownRequested(grace_s=1), None),
    ],
)
def test_another_shutdown_can_only_hasten_the_end(again, signal):
    fleet = with_ready(SMALL)
    fleet.ask(2, 1, SMALL)
    fleet.tell(3, ShutdownRequested(grace_s=30))
    commands = fleet.tell(4, again)
    if signal is None:
        assert commands == []
        assert fleet.tell(4, ShutdownRequested(grace_s=600)) == []
        assert fleet.fleet.wake_at == Deadline(5, "end of the grace")
    else:
        assert commands == [lost(1, SHUT), SignalEngine(engine_id=eid(1), signal=signal)]


def test_forced_shutdown_hastens_one_that_is_under_way():
    fleet = with_ready(SMALL)
    fleet.tell(2, ShutdownRequested())
    assert fleet.tell(3, ShutdownRequested(force=True)) == [SignalEngine(engine_id=eid(1), signal=KILL)]


def test_shutdown_waits_for_a_spawn_under_way():
    fleet = FleetTester()
    fleet.ask(0, 1, SMALL)
    assert fleet.tell(1, ShutdownRequested()) == [refused(1, SHUT)]
    assert fleet.spawned(2, SMALL) == [SignalEngine(engine_id=eid(1), signal=TERM)]
    assert fleet.exited(3, SMALL) == [ExitHost(reason="shut down")]


def test_shutdown_with_nothing_running():
    fleet = FleetTester()
    assert fleet.tell(1, ShutdownRequested()) == [ExitHost(reason="shut down")]


def test_host_exits_when_it_has_been_alone_for_long_enough():
    fleet = FleetTester(attached=False, linger_s=10.0)
    assert fleet.fleet.wake_at == Deadline(10, "nobody is left")
    fleet.tell(1, HolderAttached(holder=HOLDER))
    assert fleet.fleet.wake_at is None
    fleet.ask(2, 1, SMALL)
    fleet.bring_up(3, SMALL)
    fleet.tell(4, HolderGone(holder=HOLDER))
    assert fleet.fleet.wake_at == Deadline(604, "idle stop of qwen@4096")
    fleet.wake(604)
    assert fleet.exited(605, SMALL) == []
    assert fleet.fleet.wake_at == Deadline(615, "nobody is left")
    assert fleet.wake(614) == []
    assert fleet.wake(615) == [ExitHost(reason="no engine and nobody attached for 10 s")]
    assert fleet.wake(700) == []
    assert fleet.fleet.wake_at is None


# --- what matches nothing


@pytest.mark.parametrize(
    "event",
    [
        EngineSpawned(command_id=cid(77), pid=1, base_url="http://x"),
        EngineSpawnFailed(command_id=cid(77), reason="x"),
        EngineProbed(command_id=cid(77), health=Health.READY),
        EngineExited(engine_id=eid(77), reason="x"),
    ],
)
@pytest.mark.parametrize("running", [False, True])
def test_late_news_of_engines_is_stale(event, running):
    fleet = with_ready(SMALL) if running else FleetTester()
    assert fleet.tell(2, event) == []
    assert fleet.fleet.stale == 1


def test_completions_that_come_twice_are_stale():
    fleet = FleetTester()
    fleet.ask(0, 1, SMALL)
    fleet.spawned(0, SMALL)
    fleet.spawned(0, SMALL)
    fleet.probed(1, SMALL)
    fleet.probed(1, SMALL)
    fleet.exited(2, SMALL)
    fleet.exited(2, SMALL)
    fleet.release(3, 9)
    assert fleet.fleet.stale == 4


def test_waking_early_or_often_does_nothing():
    fleet = FleetTester()
    fleet.ask(0, 1, SMALL)
    fleet.spawned(0, SMALL)
    assert fleet.wake(0) == fleet.wake(0) == []


# --- looking at it


def test_status():
    fleet = with_ready(LARGE)
    fleet.ask(2, 1, SMALL)
    fleet.exited(3, LARGE)
    assert fleet.fleet.status(4) == (
        EngineStatus(model="qwen", context_tokens=16384, state="stopped", slots=1),
        EngineStatus(
            model="qwen", context_tokens=4096, state="starting", engine_id=eid(4), slots=1, waiting=1
        ),
    )
    fleet.bring_up(5, SMALL)
    ready = EngineStatus(
        model="qwen", context_tokens=4096, state="ready", engine_id=eid(4), base_url=url(4), slots=1, leases=1
    )
    assert fleet.status(SMALL) == ready
    fleet.release(6, 1)
    fleet.now = 16
    assert fleet.status(SMALL).idle_s == 10


def test_only_places_in_which_something_happens_are_looked_at():
    fleet = FleetTester()
    for number in range(1000):
        fleet.ask(0, number + 1, remote_spec(f"model-{number}"))
        fleet.release(0, number + 1)
    assert len(fleet.fleet.status(0)) == 1000
    assert fleet.fleet._live == {}
    assert fleet.fleet.wake_at is None
    fleet.ask(1, 2001, SMALL)
    assert len(fleet.fleet._live) == 1


def test_the_same_events_give_the_same_commands():
    def run():
        fleet = FleetTester()
        told = []
        for number in range(50):
            told += fleet.ask(number, number, SMALL if number % 3 else LLAMA, LARGE)
            told += fleet.wake(number + 0.5)
        told += fleet.tell(60, ShutdownRequested())
        return told

    assert run() == run()


def test_fleet_starts_with_nothing_to_do():
    fleet = Fleet()
    assert fleet.handle(Woke(), 0.0) == []
    assert fleet.wake_at is None
    assert fleet.status(0.0) == ()
