"""The driver alone: order, the lock, the alarm, the trace."""

import threading
from typing import cast

import pytest

from gatewright.api.facts import ApiFormat, RequestFacts
from gatewright.commands import CallUpstream, RecordRequest, SendProblem
from gatewright.events import ClientGone, RequestReceived, ShutdownRequested
from gatewright.gateway import Gateway
from gatewright.ids import RequestId
from gatewright.leases import LeaseEngine, LeaseGranted, LeaseRequest, ReleaseLease
from gatewright.tracing.trace import TraceLine
from gatewright_host.blocking.driver import Driver
from gatewright_host.driving import RequestCommand
from tests.host.blocking.fakes import PATIENCE_S, two_variants


class Box:
    """A mailbox."""

    def __init__(self) -> None:
        self.commands: list[RequestCommand] = []
        self.cancels = 0

    def put(self, command: RequestCommand) -> None:
        self.commands.append(command)

    def cancel(self) -> None:
        self.cancels += 1


class Link:
    """A way to nowhere."""

    def __init__(self) -> None:
        self.sent: list[LeaseRequest] = []
        self.alarms: list[float] = []
        self.hold: threading.Event | None = None
        self.entered = threading.Event()

    def send(self, request: LeaseRequest) -> None:
        self.entered.set()
        if self.hold is not None:
            assert self.hold.wait(PATIENCE_S)
        self.sent.append(request)

    def deliver_at_once(self) -> None:
        pass

    def wake_at(self, at: float) -> None:
        self.alarms.append(at)


def make(trace: list[TraceLine] | None = None) -> tuple[Driver, Link]:
    driver = Driver(Gateway(two_variants()), trace.append if trace is not None else None)
    driver.link = link = Link()
    return driver, link


def received(number: int = 1, model: str = "qwen", *, stream: bool = True) -> RequestReceived:
    facts = RequestFacts(path="/v1/chat/completions", format=ApiFormat.CHAT, model=model, stream=stream)
    return RequestReceived(request_id=RequestId(f"r{number}"), facts=facts)


def submit(driver: Driver, event: RequestReceived) -> Box:
    box = Box()
    driver.open_mailbox(event.request_id, box)
    driver.submit(event)
    return box


def test_commands_go_to_the_mailbox_of_their_request() -> None:
    driver, link = make()
    first, second = submit(driver, received(1)), submit(driver, received(2))
    lease = cast("LeaseEngine", link.sent[1])
    driver.deliver(LeaseGranted(lease_id=lease.lease_id, context_tokens=4096, base_url="http://127.0.0.1:1"))
    assert first.commands == []
    assert [type(command) for command in second.commands] == [CallUpstream]


def test_the_record_is_the_last_command_and_closes_the_mailbox() -> None:
    driver, link = make()
    box = submit(driver, received(model="nobody"))
    assert [type(command) for command in box.commands] == [SendProblem, RecordRequest]
    assert link.sent == []
    driver.submit(ClientGone(request_id=RequestId("r1")))
    assert box.cancels == 0


def test_a_client_that_goes_in_a_call_cancels_it_outside_of_the_lock() -> None:
    driver, link = make()
    box = submit(driver, received())

    class Asks(Box):
        def cancel(self) -> None:
            # Whoever is called back may use the driver; under the lock this would hang.
            driver.wake()
            box.cancels += 1

    driver.open_mailbox(RequestId("r1"), Asks())
    driver.deliver(
        LeaseGranted(lease_id=link.sent[0].lease_id, context_tokens=4096, base_url="http://127.0.0.1:1")
    )
    driver.submit(ClientGone(request_id=RequestId("r1")))
    assert box.cancels == 1


def test_what_is_said_first_is_sent_first_whoever_sends_it() -> None:
    driver, link = make()
    link.hold = threading.Event()
    asking = threading.Thread(target=submit, args=(driver, received()))
    asking.start()
    assert link.entered.wait(PATIENCE_S)
    leaving = threading.Thread(target=driver.submit, args=(ClientGone(request_id=RequestId("r1")),))
    leaving.start()
    link.hold.set()
    for thread in (asking, leaving):
        thread.join(PATIENCE_S)
    assert [type(request) for request in link.sent] == [LeaseEngine, ReleaseLease]


def test_a_slow_link_does_not_hold_up_other_events() -> None:
    driver, link = make()
    link.hold = threading.Event()
    asking = threading.Thread(target=submit, args=(driver, received()))
    asking.start()
    assert link.entered.wait(PATIENCE_S)
    refused = submit(driver, received(2, model="nobody"))
    assert [type(command) for command in refused.commands] == [SendProblem, RecordRequest]
    link.hold.set()
    asking.join(PATIENCE_S)


def test_the_alarm_is_set_for_whoever_may_need_a_comment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatewright_host.blocking.driver.monotonic", lambda: 100.0)
    driver, link = make()
    submit(driver, received(1, stream=False))
    assert link.alarms == []
    submit(driver, received(2))
    assert link.alarms == [110.0]


def test_the_trace_has_every_event_in_order() -> None:
    trace: list[TraceLine] = []
    driver, link = make(trace)
    event = received()
    submit(driver, event)
    driver.wake()
    assert trace[0].event == event
    assert trace[0].commands == tuple(link.sent)
    assert trace[0].now <= trace[1].now


def test_drained_is_told() -> None:
    driver, _ = make()
    submit(driver, received())
    driver.submit(ShutdownRequested())
    assert not driver.drained.is_set()
    driver.submit(ClientGone(request_id=RequestId("r1")))
    assert driver.drained.is_set()
