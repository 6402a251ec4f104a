"""Budgets over HTTP: what is spent is counted, and who has spent it all hears so or gets something cheaper."""

import json
import time
from typing import Any

import pytest

from gatewright_cli.verification.check import CHAT
from gatewright_cli.verification.client import Client
from tests.conformance.choosing import Choosing, Document, eventually, problem

COST_USD = 0.2
"""Of an answer of a model with `CENTS`."""


def settled(choosing: Choosing, account: str) -> Document:
    """The budget of a model as it stands when nothing is under way any more."""

    def look() -> Document | None:
        found = choosing.budget(f"{account}/model={account}")
        return found if found and not found["reserved_usd"] else None

    found: Document = eventually(look, f"nothing of {account} is reserved any more")
    return found


def begin(choosing: Choosing, client: Client, model: str) -> Any:
    """A stream that has begun, as a context."""
    return client.stream(CHAT, choosing.body(model))


def test_a_budget_that_is_used_up_refuses_and_says_until_when(choosing: Choosing) -> None:
    for _ in range(2):  # the second begins while some is left
        choosing.record(choosing.ask("gold"))
    answer = choosing.client.post(CHAT, choosing.body("gold"))
    error = problem(answer)
    assert (error["status"], error["type"], error["code"]) == (429, *("insufficient_quota",) * 2)
    assert error["budget"] == "gold/model=gold"
    assert time.time() < error["resets_at"] < time.time() + 32 * 86_400
    assert answer.get("x-should-retry") == "false"
    for client in choosing.both:
        streamed = client.post(CHAT, choosing.body("gold", stream=True))
        assert (streamed.status, streamed.get("x-should-retry")) == (429, "false")
    budget = settled(choosing, "gold")
    assert budget["spent_usd"] == pytest.approx(2 * COST_USD)
    assert budget["left_usd"] == pytest.approx(0.3 - 2 * COST_USD)
    assert budget["limit_usd"] == 0.3


def test_a_route_goes_on_with_what_is_cheaper(choosing: Choosing) -> None:
    models = [choosing.record(choosing.ask("thrifty"))["model"] for _ in range(5)]
    assert models == ["silver"] * 2 + ["tin"] * 3
    eventually(lambda: choosing.who("thrifty", via=choosing.neighbour) == "tin", "it knows as well")
    headers, events = choosing.events("thrifty")
    assert (headers["x-gw-model"], events[-1]) == ("tin", "[DONE]")
    assert settled(choosing, "silver")["spent_usd"] == pytest.approx(2 * COST_USD)


def test_a_budget_that_only_warns_lets_everything_pass(choosing: Choosing) -> None:
    for _ in range(3):
        choosing.record(choosing.ask("warned"))
    budget = settled(choosing, "warned")
    assert (budget["hard"], budget["spent_usd"]) == (False, pytest.approx(3 * COST_USD))
    eventually(lambda: "warned/model=warned" in choosing.gateway.log, "somebody is warned")


def test_streams_are_counted_by_the_usage_at_their_end_whoever_asked_for_it(choosing: Choosing) -> None:
    for number, options in enumerate(({}, {"stream_options": {"include_usage": True}}), 1):
        headers, events = choosing.events("streamed", **options)
        assert events[-1] == "[DONE]"
        told = [json.loads(event).get("usage") for event in events[:-1]]
        assert (told[-1] is not None) == bool(options)  # it is counted whether the client asks for it or not
        assert choosing.record(headers)["cost_usd"] == pytest.approx(COST_USD)
        budget = settled(choosing, "streamed")
        assert (budget["requests"], budget["spent_usd"]) == (number, pytest.approx(number * COST_USD))


def test_streams_without_usage_are_counted_by_what_has_come(choosing: Choosing) -> None:
    headers, events = choosing.events("uncounted")
    assert events[-1] == "[DONE]"
    record = choosing.record(headers)
    assert 0 < record["cost_usd"] < COST_USD
    eventually(
        lambda: settled(choosing, "uncounted")["spent_usd"] == pytest.approx(record["cost_usd"]),
        "it is counted",
    )


def test_a_client_that_leaves_in_the_middle_pays_for_what_has_come(choosing: Choosing) -> None:
    choosing.provider.left.clear()
    with begin(choosing, choosing.client, "endless") as stream:
        events = stream.events()
        for _ in range(3):
            next(events)
        request_id = dict(stream.headers)["x-request-id"]
        reserved = eventually(
            lambda: choosing.budget("endless/model=endless").get("reserved_usd"), "it is reserved"
        )
        assert reserved > 0
    eventually(choosing.provider.left.is_set, "the upstream is left as well")
    eventually(lambda: settled(choosing, "endless")["spent_usd"] > 0, "it is paid")
    record = choosing.record({"x-request-id": request_id})
    assert record["outcome"] == "canceled"
    assert settled(choosing, "endless")["spent_usd"] == pytest.approx(record["cost_usd"])
    assert record["cost_usd"] < reserved


def test_a_client_that_leaves_before_the_answer_gives_all_back(choosing: Choosing) -> None:
    choosing.provider.left.clear()
    data = choosing.client.request_bytes("POST", CHAT, json.dumps(choosing.body("mute")).encode())
    connection = choosing.client.connect()
    try:
        connection.sendall(data)
        eventually(lambda: choosing.budget("mute/model=mute").get("reserved_usd"), "it is reserved")
        eventually(lambda: choosing.provider.received("mute"), "the upstream is asked")
    finally:
        connection.close()
    eventually(choosing.provider.left.is_set, "the upstream is left as well")
    budget = settled(choosing, "mute")
    assert budget["spent_usd"] == 0


def test_what_was_spent_is_told_by_model_and_route(choosing: Choosing) -> None:
    for name in ("tin", "thrifty"):
        choosing.record(choosing.ask(name, gatewright={"task": "spending"}))
    rows = choosing.manage("GET", "/api/usage?by=model,route&task=spending")["data"]
    assert ("tin", "") in {(row["model"], row["route"]) for row in rows}
    assert sum(row["requests"] for row in rows) == 2
