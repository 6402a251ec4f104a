import asyncio
import os
import signal
import subprocess
import sys

import pytest
from attrs import evolve

from gatewright.errors import Problem
from gatewright.leases import (
    CallResult,
    LeaseGranted,
    LeaseLost,
    LeaseNews,
    LeaseRefused,
    ReleaseLease,
    ReportCall,
)
from gatewright.tracing.trace import TraceLine
from gatewright_host import membership
from gatewright_host.host_client import BlockingHostClient
from gatewright_host.host_lock import HostLock, is_reachable
from gatewright_host.host_protocol import HostLost
from gatewright_host.membership import FleetMembership
from gatewright_host.state_dir import StateDir
from tests.core.machines.build import remote_spec
from tests.host.conftest import Run
from tests.support.host import PATIENCE_S, News, ask, fake_spec, is_running, until


def problem_of(news: LeaseNews) -> Problem:
    assert isinstance(news, LeaseRefused | LeaseLost)
    return news.problem


async def detached_host(state: StateDir) -> int:
    """The process id of a host that stays as long as somebody is attached."""
    with await asyncio.to_thread(BlockingHostClient.connect, state, linger_s=2.0) as client:
        return client.host_pid


def test_alone_it_is_the_host(run: Run, state: StateDir) -> None:
    async def main() -> None:
        news, lines = News(), list[TraceLine]()
        async with FleetMembership(state, news, trace=lines.append) as member:
            assert member.owns_engines
            member.send(ask(1))
            assert isinstance(await news.end(), LeaseGranted)
            assert (await member.status()).pid == os.getpid()
            assert lines
            member.send(ask(2))
            assert isinstance(news.ends[-1], LeaseGranted)  # at once
            await member.stop_engines(force=True)
            assert isinstance(await news.end(3), LeaseLost)
            member.send(ask(3))
            await news.end(5)
            (report,) = (await member.status()).engines
            await member.shutdown()
            assert not is_running(report.pid or 0)
        member.send(ask(4))  # after the end nobody hears it

    run(main())


def test_a_provider_that_is_called_in_any_case_concerns_no_host(run: Run, state: StateDir) -> None:
    async def main() -> None:
        news, lines = News(), list[TraceLine]()
        async with FleetMembership(state, news, trace=lines.append) as member:
            told = len(lines)
            asked = evolve(ask(1), variants=(remote_spec(),), last_resort=True)
            member.send(asked)
            assert isinstance(news.ends[-1], LeaseGranted)
            member.send(ReportCall(lease_id=asked.lease_id, result=CallResult.WELL))
            member.send(ReleaseLease(lease_id=asked.lease_id))
            assert len(lines) == told
            await member.shutdown()

    run(main())


def test_the_second_attaches_to_the_first(run: Run, state: StateDir) -> None:
    async def main() -> None:
        first_news, second_news = News(), News()
        async with (
            FleetMembership(state, first_news) as first,
            FleetMembership(state, second_news) as second,
        ):
            assert not second.owns_engines
            second.send(ask(1))
            assert isinstance(await second_news.end(), LeaseGranted)
            assert (await second.status()).holders == 2
            first.send(ask(1))
            await first_news.end()
            assert len((await first.status()).engines) == 1
            await second.shutdown(force=True)  # not its engines
            await second.stop_engines("other")
            assert (await second.status()).engines[0].engine.leases == 2
            second.replace_specs((fake_spec(),), ())
            second.send(ReleaseLease(lease_id=ask(1).lease_id))
            first.send(ReleaseLease(lease_id=ask(1).lease_id))
            await until(lambda: (state.records_dir.is_dir(), list(state.records_dir.iterdir())) == (True, []))

    run(main())


def test_it_takes_over_from_a_host_that_ends(run: Run, state: StateDir) -> None:
    async def main() -> None:
        news = News()
        async with FleetMembership(state, News()) as first:
            second = FleetMembership(state, news)
            await second.__aenter__()
            second.send(ask(1))
            await news.end()
            await first.shutdown()
            assert isinstance(await news.end(2), LeaseLost)  # said by the host itself
        await until(lambda: second._rejoining is not None)
        second.send(ask(2))
        assert isinstance(await news.end(3), LeaseGranted)
        assert second.owns_engines
        await second.__aexit__(None, None, None)

    run(main())


def test_a_host_that_ends_leaves_others_a_grace_and_gives_back_its_own_leases(
    run: Run, state: StateDir
) -> None:
    async def main() -> None:
        news = News()
        async with (
            FleetMembership(state, News()) as first,
            FleetMembership(state, news) as second,
        ):
            first.send(ask(1))
            second.send(ask(1))
            await news.end()
            (report,) = (await first.status()).engines
            ending = asyncio.create_task(first.shutdown(grace_s=600))
            await until(lambda: first._link is None)
            second.send(ask(2))
            assert problem_of(await news.end(2)).kind == "ShuttingDown"
            (report,) = (await second.status()).engines
            assert report.engine.leases == 1
            assert is_running(report.pid or 0)
            first.send(ask(2))  # nobody hears it
            second.send(ReleaseLease(lease_id=ask(1).lease_id))
            async with asyncio.timeout(PATIENCE_S):
                await ending
            assert not is_running(report.pid or 0)
            assert len(news.ends) == 2

    run(main())


@pytest.mark.parametrize("force", [False, True])
def test_a_grace_can_be_cut_short(run: Run, state: StateDir, force: bool) -> None:
    async def main() -> None:
        news = News()
        async with (
            FleetMembership(state, News()) as first,
            FleetMembership(state, news) as second,
        ):
            second.send(ask(1))
            await news.end()
            ending = asyncio.create_task(first.shutdown(grace_s=600))
            await until(lambda: first._link is None)
            await first.shutdown(force=force)
            assert problem_of(await news.end(2)).kind == "ShuttingDown"
            await ending

    run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="engines die with a killed host on Linux only")
def test_a_killed_host_loses_what_is_granted_and_refuses_what_waits(run: Run, state: StateDir) -> None:
    async def main() -> None:
        news = News()
        host_pid = await detached_host(state)
        async with FleetMembership(state, news) as member:
            assert not member.owns_engines
            for number in range(1, 5):
                member.send(ask(number))
            await news.end(2)
            member.send(ReleaseLease(lease_id=ask(1).lease_id))
            await news.end(3)
            os.kill(host_pid, signal.SIGKILL)
            await news.end(6)
            member.send(ReleaseLease(lease_id=ask(2).lease_id))  # on its way when the news came
            assert {problem_of(found).kind for found in news.ends[3:]} == {"EngineHostLost"}
            assert {(type(found), found.lease_id) for found in news.ends[3:]} == {
                (LeaseLost, 2),
                (LeaseLost, 3),
                (LeaseRefused, 4),
            }
            member.send(ask(5))
            member.send(ask(6))
            member.send(ReleaseLease(lease_id=ask(6).lease_id))
            await until(lambda: member.owns_engines)
            await until(lambda: isinstance(news.ends[-1], LeaseGranted))
            assert [found.lease_id for found in news.ends[-1:]] == [5]
            (report,) = (await member.status()).engines
            assert (report.engine.leases, report.engine.waiting) == (1, 0)

    run(main())


def test_many_become_one_host(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            members = [FleetMembership(state, News()) for _ in range(5)]
            await asyncio.gather(*(member.__aenter__() for member in members))
            assert sum(member.owns_engines for member in members) == 1
            for _ in range(4):  # whoever is the host goes; another one takes its place
                (host,) = [member for member in members if member.owns_engines]
                members.remove(host)
                await host.__aexit__(None, None, None)
                await until(lambda: sum(member.owns_engines for member in members) == 1)
            await members[0].__aexit__(None, None, None)

    run(main())


def test_a_lock_whose_holder_does_not_answer(
    run: Run, state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "JOIN_TIMEOUT_S", 0.1)

    async def main() -> None:
        lock = HostLock(state.lock_file)
        lock.acquire()
        with pytest.raises(HostLost, match="does not answer"):
            await FleetMembership(state, News()).__aenter__()
        lock.release()

    run(main())


def test_without_a_host_requests_are_refused_in_time(
    run: Run, state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new host comes up too late for what was sent first, and in time for what is sent then."""
    monkeypatch.setattr(membership, "JOIN_TIMEOUT_S", 0.1)
    monkeypatch.setattr(membership, "_REJOIN_PERIOD_S", 0.01)

    async def main() -> None:
        news = News()
        host = FleetMembership(state, News())
        await host.__aenter__()
        async with FleetMembership(state, news) as member:
            await host.__aexit__(None, None, None)
            lock = HostLock(state.lock_file)
            lock.acquire()
            await until(lambda: member._rejoining is not None)
            member.send(ask(1))
            assert problem_of(await news.end()).kind == "EngineHostLost"
            with pytest.raises(HostLost):
                await member.status()
            with pytest.raises(HostLost):
                await member.stop_engines()
            lock.release()
            member.send(ask(2))
            assert isinstance(await news.end(2), LeaseGranted)
            assert member.owns_engines

    run(main())


def test_leaving_while_a_host_is_looked_for(run: Run, state: StateDir) -> None:
    async def main() -> None:
        host = FleetMembership(state, News())
        await host.__aenter__()
        async with FleetMembership(state, News()) as member:
            await host.__aexit__(None, None, None)
            lock = HostLock(state.lock_file)
            lock.acquire()
            await until(lambda: member._rejoining is not None)
        lock.release()

    run(main())


def test_it_may_send_out_of_news_of_a_lost_host(run: Run, state: StateDir) -> None:
    async def main() -> None:
        host = FleetMembership(state, News())
        await host.__aenter__()
        heard: list[LeaseNews] = []

        def deliver(news: LeaseNews) -> None:
            heard.append(news)
            if isinstance(news, LeaseLost | LeaseRefused):
                member.send(ask(news.lease_id + 1))

        async with FleetMembership(state, deliver) as member:
            member.send(ask(1))
            await until(lambda: any(isinstance(news, LeaseGranted) for news in heard))
            await host.__aexit__(None, None, None)
            await until(lambda: isinstance(heard[-1], LeaseGranted) and heard[-1].lease_id > 1)
            assert member.owns_engines

    run(main())


def test_a_server_killed_hard_leaves_a_free_place(run: Run, state: StateDir) -> None:
    text = (
        "import asyncio, sys\nfrom gatewright_host.membership import FleetMembership\n"
        "from gatewright_host.state_dir import StateDir\n"
        "async def main():\n"
        "    async with FleetMembership(StateDir.at(sys.argv[1]), print):\n"
        "        await asyncio.sleep(600)\n"
        "asyncio.run(main())"
    )

    async def main() -> None:
        server = subprocess.Popen([sys.executable, "-c", text, str(state.path)])  # noqa: ASYNC220  # it is killed soon
        await until(lambda: is_reachable(state.lock_file))
        async with FleetMembership(state, News()) as member:
            assert not member.owns_engines
            server.kill()
            server.wait()
            await until(lambda: member.owns_engines)

    run(main())
