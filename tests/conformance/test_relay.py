"""What passes through, what is kept back, and how an answer that breaks off ends."""

import http.client
import json
import random

import pytest

from gatewright_cli.verification.check import CHAT
from gatewright_cli.verification.client import Answer
from gatewright_cli.verification.raw_answers import read_answer
from tests.conformance.scripted import PROVIDER_KEY, TOOL_CALL
from tests.conformance.transports import KEYS, World
from tests.support.gateway import wait_until

pytestmark = pytest.mark.engine

UNICODE = "Grüße 世界 \U0001f600 \U0001f469\u200d\U0001f4bb e\u0301 \u202eعربى\u202c \ufffd ￿ \x7f \u2028 end"
HOP_BY_HOP = {"x-secret", "keep-alive", "proxy-authenticate", "upgrade", "te", "trailer"}


def content_of(answer: Answer) -> str:
    assert answer.status == 200, answer
    content: str = json.loads(answer.body)["choices"][0]["message"]["content"]
    return content


# --- texts


def test_unicode_there_and_back(world: World) -> None:
    assert content_of(world.chat("echo", UNICODE)) == UNICODE


def test_unicode_in_pieces_of_a_byte(world: World) -> None:
    _, events = world.events("echo", UNICODE)
    assert events[-1] == "[DONE]"
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events[:-1]]
    assert "".join(delta.get("content", "") for delta in deltas) == UNICODE


def test_a_prompt_of_a_megabyte_arrives_byte_for_byte(world: World) -> None:
    words = random.Random(1).choices(["word", "Wörter", "语", '"', "\\", "\U0001f600", "\n"], k=260_000)
    body = json.dumps(world.body("deaf", " ".join(words)), ensure_ascii=False, indent=1).encode()
    assert 1_000_000 < len(body) < 2_000_000
    assert world.client.post(CHAT, body).status == 200
    assert world.provider.last()[1] == body


def test_a_megabyte_comes_back_as_it_went(world: World) -> None:
    text = "Wort " * 200_000
    assert content_of(world.chat("echo", text)) == text


def test_members_that_nobody_here_knows_are_passed_on_unchanged(world: World) -> None:
    body = b'{ "model" : "deaf",\t"messages":[ ], "big": 12345678901234567890, "f": 1.10, "messages": [{"role":"user","content":"x"}]}'
    assert world.client.post(CHAT, body).status == 200
    assert world.provider.last()[1] == body


# --- headers and credentials


def test_headers_of_the_providers_connection_stay_behind(world: World) -> None:
    answer = world.chat("evil")
    assert answer.status == 200
    names = {name for name, _ in answer.headers}
    assert not names & HOP_BY_HOP
    assert answer.get("server") != "provider/1.0"
    assert answer.get("connection") in {None, "close", "keep-alive"}
    assert answer.get("x-kept") == "yes"
    assert answer.values("x-gw-model") == ["evil"]
    (request_id,) = answer.values("x-request-id")
    assert request_id.startswith("req_")


def test_an_engine_of_ones_own_goes_by_its_models_name_and_shows_no_path(world: World) -> None:
    answer = world.chat("tiny")
    assert json.loads(answer.body)["model"] == "tiny"
    _, events = world.events("tiny")
    assert {json.loads(event)["model"] for event in events[:-1]} == {"tiny"}


def test_no_cookie_of_the_provider_is_set(world: World) -> None:
    assert world.chat("evil").get("set-cookie") is None


def test_an_answer_on_the_wire_has_each_header_once(world: World) -> None:
    for stream in (False, True):
        body = json.dumps(world.body("evil", stream=stream)).encode()
        data = world.client.request_bytes("POST", CHAT, body, ["Connection: close"])
        answer = read_answer(world.client.raw(data), "POST")
        assert answer.status == 200
        assert {name for name, _ in answer.headers if len(answer.values(name)) > 1} == set()
        assert not {name for name, _ in answer.headers} & HOP_BY_HOP


def test_a_server_does_not_say_what_it_runs_on(world: World) -> None:
    assert world.client.get("/v1/models").get("server") is None
    assert world.chat("deaf").get("server") is None


def test_credentials_of_the_client_stay_here(world: World) -> None:
    headers = {
        "x-api-key": KEYS[1],
        "api-key": KEYS[1],
        "cookie": "session=client-secret",
        "proxy-authorization": "Basic client-secret",
        "connection": "x-hop",
        "x-hop": "client-hop",
        "x-forwarded-for": "10.1.2.3",
    }
    answer = world.client.send("POST", CHAT, world.body("deaf"), headers)
    assert answer.status == 200
    head = world.provider.last()[0]
    for secret in (*KEYS, "client-secret", "client-hop"):
        assert secret.encode() not in head
    assert head.lower().count(b"authorization: bearer " + PROVIDER_KEY.encode()) == 1
    assert head.lower().count(b"\r\nhost:") == 1
    assert head.lower().count(b"\r\ncontent-length:") == 1


def test_the_providers_key_stays_here(world: World) -> None:
    answers = [world.chat(model) for model in ("echo", "evil", "refuses")]
    answers.append(world.client.get("/v1/models"))
    for answer in answers:
        assert PROVIDER_KEY not in str(answer.headers)
        assert PROVIDER_KEY.encode() not in answer.body
    assert PROVIDER_KEY not in world.gateway.log
    assert not any(key in world.gateway.log for key in KEYS)


def test_request_ids_are_unique_across_requests_and_workers(world: World) -> None:
    ids = [world.client.get("/v1/models").get("x-request-id") for _ in range(30)]
    ids += [world.chat("deaf").get("x-request-id") for _ in range(10)]
    assert len(set(ids)) == len(ids)


# --- tools


def test_calls_of_tools_are_passed_on(world: World) -> None:
    (choice,) = json.loads(world.chat("tools").body)["choices"]
    assert choice["message"]["tool_calls"] == [TOOL_CALL]
    assert choice["finish_reason"] == "tool_calls"
    _, events = world.events("tools")
    assert json.loads(events[0])["choices"][0]["delta"]["tool_calls"] == [{"index": 0, **TOOL_CALL}]


# --- answers that go wrong


def test_errors_of_a_provider_are_passed_on_as_they_came(world: World) -> None:
    for stream in (False, True):
        answer = world.client.post(CHAT, world.body("refuses", stream=stream))
        assert (answer.status, answer.get("retry-after")) == (418, "7")
        assert json.loads(answer.body)["error"]["code"] == "short_and_stout"


@pytest.mark.parametrize("model", ["breaks", "short"])
def test_a_stream_that_breaks_off_ends_with_an_error_and_never_as_if_it_were_whole(
    world: World, model: str
) -> None:
    _, events = world.events(model)
    error = json.loads(events[-1])["error"]
    assert error["code"] == "upstream_broke"
    assert {"message", "type", "param", "code"} <= error.keys()
    assert "[DONE]" not in events
    assert "word " in events[0]
    assert world.client.get("/health").status == 200


def test_an_error_in_a_stream_is_passed_on_and_nothing_is_put_behind_it(world: World) -> None:
    _, events = world.events("complains")
    assert json.loads(events[-1])["error"]["message"] == "out of memory"
    assert "[DONE]" not in events
    assert len(events) == 2


def test_a_body_that_breaks_off_is_no_whole_answer(world: World) -> None:
    try:
        answer = world.chat("breaks-body")
    except (http.client.IncompleteRead, ConnectionError):
        return
    assert answer.status == 502
    assert json.loads(answer.body)["error"]["message"]


def test_failures_are_recorded_as_such(world: World) -> None:
    headers, _ = world.events("breaks-record")
    name = headers["x-request-id"]
    line = wait_until(
        lambda: next(
            (line for line in world.gateway.log.splitlines() if f" requests: {name} " in line), None
        ),
        f"{name} is recorded",
    )
    assert " broke_off " in line


# --- connections


def test_several_requests_on_one_connection(world: World) -> None:
    with world.client.session() as connection:
        for number in range(6):
            body = [world.body("deaf"), world.body("echo", stream=True), world.body("nobody")][number % 3]
            response = world.client.exchange(connection, "POST", CHAT, body)
            assert response.status == (404 if number % 3 == 2 else 200)
            response.read()


def test_one_connection_serves_several_requests(world: World) -> None:
    with world.client.session() as connection:
        world.client.exchange(connection, "GET", "/v1/models").read()
        kept = connection.sock
        assert kept is not None
        for path in ("/v1/models", "/health", "/v1/models"):
            world.client.exchange(connection, "GET", path).read()
        stream = world.client.exchange(connection, "POST", CHAT, world.body("echo", stream=True))
        stream.read()
        assert connection.sock is kept


def test_pipelined_requests_are_answered_in_order(world: World) -> None:
    client = world.client
    bodies = [json.dumps(world.body("echo", text)).encode() for text in ("one", "two")]
    data = b"".join(client.request_bytes("POST", CHAT, body) for body in bodies)
    data += client.request_bytes("GET", "/health", fields=["Connection: close"])
    received = client.raw(data)
    assert [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]] == [200, 200, 200]
    assert received.index(b"one") < received.index(b"two") < received.index(b'"ok"')


def test_close_is_obeyed_and_announced(world: World) -> None:
    data = world.client.request_bytes("GET", "/v1/models", fields=["Connection: close"])
    answer = read_answer(world.client.raw(data), "GET")  # returns when the connection is closed
    assert (answer.status, (answer.get("connection") or "").lower()) == (200, "close")
