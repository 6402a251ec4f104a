"""Every path that the gateway knows, against real engines."""

import json
from typing import Any

import pytest

from gatewright.api import endpoints
from tests.conformance.transports import World

pytestmark = pytest.mark.engine

MESSAGES = [{"role": "user", "content": "hi"}]
CHAT_BODY = {"model": "tiny", "messages": MESSAGES, "max_tokens": 4}
NATIVE_BODY = {"model": "tiny", "prompt": "hello", "n_predict": 4}
EMBEDDING_BODY = {"model": "embedder", "input": ["one", "two"]}
RERANK_BODY = {"model": "reranker", "query": "one", "documents": ["two", "three"]}
RESPONSES_BODY = {"model": "tiny", "input": "hello", "max_output_tokens": 4}

BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT_BODY,
    "/chat/completions": CHAT_BODY,
    "/v1/completions": {"model": "tiny", "prompt": "hello", "max_tokens": 4},
    "/completion": NATIVE_BODY,
    "/completions": NATIVE_BODY,
    "/infill": {"model": "tiny", "input_prefix": "a", "input_suffix": "b", "n_predict": 4},
    "/v1/responses": RESPONSES_BODY,
    "/v1/messages": CHAT_BODY,
    "/v1/messages/count_tokens": CHAT_BODY,
    "/v1/embeddings": EMBEDDING_BODY,
    "/embeddings": EMBEDDING_BODY,
    "/embedding": EMBEDDING_BODY,
    "/v1/rerank": RERANK_BODY,
    "/rerank": RERANK_BODY,
    "/v1/reranking": RERANK_BODY,
    "/reranking": RERANK_BODY,
    "/v1/chat/completions/input_tokens": CHAT_BODY,
    "/v1/responses/input_tokens": RESPONSES_BODY,
    "/tokenize": {"model": "tiny", "content": "hello"},
    "/detokenize": {"model": "tiny", "tokens": [5, 6]},
    "/apply-template": {"model": "tiny", "messages": MESSAGES},
}
LOCAL = ("/", "/health", "/v1/health", "/models", "/v1/models")
ENGINE_GETS = {"/props": 200, "/slots": 200, "/metrics": 501, "/lora-adapters": 200}
ENGINE_POSTS = {"/props": 501, "/lora-adapters": 200}
"""501 is the engine's own word: the tests' engines run without the flags that allow it."""
STREAM_ENDS = {
    "/v1/chat/completions": '"[DONE]"',
    "/chat/completions": '"[DONE]"',
    "/v1/completions": '"[DONE]"',
    "/completion": '"stop":true',
    "/v1/responses": '"response.completed"',
    "/v1/messages": '"message_stop"',
}


def test_no_route_is_left_out() -> None:
    known = {
        (method, path)
        for path, methods in endpoints._TABLE.items()
        for method, endpoint in methods.items()
        if endpoint.kind is not endpoints.EndpointKind.MANAGEMENT  # test_management.py has those
    }
    tried = {("POST", path) for path in (*BODIES, *ENGINE_POSTS)}
    tried |= {("GET", path) for path in (*LOCAL, *ENGINE_GETS)} | {("HEAD", path) for path in LOCAL}
    assert tried == known


@pytest.mark.parametrize("path", BODIES)
def test_paths_that_take_a_body(world: World, path: str) -> None:
    answer = world.client.post(path, BODIES[path])
    # A model without the tokens for it says so itself; that it was asked is the point.
    assert answer.status == 200 or (path == "/infill" and b"nfill" in answer.body), answer
    assert answer.get("x-gw-model") == BODIES[path]["model"]
    assert (answer.get("content-type") or "").startswith("application/json")
    assert json.loads(answer.body)


@pytest.mark.parametrize("path", STREAM_ENDS)
def test_paths_that_stream(world: World, path: str) -> None:
    with world.client.stream(path, BODIES[path]) as stream:
        assert stream.status == 200
        headers = dict(stream.headers)
        events = [event.data for event in stream.events()]
    assert headers["content-type"].startswith("text/event-stream")
    assert headers["x-gw-model"] == "tiny"
    assert headers["x-request-id"].startswith("req_")
    assert len(events) > 2
    assert STREAM_ENDS[path].strip('"') in events[-1].replace('": "', '":"').replace('": t', '":t').replace(
        '"', ""
    ) or (STREAM_ENDS[path] in events[-1])


@pytest.mark.parametrize("path", LOCAL)
def test_paths_that_the_gateway_answers_itself(world: World, path: str) -> None:
    whole = world.client.get(path)
    head = world.client.send("HEAD", path)
    assert (whole.status, head.status) == (200, 200)
    assert json.loads(whole.body)
    assert head.body == b""
    assert head.get("content-length") == str(len(whole.body))
    assert head.get("content-type") == whole.get("content-type") == "application/json"


@pytest.mark.parametrize("path", ENGINE_GETS)
def test_paths_about_an_engine(world: World, path: str) -> None:
    answer = world.client.get(f"{path}?model=tiny")
    assert (answer.status, answer.get("x-gw-model")) == (ENGINE_GETS[path], "tiny"), answer


@pytest.mark.parametrize("path", ENGINE_POSTS)
def test_paths_that_set_an_engine(world: World, path: str) -> None:
    answer = world.client.post(f"{path}?model=tiny", [])
    assert (answer.status, answer.get("x-gw-model")) == (ENGINE_POSTS[path], "tiny"), answer


def test_slots_of_an_engine(world: World) -> None:
    answer = world.client.post("/slots/0?model=tiny&action=erase", {})
    assert (answer.status, answer.get("x-gw-model")) == (501, "tiny"), answer


def test_models_by_name_and_alias(world: World) -> None:
    for path in ("/v1/models/tiny", "/models/tiny", "/v1/models/gpt-4o", "/v1/models/gpt%2D4o"):
        document = json.loads(world.client.get(path).body)
        assert document["id"] == "tiny"
        assert [variant["n_ctx"] for variant in document["meta"]["variants"]] == [512, 2048]
    assert world.client.get("/v1/models/nobody").status == 404


def test_other_paths_of_the_api_are_passed_on(world: World) -> None:
    answer = world.client.post("/v1/audio/speech?voice=a%20b", {"model": "deaf", "input": "hi"})
    assert answer.status == 200
    head, _ = world.provider.last()
    assert head.startswith(b"POST /v1/audio/speech?voice=a%20b HTTP/1.1\r\n")


def test_a_form_is_passed_on_as_it_came(world: World) -> None:
    form = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n\x00\xff\r\n'
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ndeaf\r\n--b--\r\n'
    )
    kind = "multipart/form-data; boundary=b"
    answer = world.client.send("POST", "/v1/audio/transcriptions", form, {"content-type": kind})
    assert answer.status == 200
    head, body = world.provider.last()
    assert body == form
    assert kind.encode() in head


def test_an_alias_and_a_trailing_slash(world: World) -> None:
    answer = world.client.post("/v1/chat/completions/", {**CHAT_BODY, "model": "gpt-4o"})
    assert (answer.status, answer.get("x-gw-model")) == (200, "tiny")
