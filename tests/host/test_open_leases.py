import asyncio
import os
import signal

import pytest

from gatewright.leases import (
    CallResult,
    LeaseGranted,
    LeaseLost,
    LeaseNews,
    LeaseProgress,
    LeaseRefused,
    ReportCall,
)
from gatewright_host.host_client import BlockingHostClient
from gatewright_host.membership import FleetMembership
from gatewright_host.open_leases import OpenLeases, lost
from gatewright_host.state_dir import StateDir
from tests.core.machines import build
from tests.host.conftest import Run
from tests.support.host import News, ask

ONE, TWO = build.lid(1), build.lid(2)
GRANTED = LeaseGranted(lease_id=ONE, context_tokens=8, base_url="http://x")


def asked() -> OpenLeases:
    leases = OpenLeases()
    leases.ask(ONE)
    leases.ask(TWO)
    return leases


def test_what_is_open_is_made_good_once() -> None:
    leases = asked()
    leases.hear(GRANTED)
    leases.hear(LeaseProgress(lease_id=TWO, position=1, engine="e", phase="starting"))
    news = leases.lose()
    assert [(type(each), each.lease_id) for each in news] == [(LeaseLost, ONE), (LeaseRefused, TWO)]
    assert {each.problem.kind for each in news if isinstance(each, LeaseLost | LeaseRefused)} == {
        "EngineHostLost"
    }
    assert leases.lose() == []


@pytest.mark.parametrize("over", [lost(ONE, was_granted=True), lost(ONE, was_granted=False)])
def test_what_the_host_has_ended_is_not_open(over: LeaseNews) -> None:
    leases = asked()
    leases.hear(over)
    assert [each.lease_id for each in leases.lose()] == [TWO]
    assert not leases.give_back(ONE)


def test_what_was_given_back_is_not_open() -> None:
    leases = asked()
    assert leases.give_back(ONE)
    assert not leases.give_back(ONE)
    leases.hear(GRANTED)  # on its way when it was given back
    assert [each.lease_id for each in leases.lose()] == [TWO]


def test_a_lease_that_was_reported_on_is_still_open(run: Run, state: StateDir) -> None:
    async def main() -> None:
        news = News()
        with await asyncio.to_thread(BlockingHostClient.connect, state, linger_s=2.0) as client:
            host_pid = client.host_pid
        async with FleetMembership(state, news) as member:
            member.send(ask(1))
            await news.end()
            member.send(ReportCall(lease_id=ask(1).lease_id, result=CallResult.WELL))
            os.kill(host_pid, signal.SIGKILL)
            assert await news.end(2) == lost(ONE, was_granted=True)

    run(main())
