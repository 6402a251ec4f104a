"""Upstreams that fail again and again: they are left alone, and found again when they recover."""

import time

from tests.faults.upstream import FaultUpstream
from tests.faults.world import World, all_at_once
from tests.support.gateway import wait_until

KINDS = {
    "alone": "retries = 0",
    "backed": 'fallbacks = { "ok" }, retries = 0',
    "retried": 'fallbacks = { "ok" }',
    "short": 'fallbacks = { "ok" }, timeouts = { first_token = 0.5, head = 0.5, between_chunks = 0.5 }',
    "failing_next": 'fallbacks = { "failing" }, retries = 0',
}
CREDENTIALS = ("bad-key", "payment", "forbidden", "insufficient-quota")
OPENING = ("status-503", "429", "reset-before-head", "html-200", "silent", "cut-after-0")
RECOVERY_S = 30.0
PAUSE_S = 0.3
"""Between two looks at whether an upstream is called again."""


def models(faults: FaultUpstream) -> list[str]:
    lua = []
    for fault in CREDENTIALS:
        for way in ("", "/stream"):
            for name, key in (("first", "A"), ("second", "A"), ("other", "B")):
                faults.set(f"{fault}{way} {name}", fault if name == "first" else "ok")
                variable = f"KEY_{key}_{fault}{way}".replace("-", "_").replace("/", "_").upper()
                extra = f'fallbacks = {{ "ok" }}, api_key_env = "{variable}"'
                lua.append(faults.lua(f"{fault}{way} {name}", f"{fault}{way} {name}", extra))
    faults.set("failing", "status-500")
    lua.append(faults.lua("failing", "failing", "retries = 0"))
    return lua


def assert_comes_back(world: World, model: str, *, stream: bool) -> None:
    """Its upstream is well again: soon it answers, and until then its fallback does."""
    world.faults.set(model, "ok")

    def answers() -> bool:
        time.sleep(PAUSE_S)
        answer = world.ask(model, stream=stream)
        answer.assert_good()
        return answer.model == model

    wait_until(answers, f"{model} is called again", RECOVERY_S)
    for _ in range(4):
        assert answers()


@all_at_once(*OPENING)
def test_who_fails_three_times_is_left_alone_until_it_recovers(
    world: World, fault: str, *, stream: bool
) -> None:
    if fault == "cut-after-0" and not stream:
        fault = "cut-after-5"
    model = world.model("short", fault)
    while len(world.requests(model)) < 3:
        answer = world.ask(model, stream=stream)
        answer.assert_good()
        assert answer.model == "ok"
    opened = time.monotonic()
    before = len(world.requests(model))
    for _ in range(6):
        answer = world.ask(model, stream=stream)
        answer.assert_good()
        assert (answer.model, answer.calls) == ("ok", 1)
    assert len(world.requests(model)) == before
    assert_comes_back(world, model, stream=stream)
    assert time.monotonic() - opened > 4.0


@all_at_once(*CREDENTIALS)
def test_a_credential_that_is_not_accepted_is_not_used_again(
    world: World, fault: str, *, stream: bool
) -> None:
    first, second, other = (
        f"{fault}{'/stream' if stream else ''} {name}" for name in ("first", "second", "other")
    )
    answer = world.ask(first, stream=stream)
    answer.assert_good()
    assert (answer.model, answer.calls) == ("ok", 2)
    answer = world.ask(second, stream=stream)
    answer.assert_good()
    assert (answer.model, answer.calls) == ("ok", 1)
    assert world.requests(second) == []
    answer = world.ask(other, stream=stream)
    answer.assert_good()
    assert (answer.model, answer.calls) == (other, 1)
    assert_comes_back(world, second, stream=stream)


@all_at_once()
def test_an_upstream_that_comes_and_goes_is_not_noticed(world: World, *, stream: bool) -> None:
    model = world.model("retried", "flapping-2")
    end = time.monotonic() + RECOVERY_S
    while world.ask(model, stream=stream).model != model:
        assert time.monotonic() < end
        time.sleep(PAUSE_S)
        world.ask(model, stream=stream).assert_good()
    assert len(world.requests(model)) < 12
    world.ask(model, stream=stream).assert_good()


@all_at_once()
def test_what_breaks_off_after_its_beginning_counts_too(world: World, *, stream: bool) -> None:
    model = world.model("backed", "cut-after-5")
    for _ in range(3):
        world.ask(model, stream=stream).assert_good()
    assert len(world.requests(model)) == 3
    answer = world.ask(model, stream=stream)
    answer.assert_good()
    assert (answer.model, answer.calls) == ("ok", 1)


@all_at_once("status-400", "context-length", "content-policy", "status-404")
def test_what_says_nothing_about_the_upstream_opens_nothing(
    world: World, fault: str, *, stream: bool
) -> None:
    model = world.model("backed", fault)
    for _ in range(5):
        world.ask(model, stream=stream)
    assert len(world.requests(model)) == 5


@all_at_once()
def test_the_last_one_is_called_all_the_same(world: World, *, stream: bool) -> None:
    model = world.model("alone", "status-503")
    for _ in range(5):
        world.ask(model, stream=stream).assert_failed(503)
    assert len(world.requests(model)) == 5
    world.faults.set(model, "ok")
    answer = world.ask(model, stream=stream)
    answer.assert_good()
    assert (answer.model, answer.calls) == (model, 1)


@all_at_once()
def test_who_is_left_alone_is_told_of_if_nobody_else_helps(world: World, *, stream: bool) -> None:
    model = world.model("failing_next", "status-503")
    for _ in range(3):
        world.ask(model, stream=stream).assert_failed(503)
    answer = world.ask(model, stream=stream)
    answer.assert_failed(503)
    assert answer.error["code"] == "circuit_open"
    assert int(answer.headers["retry-after"]) <= 5
    assert answer.attempts == [(model, "CircuitOpen", None), ("failing", "UpstreamRefused", 500)]
    assert len(world.requests(model)) == 3
