"""Upstreams that are silent or slow, and clients that do not wait for ever."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.faults.world import Answer, World, all_at_once, each_at_once
from tests.support.gateway import wait_until

SHORT = "timeouts = { first_token = 0.5, head = 0.5, between_chunks = 0.5 }"
KINDS = {
    "alone": "",
    "short": f'fallbacks = {{ "ok" }}, {SHORT}',
    "short_alone": SHORT,
    "patient": 'fallbacks = { "ok" }, timeouts = { first_token = 5, head = 5, between_chunks = 5 }',
    "backed": 'fallbacks = { "ok" }',
    "in_a_second": "timeouts = { total = 1 }",
    "backed_in_a_second": 'fallbacks = { "ok" }, timeouts = { total = 1 }, retries = 0',
    "deaf": 'connect = "DEAF", fallbacks = { "ok" }, timeouts = { connect = 0.5 }',
}

SILENT = ("silent", "silent-after-head", "slow-head-30", "role-then-silent", "slow-first-token-30")
SILENT_STREAMS = ("comments-then-silent", "comments-every-100")
FAILING = {"status-400": 2, "429-retry-after-90": 2, "html-200": 3}
"""What fails after a long wait, and how many attempts that makes."""
SOON_S = 8.0
"""Much longer than any limit here, and much shorter than those that are not meant."""


def assert_served(answer: Answer, model: str, calls: int) -> None:
    answer.assert_good()
    assert (answer.model, answer.calls) == (model, calls)
    assert answer.seconds < SOON_S


@pytest.fixture(scope="module", autouse=True)
def long_waits(world: World) -> Iterator[dict[str, "Future[Answer]"]]:
    """Streams of clients that hear for so long of a wait that comments come; they take long, so they come first."""
    with ThreadPoolExecutor() as threads:
        yield {
            then: threads.submit(world.ask, world.model("alone", f"429-retry-after-11|{then}"), stream=True)
            for then in ("ok", *FAILING)
        }


# --- silence


@all_at_once(*SILENT)
def test_the_fallback_answers_for_a_silent_upstream(world: World, fault: str, *, stream: bool) -> None:
    model = world.model("short", fault)
    assert_served(world.ask(model, stream=stream), "ok", 2)
    assert len(world.requests(model)) == 1
    wait_until(lambda: world.faults.closes_during(model), "the silent connection is closed")
    assert world.faults.closes_during(model)[0].by == "client"


@all_at_once(*SILENT)
def test_silence_is_not_repeated(world: World, fault: str, *, stream: bool) -> None:
    model = world.model("short_alone", fault)
    answer = world.ask(model, stream=stream)
    answer.assert_failed(504)
    assert answer.error["code"] == "upstream_timeout"
    assert answer.seconds < SOON_S
    assert len(world.requests(model)) == 1


@all_at_once(*SILENT_STREAMS)
def test_comments_are_no_tokens(world: World, fault: str, *, stream: bool) -> None:
    model = world.model("short", fault)
    assert_served(world.ask(model, stream=stream), "ok", 2)
    alone = world.model("short_alone", fault)
    world.ask(alone, stream=stream).assert_failed(504)
    assert [len(world.requests(each)) for each in (model, alone)] == [1, 1]


@each_at_once()
def test_half_a_document_and_then_silence(world: World) -> None:
    assert_served(world.ask(world.model("short", "stall-after-5")), "ok", 2)
    world.ask(world.model("short_alone", "stall-after-5")).assert_failed(504)


@all_at_once("slow-first-token-0.7", "slow-head-0.7", "ok-slow-60")
def test_who_is_slow_is_waited_for(world: World, fault: str, *, stream: bool) -> None:
    model = world.model("patient", fault)
    assert_served(world.ask(model, stream=stream), model, 1)


@all_at_once()
def test_who_does_not_even_accept_connections(world: World, *, stream: bool) -> None:
    assert_served(world.ask(world.model("deaf", "ok"), stream=stream), "ok", 2)


# --- clients that do not wait for ever


@all_at_once("silent", "slow-head-30", "role-then-silent")
def test_a_client_hears_of_it_before_it_gives_up(world: World, fault: str, *, stream: bool) -> None:
    for header in ("x-stainless-read-timeout", "x-stainless-timeout"):
        model = world.model("alone", fault)
        answer = world.ask(model, stream=stream, headers={header: "1"})
        answer.assert_failed(504)
        assert answer.error["code"] == "request_timeout"
        assert len(world.requests(model)) == 1


@all_at_once("silent", "silent-after-head")
def test_a_fallback_has_half_of_the_clients_time(world: World, fault: str, *, stream: bool) -> None:
    model = world.model("backed", fault)
    assert_served(world.ask(model, stream=stream, headers={"x-stainless-read-timeout": "2"}), "ok", 2)


@all_at_once()
def test_nothing_is_repeated_for_a_client_that_will_have_given_up(world: World, *, stream: bool) -> None:
    model = world.model("alone", "429-retry-after-9|ok")
    answer = world.ask(model, stream=stream, headers={"x-stainless-read-timeout": "3"})
    answer.assert_failed(429)
    assert answer.headers["retry-after"] == "9"
    assert answer.seconds < 3.0
    assert len(world.requests(model)) == 1


@all_at_once("silent", "slow-head-30", "ok-slow-500")
def test_the_time_of_a_request_is_over(world: World, fault: str, *, stream: bool) -> None:
    answer = world.ask(world.model("in_a_second", fault), stream=stream)
    if stream and fault == "ok-slow-500":
        answer.assert_broken("w0")
    else:
        answer.assert_failed(504)
    assert answer.error["code"] == "request_timeout"
    assert answer.seconds < SOON_S


@all_at_once()
def test_a_fallback_has_half_of_the_whole_time(world: World, *, stream: bool) -> None:
    assert_served(world.ask(world.model("backed_in_a_second", "silent"), stream=stream), "ok", 2)


# --- clients that vanish


@each_at_once()
def test_a_client_that_vanishes_during_a_backoff(world: World) -> None:
    models = [world.model("alone", "429-retry-after-ms-1500|ok") for _ in range(2)]
    for model, stream in zip(models, (False, True), strict=True):
        world.leave_early(model, stream=stream)
    time.sleep(2.0)
    assert [len(world.requests(model)) for model in models] == [1, 1]


@each_at_once()
def test_a_client_that_vanishes_during_a_call(world: World) -> None:
    models = [world.model("backed", "silent") for _ in range(2)]
    for model, stream in zip(models, (False, True), strict=True):
        world.leave_early(model, stream=stream)
    for model in models:
        wait_until(lambda model=model: world.faults.closes_during(model), "the call ends")
        assert world.faults.closes_during(model)[0].by == "client"
        assert len(world.requests(model)) == 1


# --- clients that wait for long


def test_who_was_told_to_wait_gets_the_answer(long_waits: dict[str, "Future[Answer]"]) -> None:
    answer = long_waits["ok"].result()
    answer.assert_good()
    assert answer.comments[0].startswith(b": gatewright: waiting for alone_")


@pytest.mark.parametrize("then", FAILING)
def test_who_was_told_to_wait_hears_of_the_failure(
    then: str, long_waits: dict[str, "Future[Answer]"]
) -> None:
    answer = long_waits[then].result()
    assert answer.comments
    answer.assert_broken()
    assert answer.text == ""
    assert len(answer.attempts) == FAILING[then]
    assert answer.error["code"] == "rate_limit_exceeded"
