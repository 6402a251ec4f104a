"""Fake engines' specifications, short state directories, and waiting for what other processes do."""

import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gatewright.engines.spec import EngineSpec, EngineTimeouts, ProcessSpec
from gatewright.ids import LeaseId
from gatewright.leases import LeaseEngine, LeaseNews, LeaseProgress
from gatewright_host.process_group import is_alive
from gatewright_host.state_dir import StateDir
from tests.support import fake_engine

PATIENCE_S = 30.0
"""Far more than anything takes: a test fails by it, none waits for it."""


def fake_spec(
    mode: str = "ready",
    *options: str,
    model: str = "fake",
    context: int = 1024,
    stop_s: float = PATIENCE_S,
    idle_s: float = 600.0,
    startup_s: float = PATIENCE_S,
    health_check_s: float = PATIENCE_S,
    place: str = "primary",
) -> EngineSpec:
    """An engine that is `fake_engine.py` in one of its modes."""
    args = ("-S", "-E", fake_engine.__file__, "--port", "${PORT}", "--mode", mode, "--context", str(context))
    return EngineSpec(
        model=model,
        context_tokens=context,
        connect="http://127.0.0.1:${PORT}",
        place=place,
        process=ProcessSpec(binary=sys.executable, args=(*args, *options)),
        timeouts=EngineTimeouts(
            health_check_s=health_check_s, startup_s=startup_s, stop_s=stop_s, idle_s=idle_s
        ),
    )


def ask(number: int, *variants: EngineSpec, queue_timeout_s: float = PATIENCE_S) -> LeaseEngine:
    """A request for a lease."""
    return LeaseEngine(
        lease_id=LeaseId(number), variants=variants or (fake_spec(),), queue_timeout_s=queue_timeout_s
    )


@contextmanager
def short_state_dir() -> Iterator[StateDir]:
    """A state directory whose path leaves room for a socket in it, as pytest's own do not."""
    path = Path(tempfile.mkdtemp(prefix="gw"))
    try:
        yield StateDir.at(path)
    finally:
        shutil.rmtree(path)


class News:
    """Collects the news of a holder."""

    def __init__(self) -> None:
        self.all: list[LeaseNews] = []

    def __call__(self, news: LeaseNews) -> None:
        self.all.append(news)

    @property
    def ends(self) -> list[LeaseNews]:
        """Without progress."""
        return [news for news in self.all if not isinstance(news, LeaseProgress)]

    async def end(self, number: int = 1) -> LeaseNews:
        """The n-th news that is no progress, awaited."""
        await until(lambda: len(self.ends) >= number)
        return self.ends[number - 1]


async def until(happened: Callable[[], object]) -> None:
    """Wait for something that other processes bring about."""
    async with asyncio.timeout(PATIENCE_S):
        while not happened():  # noqa: ASYNC110  # it happens in other processes
            await asyncio.sleep(0.005)


def until_blocking(happened: Callable[[], object]) -> None:
    """The same without an event loop."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < give_up_at, "waited in vain"
        time.sleep(0.005)


def is_running(pid: int) -> bool:
    """Whether a process lives, zombies excluded."""
    return is_alive(pid)


def processes_with(text: str) -> list[int]:
    """Living processes with this text in their command line, ourselves excluded."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if text.encode() in command and is_alive(int(entry.name)):
                found.append(int(entry.name))
    return found
