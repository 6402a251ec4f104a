"""gw-server on a real llama.cpp engine: what clients see."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gateway import ENGINE, Gateway, model_lua, stream_lines, wait_until

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def gateway(tiny_model: Path, embedding_model: Path) -> Iterator[Gateway]:
    small = model_lua("tiny", tiny_model, (512, 2048), slots=2, extra='aliases = { "gpt-4o" }, margin = 16')
    embedder = (
        f'{{ name = "embedder", engine = presets.engines.llamacpp_secondary, connect = "http://127.0.0.1:${{PORT}}",'
        f' variants = {{ {{ binary = "{ENGINE}", context = 512, args = {{ "-m", "{embedding_model}", "-c", "512",'
        f' "-np", "1", "--port", "${{PORT}}", "--embeddings" }} }} }} }}'
    )
    with Gateway(small, embedder) as running:
        yield running


def test_health_models_and_banner(gateway: Gateway) -> None:
    assert gateway.request("GET", "/health")[0] == 200
    status, headers, body = gateway.request("GET", "/v1/models")
    models = json.loads(body)["data"]
    assert status == 200
    assert headers["x-request-id"].startswith("req_")
    assert [model["id"] for model in models] == ["tiny", "embedder"]
    one = json.loads(gateway.request("GET", "/v1/models/gpt-4o")[2])
    assert one["id"] == "tiny"
    assert [variant["n_ctx"] for variant in one["meta"]["variants"]] == [512, 2048]
    assert gateway.request("GET", "/v1/models/nobody")[0] == 404


def test_the_smallest_variant_that_fits_answers_and_says_so(gateway: Gateway) -> None:
    status, headers, reply = gateway.chat("tiny")
    assert status == 200
    assert reply["choices"][0]["message"]["role"] == "assistant"
    assert headers["x-gw-model"] == "tiny"
    assert headers["x-gw-variant"] == "512"
    assert headers["x-gw-attempts"] == "1"
    assert int(headers["x-gw-wait-ms"]) >= 0
    assert headers["x-request-id"].startswith("req_")
    assert "server" not in headers


def test_a_large_prompt_swaps_to_the_large_variant_and_small_ones_stay_there(gateway: Gateway) -> None:
    assert gateway.chat("tiny")[1]["x-gw-variant"] == "512"
    status, headers, _ = gateway.chat("tiny", "word " * 600)
    assert (status, headers["x-gw-variant"]) == (200, "2048")
    assert gateway.chat("tiny")[1]["x-gw-variant"] == "2048"
    assert len([engine for engine in gateway.engines() if "2048" in " ".join(engine.cmdline())]) <= 1


def test_a_stream_arrives_in_events_and_ends_with_done(gateway: Gateway) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 16}
    with stream_lines(gateway, body) as response:
        assert response.status == 200
        assert response.getheader("content-type", "").startswith("text/event-stream")
        events = [line for line in response.read().split(b"\n\n") if line]
    assert events[-1] == b"data: [DONE]"
    assert len(events) > 4
    assert all(event.startswith(b"data: ") for event in events)


def test_concurrent_streams_share_the_engine(gateway: Gateway) -> None:
    finished: list[bytes] = []

    def ask() -> None:
        body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 40}
        with stream_lines(gateway, body) as response:
            finished.append(response.read())

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(finished) == 16
    assert all(text.rstrip().endswith(b"data: [DONE]") for text in finished)


def test_embeddings_run_beside_the_primary_engine(gateway: Gateway) -> None:
    gateway.chat("tiny")
    body = {"model": "embedder", "input": ["one", "two"]}
    status, _, data = gateway.request("POST", "/v1/embeddings", body)
    assert status == 200, data
    assert len(json.loads(data)["data"]) == 2
    assert len(gateway.engines()) == 2


@pytest.mark.parametrize("path", ["/tokenize", "/apply-template", "/v1/messages/count_tokens", "/detokenize"])
def test_helpers_of_the_engine_are_reachable(gateway: Gateway, path: str) -> None:
    bodies: dict[str, dict[str, object]] = {
        "/tokenize": {"content": "hello"},
        "/detokenize": {"tokens": [5, 6]},
        "/apply-template": {"messages": [{"role": "user", "content": "hi"}]},
        "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "hi"}]},
    }
    status, headers, data = gateway.request("POST", path, {"model": "tiny", **bodies[path]})
    assert status == 200, data
    assert headers["x-gw-model"] == "tiny"


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/responses", "/v1/messages", "/infill"])
def test_other_generating_routes_answer(gateway: Gateway, path: str) -> None:
    bodies: dict[str, dict[str, object]] = {
        "/v1/completions": {"prompt": "hello", "max_tokens": 4},
        "/v1/responses": {"input": "hello", "max_output_tokens": 4},
        "/v1/messages": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4},
        "/infill": {"input_prefix": "a", "input_suffix": "b", "n_predict": 4},
    }
    status, headers, data = gateway.request("POST", path, {"model": "tiny", **bodies[path]})
    # A model without infill tokens says so itself; that the engine was asked is the point.
    assert status == 200 or (path == "/infill" and b"Infill" in data), data
    assert headers["x-gw-model"] == "tiny"


def test_errors_are_openais(gateway: Gateway) -> None:
    status, headers, reply = gateway.chat("nobody")
    assert status == 404
    assert reply["error"]["code"] == "model_not_found"
    assert reply["error"]["message"] == "Model 'nobody' not found in configuration"
    assert headers["x-should-retry"] == "false"
    status, _, reply = gateway.chat("tiny", "word " * 20000)
    assert status == 400
    assert reply["error"]["code"] == "context_length_exceeded"
    assert reply["error"]["param"] == "messages"
    status, _, data = gateway.request("POST", "/v1/chat/completions", b"{nonsense")
    assert status == 400
    assert json.loads(data)["error"]["type"] == "invalid_request_error"
    assert gateway.request("GET", "/v1/chat/completions")[0] == 405
    assert gateway.request("POST", "/nowhere", {})[0] == 404


def test_a_vanished_client_frees_the_engine(gateway: Gateway) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 400}

    def leave() -> bool:
        with stream_lines(gateway, body) as response:
            response.read(10)
        return " canceled " in gateway.log

    # On a busy machine the whole answer may be there before we have gone.
    wait_until(leave, "a request is canceled")
