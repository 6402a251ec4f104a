"""Whose steps are whose."""

from typing import Any

from attrs import evolve

from gatewright.commands import CallUpstream, CancelUpstream, Drained, Log, Outcome, RecordRequest, Severity
from gatewright.errors import EngineStopped
from gatewright.events import ClientGone, RequestReceived, ShutdownRequested, UpstreamAnswered, Woke
from gatewright.leases import LeaseEngine, LeaseGranted, LeaseProgress, LeaseRefused, ReleaseLease
from gatewright.tracing.stories import Stories, Story
from gatewright.tracing.trace import TraceLine
from tests.core.machines import build
from tests.core.machines.gateway_tester import record


class Telling:
    """Numbers the steps that it tells of from 1."""

    def __init__(self) -> None:
        self.stories = Stories[int]()
        self.ended: list[Story[int]] = []
        self._number = 0

    def tell(self, event: Any, *commands: Any) -> None:
        self._number += 1
        line = TraceLine(machine="gateway", now=0.0, event=event, commands=commands)
        self.ended += self.stories.take(self._number, line)

    def steps(self, request_id: str) -> list[tuple[int, tuple[object, ...]]]:
        """Numbers and commands of the only story of this request."""
        stories = [*self.ended, *self.stories.rest()]
        (found,) = [story for story in stories if story.request_id == request_id]
        return [(part.key, part.commands) for part in found.parts]


def received(name: str) -> RequestReceived:
    return RequestReceived(request_id=build.rid(name), facts=build.chat())


def lease(number: int) -> LeaseEngine:
    return LeaseEngine(lease_id=build.lid(number), variants=(build.spec(),))


def granted(number: int) -> LeaseGranted:
    return LeaseGranted(lease_id=build.lid(number), context_tokens=4096, base_url="http://x")


def call(name: str, number: int) -> CallUpstream:
    return CallUpstream(command_id=build.cid(number), request_id=build.rid(name), base_url="http://x")


def ended(name: str) -> RecordRequest:
    return evolve(record(Outcome.CANCELED), request_id=build.rid(name))


GONE = ClientGone(request_id=build.rid("r1"))
RELEASE = ReleaseLease(lease_id=build.lid(1))
NOTE = Log(severity=Severity.WARNING, text="an estimate decided")


def test_events_belong_to_the_request_whose_lease_or_command_they_answer() -> None:
    telling = Telling()
    telling.tell(received("r1"), lease(1))
    telling.tell(received("r2"), NOTE, lease(2))
    telling.tell(granted(2), call("r2", 3))
    telling.tell(granted(1), call("r1", 4))
    telling.tell(UpstreamAnswered(command_id=build.cid(3), status=200), ended("r2"))
    telling.tell(UpstreamAnswered(command_id=build.cid(4), status=200), ended("r1"))
    assert telling.steps("r1") == [(1, (lease(1),)), (4, (call("r1", 4),)), (6, (ended("r1"),))]
    assert telling.steps("r2") == [(2, (NOTE, lease(2))), (3, (call("r2", 3),)), (5, (ended("r2"),))]
    assert [story.request_id for story in telling.ended] == ["r2", "r1"]
    assert telling.stories.rest() == []


def test_a_request_that_has_not_ended_is_among_the_rest() -> None:
    telling = Telling()
    telling.tell(received("r1"), lease(1))
    assert telling.ended == []
    assert telling.steps("r1") == [(1, (lease(1),))]


def test_a_refused_request_is_a_story_of_one_step() -> None:
    telling = Telling()
    telling.tell(received("r1"), ended("r1"))
    assert telling.steps("r1") == [(1, (ended("r1"),))]


def test_what_comes_after_the_end_is_nobodys() -> None:
    telling = Telling()
    telling.tell(received("r1"), lease(1))
    telling.tell(GONE, RELEASE, ended("r1"))
    telling.tell(granted(1))
    telling.tell(GONE)
    assert [number for number, _ in telling.steps("r1")] == [1, 2]


def test_commands_for_several_requests_are_told_apart() -> None:
    telling = Telling()
    telling.tell(received("r1"), lease(1))
    telling.tell(received("r2"), lease(2))
    telling.tell(granted(2), call("r2", 3))
    cancel = CancelUpstream(request_id=build.rid("r2"))
    telling.tell(ShutdownRequested(force=True), RELEASE, ended("r1"), cancel)
    telling.tell(UpstreamAnswered(command_id=build.cid(3), status=200), ended("r2"), Drained())
    assert telling.steps("r1")[1:] == [(4, (RELEASE, ended("r1")))]
    assert telling.steps("r2")[2:] == [(4, (cancel,)), (5, (ended("r2"), Drained()))]


def test_whose_a_lease_is_may_show_later() -> None:
    """A Gateway that wakes asks again for those whose call failed, and does not say for whom."""
    telling = Telling()
    telling.tell(received("r1"), lease(1))
    telling.tell(received("r2"), lease(2))
    telling.tell(Woke(), lease(3), lease(4))
    telling.tell(LeaseProgress(lease_id=build.lid(3), position=1, engine="e", phase="starting"))
    telling.tell(granted(4), call("r1", 5))
    telling.tell(granted(3), call("r2", 6))
    assert telling.steps("r1") == [(1, (lease(1),)), (3, (lease(4),)), (5, (call("r1", 5),))]
    assert telling.steps("r2") == [(2, (lease(2),)), (3, (lease(3),)), (4, ()), (6, (call("r2", 6),))]


def test_a_lease_may_lead_to_another_before_it_shows_whose_it_is() -> None:
    telling = Telling()
    telling.tell(received("r1"), lease(1))
    telling.tell(Woke(), lease(2))
    refused = LeaseRefused(lease_id=build.lid(2), problem=EngineStopped("stopped").problem)
    telling.tell(refused, lease(3))
    telling.tell(ClientGone(request_id=build.rid("r1")), ReleaseLease(lease_id=build.lid(3)), ended("r1"))
    assert [number for number, _ in telling.steps("r1")] == [1, 2, 3, 4]


def test_parts_of_one_step_that_turn_out_to_be_the_same_request_are_in_order() -> None:
    telling = Telling()
    telling.tell(received("r1"), lease(1))
    cancel = CancelUpstream(request_id=build.rid("r1"))
    telling.tell(Woke(), lease(2), cancel, lease(3))
    telling.tell(granted(3), call("r1", 4))
    telling.tell(granted(2), call("r1", 5))
    assert telling.steps("r1")[1] == (2, (lease(2), cancel, lease(3)))
