"""Upstreams that give no answer: who is asked again, who instead, and what the client is told if nothing helps."""

import json
from itertools import pairwise

from tests.faults.upstream import FaultUpstream
from tests.faults.world import COMPLETIONS, Answer, World, all_at_once, each_at_once

NOBODY = 'connect = "http://127.0.0.1:1"'
"""Where nobody listens."""

KINDS = {
    "alone": "",
    "once": "retries = 0",
    "backed": 'fallbacks = { "ok" }, retries = 1',
    "backed_once": 'fallbacks = { "ok" }, retries = 0',
    "keyed_once": 'api_key_env = "KEY_OF_NAME"',
    "keyed": 'fallbacks = { "ok" }, api_key_env = "KEY_OF_NAME"',
    "failing_next": 'fallbacks = { "always 500" }, retries = 0',
    "wrong_next": 'fallbacks = { "always html" }, retries = 0',
    "small": 'fallbacks = { "no larger", "larger" }, context = 8192',
    "too_small": 'fallbacks = { "no larger" }, context = 8192',
    "by_alias": 'fallbacks = { "second", "third" }, retries = 0',
    "short_list": 'fallbacks = { "has a list of its own" }, retries = 0',
    "two_calls": 'fallbacks = { "next 503", "ok" }, retries = 0, max_attempts = 2',
    "six_calls": 'fallbacks = { "retried 502", "retried 503" }, max_attempts = 6',
    "nobody": f'{NOBODY}, fallbacks = {{ "ok" }}',
    "nobody_at_all": f"{NOBODY}, retries = 1",
    "nobody_next": 'fallbacks = { "nobody listens", "ok" }, retries = 0',
}

PASSING = {
    "fail-1": 2,
    "fail-2": 3,
    "fail-1-reset": 2,
    "close-before-head|ok": 2,
    "429|reset-before-head|ok": 3,
    "reset-before-head|status-503|ok": 3,
    **{f"status-{code}|ok": 2 for code in (408, 409, 429, 502, 503, 504, 520, 529)},
    **{f"{fault}|ok": 2 for fault in ("html-200", "empty-200", "bad-json-200", "error-200")},
}
"""Faults that are over after some calls, and that call."""
WAITS = {"429-retry-after-1": 1.0, "429-retry-after-ms-1200": 1.2, "503-retry-after-1": 1.0}
"""Upstreams that say for how long they want to be left alone."""
STAYING = ("reset-before-head", "close-before-head", "status-500", "status-503", "status-529", "429")
"""Faults that another call would meet again."""
HOPELESS = {
    "bad-key": 401,
    "payment": 402,
    "forbidden": 403,
    "status-404": 404,
    "insufficient-quota": 429,
    "status-501": 501,
    "status-505": 505,
}
"""Errors after which another call is not even tried, and their statuses."""
WRONG = ("html-200", "empty-200", "bad-json-200", "error-200")
"""What is no answer, under the status of one."""
INVALID = {"status-400": 400, "status-413": 413, "status-422": 422, "content-policy": 400}
"""What every other upstream would say as well."""
HALF = ("cut-after-5", "reset-after-5", "wrong-length-long", "wrong-length-short", "malformed-event-1")
"""Answers in one piece of which a piece is missing."""
UNBEGUN = ("cut-after-0", "error-event-0", "error-event-1", "malformed-all", "done-without-content")
"""Streams that end before their first token."""


def models(faults: FaultUpstream) -> list[str]:
    listed = {
        "always 500": ("status-500", "retries = 0"),
        "always html": ("html-200", "retries = 0"),
        "no larger": ("ok", "context = 8192"),
        "larger": ("ok", "context = 32768"),
        "the second model": ("status-502", 'aliases = { "second" }, retries = 0'),
        "the third model": ("ok", 'aliases = { "last", "third" }'),
        "has a list of its own": ("status-500", 'fallbacks = { "ok" }, retries = 0'),
        "nobody listens": ("ok", f"{NOBODY}, retries = 0"),
        "next 503": ("status-503", "retries = 0"),
        "retried 502": ("status-502", ""),
        "retried 503": ("status-503", ""),
    }
    for name, (fault, _) in listed.items():
        faults.set(name, fault)
    return [faults.lua(name, name, extra) for name, (_, extra) in listed.items()]


def assert_served(answer: Answer, model: str, calls: int) -> None:
    """It is a good answer of this model after so many calls.

    The upstream's name of the model is in it, and what the upstream has counted.
    """
    answer.assert_good()
    assert (answer.model, answer.calls) == (model, calls)
    assert {chunk["model"] for chunk in answer.chunks} == {model}
    assert answer.usage == {"prompt_tokens": 1, "completion_tokens": 20, "total_tokens": 21}


# --- failures that pass


@all_at_once(*PASSING)
def test_what_passes_is_not_noticed(world: World, fault: str, *, stream: bool) -> None:
    model = world.model("alone", fault)
    assert_served(world.ask(model, stream=stream), model, PASSING[fault])
    assert len(world.requests(model)) == PASSING[fault]


@all_at_once(*WAITS)
def test_an_upstream_is_left_alone_for_as_long_as_it_asks(world: World, fault: str, *, stream: bool) -> None:
    model = world.model("backed", f"{fault}|ok")
    assert_served(world.ask(model, stream=stream), model, 2)
    first, second = world.requests(model)
    assert second.at - first.at >= WAITS[fault]


@each_at_once()
def test_the_time_may_be_a_date(world: World) -> None:
    model = world.model("alone", "429-retry-after-date-2|ok")
    assert_served(world.ask(model), model, 2)
    first, second = world.requests(model)
    assert 0.9 <= second.at - first.at <= 6.0  # dates have no fractions


@each_at_once()
def test_retries_wait_longer_each_time(world: World) -> None:
    model = world.model("alone", "fail-2")
    world.ask(model).assert_good()
    first, second, third = (request.at for request in world.requests(model))
    assert second - first >= 0.25
    assert third - second >= 0.5


@each_at_once()
def test_embeddings_are_asked_again_too(world: World) -> None:
    model = world.model("alone", "fail-1")
    answer = world.ask(model, path="/v1/embeddings", input="hi")
    assert (answer.status, answer.calls) == (200, 2)
    assert len(json.loads(answer.body)["data"][0]["embedding"]) == 8


# --- failures that stay


@all_at_once(*STAYING)
def test_the_fallback_answers_once_retries_are_spent(world: World, fault: str, *, stream: bool) -> None:
    model = world.model("backed", fault)
    assert_served(world.ask(model, stream=stream), "ok", 3)
    assert len(world.requests(model)) == 2


@all_at_once()
def test_nobody_listens(world: World, *, stream: bool) -> None:
    assert_served(world.ask(world.model("nobody", "ok"), stream=stream), "ok", 4)
    model = world.model("nobody_at_all", "ok")
    answer = world.ask(model, stream=stream)
    answer.assert_failed(502)
    assert answer.attempts == [(model, "UpstreamUnreachable", None)] * 2


@all_at_once()
def test_a_fallback_may_fail_too(world: World, *, stream: bool) -> None:
    model = world.model("nobody_next", "reset-before-head")
    assert_served(world.ask(model, stream=stream), "ok", 3)


@all_at_once(*HOPELESS)
def test_where_a_retry_cannot_help_the_fallback_answers_at_once(
    world: World, fault: str, *, stream: bool
) -> None:
    model = world.model("keyed", fault)
    assert_served(world.ask(model, stream=stream), "ok", 2)
    assert len(world.requests(model)) == 1


@all_at_once(*HOPELESS)
def test_where_a_retry_cannot_help_and_nobody_else_is_there(
    world: World, fault: str, *, stream: bool
) -> None:
    model = world.model("keyed_once", fault)
    answer = world.ask(model, stream=stream)
    answer.assert_failed(HOPELESS[fault])
    assert answer.body == world.told(model)
    assert len(world.requests(model)) == 1


@all_at_once()
def test_the_fallback_answers_where_the_wait_would_be_long(world: World, *, stream: bool) -> None:
    model = world.model("backed", "429-retry-after-30")
    assert_served(world.ask(model, stream=stream), "ok", 2)
    assert len(world.requests(model)) == 1


@all_at_once()
def test_a_wait_that_is_too_long_is_the_clients(world: World, *, stream: bool) -> None:
    model = world.model("alone", "429-retry-after-90")
    answer = world.ask(model, stream=stream)
    answer.assert_failed(429)
    assert answer.headers["retry-after"] == "90"
    assert answer.body == world.told(model)
    assert len(world.requests(model)) == 1


@all_at_once(*WRONG)
def test_what_is_no_answer_is_none(world: World, fault: str, *, stream: bool) -> None:
    model = world.model("backed", fault)
    assert_served(world.ask(model, stream=stream), "ok", 3)
    assert len(world.requests(model)) == 2


@all_at_once(*WRONG)
def test_what_is_no_answer_is_an_error_where_there_is_no_other(
    world: World, fault: str, *, stream: bool
) -> None:
    model = world.model("once", fault)
    world.ask(model, stream=stream).assert_failed(502)


@each_at_once(*HALF)
def test_half_a_document_is_none(world: World, fault: str) -> None:
    assert_served(world.ask(world.model("backed_once", fault)), "ok", 2)
    world.ask(world.model("once", fault)).assert_failed(502)
    model = world.model("alone", f"{fault}|ok")
    assert_served(world.ask(model), model, 2)


@each_at_once(*UNBEGUN)
def test_a_stream_that_ends_before_its_first_token_is_none(world: World, fault: str) -> None:
    assert_served(world.ask(world.model("backed_once", fault), stream=True), "ok", 2)
    world.ask(world.model("once", fault), stream=True).assert_failed(502)
    model = world.model("alone", f"{fault}|ok")
    assert_served(world.ask(model, stream=True), model, 2)


@each_at_once()
def test_a_stream_without_anything_is_none(world: World) -> None:
    assert_served(world.ask(world.model("backed_once", "no-finish@0"), stream=True), "ok", 2)
    world.ask(world.model("once", "no-finish@0"), stream=True).assert_failed(502)


@all_at_once()
def test_a_proper_answer_may_be_empty(world: World, *, stream: bool) -> None:
    answer = world.ask(world.model("backed", "empty-answer"), stream=stream)
    answer.assert_good("")
    assert answer.calls == 1


# --- what the request itself got wrong


@all_at_once(*INVALID)
def test_what_the_request_got_wrong_passes_as_it_came(world: World, fault: str, *, stream: bool) -> None:
    model = world.model("backed", fault)
    answer = world.ask(model, stream=stream)
    answer.assert_failed(INVALID[fault])
    assert (answer.model, answer.calls) == (model, 1)
    assert answer.body == world.told(model)
    assert len(world.requests(model)) == 1


@all_at_once()
def test_only_a_larger_model_is_asked_about_too_large_a_prompt(world: World, *, stream: bool) -> None:
    model = world.model("small", "context-length")
    before = len(world.requests("no larger"))
    assert_served(world.ask(model, stream=stream), "larger", 2)
    assert len(world.requests(model)) == 1
    assert len(world.requests("no larger")) == before


@all_at_once()
def test_too_large_a_prompt_for_all(world: World, *, stream: bool) -> None:
    model = world.model("too_small", "context-length")
    answer = world.ask(model, stream=stream)
    answer.assert_failed(400)
    assert answer.error["code"] == "context_length_exceeded"
    assert answer.body == world.told(model)
    assert answer.calls == 1


# --- chains


@all_at_once()
def test_fallbacks_by_their_aliases(world: World, *, stream: bool) -> None:
    model = world.model("by_alias", "status-500")
    before = len(world.requests("the second model"))
    assert_served(world.ask(model, stream=stream), "the third model", 3)
    assert len(world.requests("the second model")) > before


@all_at_once()
def test_the_fallbacks_own_fallbacks_are_not_asked(world: World, *, stream: bool) -> None:
    answer = world.ask(world.model("short_list", "status-503"), stream=stream)
    answer.assert_failed(503)
    assert [model for model, _, _ in answer.attempts][1:] == ["has a list of its own"]


@all_at_once()
def test_the_first_error_is_told_with_all_that_was_tried(world: World, *, stream: bool) -> None:
    model = world.model("failing_next", "503-retry-after-7")
    answer = world.ask(model, stream=stream)
    answer.assert_failed(503)
    assert answer.headers["retry-after"] == "7"
    assert answer.error["message"] == json.loads(world.told(model))["error"]["message"]
    assert answer.error["type"] == "server_error"
    assert answer.attempts == [(model, "UpstreamRefused", 503), ("always 500", "UpstreamRefused", 500)]


@all_at_once()
def test_what_is_no_answer_is_told_of_as_well(world: World, *, stream: bool) -> None:
    model = world.model("wrong_next", "reset-before-head")
    answer = world.ask(model, stream=stream)
    answer.assert_failed(502)
    assert answer.attempts == [
        (model, "UpstreamUnreachable", None),
        ("always html", "UpstreamUnreachable", None),
    ]


@all_at_once()
def test_retries_are_listed_too(world: World, *, stream: bool) -> None:
    model = world.model("alone", "status-500|reset-before-head|429")
    answer = world.ask(model, stream=stream)
    answer.assert_failed(500)
    assert answer.attempts == [
        (model, "UpstreamRefused", 500),
        (model, "UpstreamUnreachable", None),
        (model, "UpstreamRefused", 429),
    ]


@all_at_once()
def test_no_more_calls_than_are_allowed(world: World, *, stream: bool) -> None:
    model = world.model("two_calls", "status-500")
    answer = world.ask(model, stream=stream)
    answer.assert_failed(500)
    assert [each for each, _, _ in answer.attempts] == [model, "next 503"]
    assert answer.calls == 2


@each_at_once()
def test_no_more_than_two_retries_and_four_calls_in_three_seconds(world: World) -> None:
    chain = [world.model("six_calls", "status-500"), "retried 502", "retried 503"]
    answer = world.ask(chain[0])
    answer.assert_failed(500)
    calls = [request for model in chain for request in world.requests(model)]
    assert [request.fault for request in calls] == [chain[0]] * 3 + [chain[1]] * 3
    at = [request.at for request in calls]
    assert all(later - earlier > 2.9 for earlier, later in zip(at, at[4:], strict=False))
    assert at[3] - at[2] < 2.0  # the fallback was not waited for
    assert all(later > earlier for earlier, later in pairwise(at))


@all_at_once("reset-before-head", "status-503", "html-200", "error-event-0")
def test_text_completions(world: World, fault: str, *, stream: bool) -> None:
    model = world.model("alone", f"{fault}|ok")
    assert_served(world.ask(model, path=COMPLETIONS, stream=stream), model, 2)
