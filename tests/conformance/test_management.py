"""The management API over HTTP, on servers of one process and of several."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gatewright.api import endpoints
from gatewright_cli.verification.check import CHAT
from gatewright_cli.verification.client import Answer, Client
from tests.conformance.transports import World
from tests.support.gateway import wait_until

pytestmark = pytest.mark.engine

READ = tuple(
    path
    for path, methods in endpoints._TABLE.items()
    if "GET" in methods
    and methods["GET"].kind is endpoints.EndpointKind.MANAGEMENT
    and path != "/api/key"  # no list: see `test_a_key_does_what_it_may_and_nothing_else`
)


def send(client: Client, method: str, path: str, body: Any = None) -> Answer:
    data = b"" if body is None else json.dumps(body).encode()
    return client.send(method, path, data, {"content-type": "application/json"})


def made(answer: Answer) -> Any:
    assert answer.status in {200, 201}, answer
    assert answer.get("content-type") == "application/json"
    assert (answer.get("x-request-id") or "").startswith("req_")
    return json.loads(answer.body)


def eventually(ask: Callable[[], Answer], status: int) -> Answer:
    """The answer that is given once the process that gives it has seen what another was told: within seconds."""

    def answer() -> Answer | None:
        found = ask()
        return found if found.status == status else None

    found: Answer = wait_until(answer, f"the answer is {status}")
    return found


def code(answer: Answer) -> Any:
    return json.loads(answer.body)["error"]["code"]


def metrics(world: World) -> str:
    return world.client.get("/metrics").body.decode()


def requests_counted(world: World, model: str) -> float:
    families = text_string_to_metric_families(metrics(world))
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == "gatewright_requests_total" and sample.labels["model"] == model
    )


def settled_count(world: World, model: str) -> float:
    """What is counted once no process has anything more to tell of earlier requests, which may take it a moment."""
    seen = [requests_counted(world, model)]

    def is_settled() -> bool:
        time.sleep(0.3)
        seen.append(requests_counted(world, model))
        return seen[-1] == seen[-2]

    wait_until(is_settled, "earlier requests are counted")
    return seen[-1]


@pytest.mark.parametrize("path", READ)
def test_what_can_be_looked_at(world: World, path: str) -> None:
    document = made(world.client.get(path))
    assert document["object"] == "list"
    head = world.client.send("HEAD", path)
    assert (head.status, head.body) == (200, b"")


def test_strangers_and_wrong_methods_are_turned_away(world: World) -> None:
    for path in (*READ, "/metrics"):
        assert world.stranger.get(path).status == 401
    wrong = send(world.client, "PUT", "/api/keys")
    assert (wrong.status, wrong.get("allow")) == (405, "GET, HEAD, POST")
    assert world.client.get("/api/nope").status == 404


def test_a_model_can_be_registered_asked_and_removed(world: World) -> None:
    body = {"name": "registered", "connect": world.provider.url, "upstream_model": "echo", "quality": 0.5}
    model = made(send(world.client, "POST", "/api/models", body))
    assert model["source"] == "store"
    try:
        assert send(world.client, "POST", "/api/models", body).status == 409
        changed = made(send(world.client, "PATCH", "/api/models/registered", {"quality": 0.75}))
        assert changed == {**model, "quality": 0.75}
        assert eventually(lambda: world.chat("registered"), 200).get("x-gw-model") == "registered"
        assert eventually(lambda: world.client.get("/v1/models/registered"), 200)
    finally:
        gone = send(world.client, "DELETE", "/api/models/registered")
    assert (gone.status, gone.body) == (204, b"")
    eventually(lambda: world.client.get("/v1/models/registered"), 404)
    assert send(world.client, "DELETE", "/api/models/tiny").status == 409


def test_a_key_does_what_it_may_and_nothing_else(world: World) -> None:
    wishes = {"name": "narrow", "models": ["deaf"]}
    key = made(send(world.client, "POST", "/api/keys", wishes))
    owner = world.client.with_key(key["secret"])
    eventually(lambda: owner.get("/v1/models"), 200)
    for path in ("/api/keys", "/metrics"):
        assert code(eventually(lambda path=path: owner.get(path), 403)) == "not_allowed"
    own = made(eventually(lambda: owner.get("/api/key"), 200))
    assert (own["id"], own["models"], own["budgets"]) == (key["id"], ["deaf"], [])
    scored = eventually(lambda: send(owner, "POST", "/api/complexity", {"prompt": "hi"}), 200)
    assert made(scored)["complexity"] == "trivial"
    assert eventually(lambda: owner.post(CHAT, world.body("deaf")), 200).get("x-gw-model") == "deaf"
    forbidden = eventually(lambda: owner.post(CHAT, world.body("tiny")), 403)
    assert code(forbidden) == "model_not_allowed"
    shown = made(world.client.get(f"/api/keys/{key['id']}"))
    assert "secret" not in shown
    assert shown["models"] == ["deaf"]
    assert send(world.client, "DELETE", f"/api/keys/{key['id']}").status == 204
    assert code(eventually(lambda: owner.get("/v1/models"), 401)) == "invalid_api_key"


def test_feedback_reaches_the_request_whichever_process_takes_it(world: World) -> None:
    for number in range(4):
        answer = world.chat("tiny")
        assert answer.status == 200, answer
        request_id = answer.get("x-request-id")
        said = {"request_id": request_id, "score": number / 4}
        assert made(send(world.client, "POST", "/api/feedback", said))["score"] == number / 4
        record = made(world.client.get(f"/api/requests/{request_id}"))
        assert (record["model"], record["key_id"]) == ("tiny", "config:1")
        assert [each["score"] for each in record["feedback"]] == [number / 4]
    assert send(world.client, "POST", "/api/feedback", {"request_id": "x", "success": True}).status == 404
    assert send(world.client, "POST", "/api/feedback", {"request_id": "x"}).status == 400


def test_figures_are_those_of_all_processes(world: World) -> None:
    before = settled_count(world, "tiny")
    for _ in range(6):
        assert world.chat("tiny").status == 200
    for _ in range(4):
        wait_until(lambda: requests_counted(world, "tiny") == before + 6, "all six are counted by everybody")
    assert 'gatewright_engine_slots{context="512",model="tiny"} 2.0' in metrics(world)
    wait_until(lambda: "gatewright_requests_in_flight 0.0" in metrics(world), "nothing is under way")


def test_usage_and_ranking_know_what_was_asked(world: World) -> None:
    body = {**world.body("tiny"), "gatewright": {"task": "conformance"}}
    answer = world.client.post(CHAT, body)
    assert answer.status == 200, answer

    def calls() -> list[Any]:
        rows: list[Any] = made(world.client.get("/api/ranking?task=conformance"))["data"]
        return [row["model"] for row in rows]

    wait_until(lambda: calls() == ["tiny"], "it is written down")
    usage = made(world.client.get("/api/usage?by=task,model&task=conformance"))["data"]
    assert [(row["task"], row["model"]) for row in usage] == [("conformance", "tiny")]
