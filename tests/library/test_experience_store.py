"""The memory of calls: exact, shared between stores, processes and threads, and there only once there is something to keep."""

import asyncio
import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gatewright_library import ExperienceStore, ModelPerformance, StoreError, TaskComplexity


def test_a_store_knows_its_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ExperienceStore(path=tmp_path).base_path == Path(tmp_path)
    assert ExperienceStore(str(tmp_path)).base_path == Path(tmp_path)
    assert ExperienceStore("~/here").base_path == tmp_path / "here"
    assert ExperienceStore().base_path == tmp_path / ".gatewright" / "experience"


def test_nothing_is_made_before_something_is_recorded(tmp_path):
    store = ExperienceStore(tmp_path / "new")
    assert store.get_performance("m", "t") is None
    assert store.get_all_performance("m") == {}
    assert store.get_model_ranking("t") == []
    assert store.get_best_model_for_ptool("t") is None
    with store.beliefs() as experience:
        assert not experience.has_any("m")
    assert not (tmp_path / "new").exists()
    store.record_execution("m", "t", success=True, latency_ms=1.0)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert not [file for file in (tmp_path / "new").iterdir() if file.suffix == ".json"]
    store.close()


def test_figures_are_exact(store):
    for number, success in enumerate([True, True, False, True]):
        store.record_execution("m", "t", success=success, latency_ms=100.0 + number, cost=0.1)
    found = store.get_performance("m", "t")
    assert found is not None
    assert found.last_updated is not None
    assert (found.total_calls, found.successful_calls) == (4, 3)
    assert found.success_rate == 0.75
    assert found.avg_latency_ms == 101.5
    assert found.total_cost == 0.4
    assert ModelPerformance.from_dict(found.to_dict()) == found


def test_models_and_tasks_are_told_apart(store):
    store.record_execution("m", "t", success=True, latency_ms=1.0)
    store.record_execution("m", "u", success=False, latency_ms=1.0)
    store.record_execution("n", "t", success=False, latency_ms=1.0)
    assert store.get_performance("m", "t").success_rate == 1.0
    assert store.get_performance("m", "u").success_rate == 0.0
    assert store.get_performance("n", "u") is None
    assert list(store.get_all_performance("m")) == ["t", "u"]


def test_the_ranking_is_best_first_and_asks_for_enough_calls(store):
    for model, successes in (("half", 2), ("all", 4), ("none", 0)):
        for call in range(4):
            store.record_execution(model, "t", success=call < successes, latency_ms=10.0)
    store.record_execution("once", "t", success=True, latency_ms=10.0)
    assert store.get_model_ranking("t") == [("all", 1.0), ("half", 0.5), ("none", 0.0)]
    assert store.get_model_ranking("t", min_calls=1)[:2] == [("all", 1.0), ("once", 1.0)]
    assert store.get_best_model_for_ptool("t") is None
    assert store.get_best_model_for_ptool("t", min_calls=4) == "all"
    assert store.get_best_model_for_ptool("other", min_calls=0) is None


def test_equal_models_are_ranked_by_their_speed_then_by_name(store):
    for model, latency_ms in (("slow", 20.0), ("fast", 10.0), ("also-fast", 10.0)):
        for _ in range(3):
            store.record_execution(model, "t", success=True, latency_ms=latency_ms)
    assert [name for name, _ in store.get_model_ranking("t")] == ["also-fast", "fast", "slow"]


def test_calls_that_nobody_answered_are_in_no_figure(store):
    store.record_execution("m", "t", success=True, latency_ms=10.0)
    store.record_execution("m", "t", success=False, latency_ms=9000.0, is_available=False)
    assert store.get_performance("m", "t").total_calls == 1
    assert store.get_performance("m", "t").avg_latency_ms == 10.0


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_nonsense_is_refused_and_not_kept(store, value):
    with pytest.raises(ValueError, match="latency_ms is"):
        store.record_execution("m", "t", success=True, latency_ms=value)
    with pytest.raises(ValueError, match="cost is"):
        store.record_execution("m", "t", success=True, latency_ms=1.0, cost=value)
    assert store.get_performance("m", "t") is None


def test_beliefs_follow_at_once_and_know_the_level(store):
    for _ in range(20):
        store.record_execution("m", "t", success=False, latency_ms=10.0, complexity=TaskComplexity.EXPERT)
    with store.beliefs() as experience:
        hard = experience.success("m", "t", TaskComplexity.EXPERT, 0.9, store._clock())
        easy = experience.success("m", "t", TaskComplexity.TRIVIAL, 0.9, store._clock())
    assert hard.mean < easy.mean < 0.9


def test_another_store_sees_what_was_recorded(tmp_path):
    with ExperienceStore(tmp_path) as one:
        one.record_execution("m", "t", success=True, latency_ms=10.0, cost=0.01)
    with ExperienceStore(tmp_path) as other:
        assert other.get_performance("m", "t").total_calls == 1
        with other.beliefs() as experience:
            assert experience.has_any("m")


def test_two_open_stores_see_each_other(tmp_path):
    with ExperienceStore(tmp_path) as one, ExperienceStore(tmp_path) as other:
        for calls in range(1, 4):
            one.record_execution("m", "t", success=True, latency_ms=10.0)
            other.record_execution("m", "t", success=False, latency_ms=10.0)
            assert one.get_performance("m", "t").total_calls == 2 * calls
            assert other.get_performance("m", "t").total_calls == 2 * calls
        for store in (one, other):
            with store.beliefs() as experience:
                evidence = experience.success("m", "t", None, 0.5, store._clock()).evidence
            assert evidence == pytest.approx(6.0, rel=1e-3)


def record_many(path, model, count):
    with ExperienceStore(path) as store:
        for call in range(count):
            store.record_execution(model, "t", success=call % 2 == 0, latency_ms=10.0, cost=0.001)


def test_processes_share_a_directory(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=record_many, args=(tmp_path, f"m{number}", 20)) for number in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    with ExperienceStore(tmp_path) as store:
        for number in range(3):
            found = store.get_performance(f"m{number}", "t")
            assert (found.total_calls, found.successful_calls) == (20, 10)
            assert found.total_cost == 0.02


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_store_that_was_open_before_a_fork_goes_on_in_both(tmp_path):
    # A process of its own: the one that runs the tests has threads.
    program = f"""
import os
from gatewright_library import ExperienceStore
store = ExperienceStore({str(tmp_path)!r})
store.record_execution("m", "t", success=True, latency_ms=1.0)
child = os.fork()
store.record_execution("m", "t", success=True, latency_ms=1.0)
if child == 0:
    os._exit(0 if store.get_performance("m", "t").total_calls >= 2 else 1)
assert os.waitpid(child, 0)[1] == 0
assert store.get_performance("m", "t").total_calls == 3
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_in_the_middle_of_a_write_leaves_no_lock_behind(tmp_path):
    program = f"""
import os
import signal
import threading
from gatewright_library import ExperienceStore
store = ExperienceStore({str(tmp_path)!r})
store.record_execution("m", "t", success=True, latency_ms=1.0)
ended = threading.Event()
def write():
    while not ended.is_set():
        store.record_execution("m", "t", success=True, latency_ms=1.0)
writer = threading.Thread(target=write)
writer.start()
try:
    for _ in range(10):
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            store.record_execution("child", "t", success=True, latency_ms=1.0)
            os._exit(0 if store.get_performance("child", "t").total_calls else 1)
        assert os.waitpid(child, 0)[1] == 0
finally:
    ended.set()
    writer.join()
assert store.get_performance("child", "t").total_calls == 10
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_threads_record_and_read_at_once(store):
    threads, calls = 8, 25
    with ThreadPoolExecutor(threads) as pool:

        def work(number):
            for call in range(calls):
                store.record_execution(
                    f"m{number % 2}", "t", success=call % 5 != 0, latency_ms=float(call), cost=0.01
                )
                assert store.get_performance(f"m{number % 2}", "t").total_calls > 0
                with store.beliefs() as experience:
                    assert 0 <= experience.success("m0", "t", None, 0.5, store._clock()).mean <= 1

        for done in [pool.submit(work, number) for number in range(threads)]:
            done.result(60)
    found = [store.get_performance(model, "t") for model in ("m0", "m1")]
    assert [each.total_calls for each in found] == [100, 100]
    assert [each.successful_calls for each in found] == [80, 80]
    assert [each.avg_latency_ms for each in found] == [12.0, 12.0]


def test_the_first_call_may_come_from_many_threads(tmp_path):
    barrier = threading.Barrier(6)
    store = ExperienceStore(tmp_path / "new")

    def work():
        barrier.wait(30)
        store.record_execution("m", "t", success=True, latency_ms=1.0)

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(work) for _ in range(6)]:
            done.result(60)
    assert store.get_performance("m", "t").total_calls == 6
    store.close()


def test_old_calls_can_be_deleted_and_count_no_more(tmp_path):
    now = [1_000_000.0]
    with ExperienceStore(tmp_path / "new", clock=lambda: now[0]) as store:
        store.delete_older_than(1)
        assert not (tmp_path / "new").exists()
        store.record_execution("m", "t", success=False, latency_ms=1.0)
        now[0] += 2 * 24 * 3600
        store.record_execution("m", "t", success=True, latency_ms=3.0)
        store.delete_older_than(1)
        found = store.get_performance("m", "t")
        assert (found.total_calls, found.success_rate, found.avg_latency_ms) == (1, 1.0, 3.0)
        store.record_execution("m", "t", success=True, latency_ms=5.0)
        assert store.get_performance("m", "t").avg_latency_ms == 4.0


def test_it_can_be_used_from_asyncio(store):
    async def main():
        async def one(number):
            await asyncio.to_thread(store.record_execution, "m", "t", success=True, latency_ms=float(number))

        await asyncio.gather(*(one(number) for number in range(20)))
        store.record_execution("m", "t", success=True, latency_ms=20.0)
        return store.get_performance("m", "t")

    assert asyncio.run(main()).total_calls == 21


def test_a_closed_store_says_so(store):
    store.record_execution("m", "t", success=True, latency_ms=1.0)
    store.close()
    store.close()
    with pytest.raises(StoreError, match="it is closed"):
        store.record_execution("m", "t", success=True, latency_ms=1.0)
    with pytest.raises(StoreError, match="it is closed"):
        store.get_performance("m", "t")
    with store.beliefs() as experience:
        assert experience.has_any("m")


def test_a_directory_that_cannot_be_made_is_an_error_of_the_store(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"experience .*file"):
        ExperienceStore(tmp_path / "file").record_execution("m", "t", success=True, latency_ms=1.0)


def test_what_is_no_database_is_an_error_of_the_store_and_stops_no_selection(tmp_path, caplog):
    (tmp_path / "gatewright.db").write_bytes(b"something else entirely" * 100)
    store = ExperienceStore(tmp_path)
    with pytest.raises(StoreError):
        store.get_performance("m", "t")
    with store.beliefs() as experience:
        assert not experience.has_any("m")
    assert "goes by what is known already" in caplog.text
