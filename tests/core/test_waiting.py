from gatewright.requests import Request
from gatewright.selection.fallback import Attempts
from gatewright.waiting import COMMENT_PERIOD_S, PATIENCE_S, WaitingClients
from tests.core.machines.build import chat, model, rid


def request(name: str, received_at: float) -> Request:
    attempts, comment_at = Attempts((model(),)), received_at + PATIENCE_S
    return Request(rid(name), chat(stream=True), attempts, received_at, received_at, comment_at)


def test_nobody_waits():
    clients = WaitingClients()
    assert clients.wake_at is None
    assert clients.take_due(100) == []


def test_each_is_due_after_its_own_patience_and_then_periodically():
    clients = WaitingClients()
    first, second = request("a", 0), request("b", 3)
    clients.add(first)
    clients.add(second)
    assert clients.wake_at.at == 10
    assert clients.take_due(9) == []
    assert clients.take_due(11) == [first]
    assert clients.wake_at.at == 13
    assert clients.take_due(13) == [second]
    assert clients.wake_at.at == 11 + COMMENT_PERIOD_S


def test_waking_for_one_that_has_left_is_only_early():
    clients = WaitingClients()
    first, second = request("a", 0), request("b", 3)
    clients.add(first)
    clients.add(second)
    clients.discard(first)
    clients.discard(first)
    assert clients.wake_at.at == 10
    assert clients.take_due(10) == []
    assert clients.wake_at.at == 13


def test_the_last_one_takes_the_deadline_with_it():
    clients = WaitingClients()
    clients.add(request("a", 0))
    clients.discard(request("a", 0))
    assert clients.wake_at is None
    clients.add(request("b", 50))
    assert clients.wake_at.at == 60
