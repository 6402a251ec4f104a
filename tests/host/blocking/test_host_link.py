"""The way to the engine host: what is made good when it breaks, and the alarm."""

import queue
import threading
from collections.abc import Iterator
from time import monotonic
from typing import cast

import pytest

from gatewright.errors import EngineHostLost, EngineStartFailed
from gatewright.ids import LeaseId
from gatewright.leases import (
    CallResult,
    LeaseEngine,
    LeaseGranted,
    LeaseLost,
    LeaseNews,
    LeaseRefused,
    ReleaseLease,
    ReportCall,
)
from gatewright_host.blocking.host_link import HostLink
from gatewright_host.host_client import BlockingHostClient
from gatewright_host.host_protocol import HostLost, HostRefused
from tests.host.blocking.fakes import PATIENCE_S, FakeHost, two_variants
from tests.support.configs import read, remote_model


class Heard:
    """What the link tells its driver."""

    def __init__(self) -> None:
        self.news: queue.Queue[LeaseNews] = queue.Queue()
        self.woken: queue.Queue[float] = queue.Queue()
        self.threads: set[str] = set()

    def deliver(self, news: LeaseNews) -> None:
        self.threads.add(threading.current_thread().name)
        self.news.put(news)

    def wake(self) -> None:
        self.woken.put(monotonic())

    def next(self) -> LeaseNews:
        return self.news.get(timeout=PATIENCE_S)


class Hosts:
    """Connects to one fake host after the other; to none after the last."""

    def __init__(self, *hosts: FakeHost | Exception) -> None:
        self._hosts = list(hosts)
        self.connects = 0

    def __call__(self) -> BlockingHostClient:
        self.connects += 1
        host = self._hosts.pop(0)
        if isinstance(host, Exception):
            raise host
        return cast("BlockingHostClient", host)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def links() -> Iterator[list[HostLink]]:
    made: list[HostLink] = []
    yield made
    for link in made:
        link.close()


def lease(number: int) -> LeaseEngine:
    return LeaseEngine(lease_id=LeaseId(number), variants=two_variants().models[0].variants)


def granted(number: int) -> LeaseGranted:
    return LeaseGranted(lease_id=LeaseId(number), context_tokens=4096, base_url="http://127.0.0.1:1")


def test_it_connects_with_the_first_lease_and_once(heard: Heard, links: list[HostLink]) -> None:
    host = FakeHost()
    hosts = Hosts(host)
    links.append(HostLink(hosts, heard))
    assert hosts.connects == 0
    links[0].send(lease(1))
    links[0].send(lease(2))
    assert hosts.connects == 1
    assert host.heard == [lease(1), lease(2)]


def test_reports_are_passed_on_and_dropped_without_a_host(heard: Heard, links: list[HostLink]) -> None:
    host = FakeHost()
    hosts = Hosts(host)
    links.append(HostLink(hosts, heard))
    report = ReportCall(lease_id=LeaseId(1), result=CallResult.WELL)
    links[0].send(report)
    assert hosts.connects == 0
    links[0].send(lease(1))
    links[0].send(report)
    assert host.heard == [lease(1), report]
    host.die()
    assert isinstance(heard.next(), LeaseRefused)
    links[0].send(report)
    assert hosts.connects == 1


def test_news_come_in_order_and_from_one_thread(heard: Heard, links: list[HostLink]) -> None:
    host = FakeHost()
    links.append(HostLink(Hosts(host), heard))
    for number in range(20):
        links[0].send(lease(number))
    for number in range(20):
        host.say(granted(number))
    assert [heard.next() for _ in range(20)] == [granted(number) for number in range(20)]
    assert len(heard.threads) == 1


def test_a_lost_host_refuses_what_waits_and_loses_what_was_granted(
    heard: Heard, links: list[HostLink]
) -> None:
    host = FakeHost()
    links.append(HostLink(Hosts(host), heard))
    for number in (1, 2, 3):
        links[0].send(lease(number))
    host.say(granted(1))
    assert heard.next() == granted(1)
    links[0].send(ReleaseLease(lease_id=LeaseId(3)))
    host.die()
    told = {type(news): news for news in (heard.next(), heard.next())}
    assert told[LeaseLost].lease_id == 1
    assert told[LeaseRefused].lease_id == 2
    assert {news.problem.kind for news in told.values() if not isinstance(news, LeaseGranted)} == {
        EngineHostLost.__name__
    }
    assert heard.news.empty()


def test_a_host_that_is_found_dead_when_something_is_said(heard: Heard, links: list[HostLink]) -> None:
    first, second = FakeHost(), FakeHost()
    links.append(HostLink(Hosts(first, second), heard))
    links[0].send(lease(1))
    first.die()
    assert heard.next().lease_id == 1
    links[0].send(ReleaseLease(lease_id=LeaseId(1)))
    links[0].send(lease(2))
    assert second.heard == [lease(2)]


@pytest.mark.parametrize(
    "error", [HostLost("gone"), HostRefused("another version"), PermissionError(13, "no")]
)
def test_without_a_host_a_lease_is_refused_for_good(
    heard: Heard, links: list[HostLink], error: Exception
) -> None:
    links.append(HostLink(Hosts(error, FakeHost()), heard))
    links[0].send(lease(1))
    news = heard.next()
    assert isinstance(news, LeaseRefused)
    # Not `EngineHostLost`, after which the Gateway would try at once once more.
    assert news.problem.kind == EngineStartFailed.__name__
    assert str(error) in news.problem.message
    links[0].send(lease(2))


def test_the_alarm_rings_once_and_the_earliest_counts(heard: Heard, links: list[HostLink]) -> None:
    links.append(HostLink(Hosts(), heard))
    at = monotonic() + 0.05
    links[0].wake_at(at + 3600)
    links[0].wake_at(at)
    links[0].wake_at(at + 7200)
    assert heard.woken.get(timeout=PATIENCE_S) >= at
    assert heard.woken.empty()


def test_closed_it_refuses_and_says_no_more(heard: Heard) -> None:
    host = FakeHost()
    link = HostLink(Hosts(host), heard)
    link.send(lease(1))
    link.close()
    link.send(lease(2))
    link.send(ReleaseLease(lease_id=LeaseId(1)))
    link.wake_at(monotonic())
    link.close()
    assert host.fileno() < 0
    assert heard.news.empty()


def test_a_provider_that_is_called_in_any_case_needs_no_host(heard: Heard, links: list[HostLink]) -> None:
    hosts = Hosts()
    link = HostLink(hosts, heard)
    links.append(link)
    provider = read(remote_model()).models[0].variants
    link.send(LeaseEngine(lease_id=LeaseId(1), variants=provider, last_resort=True))
    assert heard.news.empty(), "nothing arrives out of `send`"
    link.deliver_at_once()
    assert isinstance(heard.next(), LeaseGranted)
    assert heard.threads == {threading.current_thread().name}
    link.send(ReportCall(lease_id=LeaseId(1), result=CallResult.WELL))
    link.send(ReleaseLease(lease_id=LeaseId(1)))
    assert hosts.connects == 0
