"""What the Fleet says of what it would cost now to run an engine."""

from typing import Any

from gatewright.engines.spec import EngineSpec
from gatewright.events import Health, LeaseAsked
from gatewright.ids import HolderId
from gatewright.leases import AskLoads, CallResult, EngineLoad, LoadState, LoadsTold
from tests.core.machines.build import HOLDER, lid, remote_spec, spec
from tests.core.machines.fleet_tester import FleetTester

SMALL, LARGE = spec("qwen", 4096), spec("qwen", 16384)
LLAMA = spec("llama", 8192)
SECOND = spec("bge", 512, place="secondary:bge")
GPT = remote_spec()


def loads(fleet: FleetTester, now: float, *specs: EngineSpec) -> tuple[EngineLoad, ...]:
    asked = AskLoads(lease_id=lid(900), variants=specs)
    [told] = fleet.tell(now, LeaseAsked(holder=HolderId(HOLDER), request=asked))
    news: Any = told
    assert isinstance(news.news, LoadsTold)
    assert (news.holder, news.news.lease_id) == (HOLDER, 900)
    return news.news.loads


def load(model: EngineSpec, state: LoadState = LoadState.STOPPED, **facts: Any) -> EngineLoad:
    facts = {"free_slots": model.parallel, **facts}
    return EngineLoad(model=model.model, context_tokens=model.context_tokens, state=state, **facts)


def test_what_nobody_has_asked_for_yet_is_stopped_and_a_provider_is_ready():
    fleet = FleetTester()
    assert loads(fleet, 0, SMALL, GPT) == (load(SMALL), load(GPT, LoadState.READY))
    assert fleet.fleet.wake_at is None


def test_asking_changes_nothing():
    fleet = FleetTester()
    fleet.ask(0, 1, SMALL)
    before = fleet.fleet.status(1), fleet.fleet.wake_at
    loads(fleet, 1, SMALL, LARGE, LLAMA, GPT)
    assert (fleet.fleet.status(1), fleet.fleet.wake_at) == before


def test_an_engine_from_loading_to_ready_and_busy():
    fleet = FleetTester()
    fleet.ask(0, 1, SMALL)
    assert loads(fleet, 0, SMALL) == (load(SMALL, LoadState.LOADING, waiting=1),)
    fleet.spawned(0.5, SMALL)
    fleet.probed(2, SMALL, Health.READY)
    assert loads(fleet, 2, SMALL) == (load(SMALL, LoadState.READY, free_slots=0, load_s=2.0),)
    fleet.ask(3, 2, SMALL)
    assert loads(fleet, 3, SMALL) == (load(SMALL, LoadState.READY, free_slots=0, waiting=1, load_s=2.0),)
    fleet.release(4, 1)
    fleet.release(4, 2)
    assert loads(fleet, 4, SMALL) == (load(SMALL, LoadState.READY, free_slots=1, load_s=2.0),)


def test_a_variant_that_never_ran_is_expected_to_load_as_its_sister_did():
    fleet = FleetTester()
    fleet.ask(0, 1, SMALL)
    fleet.spawned(0.5, SMALL)
    fleet.probed(2, SMALL, Health.READY)
    fleet.release(3, 1)
    (large, other) = loads(fleet, 4, LARGE, LLAMA)
    assert (large.state, large.load_s) == (LoadState.STOPPED, 2.0)
    assert other.load_s is None


def test_another_engine_of_the_same_place_would_evict_the_one_that_runs():
    fleet = FleetTester()
    fleet.ask(0, 1, SMALL)
    fleet.bring_up(1, SMALL)
    fleet.ask(2, 2, LLAMA)
    qwen, large, llama, second = loads(fleet, 3, SMALL, LARGE, LLAMA, SECOND)
    assert (qwen.evicts, large.evicts, llama.evicts) == ((), ("qwen@4096",), ("qwen@4096",))
    assert (large.waiting, llama.waiting) == (1, 1)
    assert second == load(SECOND)


def test_an_engine_that_has_failed_to_start_is_left_alone_for_a_while():
    fleet = FleetTester()
    fleet.ask(0, 1, SMALL)
    fleet.spawn_failed(1, SMALL)
    assert loads(fleet, 2, SMALL)[0].state is LoadState.UNAVAILABLE
    assert loads(fleet, 1000, SMALL)[0].state is LoadState.STOPPED


def test_a_provider_whose_circuit_is_open_is_not_available():
    fleet = FleetTester()
    for number in range(3):
        fleet.ask(number, number, GPT)
        fleet.release(number, number, result=CallResult.FAILED)
    assert loads(fleet, 3, GPT)[0].state is LoadState.UNAVAILABLE


def test_a_holder_that_is_not_attached_hears_nothing():
    fleet = FleetTester(attached=False)
    asked = AskLoads(lease_id=lid(1), variants=(SMALL,))
    assert fleet.tell(0, LeaseAsked(holder=HolderId(HOLDER), request=asked)) == []
    assert fleet.fleet.stale == 1


def test_a_question_is_no_lease():
    fleet = FleetTester()
    loads(fleet, 0, SMALL)
    assert fleet.release(1, 900) == []
    assert fleet.fleet.stale == 1
