"""Errors, keys and limits."""

import json
from typing import Any

import pytest

from gatewright_cli.verification.check import CHAT
from gatewright_cli.verification.client import Answer
from gatewright_cli.verification.raw_answers import read_answer
from tests.conformance.transports import KEYS, MAX_BODY_BYTES, World

pytestmark = pytest.mark.engine

CLOSE = "Connection: close"


def error_of(answer: Answer) -> dict[str, Any]:
    """The error of an answer that is as all errors are."""
    assert answer.get("content-type") == "application/json"
    assert (answer.get("x-request-id") or "").startswith("req_")
    error = json.loads(answer.body)["error"]
    assert {"message", "type", "param", "code"} <= error.keys()
    assert error["message"]
    assert "\n" not in error["message"]
    return error


def refused(world: World, path: str, body: object, status: int, **members: Any) -> dict[str, Any]:
    """The error that this body gets, streaming or not."""
    errors = []
    bodies = [body, {**body, "stream": True}] if isinstance(body, dict) else [body]
    for each in bodies:
        answer = world.client.post(path, each)
        assert answer.status == status, answer
        assert answer.get("x-should-retry") == "false"
        errors.append(error_of(answer))
    assert all(error == errors[0] for error in errors)
    assert {name: errors[0][name] for name in members} == members
    return errors[0]


def test_unknown_model(world: World) -> None:
    error = refused(world, CHAT, world.body("nobody"), 404, code="model_not_found", param="model")
    assert error["message"] == "Model 'nobody' not found in configuration"


@pytest.mark.parametrize(
    "body",
    [
        b"{nonsense",
        b"",
        b"[]",
        b'"text"',
        b"null",
        b"\xff\xfe",
        b'{"model": "tiny"',
        b"[" * 5000,
        b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud83d"}]}',
    ],
)
def test_bodies_that_are_no_json_objects(world: World, body: bytes) -> None:
    refused(world, CHAT, body, 400, type="invalid_request_error")


@pytest.mark.parametrize(
    "members",
    [
        {"model": 1},
        {"model": ""},
        {"model": ["tiny"]},
        {"messages": "hi"},
        {"messages": [1]},
        {"max_tokens": "many"},
        {"max_tokens": True},
    ],
)
def test_members_of_the_wrong_type(world: World, members: dict[str, Any]) -> None:
    error = refused(world, CHAT, {**world.body("tiny"), **members}, 400, type="invalid_request_error")
    assert next(iter(members)) in error["message"]


def test_stream_that_is_neither_true_nor_false(world: World) -> None:
    answer = world.client.post(CHAT, world.body("tiny", stream="yes"))
    assert answer.status == 400
    assert error_of(answer)["param"] == "stream"


def test_no_messages(world: World) -> None:
    body = world.body("tiny")
    del body["messages"]
    refused(world, CHAT, body, 400)


def test_a_prompt_larger_than_every_variant(world: World) -> None:
    error = refused(world, CHAT, world.body("tiny", "word " * 20_000), 400, code="context_length_exceeded")
    assert (error["n_ctx"], error["param"]) == (2048, "messages")


def test_an_error_has_the_shape_of_its_api(world: World) -> None:
    answer = world.client.post(
        "/v1/messages", {"model": "nobody", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    )
    assert answer.status == 404
    document = json.loads(answer.body)
    assert document["type"] == "error"
    assert document["error"]["type"] == "not_found_error"


@pytest.mark.parametrize(
    "path", ["/nowhere", "/v2/models", "/v1", "/v1/../health", "/v1/%2e%2e/slots", "/slots/x"]
)
def test_unknown_paths(world: World, path: str) -> None:
    answer = world.client.post(path, world.body("tiny"))
    assert answer.status == 404
    assert error_of(answer)["code"] == "not_found"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", CHAT, "POST"),
        ("DELETE", CHAT, "POST"),
        ("PUT", "/v1/models", "GET, HEAD"),
        ("POST", "/health", "GET, HEAD"),
        ("OPTIONS", CHAT, "POST"),
        ("GET", "/v1/files", "POST"),
        ("PATCH", "/props", "GET, POST"),
        ("TRACE", "/v1/models", "GET, HEAD"),
    ],
)
def test_wrong_methods(world: World, method: str, path: str, allowed: str) -> None:
    answer = world.client.send(method, path)
    assert (answer.status, answer.get("allow")) == (405, allowed)
    assert error_of(answer)["code"] == "method_not_allowed"


# --- keys and names


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Bearer {KEYS[0]}x"},
        {"authorization": f"Basic {KEYS[0]}"},
        {"authorization": KEYS[0]},
        {"authorization": "Bearer "},
        {"x-api-key": "wrong"},
        {"x-api-key": ""},
        {"cookie": f"key={KEYS[0]}"},
    ],
)
def test_without_the_right_key_nothing_is_answered(world: World, headers: dict[str, str]) -> None:
    for method, path in (
        ("GET", "/v1/models"),
        ("GET", "/"),
        ("POST", CHAT),
        ("GET", "/nowhere"),
        ("PUT", CHAT),
    ):
        answer = world.stranger.send(method, path, b"{}" if method == "POST" else None, headers)
        assert answer.status == 401, (method, path)
        assert error_of(answer)["code"] == "invalid_api_key"
        assert answer.get("x-should-retry") == "false"
        assert KEYS[0].encode() not in answer.body
    assert KEYS[0] not in world.gateway.log


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEYS[0]}"},
        {"authorization": f"bearer {KEYS[1]}"},
        {"x-api-key": KEYS[1]},
        {"authorization": "Bearer wrong", "x-api-key": KEYS[0]},
    ],
)
def test_either_key_in_either_header(world: World, headers: dict[str, str]) -> None:
    assert world.stranger.send("GET", "/v1/models", headers=headers).status == 200
    body = world.body("deaf")
    assert world.stranger.send("POST", CHAT, body, headers).status == 200


def test_health_needs_no_key_and_a_key_in_the_query_is_none(world: World) -> None:
    for path in ("/health", "/v1/health", "/health?probe=1"):
        assert world.stranger.get(path).status == 200
        assert world.stranger.send("HEAD", path).status == 200
    assert world.stranger.get(f"/v1/models?api_key={KEYS[0]}").status == 401
    assert world.stranger.send("POST", "/health", b"{}").status == 401


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "0.0.0.0"]
)
def test_foreign_hosts(world: World, host: str) -> None:
    answer = world.client.get("/v1/models", host=host)
    if world.client.target.socket_path is not None:
        assert answer.status == 200, "no browser reaches a Unix socket"
        return
    assert answer.status == 403
    assert error_of(answer)["code"] == "host_not_allowed"
    assert world.client.get("/health", host=host).status == 403


def test_own_hosts(world: World) -> None:
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1:99", "[::1]", "gateway.localhost", "127.9.9.9"):
        assert world.client.get("/v1/models", host=host).status == 200, host


def test_a_preflight_gets_no_leave(world: World) -> None:
    headers = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    answer = world.stranger.send("OPTIONS", CHAT, headers=headers)
    assert answer.status in {401, 403, 405}
    assert answer.get("access-control-allow-origin") is None


# --- limits


def test_a_body_that_is_too_large(world: World) -> None:
    data = world.client.request_bytes("POST", CHAT, b"x" * (MAX_BODY_BYTES + 1), [CLOSE])
    answer = read_answer(world.client.raw(data), "POST")
    assert answer.status == 413
    assert error_of(answer)["code"] == "request_too_large"


def test_a_body_that_is_announced_too_large_is_refused_before_it_is_sent(world: World) -> None:
    fields = [f"Content-Length: {MAX_BODY_BYTES + 1}", CLOSE]
    answer = read_answer(world.client.raw(world.client.request_bytes("POST", CHAT, fields=fields)), "POST")
    assert answer.status == 413
    assert error_of(answer)["code"] == "request_too_large"


def test_a_body_in_chunks_that_grows_too_large(world: World) -> None:
    chunk = b"%x\r\n%b\r\n" % (100_000, b"x" * 100_000)
    body = chunk * (MAX_BODY_BYTES // 100_000 + 1) + b"0\r\n\r\n"
    fields = ["Transfer-Encoding: chunked", CLOSE]
    answer = read_answer(world.client.raw(world.client.request_bytes("POST", CHAT, body, fields)), "POST")
    assert answer.status == 413
    assert error_of(answer)["code"] == "request_too_large"


def test_a_body_of_just_the_limit_is_none_too_large(world: World) -> None:
    body = json.dumps(world.body("deaf")).encode()
    padded = body[:-1] + b" " * (MAX_BODY_BYTES - len(body)) + b"}"
    assert len(padded) == MAX_BODY_BYTES
    assert world.client.post(CHAT, padded).status == 200


@pytest.mark.parametrize(
    "field",
    ["X-Large: " + "a" * 100_000, "\r\n".join(f"X-{n}: a" for n in range(10_000))],
    ids=["one", "many"],
)
def test_headers_that_are_too_large(world: World, field: str) -> None:
    data = world.client.request_bytes("GET", "/v1/models", fields=[field, CLOSE])
    answer = read_answer(world.client.raw(data), "GET")
    assert answer.status == 431
    assert world.client.get("/v1/models").status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
    ],
    ids=["nonsense", "no-host", "two-hosts", "bad-header", "null", "two-lengths", "negative", "gzip"],
)
def test_what_is_no_request_is_refused(world: World, data: bytes) -> None:
    answer = read_answer(world.client.raw(data), "GET")
    assert answer.status in {400, 501}
    assert (answer.get("connection") or "").lower() == "close"
    assert world.client.get("/v1/models").status == 200


def test_a_head_that_nobody_can_serve_is_refused_in_openais_words(world: World) -> None:
    large = world.client.request_bytes("GET", "/v1/models", fields=["X-Large: " + "a" * 100_000, CLOSE])
    for data in (b"NONSENSE\r\n\r\n", large):
        answer = read_answer(world.client.raw(data), "GET")
        assert error_of(answer)["type"] == "invalid_request_error"


def test_half_a_request_and_gone_leaves_nothing(world: World) -> None:
    data = world.client.request_bytes("POST", CHAT, json.dumps(world.body("deaf")).encode())
    asked = len(world.provider.requests)
    for part in (data[:3], data[:40], data[:-3]):
        with world.client.connect() as connection:
            connection.sendall(part)
    assert world.client.get("/health").status == 200
    assert len(world.provider.requests) == asked
