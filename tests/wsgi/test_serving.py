"""What clients see of gunicorn's workers on a real engine: the same as of gw-server."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.support.gateway import model_lua, stream_lines
from tests.support.gunicorn import GunicornGateway

pytestmark = pytest.mark.engine

HI = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module", params=["gthread", "sync"])
def gateway(request: pytest.FixtureRequest, tiny_model: Path) -> Iterator[GunicornGateway]:
    small = model_lua("tiny", tiny_model, (512, 2048), slots=2, extra='aliases = { "gpt-4o" }, margin = 16')
    limits = "max_body_bytes = 3000000"
    with GunicornGateway(small, worker_class=request.param, server=limits) as running:
        yield running


def test_what_needs_no_engine(gateway: GunicornGateway) -> None:
    status, headers, body = gateway.request("GET", "/v1/models")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert headers["x-request-id"].startswith("req_")
    assert [model["id"] for model in json.loads(body)["data"]] == ["tiny"]
    assert json.loads(gateway.request("GET", "/health")[2]) == {"status": "ok"}
    assert json.loads(gateway.request("GET", "/")[2])["name"] == "gatewright"
    assert json.loads(gateway.request("GET", "/v1/models/gpt-4o")[2])["id"] == "tiny"
    assert gateway.request("GET", "/v1/models/nobody")[0] == 404


def test_all_workers_say_the_same_of_the_models(gateway: GunicornGateway) -> None:
    assert len({gateway.request("GET", "/v1/models")[2] for _ in range(8)}) == 1


def test_head_has_the_headers_alone(gateway: GunicornGateway) -> None:
    status, headers, body = gateway.request("HEAD", "/v1/models")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) == len(gateway.request("GET", "/v1/models")[2])
    status, headers, body = gateway.request("HEAD", "/nowhere")
    assert (status, body, headers["content-type"]) == (404, b"", "application/json")


def test_an_answer_in_one_piece(gateway: GunicornGateway) -> None:
    status, headers, reply = gateway.chat("tiny")
    assert status == 200
    assert reply["choices"][0]["message"]["role"] == "assistant"
    assert (headers["x-gw-model"], headers["x-gw-variant"], headers["x-gw-attempts"]) == ("tiny", "512", "1")
    assert headers["content-type"].startswith("application/json")


def test_a_larger_prompt_gets_the_larger_variant(gateway: GunicornGateway) -> None:
    status, headers, _ = gateway.chat("tiny", "word " * 600)
    assert (status, headers["x-gw-variant"]) == (200, "2048")


def test_a_stream_comes_in_events(gateway: GunicornGateway) -> None:
    with stream_lines(gateway, {"model": "tiny", "messages": HI, "max_tokens": 16}) as response:
        assert response.getheader("content-type", "").startswith("text/event-stream")
        assert response.getheader("content-length") is None
        events = [event for event in response.read().split(b"\n\n") if event]
    assert events[-1] == b"data: [DONE]"
    assert len(events) > 4


def test_text_of_all_scripts_arrives_unharmed(gateway: GunicornGateway) -> None:
    text = 'Zwölf Boxkämpfer, 漢字, 🙂, "quotes"\n\ttabs'
    _, _, data = gateway.request("POST", "/tokenize", {"model": "tiny", "content": text})
    tokens = json.loads(data)["tokens"]
    _, _, data = gateway.request("POST", "/detokenize", {"model": "tiny", "tokens": tokens})
    assert json.loads(data)["content"] == text


def test_errors_are_openais_and_never_flasks(gateway: GunicornGateway) -> None:
    cases = [
        (*gateway.chat("nobody")[:2], "model_not_found"),
        (*gateway.chat("tiny", "word " * 20_000)[:2], "context_length_exceeded"),
        (*gateway.request("POST", "/v1/chat/completions", b"{nonsense")[:2], None),
        (*gateway.request("PUT", "/v1/models", b"")[:2], "method_not_allowed"),
        (*gateway.request("BREW", "/v1/chat/completions")[:2], "method_not_allowed"),
        (*gateway.request("POST", "/nowhere//", {})[:2], "not_found"),
    ]
    assert [status for status, _, _ in cases] == [404, 400, 400, 405, 405, 404]
    assert all(headers["content-type"] == "application/json" for _, headers, _ in cases)
    assert all(headers["x-request-id"].startswith("req_") for _, headers, _ in cases)
    assert gateway.request("PUT", "/v1/models", b"")[1]["allow"] == "GET, HEAD"
    reply = json.loads(gateway.request("BREW", "/v1/chat/completions")[2])
    assert reply["error"]["code"] == "method_not_allowed"


def test_a_body_beyond_the_limit_is_refused(gateway: GunicornGateway) -> None:
    status, _, data = gateway.request("POST", "/v1/chat/completions", b" " * 3_000_001)
    assert (status, json.loads(data)["error"]["code"]) == (413, "request_too_large")
    chunk = b"%x\r\n%b\r\n" % (1_000_000, b" " * 1_000_000)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = gateway.raw(head + chunk * 4 + b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_chunked_request_is_understood(gateway: GunicornGateway) -> None:
    body = json.dumps({"model": "tiny", "messages": HI, "max_tokens": 4}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    assert gateway.raw(head + chunks + b"0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_many_at_a_time(gateway: GunicornGateway) -> None:
    done: list[bytes] = []

    def ask() -> None:
        with stream_lines(gateway, {"model": "tiny", "messages": HI, "max_tokens": 20}) as response:
            done.append(response.read())

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(done) == 16
    assert all(text.rstrip().endswith(b"data: [DONE]") for text in done)
    assert len(gateway.engines()) == 1


def test_the_official_client(gateway: GunicornGateway) -> None:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["tiny"]
        chunks = client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hi"}], max_tokens=8, stream=True
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        with pytest.raises(openai.NotFoundError, match="Model 'nobody' not found"):
            client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "hi"}])


def test_who_may_come_in(tiny_model: Path) -> None:
    server = 'api_keys = { "k1" }, allowed_hosts = { "ai.example" }'
    with GunicornGateway(model_lua("tiny", tiny_model, (512,)), workers=1, server=server) as gateway:
        assert gateway.request("GET", "/v1/models")[0] == 401
        assert gateway.request("GET", "/health")[0] == 200
        key = {"Authorization": "Bearer k1"}
        assert gateway.request("GET", "/v1/models", headers=key)[0] == 200
        assert gateway.request("GET", "/v1/models", headers={"X-Api-Key": "k1"})[0] == 200
        assert gateway.request("GET", "/v1/models", headers={**key, "Host": "ai.example"})[0] == 200
        assert gateway.request("GET", "/health", headers={"Host": "evil.example"})[0] == 403


def test_a_unix_socket_takes_any_host(tiny_model: Path) -> None:
    with GunicornGateway(model_lua("tiny", tiny_model, (512,)), workers=1) as gateway:
        path = gateway.directory / "s"
        gateway.stop()
        gateway.start("--bind", f"unix:{path}")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            sock.sendall(b"GET /v1/models HTTP/1.1\r\nHost: anything\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 200")
