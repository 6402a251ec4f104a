"""What tests of the host share: both event loops, and a state directory."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop

from gatewright_host.state_dir import StateDir
from tests.support.host import short_state_dir

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine to its end, and sees that it leaves no task behind."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    async def alone(work: Coroutine[Any, Any, None]) -> None:
        await work
        assert asyncio.all_tasks() == {asyncio.current_task()}

    def run_it(work: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(alone(work))

    return run_it


@pytest.fixture
def state() -> Iterator[StateDir]:
    with short_state_dir() as directory:
        yield directory
