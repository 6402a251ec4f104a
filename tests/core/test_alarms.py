from gatewright.alarms import Alarms
from gatewright.requests import Request
from gatewright.selection.fallback import Attempts
from gatewright.timers import Deadline
from tests.core.machines.build import chat, model, rid


def request(name: str) -> Request:
    return Request(rid(name), chat(), Attempts((model(),)), 0.0, 0.0, 10.0)


A, B, C = request("a"), request("b"), request("c")


def alarms(**times: float) -> Alarms:
    made = Alarms("for a test")
    for name, at in times.items():
        made.set({"a": A, "b": B, "c": C}[name], at)
    return made


def test_nothing_is_set():
    assert alarms().wake_at is None
    assert alarms().take_due(100) == []


def test_the_earliest_is_told_with_the_reason():
    assert alarms(a=7, b=5, c=9).wake_at == Deadline(5, "for a test")


def test_who_is_due_is_taken_once_and_in_the_order_of_setting():
    subject = alarms(a=7, b=5, c=9)
    assert subject.take_due(4.9) == []
    assert subject.take_due(7) == [A, B]
    assert subject.take_due(7) == []
    assert subject.wake_at == Deadline(9, "for a test")
    assert subject.take_due(9) == [C]
    assert subject.wake_at is None


def test_a_request_has_one_alarm_the_last_that_was_set():
    subject = alarms(a=7)
    subject.set(A, 3)
    assert subject.wake_at == Deadline(3, "for a test")
    subject.set(A, 20)
    assert subject.take_due(19) == []
    assert subject.take_due(20) == [A]


def test_waking_for_what_was_put_off_is_early_once_and_then_right():
    subject = alarms(a=3, b=50)
    subject.set(A, 20)
    assert subject.wake_at == Deadline(3, "for a test")
    assert subject.take_due(3) == []
    assert subject.wake_at == Deadline(20, "for a test")


def test_discarding_whoever_is_not_there_is_nothing():
    subject = alarms(a=3)
    subject.discard(B)
    subject.discard(A)
    subject.discard(A)
    assert subject.wake_at is None
    assert subject.take_due(100) == []


def test_the_last_one_takes_the_deadline_with_it():
    subject = alarms(a=3)
    subject.discard(A)
    subject.set(B, 50)
    assert subject.wake_at == Deadline(50, "for a test")


def test_a_deadline_is_a_deadline_at_any_time_of_the_clock():
    assert alarms(a=0.0).take_due(0.0) == [A]
    assert alarms(a=-5.0).wake_at == Deadline(-5.0, "for a test")
