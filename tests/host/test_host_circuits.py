"""Circuits over the engine host's socket: two holders share them, and one that dies frees its probe."""

from gatewright.errors import CircuitOpen
from gatewright.fleet import CIRCUIT_OPEN
from gatewright.ids import LeaseId
from gatewright.leases import (
    CallResult,
    LeaseEngine,
    LeaseGranted,
    LeaseNews,
    LeaseRefused,
    ReleaseLease,
    ReportCall,
)
from gatewright_host.engine_host import EngineHost
from gatewright_host.host_client import BlockingHostClient
from gatewright_host.host_link import AsyncHostLink
from gatewright_host.membership import FleetMembership
from gatewright_host.state_dir import StateDir
from tests.core.machines.build import remote_spec
from tests.host.conftest import Run
from tests.host.test_host_client import end_of, hosts  # noqa: F401  # a fixture
from tests.support.host import News, until

GPT = remote_spec("gpt")


def call(number: int, *, last_resort: bool = False) -> LeaseEngine:
    return LeaseEngine(lease_id=LeaseId(number), variants=(GPT,), last_resort=last_resort)


def fail(number: int) -> ReleaseLease:
    return ReleaseLease(lease_id=LeaseId(number), result=CallResult.FAILED)


def report_well(number: int) -> ReportCall:
    return ReportCall(lease_id=LeaseId(number), result=CallResult.WELL)


def is_refused(news: LeaseNews) -> bool:
    return isinstance(news, LeaseRefused) and news.problem.kind == CircuitOpen.__name__


def is_probe(news: LeaseNews) -> bool:
    return isinstance(news, LeaseGranted) and news.is_probe


def is_granted(news: LeaseNews) -> bool:
    return isinstance(news, LeaseGranted) and not news.is_probe


def test_two_holders_share_a_circuit_and_the_death_of_one_frees_the_probe(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with EngineHost(state) as host:
            first_news, second_news, lost = News(), News(), list[str]()
            first = await AsyncHostLink.connect(state.choose_socket(), first_news, lost.append)
            second = await AsyncHostLink.connect(state.choose_socket(), second_news, lost.append)
            for number, link in ((1, first), (2, second), (3, first)):
                link.send(call(number))
                link.send(fail(number))
                await (first_news if link is first else second_news).end(1 if number < 3 else 2)
            await until(lambda: host.status().engines[0].engine.state == CIRCUIT_OPEN)

            second.send(call(4))
            assert is_refused(await second_news.end(2))
            first.send(call(5, last_resort=True))
            assert is_probe(await first_news.end(3))
            second.send(call(6))
            assert is_refused(await second_news.end(3))

            first.close()
            await until(lambda: host.driver.holders == 1)
            second.send(call(7))
            assert is_probe(await second_news.end(4))
            second.send(report_well(7))
            second.send(call(8))
            assert is_granted(await second_news.end(5))
            status = await second.status()
            assert (status.engines[0].engine.state, status.engines[0].engine.leases) == ("ready", 2)
            second.close()
            assert lost == []

    run(main())


def test_processes_share_a_circuit(hosts: StateDir) -> None:  # noqa: F811  # the fixture
    with BlockingHostClient.connect(hosts) as first, BlockingHostClient.connect(hosts) as second:
        for number in (1, 2, 3):
            first.send(call(number))
            assert is_granted(end_of(first))
            first.send(fail(number))
        (report,) = first.status().engines
        assert report.engine.state == CIRCUIT_OPEN
        assert "gpt-large" in report.engine.problem
        second.send(call(1))
        assert is_refused(end_of(second))
        second.send(call(2, last_resort=True))
        assert is_probe(end_of(second))
        second.send(report_well(2))
        assert second.status().engines[0].engine.state == "ready"
        first.send(call(4))
        assert is_granted(end_of(first))


def test_an_operator_closes_it(hosts: StateDir) -> None:  # noqa: F811  # the fixture
    with BlockingHostClient.connect(hosts) as client:
        for number in (1, 2, 3):
            client.send(call(number))
            end_of(client)
            client.send(fail(number))
        client.stop_engines("gpt")
        client.send(call(4))
        assert is_granted(end_of(client))


def test_a_member_reports_to_the_host_of_another(run: Run, state: StateDir) -> None:
    async def main() -> None:
        news = News()
        async with FleetMembership(state, News()) as first, FleetMembership(state, news) as second:
            for number in (1, 2, 3):
                second.send(call(number))
                await news.end(number)
                second.send(ReportCall(lease_id=LeaseId(number), result=CallResult.FAILED))
            second.send(call(4))
            assert is_refused(await news.end(4))
            (report,) = (await first.status()).engines
            assert report.engine.state == CIRCUIT_OPEN

    run(main())


def test_a_report_without_a_host_is_dropped(run: Run, state: StateDir) -> None:
    async def main() -> None:
        news = News()
        host = FleetMembership(state, News())
        await host.__aenter__()
        async with FleetMembership(state, news) as member:
            member.send(call(1))
            await news.end()
            await host.__aexit__(None, None, None)
            await until(lambda: member._rejoining is not None)
            member.send(report_well(1))
            await until(lambda: member.owns_engines)
            member.send(report_well(1))  # the new host knows no such lease
            member.send(call(2))
            assert is_granted(news.ends[-1])
            assert len(news.ends) == 3

    run(main())
