"""What counts as a leak."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from attrs import evolve

from gatewright.fleet import EngineStatus
from gatewright_host.state_dir import StateDir
from gatewright_host.store import Store
from tests.host.store.stored import charge, reserve
from tests.soak.leaks import MOST_LOG_BYTES, Load, Rest, find_leaks, leases_of, left_in, load_of
from tests.support.gateway import wait_until

LOAD = Load(rss=100_000_000, threads=5, files=20, calls={4000: 2})
REST = Rest(loads={"gw-server": LOAD})


def leaks(**changes: Any) -> list[str]:
    after = Rest(loads={"gw-server": evolve(LOAD, **changes)})
    return find_leaks(REST, after, at_a_time={"gw-server": 2})


@pytest.mark.parametrize(
    "changes",
    [{}, {"rss": 109_999_999}, {"threads": 13, "files": 19}, {"calls": {4000: 2, 4001: 2}}, {"calls": {}}],
)
def test_what_is_no_leak(changes: dict[str, Any]) -> None:
    assert leaks(**changes) == []


@pytest.mark.parametrize(
    ("changes", "leak"),
    [
        ({"rss": 110_000_001}, "gw-server: memory grew by 10% (100,000,000 to 110,000,001 bytes)"),
        ({"threads": 14}, "gw-server: 9 more threads (5, now 14)"),
        ({"files": 22}, "gw-server: 2 more files (20, now 22)"),
        ({"zombies": 1}, "gw-server: 1 more zombies (0, now 1)"),
        ({"store_files": 31}, "gw-server: 31 open files of the store"),
        ({"calls": {4000: 3}}, "gw-server: 3 connections to port 4000, for 2 requests"),
    ],
)
def test_what_is_a_leak(changes: dict[str, Any], leak: str) -> None:
    assert leaks(**changes) == [leak]


def test_leaks_beyond_one_process() -> None:
    after = Rest(
        loads={"worker 1": LOAD},
        strangers=("7 engine",),
        leases={"one@512": 1, "one@2048": 0},
        under_way=("ok",),
        left=("gatewright.db.new",),
    )
    assert find_leaks(REST, after, at_a_time={"worker 1": 2}) == [
        "process left: 7 engine",
        "lease left: 1 of engine one@512",
        "call left: an upstream still answers ok",
        "left in the state directory: gatewright.db.new",
        "worker 1: a process that was not there before",
        "gw-server: gone",
    ]


def test_leases_are_those_held_and_those_waited_for() -> None:
    engines = [
        EngineStatus(model="one", context_tokens=512, state="ready", leases=1, waiting=2),
        EngineStatus(model="other", context_tokens=512, state="stopped"),
    ]
    assert leases_of(engines) == {"one@512": 3, "other@512": 0}


def test_what_is_left_in_a_state_directory(tmp_path: Path) -> None:
    state = StateDir.at(tmp_path / "state")
    assert left_in(state, ()) == ()
    with Store.open(f"sqlite:///{state.store_file}") as store:
        reserve(store, "req_1", 0.5, charge(1.0))
        (state.path / "metrics").mkdir()
        for pid in (7, 8):
            (state.path / "metrics" / f"{pid}-abcd.figures").touch()
        (state.path / "spool.part").touch()
        with (state.path / "gatewright.db-wal").open("r+b") as log:
            log.truncate(MOST_LOG_BYTES + 1)
        assert left_in(state, {7}) == (
            "spool.part",
            "metrics/8-abcd.figures",
            f"gatewright.db-wal of {MOST_LOG_BYTES + 1:,} bytes",
            "500000000 nano-dollars reserved for req_1",
        )


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as running:
        yield running


def test_a_process_is_looked_at(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    process = psutil.Process(os.getpid())
    before = load_of(process, frozenset())
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    child = subprocess.Popen([sys.executable, "-S", "-c", ""])
    with ExitStack() as held:
        held.enter_context(socket.create_connection(("127.0.0.1", port)))
        held.enter_context(listener.accept()[0])
        held.enter_context(open(os.devnull))  # noqa: PTH123  # any descriptor will do
        wait_until(lambda: load_of(process, frozenset({port})).zombies, "the child has ended")
        after = load_of(process, frozenset({port}))
    stop.set()
    thread.join()
    child.wait()
    assert after.calls == {**before.calls, port: 1}
    assert after.files == before.files + 2
    assert after.threads == before.threads + 1
    assert after.rss > 1_000_000
