"""What processes hold, and what of it they should have let go."""

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import psutil
from attrs import frozen

from gatewright.fleet import EngineStatus
from gatewright_host.state_dir import StateDir

MEMORY_GROWTH = 0.10
POOL_THREADS = 8
"""Threads that are started when they are first needed and stay: of reservations, estimators, judges."""
MOST_STORE_FILES = 30
"""A pool of ten connections, with a database and a log each, and some that look after others."""
MOST_LOG_BYTES = 16_777_216
"""Of the store's write-ahead log, which is begun anew after a quarter of that unless somebody holds on to it."""

_STORE = "gatewright.db"
_FIGURES = ".figures"
_EXPECTED = frozenset(
    (
        *(_STORE, f"{_STORE}-wal", f"{_STORE}-shm", f"{_STORE}.lock", "keys.known"),
        *("host.lock", "start.lock", "host.log", "host.sock", "engines.log", "engines", "metrics"),
    )
)


@frozen(kw_only=True)
class Load:
    """What one process holds at rest.

    Attributes:
        rss: Resident memory in bytes.
        threads: Its threads.
        files: File descriptors, but for calls.
        store_files: File descriptors of the store, which are not among the others: its connections come and go.
        calls: Connections that it has opened to upstreams, by their port.
        zombies: Children that have ended and that nobody has asked for.
    """

    rss: int
    threads: int
    files: int
    calls: Mapping[int, int]
    zombies: int = 0
    store_files: int = 0


@frozen(kw_only=True)
class Rest:
    """A gateway with nothing to do.

    Attributes:
        loads: By name of the process.
        strangers: Processes that belong to nobody.
        leases: Leases that are held or waited for, by engine.
        under_way: What upstreams are still working on.
        left: What the state directory should not hold: strange files, figures of nobody, money that is reserved.
    """

    loads: Mapping[str, Load] = {}
    strangers: tuple[str, ...] = ()
    leases: Mapping[str, int] = {}
    under_way: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


def load_of(process: psutil.Process, own_ports: frozenset[int]) -> Load:
    """Look at a process.

    Args:
        process: Which.
        own_ports: Ports it listens on: connections to those are its clients'.
    """
    with process.oneshot():
        sockets = [found for found in process.net_connections("tcp") if found.raddr]
        calls = Counter(found.raddr.port for found in sockets if found.laddr.port not in own_ports)
        children = process.children()
        zombies = 0
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                zombies += child.status() == psutil.STATUS_ZOMBIE
        store_files = sum(Path(file.path).name.startswith(_STORE) for file in process.open_files())
        return Load(
            rss=process.memory_info().rss,
            threads=process.num_threads(),
            files=process.num_fds() - sum(calls.values()) - store_files,
            calls=dict(calls),
            zombies=zombies,
            store_files=store_files,
        )


def find_leaks(before: Rest, after: Rest, *, at_a_time: Mapping[str, int]) -> list[str]:
    """What is there that was not, one line each.

    Args:
        before: At rest, after warming up.
        after: At rest, after the traffic.
        at_a_time: Requests that a process serves at a time: it may keep as many connections to one upstream.
    """
    leaks = [f"process left: {stranger}" for stranger in after.strangers]
    leaks += [f"lease left: {count} of engine {engine}" for engine, count in after.leases.items() if count]
    leaks += [f"call left: an upstream still answers {fault}" for fault in after.under_way]
    leaks += [f"left in the state directory: {what}" for what in after.left]
    for name, now in after.loads.items():
        was = before.loads.get(name)
        if was is None:
            leaks.append(f"{name}: a process that was not there before")
            continue
        for what in ("threads", "files", "zombies"):
            grown = getattr(now, what) - getattr(was, what)
            if grown > (POOL_THREADS if what == "threads" else 0):
                leaks.append(f"{name}: {grown} more {what} ({getattr(was, what)}, now {getattr(now, what)})")
        for port, count in now.calls.items():
            if count > at_a_time.get(name, 0):
                leaks.append(
                    f"{name}: {count} connections to port {port}, for {at_a_time.get(name, 0)} requests"
                )
        if now.store_files > MOST_STORE_FILES:
            leaks.append(f"{name}: {now.store_files} open files of the store")
        if now.rss > was.rss * (1 + MEMORY_GROWTH):
            leaks.append(
                f"{name}: memory grew by {now.rss / was.rss - 1:.0%} ({was.rss:,} to {now.rss:,} bytes)"
            )
    leaks += [f"{name}: gone" for name in before.loads if name not in after.loads]
    return leaks


def left_in(state: StateDir, pids: Collection[int]) -> tuple[str, ...]:
    """What a state directory should not hold while nothing is done.

    Args:
        state: The directory.
        pids: Processes that may have figures in it.
    """
    left = [path.name for path in state.path.iterdir() if path.name not in _EXPECTED]
    figures = [path.name for path in (state.path / "metrics").glob(f"*{_FIGURES}")]
    left += [f"metrics/{name}" for name in figures if int(name.partition("-")[0]) not in pids]
    log = state.store_file.with_name(f"{_STORE}-wal")
    if log.exists() and log.stat().st_size > MOST_LOG_BYTES:
        left.append(f"{log.name} of {log.stat().st_size:,} bytes")
    if state.store_file.exists():
        with contextlib.closing(sqlite3.connect(f"file:{state.store_file}?mode=ro", uri=True)) as store:
            rows = store.execute("SELECT request_id, amount_nano FROM reservations").fetchall()
        left += [f"{amount} nano-dollars reserved for {request_id}" for request_id, amount in rows]
    return tuple(left)


def leases_of(engines: Iterable[EngineStatus]) -> dict[str, int]:
    """Leases that are held or waited for, by engine."""
    return {f"{engine.model}@{engine.context_tokens}": engine.leases + engine.waiting for engine in engines}
