"""Texts for people. What most messages look like is shown by the golden scripts."""

from attrs import evolve

from gatewright.commands import CallUpstream, Drained, TellHolder
from gatewright.events import LeaseAsked, Woke
from gatewright.leases import LeaseEngine, LeaseGranted
from gatewright.tracing.rendering import render, render_apart
from tests.core.machines import build

CALL = CallUpstream(command_id=build.cid(2), request_id=build.rid("r"), base_url="http://x")
LEASE = LeaseEngine(lease_id=build.lid(1), variants=(build.spec(), build.spec(context=8192)), need_tokens=5)


def test_a_message_is_one_line() -> None:
    assert render(CALL) == "CallUpstream r command=2 at=http://x"
    assert render(Woke()) == "Woke"


def test_a_message_in_a_message_keeps_its_name() -> None:
    asked = LeaseAsked(holder=build.HOLDER, request=LEASE)
    assert (
        render(asked)
        == "LeaseAsked holder=1 request=(LeaseEngine lease=1 variants=[qwen@4096 qwen@8192] need=5)"
    )
    granted = LeaseGranted(lease_id=build.lid(1), context_tokens=4096, base_url="http://x")
    told = TellHolder(holder=build.HOLDER, news=granted)
    assert render(told) == "TellHolder holder=1 news=(LeaseGranted lease=1 context=4096 at=http://x)"


def test_equal_messages_have_equal_lines() -> None:
    assert render_apart([CALL, Drained()], [CALL]) == (
        ["CallUpstream r command=2 at=http://x", "Drained"],
        ["CallUpstream r command=2 at=http://x"],
    )


def test_different_messages_never_have_equal_lines() -> None:
    """What `render` leaves out may be what has changed."""
    other = evolve(CALL, connect_timeout_s=3.0)
    assert render(other) == render(CALL)
    (first, unchanged), (second, _) = render_apart([CALL, Drained()], [other, Drained()])
    assert first != second
    assert '"connect_timeout_s":10.0' in first
    assert '"connect_timeout_s":3.0' in second
    assert unchanged == "Drained"
