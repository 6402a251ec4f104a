"""What processes hold, and what of it they should have let go."""

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping

import psutil
from attrs import frozen

from gatewright.fleet import EngineStatus

MEMORY_GROWTH = 0.10


@frozen(kw_only=True)
class Load:
    """What one process holds at rest.

    Attributes:
        rss: Resident memory in bytes.
        threads: Its threads.
        files: File descriptors, but for calls.
        calls: Connections that it has opened to upstreams, by their port.
        zombies: Children that have ended and that nobody has asked for.
    """

    rss: int
    threads: int
    files: int
    calls: Mapping[int, int]
    zombies: int = 0


@frozen(kw_only=True)
class Rest:
    """A gateway with nothing to do.

    Attributes:
        loads: By name of the process.
        strangers: Processes that belong to nobody.
        leases: Leases that are held or waited for, by engine.
        under_way: What upstreams are still working on.
    """

    loads: Mapping[str, Load] = {}
    strangers: tuple[str, ...] = ()
    leases: Mapping[str, int] = {}
    under_way: tuple[str, ...] = ()


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
        return Load(
            rss=process.memory_info().rss,
            threads=process.num_threads(),
            files=process.num_fds() - sum(calls.values()),
            calls=dict(calls),
            zombies=zombies,
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
    for name, now in after.loads.items():
        was = before.loads.get(name)
        if was is None:
            leaks.append(f"{name}: a process that was not there before")
            continue
        for what in ("threads", "files", "zombies"):
            grown = getattr(now, what) - getattr(was, what)
            if grown > 0:
                leaks.append(f"{name}: {grown} more {what} ({getattr(was, what)}, now {getattr(now, what)})")
        for port, count in now.calls.items():
            if count > at_a_time.get(name, 0):
                leaks.append(
                    f"{name}: {count} connections to port {port}, for {at_a_time.get(name, 0)} requests"
                )
        if now.rss > was.rss * (1 + MEMORY_GROWTH):
            leaks.append(
                f"{name}: memory grew by {now.rss / was.rss - 1:.0%} ({was.rss:,} to {now.rss:,} bytes)"
            )
    leaks += [f"{name}: gone" for name in before.loads if name not in after.loads]
    return leaks


def leases_of(engines: Iterable[EngineStatus]) -> dict[str, int]:
    """Leases that are held or waited for, by engine."""
    return {f"{engine.model}@{engine.context_tokens}": engine.leases + engine.waiting for engine in engines}
