"""The keeper: writes behind, looks ahead, and never lets a request wait for long."""

import logging
import threading
import time

import pytest
from attrs import evolve
from sqlalchemy import create_engine, func, select, text

from gatewright.accounting.keys import KeyRequest
from gatewright.accounting.outcomes import Feedback
from gatewright.events import (
    BudgetsSeen,
    ExperimentsSet,
    OutcomesLearnt,
    SpendRefused,
    SpendReserved,
    SpendUnknown,
)
from gatewright.route_config import ExperimentState
from gatewright_host.state_dir import StateDir
from gatewright_host.store import Store, StoreError, backlog, tables
from gatewright_host.store import keeper as keeper_module
from gatewright_host.store.sharing import Pace
from tests.host.store.keepers import PATIENCE_S, QUICK, UNREACHABLE, config_of, keeping, until
from tests.host.store.stored import charge, ended, reserving
from tests.host.store.test_records import FULL, OUTCOME
from tests.host.store.test_store_registry import MODEL
from tests.support.postgres import Postgres


def count(store: Store) -> int:
    with store.reading() as connection:
        return connection.execute(select(func.count()).select_from(tables.requests)).scalar_one()


def learnt(name: str) -> object:
    return evolve(FULL, request_id=name, outcomes=(evolve(OUTCOME, request_id=name, at=time.monotonic()),))


def test_what_is_recorded_is_written(url: str, state: StateDir) -> None:
    with keeping(state, config_of(url)) as (keeper, _):
        for number in range(450):
            keeper.record(ended(f"r{number}"), "a prompt")
        assert keeper.flush(PATIENCE_S)
        assert keeper.waiting == 0
        assert count(keeper.store) == 450
        found = keeper.store.find_request("r7")
        assert found is not None
        # Nobody asked for prompts to be kept.
        assert found.prompt is None


def test_prompts_are_kept_where_that_is_wanted(state: StateDir) -> None:
    with keeping(state, config_of(prompts=True)) as (keeper, _):
        keeper.record(ended("a"), "Why?")
        keeper.flush(PATIENCE_S)
        found = keeper.store.find_request("a")
        assert found is not None
        assert found.prompt == "Why?"


def test_the_database_is_in_the_state_directory_whatever_its_name(state: StateDir) -> None:
    odd = StateDir.at(state.path / "50% & more?#")
    with keeping(odd):
        assert odd.store_file.exists()


def test_closing_writes_what_is_left_and_gives_back_what_is_reserved(state: StateDir) -> None:
    slow = evolve(QUICK, batch_s=PATIENCE_S, money_s=PATIENCE_S)
    with keeping(state, pace=slow) as (keeper, _):
        assert isinstance(keeper.reserve(reserving("open", 0.5, charge())), SpendReserved)
        keeper.record(ended("a", 0.1, charge()))
        keeper.close()
        keeper.record(ended("late"))
    with Store.open(f"sqlite:///{state.store_file}") as store:
        assert count(store) == 1
        (use,) = store.budget_use()
        assert (use.spent_usd, use.reserved_usd) == (0.1, 0.0)


def test_reservations_are_made_and_settled(url: str, state: StateDir) -> None:
    with keeping(state, config_of(url)) as (keeper, told):
        assert isinstance(keeper.reserve(reserving("a", 0.75, charge())), SpendReserved)
        assert isinstance(keeper.reserve(reserving("b", 0.5, charge())), SpendRefused)
        keeper.record(ended("a", 0.25, charge()))
        keeper.flush(PATIENCE_S)
        assert isinstance(keeper.reserve(reserving("b", 0.5, charge())), SpendReserved)
        until(lambda: BudgetsSeen(left_usd={"monthly": 0.25}) in told.events)


def test_one_thing_after_the_other_is_never_refused_for_what_the_one_before_had_reserved(
    url: str, state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(url)
    monkeypatch.setattr(keeper_module, "_SETTLED_S", PATIENCE_S)
    slow = Pace(reserve_s=PATIENCE_S)
    with keeping(state, config, pace=slow) as (one, _), keeping(state, config, pace=slow) as (other, _):
        for number in range(8):
            keeper, name = (one, other)[number % 2], f"r{number}"
            assert isinstance(keeper.reserve(reserving(name, 0.75, charge())), SpendReserved), number
            keeper.record(ended(name, 0.03125, charge()))
        assert isinstance(one.reserve(reserving("under way", 0.75, charge())), SpendReserved)
        monkeypatch.setattr(keeper_module, "_SETTLED_S", 0.05)
        refused = other.reserve(reserving("too much", 0.75, charge()))
        assert isinstance(refused, SpendRefused)
        assert refused.is_reserved
        assert "requests under way have reserved $0.75" in refused.problem.message
        refused = other.reserve(reserving("far too much", 0.8, charge()))
        assert isinstance(refused, SpendRefused)
        assert not refused.is_reserved


def test_a_reservation_without_accounts_gives_up_the_one_before(state: StateDir) -> None:
    with keeping(state) as (keeper, _):
        keeper.reserve(reserving("a", 1.0, charge()))
        assert isinstance(keeper.reserve(reserving("a", 0.0)), SpendReserved)
        assert keeper.store.budget_use()[0].reserved_usd == 0.0


def test_two_processes_learn_from_each_other_and_not_from_themselves(url: str, state: StateDir) -> None:
    with (
        keeping(state, config_of(url)) as (first, told_first),
        keeping(state, config_of(url)) as (second, told_second),
    ):
        before = time.monotonic()
        first.record(learnt("mine"))  # type: ignore[arg-type]
        second.record(learnt("theirs"))  # type: ignore[arg-type]
        until(lambda: told_first.outcomes() and told_second.outcomes())
        assert (told_first.outcomes(), told_second.outcomes()) == (["theirs"], ["mine"])
        (event,) = [event for event in told_second.events if isinstance(event, OutcomesLearnt)]
        # On the clock of the Gateway that is told, whoever's it was.
        assert event.outcomes[0].at == pytest.approx(before, abs=5.0)
        first.store.add_feedback(Feedback(request_id="theirs", score=0.5, at=time.time()))
        until(lambda: told_first.feedback() and told_second.feedback())
        assert told_first.feedback()[0].score == 0.5
        assert told_first.feedback()[0].at == pytest.approx(time.monotonic(), abs=5.0)


def test_a_process_begins_with_the_past(state: StateDir) -> None:
    with keeping(state) as (keeper, _):
        keeper.record(learnt("a"))  # type: ignore[arg-type]
        keeper.flush(PATIENCE_S)
        secret, key = keeper.store.create_key(KeyRequest(name="ci"))
        keeper.store.create_model(MODEL)
        keeper.store.set_experiment_state(ExperimentState(experiment="x", promoted="b"))
    with keeping(state) as (keeper, told):
        assert told.outcomes() == ["a"]
        assert ExperimentsSet(states=(ExperimentState(experiment="x", promoted="b"),)) in told.events
        assert keeper.key_book.find(secret, time.time()) == key.facts
        assert [config.find_model("far").name for config in told.configs] == ["far"]


def test_changes_by_others_arrive(url: str, state: StateDir) -> None:
    with keeping(state, config_of(url)) as (keeper, told), Store.open(url) as other:
        assert keeper.key_book.is_read
        secret, key = other.create_key(KeyRequest(name="ci"))
        until(lambda: keeper.key_book.find(secret, time.time()) == key.facts)
        other.delete_key(key.id)
        until(lambda: len(keeper.key_book) == 0)
        other.create_model(MODEL)
        until(lambda: told.configs)
        assert told.configs[-1].find_model("far-away").name == "far"
        other.delete_model("far")
        until(lambda: len(told.configs) == 2)
        assert told.configs[-1] == config_of(url)
        other.set_experiment_state(ExperimentState(experiment="x", is_ended=True))
        until(lambda: ExperimentsSet(states=(ExperimentState(experiment="x", is_ended=True),)) in told.events)


def test_another_configuration_has_the_registered_models_in_it(state: StateDir) -> None:
    with keeping(state) as (keeper, told):
        keeper.store.create_model(MODEL)
        keeper.look_soon()
        until(lambda: told.configs)
        merged = keeper.replace_config(config_of(retention_days=7.0))
        assert merged.store.retention_days == 7.0
        assert merged.find_model("far").name == "far"


def test_a_model_whose_credential_is_not_for_its_url_is_left_out_and_the_log_says_so(
    state: StateDir, caplog: pytest.LogCaptureFixture
) -> None:
    with keeping(state) as (keeper, told):
        keeper.store.create_model(MODEL)
        keeper.store.create_model(
            evolve(MODEL, api_key_env="HOME", profile=evolve(MODEL.profile, name="bad"))
        )
        keeper.look_soon()
        until(lambda: told.configs)
        assert [model.name for model in told.configs[-1].models if model.name in {"far", "bad"}] == ["far"]
    assert "registered model 'bad' is left out: api_key_env: not for this connect" in caplog.text


def test_a_full_queue_keeps_the_money_and_counts_what_it_drops(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "MOST", 3)
    monkeypatch.setattr(backlog, "MOST_AT_ALL", 5)
    budget = charge()
    with keeping(state, ready=False, config=config_of(UNREACHABLE)) as (keeper, _):
        for number in range(4):
            keeper.record(ended(f"free{number}"))
        for number in range(4):
            keeper.record(ended(f"paid{number}", 0.1, budget, route="auto", outcomes=FULL.outcomes))
        assert (keeper.waiting, keeper.dropped) == (5, 3)
        kept = keeper._shared.backlog.batch(10)
        assert [each.record.request_id for each in kept] == ["free0", "free1", "free2", "paid0", "paid1"]
        assert [len(each.record.outcomes) for each in kept[3:]] == [0, 0]
        assert kept[4].record.charges == (budget,)


def test_a_record_that_cannot_be_written_does_not_stop_the_others(
    state: StateDir, caplog: pytest.LogCaptureFixture
) -> None:
    with keeping(state) as (keeper, _):
        keeper.record(ended("a"))
        keeper.record(ended("bad", total_s=None))
        keeper.record(ended("b"))
        assert keeper.flush(PATIENCE_S)
        assert count(keeper.store) == 2
        assert keeper.dropped == 1
    assert "the record of bad cannot be written" in caplog.text


def test_records_wait_for_a_store_that_is_not_there(
    postgres: Postgres, state: StateDir, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "gatewright.store")
    engine = create_engine(postgres.url(), isolation_level="AUTOCOMMIT")
    with keeping(state, config_of(postgres.url("late")), ready=False) as (keeper, _):
        keeper.record(ended("a", 0.5, charge()))
        until(lambda: keeper.unavailable)
        asked_at = time.monotonic()
        answers = [keeper.reserve(reserving(f"r{number}", 0.5, charge())) for number in range(50)]
        assert all(isinstance(answer, SpendUnknown) for answer in answers)
        assert time.monotonic() - asked_at < 20.0, "each would wait for 2 s"
        with pytest.raises(StoreError, match='database "late" does not exist'):
            _ = keeper.store
        assert not keeper.flush(0.1)
        with engine.connect() as connection:
            connection.execute(text("CREATE DATABASE late STRATEGY FILE_COPY"))
        assert keeper.wait_ready(PATIENCE_S)
        assert keeper.flush(PATIENCE_S)
        assert count(keeper.store) == 1
        with engine.connect() as connection:
            # Whoever is connected is thrown out, as by a server that stops, and nobody gets in any more.
            connection.execute(text("ALTER DATABASE late ALLOW_CONNECTIONS false"))
            connection.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'late'")
            )
        until(lambda: keeper.unavailable)
        keeper.record(ended("b"))
        time.sleep(0.3)
        with engine.connect() as connection:
            connection.execute(text("ALTER DATABASE late ALLOW_CONNECTIONS true"))
        assert keeper.flush(PATIENCE_S)
        assert count(keeper.store) == 2
        until(lambda: isinstance(keeper.reserve(reserving("c", 0.1, charge())), SpendReserved))
    engine.dispose()
    told = [record.message for record in caplog.records if record.name == "gatewright.store"]
    first, second = [line for line in told if line.startswith("store ")]
    assert "until it can be read, requests are refused with 503 keys_unknown" in first
    assert "Requests go on" in second  # with the keys that were read before
    assert len([line for line in told if "the store can be used again" in line]) == 2


def test_whatever_opening_fails_with_it_is_tried_again(
    state: StateDir, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    really_open, calls = Store.open, []

    def fail_first(url: object) -> Store:
        calls.append(url)
        if len(calls) <= 2:
            raise RuntimeError("nobody thought of that")
        return really_open(url)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "open", fail_first)
    with keeping(state) as (keeper, _):
        assert keeper.unavailable is None
    assert len([record for record in caplog.records if record.exc_info]) == 1


def test_a_store_that_hangs_delays_a_request_by_no_more_than_it_may(
    postgres: Postgres, state: StateDir
) -> None:
    pace = evolve(QUICK, reserve_s=0.3)
    with keeping(state, config_of(postgres.url()), pace) as (keeper, _):
        assert isinstance(keeper.reserve(reserving("a", 0.1, charge())), SpendReserved)
        postgres.pause()
        try:
            asked_at = time.monotonic()
            answer = keeper.reserve(reserving("b", 0.1, charge()))
            assert isinstance(answer, SpendUnknown)
            assert time.monotonic() - asked_at < 20.0
            asked_at = time.process_time()
            keeper.record(ended("a"))
            assert time.process_time() - asked_at < 0.1
        finally:
            postgres.go_on()
        until(lambda: isinstance(keeper.reserve(reserving("c", 0.1, charge())), SpendReserved))


def test_a_database_that_others_keep_busy_is_unknown_in_time(state: StateDir) -> None:
    with keeping(state, pace=evolve(QUICK, reserve_s=0.2)) as (keeper, _):
        engine = create_engine(f"sqlite:///{state.store_file}")
        with engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            answer = keeper.reserve(reserving("a", 0.1, charge()))
            connection.rollback()
        engine.dispose()
        assert isinstance(answer, SpendUnknown)
        until(lambda: isinstance(keeper.reserve(reserving("a", 0.1, charge())), SpendReserved))


def test_threads_reserve_at_once(url: str, state: StateDir) -> None:
    with keeping(state, config_of(url), evolve(QUICK, reserve_s=PATIENCE_S)) as (keeper, _):
        answers = []

        def spend(number: int) -> None:
            answers.extend(
                [keeper.reserve(reserving(f"{number}-{each}", 0.1, charge())) for each in range(5)]
            )

        threads = [threading.Thread(target=spend, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(isinstance(answer, SpendReserved) for answer in answers) == 10
        assert sum(isinstance(answer, SpendRefused) for answer in answers) == 30


def test_old_records_are_deleted_in_time(state: StateDir) -> None:
    with keeping(state) as (keeper, _):
        keeper.record(ended("old"))
        keeper.flush(PATIENCE_S)
    pace = evolve(QUICK, retention_s=0.0)
    with keeping(state, config_of(retention_days=1e-6), pace) as (keeper, _):
        until(lambda: count(keeper.store) == 0)
