"""Projections: what is kept of a request's steps, and what is not."""

from typing import Any

import pytest
from attrs import evolve

from gatewright.api.facts import Usage
from gatewright.commands import BeginRelay, CallUpstream, Log, Outcome, RecordRequest, SendComment, Severity
from gatewright.events import (
    ClientGone,
    GatewayStarted,
    LeaseAsked,
    RelayEnded,
    RelayFailure,
    RequestReceived,
    UpstreamAnswered,
    Woke,
)
from gatewright.leases import LeaseEngine, LeaseGranted, LeaseProgress, ReleaseLease
from gatewright.selection.decision import Decision
from gatewright.tracing.projection import REQUEST, Step, project
from gatewright.tracing.trace import TraceLine
from tests.core.machines import build
from tests.core.machines.recorded import Recorded


def recorded(
    *,
    name: str = "req_1",
    at: float = 0.0,
    port: int = 4001,
    before: int = 0,
    source: str = "1",
    news: int = 0,
) -> list[TraceLine]:
    """One streaming request, answered; the way there depends on the arguments."""
    gateway = Recorded.gateway(build.config(), source=source)
    for number in range(before):
        gone = build.rid(f"before_{number}")
        gateway.handle(RequestReceived(request_id=gone, facts=build.chat(given=1)), at)
        gateway.handle(ClientGone(request_id=gone), at)
    facts = build.chat(given=10, stream=True)
    (lease,) = gateway.handle(RequestReceived(request_id=build.rid(name), facts=facts), at)
    for position in range(news):
        progress = LeaseProgress(
            lease_id=lease.lease_id, position=position, engine="qwen@4096", phase="loading"
        )
        gateway.handle(progress, at + position)
    granted = LeaseGranted(lease_id=lease.lease_id, context_tokens=4096, base_url=f"http://127.0.0.1:{port}")
    (call,) = gateway.handle(granted, at + 7)
    (relay,) = gateway.handle(UpstreamAnswered(command_id=call.command_id, status=200), at + 7.5)
    usage = Usage(prompt_tokens=10, completion_tokens=4)
    gateway.handle(
        RelayEnded(command_id=relay.command_id, usage=usage, finish_reason="stop", relayed_bytes=77), at + 8
    )
    return gateway.lines


def only(lines: list[TraceLine]) -> tuple[Step, ...]:
    (steps,) = project(lines).values()
    return steps


def test_time_place_and_neighbours_make_no_difference() -> None:
    one = project(recorded())
    other = project(recorded(name="req_2", at=1234.5, port=59999, before=3, source="77", news=3))
    assert list(one) == ["req_1"]
    assert list(other) == ["before_0", "before_1", "before_2", "req_2"]
    assert one["req_1"] == other["req_2"]  # type: ignore[index]  # plain text is an id


def test_what_is_kept() -> None:
    received, granted, answered, ended = only(recorded())
    assert received.event == RequestReceived(request_id=REQUEST, facts=build.chat(given=10, stream=True))
    (lease,) = received.commands
    assert isinstance(lease, LeaseEngine)
    assert (lease.lease_id, lease.need_tokens, lease.variants[0].label) == (1, 142, "qwen@4096")
    assert granted.event == LeaseGranted(
        lease_id=build.lid(1), context_tokens=4096, base_url="http://127.0.0.1:N"
    )
    (call,) = granted.commands
    assert isinstance(call, CallUpstream)
    assert (call.command_id, call.request_id) == (1, "request")
    (relay,) = answered.commands
    assert isinstance(relay, BeginRelay)
    assert relay.command_id == 2
    assert dict(relay.headers) == {
        "x-request-id": "request",
        "x-gw-model": "qwen",
        "x-gw-variant": "4096",
        "x-gw-attempts": "1",
        "x-gw-wait-ms": "N",
    }
    assert isinstance(ended.event, RelayEnded)
    assert ended.event.relayed_bytes == 77
    release, record = ended.commands
    assert release == ReleaseLease(lease_id=build.lid(1))
    assert isinstance(record, RecordRequest)
    assert (record.outcome, record.usage) == (Outcome.ANSWERED, Usage(prompt_tokens=10, completion_tokens=4))
    assert (record.wait_s, record.first_byte_s, record.total_s) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    "change",
    [
        {"finish_reason": "length"},
        {"usage": None},
        {"relayed_bytes": 78},
        {"failure": RelayFailure.STALLED},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_a_client_would_notice_makes_a_difference(change: dict[str, object]) -> None:
    lines = recorded()
    event = lines[-1].event
    assert isinstance(event, RelayEnded)
    other = [*lines[:-1], evolve(lines[-1], event=evolve(event, **change))]
    assert only(other) != only(lines)


def test_whether_a_duration_was_measured_is_kept() -> None:
    lines = recorded()
    release, record = lines[-1].commands
    assert isinstance(record, RecordRequest)
    unmeasured = evolve(lines[-1], commands=(release, evolve(record, first_byte_s=None)))
    assert only([*lines[:-1], unmeasured]) != only(lines)


def test_how_much_of_a_broken_answer_passed_is_chance() -> None:
    def broken(relayed_bytes: int) -> list[TraceLine]:
        lines = recorded()
        event = lines[-1].event
        assert isinstance(event, RelayEnded)
        event = evolve(event, failure=RelayFailure.BROKEN, relayed_bytes=relayed_bytes)
        return [*lines[:-1], evolve(lines[-1], event=event)]

    assert only(broken(3)) == only(broken(30))


def test_choices_are_compared_as_far_as_moments_make_no_difference() -> None:
    def chosen(**changes: Any) -> list[TraceLine]:
        lines = recorded()
        decision = Decision(chain=("qwen",), score=0.5, confidence=0.25, complexity_score=0.125)
        release, record = lines[-1].commands
        assert isinstance(record, RecordRequest)
        decided = evolve(record, decision=evolve(decision, **changes))
        return [*lines[:-1], evolve(lines[-1], commands=(release, decided))]

    assert only(chosen(score=0.5 + 1e-9, confidence=0.25 - 1e-9)) == only(chosen())
    assert only(chosen(score=0.51)) != only(chosen())
    assert only(chosen(complexity_score=0.125 + 1e-9)) != only(chosen())


def test_comments_are_left_out_and_so_are_steps_of_nothing_else() -> None:
    lines = recorded()
    comment = SendComment(request_id=build.rid("req_1"), text="waited 10 s")
    woke = TraceLine(source="1", machine="gateway", now=5.0, event=Woke(), commands=(comment,))
    assert only([*lines[:2], woke, *lines[2:]]) == only(lines)


def test_chance_is_blotted_out_of_texts() -> None:
    def logged(text: str) -> list[TraceLine]:
        lines = recorded()
        note = Log(severity=Severity.WARNING, text=text)
        return [*lines[:-1], evolve(lines[-1], commands=(*lines[-1].commands, note))]

    one = only(logged("req_1: silent for 3 s at http://127.0.0.1:4001 (pid 77)"))
    assert one == only(logged("req_1: silent for 12.5 s at http://127.0.0.1:52001 (pid 4711)"))
    assert one[-1].commands[-1] == Log(
        severity=Severity.WARNING, text="request: silent for N s at http://127.0.0.1:N (pid N)"
    )
    assert one != only(logged("req_1: silent for 3 s at http://127.0.0.1:4001 (somebody else)"))


def test_requests_of_several_gateways_are_in_the_order_of_their_arrival() -> None:
    fleet = Recorded.fleet()
    fleet.handle(LeaseAsked(holder=build.HOLDER, request=ReleaseLease(lease_id=build.lid(1))), 1.0)
    one, two = recorded(name="req_1"), recorded(name="req_2", source="2")
    again = recorded(name="req_3")  # of the same source: another process by then
    projected = project([*fleet.lines, *one[:2], *two[:3], *one[2:4], *again, *two[3:], one[4]])
    assert list(projected) == ["req_1", "req_2", "req_3"]
    first, second, third = projected.values()
    assert second == third
    assert first == second[:3]


def test_a_gateway_without_its_beginning_is_left_out() -> None:
    """Requests that were under way already would have steps missing."""
    lines = recorded()
    assert isinstance(lines[0].event, GatewayStarted)
    assert project(lines[1:]) == {}
