"""Circuits as the holders of leases see them: event in, exact commands out."""

import pytest
from attrs import evolve

from gatewright.commands import Log, Severity
from gatewright.errors import CircuitOpen, EngineStopped, QueueFull, QueueTimeout, ShuttingDown
from gatewright.events import HolderAttached, HolderGone, ShutdownRequested, SpecsReplaced
from gatewright.fleet import CIRCUIT_OPEN
from gatewright.ids import HolderId
from gatewright.leases import CallResult
from gatewright.timers import Deadline
from tests.core.machines.build import HOLDER, remote_spec, spec
from tests.core.machines.fleet_tester import (
    FleetTester,
    granted,
    lost,
    progress,
    refused,
    without_progress,
)

URL = "https://api.example.com"
GPT, MINI = remote_spec("gpt"), remote_spec("mini")
NARROW = remote_spec("gpt", parallel=1)
ALIAS = evolve(GPT, model="alias", place="remote:alias")  # another model of ours, the same upstream
SECOND = HolderId(2)
WELL, FAILED, CREDENTIAL = CallResult.WELL, CallResult.FAILED, CallResult.CREDENTIAL
OPENED = Log(
    severity=Severity.WARNING,
    text="circuit of gpt-large at https://api.example.com open for 5 s: 3 calls in a row failed",
)


def with_two_holders():
    fleet = FleetTester()
    fleet.tell(0, HolderAttached(holder=SECOND))
    return fleet


def broken(engine=GPT):
    """At second 0 the circuit of the upstream opens."""
    fleet = with_two_holders()
    for number in (901, 902, 903):
        fleet.ask(0, number, engine)
        commands = fleet.release(0, number, result=FAILED)
    assert commands == [OPENED]
    return fleet


def is_open(open_s, rest_s):
    text = (
        f"the circuit of gpt-large has been open for {open_s} s (3 calls in a row failed); "
        f"it is tried again in {rest_s} s"
    )
    return CircuitOpen(text, retry_after_s=rest_s).problem


def is_half_open(open_s):
    text = (
        f"the circuit of gpt-large has been open for {open_s} s (3 calls in a row failed); "
        "a call that is under way will tell whether it closes"
    )
    return CircuitOpen(text, retry_after_s=1).problem


def closed(after_s):
    text = f"circuit of gpt-large at https://api.example.com closed after {after_s} s"
    return Log(severity=Severity.INFO, text=text)


def grant(number, holder=HOLDER, *, is_probe=False):
    return granted(number, 128_000, URL, holder, is_probe=is_probe)


# --- one story


def test_it_opens_is_probed_and_closes():
    fleet = broken()
    assert fleet.ask(2, 1, GPT) == [refused(1, is_open(2, 3))]
    assert fleet.ask(5, 2, GPT) == [grant(2, is_probe=True)]
    assert fleet.ask(5.5, 3, GPT) == [refused(3, is_half_open(5.5))]
    assert fleet.report(6, 2, WELL) == [closed(6)]
    assert fleet.ask(6, 4, GPT) == [grant(4)]
    assert fleet.release(7, 2, result=WELL) == []
    assert fleet.release(7, 4, result=WELL) == []
    assert fleet.fleet.stale == 0


def test_a_refusal_leaves_nothing_behind():
    fleet = broken()
    fleet.ask(2, 1, GPT)
    assert fleet.fleet._asked == {}
    assert fleet.fleet.wake_at is None
    assert fleet.release(3, 1) == []
    assert fleet.fleet.stale == 1


def test_a_last_resort_is_granted_in_any_case():
    fleet = broken()
    assert fleet.ask(1, 1, GPT, last_resort=True) == [grant(1, is_probe=True)]
    assert fleet.ask(1, 2, GPT, last_resort=True) == [grant(2)]
    assert fleet.release(2, 2, result=WELL) == []
    assert fleet.ask(2, 3, GPT) == [refused(3, is_half_open(2))]
    assert fleet.release(3, 1, result=WELL) == [closed(3)]


def test_a_recovery_is_noticed_within_half_a_minute():
    """Somebody asks once a second; the upstream is down for two minutes."""
    fleet = broken()
    granted_at = []
    for now in range(1, 200):
        if fleet.ask(now, now, GPT) in ([grant(now)], [grant(now, is_probe=True)]):
            granted_at.append(now)
            fleet.release(now, now, result=WELL if now >= 120 else FAILED)
    assert granted_at == [5, 15, 35, 55, 75, 95, 115, *range(135, 200)]


# --- two holders


def test_two_holders_share_one_circuit():
    fleet = with_two_holders()
    fleet.ask(0, 1, GPT)
    fleet.release(0, 1, result=FAILED)
    fleet.ask(0, 1, GPT, holder=SECOND)
    fleet.release(0, 1, result=FAILED, holder=SECOND)
    fleet.ask(0, 2, GPT)
    assert fleet.release(0, 2, result=FAILED) == [OPENED]
    assert fleet.ask(2, 2, GPT, holder=SECOND) == [refused(2, is_open(2, 3), SECOND)]
    assert fleet.ask(5, 3, GPT) == [grant(3, is_probe=True)]
    assert fleet.report(6, 3, WELL, holder=SECOND) == []  # it has no such lease
    assert fleet.fleet.stale == 1
    assert fleet.report(6, 3, WELL) == [closed(6)]
    assert fleet.ask(6, 3, GPT, holder=SECOND) == [grant(3, SECOND)]


def test_a_holder_that_dies_frees_the_probe():
    fleet = broken()
    assert fleet.ask(5, 1, GPT) == [grant(1, is_probe=True)]
    fleet.tell(6, HolderGone(holder=HOLDER))
    assert fleet.ask(6, 1, GPT, holder=SECOND) == [grant(1, SECOND, is_probe=True)]
    assert fleet.release(7, 1, result=WELL, holder=SECOND) == [closed(7)]


# --- queues


def test_who_waits_is_refused_when_it_opens():
    fleet = with_two_holders()
    for number in (1, 2):
        fleet.ask(0, number, NARROW)
        fleet.release(0, number, result=FAILED)
    fleet.ask(0, 3, NARROW)
    assert fleet.ask(0, 4, NARROW) == [progress(4, 1, "gpt@128000", "busy")]
    fleet.ask(0, 5, NARROW, last_resort=True)
    assert fleet.release(1, 3, result=FAILED) == [OPENED, refused(4, is_open(0, 5)), grant(5)]
    assert fleet.fleet._asked.keys() == {(HOLDER, 5)}


def test_who_waits_for_the_same_upstream_elsewhere_is_refused_as_well():
    alias = evolve(ALIAS, parallel=1)
    fleet = FleetTester()
    for number in (1, 2):
        fleet.ask(0, number, GPT)
        fleet.release(0, number, result=FAILED)
    fleet.ask(0, 3, alias)
    fleet.ask(0, 4, alias)
    fleet.ask(0, 5, GPT)
    assert fleet.report(1, 5, FAILED) == [OPENED, refused(4, is_open(0, 5))]
    assert fleet.fleet.wake_at is None  # nobody waits


def test_a_probe_may_have_to_wait_for_its_slot():
    fleet = with_two_holders()
    fleet.ask(0, 1, NARROW)
    for number in (901, 902, 903):
        fleet.ask(0, number, ALIAS)
        fleet.release(0, number, result=FAILED)
    assert fleet.ask(5, 2, NARROW) == [progress(2, 1, "gpt@128000", "busy")]
    assert fleet.ask(5, 3, NARROW) == [refused(3, is_half_open(5))]
    assert fleet.release(6, 1, result=WELL) == [grant(2, is_probe=True)]
    assert fleet.release(7, 2, result=WELL) == [closed(7)]


@pytest.mark.parametrize("ending", ["gives up", "queue timeout", "full queue"])
def test_a_probe_that_is_not_called_leaves_it_to_the_next(ending):
    fleet = with_two_holders()
    fleet.ask(0, 1, NARROW)
    for number in (901, 902, 903):
        fleet.ask(0, number, ALIAS)
        fleet.release(0, number, result=FAILED)
    match ending:
        case "gives up":
            fleet.ask(5, 2, NARROW)
            fleet.release(7, 2)
        case "queue timeout":
            fleet.ask(5, 2, NARROW, queue_timeout_s=2)
            timeout = QueueTimeout(
                "no engine for gpt became free within 2 s (server.queue_timeout)", retry_after_s=30
            )
            assert fleet.wake(7) == [refused(2, timeout.problem)]
        case "full queue":
            full = QueueFull("0 requests wait for engines already (server.max_waiting)", retry_after_s=5)
            assert fleet.ask(5, 2, NARROW, max_waiting=0) == [refused(2, full.problem)]
    assert fleet.ask(7, 3, ALIAS) == [grant(3, is_probe=True)]


# --- what it does not touch


def test_engines_of_our_own_have_no_circuit():
    fleet, engine = FleetTester(), spec()
    for number in range(5):
        commands = without_progress(fleet.ask(number, number, engine))
        if number == 0:
            commands = fleet.bring_up(number, engine)
        assert commands == [granted(number, 4096, 1)]
        fleet.release(number, number, result=FAILED)


def test_counts_are_no_calls():
    fleet = broken()
    fleet.ask(1, 1, GPT, last_resort=True)
    assert fleet.count(1, 2, GPT) == [grant(2)]
    assert fleet.report(1, 2, WELL) == []
    assert fleet.release(1, 2, result=WELL) == []
    assert fleet.ask(2, 3, GPT) == [refused(3, is_half_open(2))]


def test_what_is_said_of_unknown_leases_is_stale():
    fleet = broken()
    fleet.ask(5, 1, GPT)
    fleet.release(5, 1)
    assert fleet.report(6, 1, WELL) == []
    assert fleet.report(6, 77, FAILED) == []
    assert fleet.fleet.stale == 2
    assert fleet.ask(6, 2, GPT) == [grant(2, is_probe=True)]


# --- operators


def test_status_tells_it():
    fleet = broken()
    fleet.ask(1, 1, MINI)
    status = fleet.status(GPT)
    assert status.state == CIRCUIT_OPEN
    assert status.problem == is_open(1, 4).message
    assert (fleet.status(MINI).state, fleet.status(MINI).problem) == ("ready", "")
    fleet.ask(5, 2, GPT)
    fleet.release(6, 2, result=WELL)
    assert (fleet.status(GPT).state, fleet.status(GPT).problem) == ("ready", "")


def test_status_tells_of_a_model_that_was_never_called():
    fleet = broken()
    fleet.ask(1, 1, ALIAS)
    assert fleet.status(ALIAS).state == CIRCUIT_OPEN
    fleet.stop(2, "alias")
    assert fleet.status(ALIAS).state == "stopped"
    assert fleet.ask(2, 2, GPT) == [grant(2)]


@pytest.mark.parametrize("model", ["gpt", None])
@pytest.mark.parametrize("force", [False, True])
def test_stop_closes_it(model, force):
    fleet = broken()
    log = Log(
        severity=Severity.INFO,
        text="circuit of gpt-large at https://api.example.com closed by the operator",
    )
    assert fleet.stop(1, model, force=force) == [log]
    assert fleet.ask(1, 1, GPT) == [grant(1)]


def test_stop_of_another_model_closes_nothing():
    fleet = broken()
    fleet.ask(1, 1, MINI)
    assert fleet.stop(1, "mini") == []
    assert fleet.ask(2, 2, GPT) == [refused(2, is_open(2, 3))]


def test_stop_by_force_takes_the_probe_and_closes_it():
    fleet = broken()
    fleet.ask(5, 1, GPT)
    stopped = EngineStopped("engine gpt@128000 was stopped by the operator").problem
    assert lost(1, stopped) in fleet.stop(6, force=True)
    assert fleet.ask(6, 2, GPT) == [grant(2)]


def test_another_address_has_another_circuit():
    fleet = broken()
    moved = evolve(GPT, connect="https://elsewhere.example.com")
    fleet.tell(1, SpecsReplaced(old=(GPT,), new=(moved,)))
    assert granted(1, 128_000, "https://elsewhere.example.com") in fleet.ask(1, 1, moved)


def test_shutdown_with_a_probe_under_way():
    fleet = broken()
    fleet.ask(5, 1, GPT)
    closing = ShuttingDown("the engine host shuts down", retry_after_s=5).problem
    assert fleet.tell(6, ShutdownRequested(grace_s=10)) == []
    assert fleet.fleet.wake_at == Deadline(16, "end of the grace")
    assert fleet.report(7, 1, WELL) == [closed(7)]
    assert lost(1, closing) in fleet.wake(16)
    assert fleet.fleet._circuits._calls == {}
