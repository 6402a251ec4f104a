"""A request that names a route, over HTTP: who answers, what the answer says of it, and what the client may wish."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from gatewright_cli.verification.check import CHAT
from tests.conformance.choosing import RIDDLE, Choosing, eventually, problem
from tests.conformance.test_openai_client import connect

DECIDED = {
    "x-gw-route",
    "x-gw-model",
    "x-gw-complexity",
    "x-gw-score",
    "x-gw-confidence",
    "x-gw-chain",
    "x-gw-reason",
    "x-gw-estimated-cost-usd",
}


@pytest.fixture
def client(choosing: Choosing) -> Iterator[openai.OpenAI]:
    with connect(choosing) as client:
        yield client


# --- what the answer says


def test_the_head_of_an_answer_says_how_it_came_about(choosing: Choosing) -> None:
    answer = choosing.ask("best")
    assert {name for name, _ in answer.headers} >= DECIDED | {"x-gw-cost-usd"}
    assert (answer.get("x-gw-route"), answer.get("x-gw-model")) == ("best", "master")
    assert answer.get("x-gw-complexity") == "trivial"
    assert answer.get("x-gw-chain") == "master,clerk"
    assert (answer.get("x-gw-reason") or "").startswith("master: best of 2 for a trivial task")
    assert 0 < float(answer.get("x-gw-score") or 0) <= 1
    assert 0 < float(answer.get("x-gw-confidence") or 0) <= 1
    assert 0 < float(answer.get("x-gw-estimated-cost-usd") or 0) < 0.01
    assert float(answer.get("x-gw-cost-usd") or 0) == pytest.approx((1000 * 100 + 100 * 300) / 1e6)
    assert answer.get("x-gw-failed") is None
    assert answer.get("x-gw-relaxed") is None


def test_the_head_of_a_stream_says_the_same_but_for_what_is_not_known_yet(choosing: Choosing) -> None:
    headers, events = choosing.events("best")
    assert headers.keys() >= DECIDED
    assert "x-gw-cost-usd" not in headers
    assert headers["x-gw-model"] == "master"
    assert events[-1] == "[DONE]"


def test_the_decision_is_written_down(choosing: Choosing) -> None:
    answer = choosing.ask("best", gatewright={"task": "greeting"})
    record = choosing.record(answer)
    assert (record["route"], record["model"], record["task"]) == ("best", "master", "greeting")
    assert record["decision"]["chain"] == ["master", "clerk"]
    assert record["decision"]["estimator"] == "heuristic"
    assert record["cost_usd"] == pytest.approx(float(answer.get("x-gw-cost-usd") or 0))
    (outcome,) = record["outcomes"]
    assert (outcome["model"], outcome["success"], outcome["completion_tokens"]) == ("master", True, 100)


def test_a_model_that_is_named_is_asked_and_nothing_is_said_of_a_choice(choosing: Choosing) -> None:
    answer = choosing.ask("clerk")
    assert answer.get("x-gw-model") == "clerk"
    assert not {name for name, _ in answer.headers} & (DECIDED - {"x-gw-model"})


def test_routes_stand_among_the_models(choosing: Choosing) -> None:
    listed = {each["id"]: each for each in json.loads(choosing.client.get("/v1/models").body)["data"]}
    assert listed["best"]["meta"]["route"] is True
    assert listed["best"]["meta"]["candidates"] == ["master", "clerk"]
    assert "route" not in listed["master"]["meta"]
    assert json.loads(choosing.client.get("/v1/models/best").body)["id"] == "best"


# --- what the client wishes


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("wishes", "model"),
    [
        ({"prefer": "quality"}, "master"),
        ({"prefer": "cost"}, "clerk"),
        ({"criteria": {"capabilities": ["code"]}, "prefer": "cost"}, "master"),
        ({"criteria": {"tags": ["big"]}, "prefer": "cost"}, "master"),
        ({"criteria": {"min_quality": 0.9}, "prefer": "cost"}, "master"),
        ({"criteria": {"min_context": 4096}, "prefer": "cost"}, "master"),
        ({"criteria": {"max_cost_per_1k": 0.001}, "prefer": "quality"}, "clerk"),
    ],
)
def test_wishes_in_the_body_are_heeded_and_stay_here(
    choosing: Choosing, wishes: dict[str, Any], model: str, stream: bool
) -> None:
    if stream:
        headers, _ = choosing.events("auto", gatewright=wishes)
        assert headers["x-gw-model"] == model
    else:
        assert choosing.who("auto", gatewright=wishes) == model
    (sent,) = choosing.provider.received(model)[-1:]
    assert sent.keys() - {"stream_options"} == {"model", "messages", "max_tokens"} | (
        {"stream"} if stream else set()
    )


@pytest.mark.parametrize(
    ("headers", "model"),
    [
        ({"x-gw-prefer": "quality"}, "master"),
        ({"x-gw-prefer": "cost"}, "clerk"),
        ({"x-gw-prefer": "cost", "x-gw-capability": "chat, code"}, "master"),
        ({"x-gw-prefer": "cost", "x-gw-tag": "big"}, "master"),
        ({"x-gw-prefer": "cost", "x-gw-min-quality": "0.9"}, "master"),
        ({"x-gw-prefer": "quality", "x-gw-max-cost": "0.001"}, "clerk"),
    ],
)
def test_wishes_in_headers_are_heeded_and_stay_here(
    choosing: Choosing, headers: dict[str, str], model: str
) -> None:
    answer = choosing.client.post(CHAT, choosing.body("auto"), **headers)
    assert (answer.status, answer.get("x-gw-model")) == (200, model)
    assert b"x-gw-" not in choosing.provider.last()[0].lower()


def test_the_body_counts_more_than_a_header(choosing: Choosing) -> None:
    body = choosing.body("auto", gatewright={"prefer": "cost", "task": "in-the-body"})
    answer = choosing.client.post(CHAT, body, **{"x-gw-prefer": "quality", "x-gw-user": "ann"})
    assert answer.get("x-gw-model") == "clerk"
    record = choosing.record(answer)
    assert (record["task"], record["user"]) == ("in-the-body", "ann")


@pytest.mark.parametrize(
    ("wishes", "field"),
    [
        ({"prefer": "fame"}, "gatewright.prefer"),
        ({"criteria": {"min_quality": 2}}, "gatewright.criteria.min_quality"),
        ({"criteria": {"capabilities": ["flight"]}}, "gatewright.criteria.capabilities[1]"),
        ({"max_attempts": 0}, "gatewright.max_attempts"),
        ({"fallbacks": [1]}, "gatewright.fallbacks[1]"),
        ({"wish": 1}, "gatewright.wish"),
        ("cheap", "gatewright"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_wish_that_nobody_understands_is_refused_by_its_name(
    choosing: Choosing, wishes: Any, field: str, stream: bool
) -> None:
    before = len(choosing.provider.requests)
    error = choosing.refuse("auto", gatewright=wishes, stream=stream)
    assert (error["status"], error["type"]) == (400, "invalid_request_error")
    assert error["param"] == field
    assert error["message"].startswith(field)
    assert len(choosing.provider.requests) == before


def test_a_header_that_nobody_understands_is_refused_by_its_name(choosing: Choosing) -> None:
    for name, value in {"x-gw-prefer": "fame", "x-gw-max-cost": "much", "x-gw-max-attempts": "0.5"}.items():
        error = problem(choosing.client.post(CHAT, choosing.body("auto"), **{name: value}))
        assert (error["status"], error["param"]) == (400, name)


def test_the_client_names_who_is_asked_in_turn(choosing: Choosing) -> None:
    assert choosing.who("wished", gatewright={"fallbacks": ["other-spare"]}) == "other-spare"
    before = len(choosing.provider.requests)
    assert choosing.refuse("wished", gatewright={"fallbacks": False})["status"] == 500
    assert len(choosing.provider.requests) == before + 1
    answer = choosing.ask("wished", gatewright={"fallbacks": ["spare", "other-spare"]})
    assert answer.get("x-gw-chain") == "broken-wish,spare,other-spare"
    error = choosing.refuse("wished", gatewright={"fallbacks": ["nobody"]})
    assert (error["status"], error["param"]) == (400, "gatewright.fallbacks")


def test_one_call_is_all_that_the_client_wants(choosing: Choosing) -> None:
    assert choosing.refuse("alone", gatewright={"max_attempts": 1})["status"] == 500


# --- failures


def test_the_next_in_the_ranking_answers_where_the_first_fails(choosing: Choosing) -> None:
    answer = choosing.ask("whole")
    assert (answer.get("x-gw-model"), answer.get("x-gw-attempts")) == ("spare", "2")
    assert answer.get("x-gw-failed") == "broken-whole: UpstreamRefused"
    assert answer.get("x-gw-chain") == "broken-whole,spare"
    record = choosing.record(answer)
    assert [each["model"] for each in record["failed_attempts"]] == ["broken-whole"]
    assert [(each["model"], each["is_available"]) for each in record["outcomes"]] == [
        ("broken-whole", False),
        ("spare", True),
    ]


def test_the_next_in_the_ranking_streams_where_the_first_fails(choosing: Choosing) -> None:
    headers, events = choosing.events("streamed_route")
    assert headers["x-gw-model"] == "spare"
    assert headers["x-gw-failed"] == "broken-stream: UpstreamRefused"
    assert events[-1] == "[DONE]"


def test_a_route_without_fallback_passes_the_error_on(choosing: Choosing) -> None:
    error = choosing.refuse("alone")
    assert (error["status"], error["message"]) == (500, "no")


@pytest.mark.parametrize("stream", [False, True])
def test_where_nobody_fits_the_client_hears_who_failed_on_what(choosing: Choosing, stream: bool) -> None:
    error = choosing.refuse("strict", stream=stream)
    assert (error["status"], error["code"], error["param"]) == (400, "no_model_fits", "model")
    assert "master: " in error["message"]
    assert "clerk: " in error["message"]
    assert "embedding" in error["message"]
    assert error["rejected"] == "capabilities 2"
    answer = choosing.client.post(CHAT, choosing.body("strict", stream=stream))
    assert answer.get("x-should-retry") == "false"


def test_a_criterion_is_given_up_where_the_route_says_so(choosing: Choosing) -> None:
    answer = choosing.ask("lenient")
    assert (answer.get("x-gw-model"), answer.get("x-gw-relaxed")) == ("clerk", "quality")


def test_a_prompt_that_is_too_long_for_one_goes_to_the_other(choosing: Choosing) -> None:
    assert choosing.who("auto", gatewright={"prefer": "cost"}) == "clerk"
    long = choosing.ask("auto", "word " * 4000, gatewright={"prefer": "cost"})
    assert long.get("x-gw-model") == "master"


# --- estimators


def test_a_model_is_asked_how_hard_a_request_is(choosing: Choosing) -> None:
    hard = choosing.ask("asked", f"A {RIDDLE}: what is it?")
    easy = choosing.ask("asked", "What is it?")
    assert (hard.get("x-gw-complexity"), easy.get("x-gw-complexity")) == ("expert", "trivial")
    assert choosing.record(hard)["decision"]["estimator"] == "model"
    assert len(choosing.provider.received("sizer")) >= 2
    rows = choosing.manage("GET", "/api/usage?by=task,model&task=gatewright:complexity")["data"]
    assert "sizer" in [row["model"] for row in rows]


@pytest.mark.parametrize("route", ["mumbled", "broken", "slow"])
def test_the_heuristic_takes_the_place_of_an_estimator_that_fails(choosing: Choosing, route: str) -> None:
    choosing.provider.left.clear()
    answer = choosing.ask(route, f"A {RIDDLE} for {route}")
    assert answer.get("x-gw-complexity") == "trivial"
    assert choosing.record(answer)["decision"]["estimator"] == "heuristic"
    if route == "slow":
        eventually(choosing.provider.left.is_set, "the question is given up")


def test_a_client_may_leave_while_somebody_is_asked_how_hard_it_is(choosing: Choosing) -> None:
    def canceled() -> int:
        rows = choosing.manage("GET", "/api/usage?by=route&route=slow")["data"]
        return sum(row["canceled"] for row in rows)

    before, asked = canceled(), len(choosing.provider.received("sleeper"))
    body = json.dumps(choosing.body("slow", "Never mind.")).encode()
    with contextlib.closing(choosing.client.connect()) as connection:
        connection.sendall(choosing.client.request_bytes("POST", CHAT, body))
        eventually(lambda: len(choosing.provider.received("sleeper")) > asked, "the estimator is asked")
    eventually(lambda: canceled() == before + 1, "it is written down")


def test_complexity_is_told_by_the_routes_own_estimator(choosing: Choosing) -> None:
    asked = {"prompt": f"Another {RIDDLE}", "route": "asked"}
    assert choosing.manage("POST", "/api/complexity", asked)["complexity"] == "expert"
    failed = choosing.manage("POST", "/api/complexity", {**asked, "route": "mumbled"})
    assert failed["complexity"] == "trivial"
    assert failed["fallback_reason"]


# --- the official client


def test_the_official_client_asks_a_route_and_reads_the_head(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="auto",
        messages=[{"role": "user", "content": "hello"}],
        extra_body={"gatewright": {"criteria": {"capabilities": ["code"]}}},
        extra_headers={"x-gw-task": "greeting"},
    )
    assert raw.headers["x-gw-model"] == "master"
    assert raw.headers["x-gw-route"] == "auto"
    assert raw.parse().choices[0].message.content == "I am speaks-master."


def test_the_official_client_streams_from_a_route(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="best",
        messages=[{"role": "user", "content": "hello"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    assert raw.headers["x-gw-model"] == "master"
    chunks = list(raw.parse())
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 100


def test_the_official_client_raises_what_it_has_for_a_refusal(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="strict", messages=[{"role": "user", "content": "hello"}])
    assert refused.value.code == "no_model_fits"
    assert "best" in [model.id for model in client.models.list()]
