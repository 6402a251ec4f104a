"""What a place does for itself; the rules as its holders see them are in `test_fleet.py`."""

from typing import Any

from gatewright.commands import SpawnEngine, TellHolder
from gatewright.engines.engine import Counter
from gatewright.engines.scheduling import Place
from gatewright.engines.spec import EngineSpec
from gatewright.errors import EngineStartFailed
from gatewright.leases import LeaseEngine
from gatewright.timers import Deadline
from tests.core.machines.build import HOLDER, lid, remote_spec, spec

SMALL, LARGE, LLAMA = spec("qwen", 4096), spec("qwen", 16384), spec("llama", 8192)


class PlaceTester:
    def __init__(self) -> None:
        self.asked = {}
        self.place = Place(Counter(), self.asked)

    def ask(self, now, number, *variants: EngineSpec, **terms: Any):
        out = []
        lease = LeaseEngine(lease_id=lid(number), variants=variants, **terms)
        self.place.ask((HOLDER, lid(number)), lease, now, out)
        self.place.settle(now, out)
        return out

    def release(self, now, number):
        out = []
        self.place.release((HOLDER, lid(number)), now)
        self.place.settle(now, out)
        return out


def test_an_empty_place_has_nothing_to_do():
    place = PlaceTester().place
    out = []
    place.settle(0, out)
    assert out == []
    assert place.wake_at is None
    assert not place.is_live
    assert not place.has_process


def test_a_place_knows_what_was_asked_of_it_until_it_is_given_back():
    tester = PlaceTester()
    tester.ask(0, 1, remote_spec())
    assert tester.asked == {(HOLDER, lid(1)): tester.place}
    tester.release(1, 1)
    assert tester.asked == {}


def test_a_place_is_live_while_something_can_happen_in_it():
    tester = PlaceTester()
    tester.ask(0, 1, SMALL)
    assert tester.place.is_live
    assert tester.place.has_process
    tester.release(1, 1)
    assert tester.place.is_live  # the engine still starts


def test_who_waits_is_started_in_the_order_of_arrival():
    tester = PlaceTester()
    spawn, _ = tester.ask(0, 1, LLAMA)
    assert isinstance(spawn, SpawnEngine)
    assert spawn.spec == LLAMA
    assert all(isinstance(command, TellHolder) for command in tester.ask(0, 2, SMALL))
    assert tester.place.engines[SMALL].may_start(0)


def test_engine_that_is_struck_off_is_so_only_for_those_who_wait():
    tester = PlaceTester()
    tester.ask(0, 1, SMALL, LARGE)
    tester.place.engines[SMALL].spawn_failed("no such file", 1)
    out = []
    tester.place.settle(1, out)
    (waiter,) = tester.place.waiters.values()
    assert [engine.spec for engine in waiter.engines] == [LARGE]
    assert (
        waiter.failure
        == EngineStartFailed("engine qwen@4096 cannot be started: no such file", retry_after_s=60).problem
    )
    tester.ask(61, 2, SMALL, LARGE)
    *_, second = tester.place.waiters.values()
    assert [engine.spec for engine in second.engines] == [SMALL, LARGE]


def test_the_deadline_of_a_waiter_that_left_is_forgotten():
    tester = PlaceTester()
    tester.ask(0, 1, SMALL, queue_timeout_s=0.5)
    assert tester.place.wake_at == Deadline(0.5, "queue timeout")
    tester.release(0.1, 1)
    assert tester.place.wake_at == Deadline(300, "start-up timeout of qwen@4096")
    tester.ask(0.2, 2, SMALL)
    assert tester.place.wake_at is not None
    out = []
    tester.place.settle(0.6, out)
    assert tester.place.wake_at == Deadline(1.2, "progress")


def test_a_retired_engine_is_forgotten_once_it_has_ended_and_nobody_awaits_it():
    tester = PlaceTester()
    tester.ask(0, 1, SMALL)
    tester.place.retire(SMALL)
    tester.place.retire(SMALL)
    tester.place.retire(LARGE)
    out = []
    tester.place.settle(0, out)
    assert SMALL in tester.place.engines
    tester.place.engines[SMALL].spawn_failed("no such file", 1)
    tester.place.settle(1, out)
    assert tester.place.engines == {}


def test_a_retired_engine_that_is_asked_for_again_stops_again():
    tester = PlaceTester()
    tester.place.retire(SMALL)
    tester.ask(0, 1, SMALL)
    tester.place.retire(SMALL)
    tester.ask(0, 2, SMALL)
    engine = tester.place.engines[SMALL]
    assert engine.stop_wanted
    tester.place.renew(SMALL)
    assert not engine.stop_wanted
    tester.place.renew(SMALL)
    tester.place.renew(LARGE)
