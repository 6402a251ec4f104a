"""Real processes spend from one budget at once, and some are killed in the middle."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gatewright_host.store import Store
from tests.host.store import spender
from tests.host.store.stored import charge, reserve, settle, use_of

PATIENCE_S = 60.0
ROOT = Path(__file__).parents[3]


@contextmanager
def spending(
    url: str, limit: float, amount: float, cost: float, modes: list[str]
) -> "Iterator[list[subprocess.Popen[str]]]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, spender.__file__, url, f"p{number}", str(limit), str(amount), str(cost), mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for number, mode in enumerate(modes)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.stdout.close()


def wait_for(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdout is not None
    for told in process.stdout:
        if told.strip() == line:
            return
    raise AssertionError(f"it ended without {line}")


def test_processes_that_spend_at_once_spend_the_budget_and_no_more(url: str) -> None:
    limit, amount = 2.0, 0.01
    with (
        Store.open(url) as store,
        spending(url, limit, amount, amount, ["spend"] * 4 + ["hold"] * 2) as processes,
    ):
        *spenders, first, second = processes
        for holder in (first, second):
            wait_for(holder, "holds")
        # In the middle of what it does, and while it has something reserved.
        wait_for(spenders[0], "p0-20")
        spenders[0].kill()
        first.kill()
        first.wait()
        spenders[0].wait()
        highest = 0.0
        give_up_at = time.monotonic() + PATIENCE_S
        while any(each.poll() is None for each in spenders):
            use = use_of(store)
            highest = max(highest, use.spent_usd + use.reserved_usd)
            if second.poll() is None and use.spent_usd > limit / 2:
                second.kill()
                second.wait()
            assert time.monotonic() < give_up_at
            time.sleep(0.02)
        assert [each.returncode for each in spenders[1:]] == [0, 0, 0]
        store.clean_ledger()
        use = use_of(store)
        # Every cent was spent, what the dead had reserved too, and none twice.
        assert use.spent_usd == pytest.approx(limit, abs=1e-12)
        assert use.reserved_usd == 0.0
        assert use.requests == round(limit / amount)
        assert highest <= limit + 1e-12


def test_of_all_who_want_the_last_of_a_budget_at_once_one_gets_it(url: str) -> None:
    count = 120
    with Store.open(url) as store, spending(url, count, 1.0, 1.0, ["grab"] * 3) as processes:
        # The accounts are known before, so that nobody is held up by having to make them known.
        for number in range(count):
            settle(store, f"first-{number}", 0.0, charge(1.0, f"budget-{number}"), at_s=time.time())
        for process in processes:
            wait_for(process, "ready")
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        got = [int(process.stdout.readline()) for process in processes if process.stdout is not None]
        assert sum(got) == count


def test_calls_that_cost_more_than_estimated_overspend_by_those_under_way(url: str) -> None:
    limit, amount, cost, count = 0.6, 0.01, 0.015, 3
    with Store.open(url) as store, spending(url, limit, amount, cost, ["spend"] * count) as processes:
        for process in processes:
            assert process.wait(PATIENCE_S) == 0
        use = use_of(store)
        # When the last was let in, what was spent and reserved was within the limit.
        assert limit - amount < use.spent_usd <= limit + count * (cost - amount) + 1e-12


def test_a_killed_process_s_reservation_is_free_at_once(url: str) -> None:
    with Store.open(url) as store, spending(url, 1.0, 1.0, 1.0, ["hold"]) as (holder,):
        wait_for(holder, "holds")
        assert hasattr(reserve(store, "mine", 0.5, charge()), "problem")
        holder.kill()
        holder.wait()
        assert not hasattr(reserve(store, "mine", 0.5, charge()), "problem")
