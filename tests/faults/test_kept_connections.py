"""Connections to upstreams that live on after an answer."""

import pytest

from tests.faults.world import Answer, World

KINDS = {"once": "retries = 0", "backed": 'fallbacks = { "ok" }, retries = 1'}


def assert_served(answer: Answer, model: str, calls: int) -> None:
    answer.assert_good()
    assert (answer.model, answer.calls) == (model, calls)


def test_a_kept_connection_that_is_closed_just_then_is_not_noticed(world: World, stream: bool) -> None:
    with world.keeping_connections():
        model = world.model("once", "close-idle")
        for _ in range(6):
            assert_served(world.ask(model, stream=stream), model, 1)
        assert len(world.requests(model)) == 6
        assert len({request.connection for request in world.requests(model)}) == 6


def test_an_upstream_that_resets_kept_connections_is_asked_once_more_at_most(
    world: World, stream: bool
) -> None:
    with world.keeping_connections():
        for _ in range(4):
            assert_served(world.ask("ok", stream=stream), "ok", 1)
        model = world.model("backed", "reset-before-head")
        assert_served(world.ask(model, stream=stream), "ok", 3)
        assert 2 <= len(world.requests(model)) <= 3


@pytest.mark.parametrize("fault", ["wrong-length-long", "wrong-length-short"])
def test_what_a_wrong_length_leaves_behind_disturbs_nobody(world: World, fault: str) -> None:
    with world.keeping_connections():
        for _ in range(4):
            world.ask(world.model("once", fault)).assert_failed(502)
            assert_served(world.ask("ok"), "ok", 1)
