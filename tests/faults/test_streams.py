"""Streams that break off after their beginning: how they go on, and how they end where they cannot."""

from typing import Any

from tests.faults.upstream import FaultUpstream
from tests.faults.world import COMPLETIONS, TEXT, Answer, World, each_at_once
from tests.support.gateway import wait_until

SHORT = "timeouts = { first_token = 2, between_chunks = 0.5 }"
KINDS = {
    "continues": "prefill = true",
    "repeats": "",
    "once": "retries = 0",
    "short": f"{SHORT}, prefill = true",
    "short_backed": f'{SHORT}, fallbacks = {{ "continuing" }}',
    "then_continuing": 'fallbacks = { "continuing" }, retries = 0',
    "then_repeating": 'fallbacks = { "ok" }, retries = 0',
    "then_other": 'fallbacks = { "other" }, retries = 0',
    "then_failing": 'fallbacks = { "failing" }, retries = 0',
    "then_other_and_continuing": 'fallbacks = { "other", "continuing" }, retries = 0',
    "two_calls": "prefill = true, max_attempts = 2",
}
BREAKS = ("cut-after-7", "reset-after-7", "error-event-8", "no-finish")
"""Ends of a stream that are none; an error takes the place of an event, the first of which names the role."""
BEGINNING = "w0 w1 w2 w3 w4 w5 w6"


def models(faults: FaultUpstream) -> list[str]:
    faults.set("continuing", "ok")
    faults.set("other", "wrong-text")
    faults.set("failing", "status-503")
    return [
        faults.lua("continuing", "continuing", "prefill = true"),
        faults.lua("other", "other", "retries = 0"),
        faults.lua("failing", "failing", "retries = 0"),
    ]


def assert_unbroken(answer: Answer, model: str) -> None:
    """It is one whole answer, and the headers say who began it."""
    answer.assert_good()
    assert (answer.model, answer.calls) == (model, 1)


def asked_to_continue(world: World, model: str) -> list[str | None]:
    """What the requests that came for a model gave as the beginning of the answer."""
    last = [request.body["messages"][-1] for request in world.requests(model)]
    return [message["content"] if message["role"] == "assistant" else None for message in last]


def ask(world: World, model: str, **more: Any) -> Answer:
    return world.ask(model, **{"stream": True, **more})


# --- the same upstream


@each_at_once(*BREAKS)
def test_the_same_upstream_goes_on_with_its_answer(world: World, fault: str) -> None:
    model = world.model("continues", f"{fault}|ok")
    assert_unbroken(ask(world, model), model)
    first, second = asked_to_continue(world, model)
    assert (first, second) == (None, TEXT if fault == "no-finish" else BEGINNING)


@each_at_once(*BREAKS)
def test_the_same_upstream_answers_anew(world: World, fault: str) -> None:
    model = world.model("repeats", f"{fault}|ok")
    assert_unbroken(ask(world, model), model)
    assert asked_to_continue(world, model) == [None, None]


@each_at_once("continues", "repeats")
def test_an_answer_that_breaks_off_more_than_once(world: World, kind: str) -> None:
    model = world.model(kind, "cut-after-3|reset-after-6|ok")
    assert_unbroken(ask(world, model), model)
    assert len(world.requests(model)) == 3


@each_at_once("continues", "repeats")
def test_retries_on_the_way_are_not_noticed(world: World, kind: str) -> None:
    model = world.model(kind, "cut-after-7|status-503|ok")
    assert_unbroken(ask(world, model), model)
    assert len(world.requests(model)) == 3


@each_at_once("continues", "repeats")
def test_text_completions(world: World, kind: str) -> None:
    for fault in ("cut-after-7", "reset-after-7", "no-finish"):
        model = world.model(kind, f"{fault}|ok")
        assert_unbroken(ask(world, model, path=COMPLETIONS), model)
        first, second = (request.body["prompt"] for request in world.requests(model))
        assert first == "hi"
        assert second == "hi" + (TEXT if fault == "no-finish" else BEGINNING)


def test_what_was_said_counts_towards_the_limit(world: World) -> None:
    model = world.model("continues", "cut-after-7|ok")
    assert_unbroken(ask(world, model, max_tokens=100), model)
    assert [request.body["max_tokens"] for request in world.requests(model)] == [100, 93]


def test_an_answer_of_a_given_format_is_given_anew(world: World) -> None:
    model = world.model("continues", "cut-after-7|ok")
    assert_unbroken(ask(world, model, response_format={"type": "json_object"}), model)
    assert asked_to_continue(world, model) == [None, None]


# --- fallbacks


@each_at_once(*BREAKS)
def test_the_fallback_goes_on_with_the_answer(world: World, fault: str) -> None:
    model = world.model("then_continuing", fault)
    answer = ask(world, model)
    assert_unbroken(answer, model)
    assert len(world.requests(model)) == 1
    assert {model, "continuing"} == {chunk["model"] for chunk in answer.chunks}
    assert answer.usage["completion_tokens"] == (0 if fault == "no-finish" else 13)


@each_at_once(*BREAKS)
def test_the_fallback_answers_anew(world: World, fault: str) -> None:
    model = world.model("then_repeating", fault)
    assert_unbroken(ask(world, model), model)
    assert len(world.requests(model)) == 1


@each_at_once(*BREAKS)
def test_a_fallback_that_says_something_else(world: World, fault: str) -> None:
    model = world.model("then_other", fault)
    answer = ask(world, model)
    answer.assert_broken(TEXT if fault == "no-finish" else BEGINNING)
    assert answer.text in {BEGINNING, TEXT}
    assert answer.headers["x-gw-model"] == model
    assert [each for each, _, _ in answer.attempts] == [model, "other"]
    assert "something else" in answer.error["attempts"][1]["message"]


@each_at_once()
def test_the_next_fallback_is_asked_then(world: World) -> None:
    model = world.model("then_other_and_continuing", "cut-after-7")
    assert_unbroken(ask(world, model), model)


@each_at_once()
def test_nobody_goes_on(world: World) -> None:
    model = world.model("then_failing", "cut-after-7")
    answer = ask(world, model)
    answer.assert_broken(BEGINNING)
    assert answer.error["code"] == "upstream_broke"
    assert [each for each, _, _ in answer.attempts] == [model, "failing"]


@each_at_once(*BREAKS)
def test_no_other_call_is_allowed(world: World, fault: str) -> None:
    model = world.model("once", fault)
    answer = ask(world, model)
    answer.assert_broken(TEXT if fault == "no-finish" else BEGINNING)
    assert len(world.requests(model)) == 1


@each_at_once()
def test_no_more_calls_than_are_allowed(world: World) -> None:
    model = world.model("two_calls", "cut-after-3")
    answer = ask(world, model)
    answer.assert_broken("w0 w1 w2 w3 w4 w5")
    assert len(world.requests(model)) == 2


# --- stalls


@each_at_once("stall-after-7|ok", "stall-after-7|stall-after-7|ok")
def test_a_stalled_answer_goes_on(world: World, fault: str) -> None:
    model = world.model("short", fault)
    assert_unbroken(ask(world, model), model)
    assert len(world.requests(model)) == fault.count("|") + 1
    wait_until(lambda: world.faults.closes_during(model), "the silent connection is closed")


@each_at_once()
def test_the_fallback_goes_on_with_a_stalled_answer_at_once(world: World) -> None:
    model = world.model("short_backed", "stall-after-7")
    assert_unbroken(ask(world, model), model)
    assert len(world.requests(model)) == 1


@each_at_once()
def test_an_answer_that_stalls_again_and_again(world: World) -> None:
    model = world.model("short", "stall-after-3")
    answer = ask(world, model)
    answer.assert_broken("w0 w1 w2 w3 w4 w5 w6 w7 w8")
    assert answer.error["code"] == "upstream_broke"
    assert len(answer.attempts) == len(world.requests(model)) == 3


# --- ends that lack something, and events that are none


@each_at_once("no-done", "hang-after-finish")
def test_a_model_that_has_finished_has_answered(world: World, fault: str) -> None:
    for path in ("/v1/chat/completions", COMPLETIONS):
        model = world.model("short", fault)
        assert_unbroken(ask(world, model, path=path), model)
        assert len(world.requests(model)) == 1


def test_one_event_that_is_none_is_skipped(world: World) -> None:
    model = world.model("repeats", "malformed-event-3")
    answer = ask(world, model)
    answer.assert_good(TEXT.replace(" w2", ""))
    assert answer.calls == 1


@each_at_once("content-length", "wrong-length-short", "wrong-length-long")
def test_streams_have_no_length(world: World, fault: str) -> None:
    model = world.model("repeats", "ok" if fault == "content-length" else fault)
    answer = ask(world, model)
    assert_unbroken(answer, model)
    assert "content-length" not in answer.headers


# --- what holds more than one text


@each_at_once("cut-after-7", "stall-after-7", "error-event-9")
def test_a_call_of_a_tool_is_not_continued(world: World, fault: str) -> None:
    model = world.model("short_backed", fault)
    answer = ask(world, model, tool_choice="required")
    answer.assert_broken()
    arguments = [
        call["function"]["arguments"]
        for choice in answer.choices
        for call in choice["delta"].get("tool_calls", ())
    ]
    assert "".join(arguments) == BEGINNING
    assert len(world.requests(model)) == 1


@each_at_once("cut-after-7", "stall-after-7", "error-event-8")
def test_several_answers_are_not_continued(world: World, fault: str) -> None:
    for path in ("/v1/chat/completions", COMPLETIONS):
        model = world.model("short_backed", fault)
        answer = ask(world, model, n=2, path=path)
        assert answer.error["message"]
        assert b"[DONE]" not in answer.events
        assert [choice["index"] for choice in answer.choices][-2:] == [0, 1]
        assert len(world.requests(model)) == 1


# --- clients that vanish


@each_at_once("continues", "repeats")
def test_a_client_that_vanishes_while_an_answer_goes_on(world: World, kind: str) -> None:
    model = world.model(kind, "cut-after-5|ok-slow-300")
    with world.begin(model, stream=True) as call:
        call.read_until(b" w6")
    wait_until(lambda: len(world.faults.closes_during(model)) == 2, "the call ends")
    assert [closed.by for closed in world.faults.closes_during(model)] == ["upstream", "client"]
    assert len(world.requests(model)) == 2
