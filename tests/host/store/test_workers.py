"""Calls that may hang, and what is known of a store that does."""

import logging
import threading

import pytest

from gatewright_host.store.outage import Outage
from gatewright_host.store.workers import Workers
from tests.host.store.stored import Clock

PATIENCE_S = 30.0


def test_what_a_call_returns_or_raises_comes_back() -> None:
    workers = Workers("test", 2)
    assert workers.call(lambda: 7, PATIENCE_S) == 7
    with pytest.raises(KeyError, match="gone"):
        workers.call(lambda: {}["gone"], PATIENCE_S)
    workers.stop()


def test_no_more_threads_than_allowed_work_at_a_time() -> None:
    workers = Workers("test-most", 2)
    names: list[str] = []

    def one() -> None:
        workers.call(lambda: names.append(threading.current_thread().name), PATIENCE_S)

    threads = [threading.Thread(target=one) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names) == 20
    assert sum(thread.name == "test-most" for thread in threading.enumerate()) <= 2
    workers.stop()


def test_a_call_that_hangs_holds_nobody_up_and_its_successors_are_skipped() -> None:
    workers = Workers("test", 1)
    go_on = threading.Event()
    done: list[str] = []
    with pytest.raises(TimeoutError):
        workers.call(lambda: go_on.wait(PATIENCE_S) and done.append("first"), 0.01)
    # Nobody waits for this one any more when its turn comes.
    with pytest.raises(TimeoutError):
        workers.call(lambda: done.append("second"), 0.01)
    go_on.set()
    workers.call(lambda: done.append("third"), PATIENCE_S)
    assert done == ["first", "third"]
    workers.stop()


def test_an_outage_is_told_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gatewright.store")
    clock = Clock()
    outage = Outage(clock)
    outage.worked()
    assert outage.reason is None
    for _ in range(3):
        outage.failed("store x: it is gone")
    assert outage.reason == "store x: it is gone"
    clock.advance(90.0)
    outage.worked()
    outage.worked()
    assert outage.reason is None
    assert [record.message for record in caplog.records] == [
        "store x: it is gone. Requests go on; budgets follow store.when_unavailable, and records wait in memory",
        "the store can be used again, after 90 s",
    ]


def test_where_nobody_is_let_in_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    Outage(Clock(), lambda: True).failed("store x: it is gone")
    (record,) = caplog.records
    assert (
        "requests are refused with 503 keys_unknown, but for those with one of server.api_keys"
        in record.message
    )
    assert "Requests go on" not in record.message


def test_a_store_that_says_nothing_for_long_counts_as_down() -> None:
    clock = Clock()
    outage = Outage(clock)
    clock.advance(100.0)
    # It is still being opened.
    assert outage.reason is None
    outage.worked()
    clock.advance(5.0)
    assert outage.reason is None
    clock.advance(0.1)
    assert outage.reason == "the store does not answer"
    outage.worked()
    assert outage.reason is None
