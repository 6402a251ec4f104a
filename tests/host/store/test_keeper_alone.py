"""A keeper without a store, and in a process that is not its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gatewright.accounting.spending import KeyFacts
from gatewright.events import (
    SpendReserved,
    SpendUnknown,
)
from gatewright_host.state_dir import StateDir
from gatewright_host.store import StoreError
from tests.host.store.keepers import UNREACHABLE, config_of, keeping, until
from tests.host.store.stored import charge, ended, reserving


def test_a_store_that_is_switched_off_keeps_nothing(state: StateDir) -> None:
    with keeping(state, config_of(enabled=False)) as (keeper, told):
        keeper.record(ended("a"))
        assert keeper.flush(1.0)
        limited = KeyFacts(key_id="k", name="ci", requests_per_minute=1)
        assert isinstance(keeper.reserve(reserving("a", 0.0, key=limited)), SpendReserved)
        answer = keeper.reserve(reserving("a", 0.1, charge()))
        assert isinstance(answer, SpendUnknown)
        assert "switched off" in answer.reason
        with pytest.raises(StoreError, match=r"this needs `store.enabled = true`"):
            _ = keeper.store
        assert keeper.key_book.is_read
        assert told.events == []
    assert not state.store_file.exists()


def test_nobody_knows_the_keys_before_the_store_was_read(state: StateDir) -> None:
    with keeping(state, config_of(UNREACHABLE), ready=False) as (keeper, _):
        assert not keeper.key_book.is_read
        assert not keeper.is_ready


def test_without_accounts_the_store_is_not_asked(state: StateDir) -> None:
    with keeping(state, config_of(UNREACHABLE), ready=False) as (keeper, _):
        until(lambda: keeper.unavailable)
        assert isinstance(keeper.reserve(reserving("a", 0.0)), SpendReserved)


def test_a_keeper_is_of_the_process_that_started_it(state: StateDir) -> None:
    program = """
import os, sys, warnings
from gatewright.config import Config
from gatewright_host.state_dir import StateDir
from gatewright_host.store import Keeper
from tests.host.store.stored import charge, ended, reserving
warnings.simplefilter("ignore", DeprecationWarning)
keeper = Keeper(Config(models=()), StateDir.at(sys.argv[1]), lambda event: None)
keeper.start()
assert keeper.wait_ready(30)
keeper.reserve(reserving("parent", 0.5, charge()))
child = os.fork()
if not child:
    keeper.record(ended("nobody"))
    print(type(keeper.reserve(reserving("x", 0.1, charge()))).__name__, keeper.flush(1), flush=True)
    keeper.close()
    keeper.start()
    assert keeper.wait_ready(30)
    keeper.record(ended("child"))
    print(type(keeper.reserve(reserving("x", 0.1, charge()))).__name__, keeper.flush(30), flush=True)
    keeper.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
keeper.record(ended("parent"))
assert keeper.flush(30)
print(keeper.store.budget_use()[0].reserved_usd)
print([keeper.store.find_request(name) is not None for name in ("nobody", "child", "parent")])
keeper.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", program, state.path],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "SpendUnknown True",
        "SpendReserved True",
        "0.0",
        "[False, True, True]",
    ]


def test_naming_the_keeper_loads_no_sqlalchemy() -> None:
    program = "import sys; from gatewright_host.store import Keeper; print('sqlalchemy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
