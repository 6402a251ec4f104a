"""The official client against gw-server on a real engine."""

import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.support.gateway import Gateway, model_lua, wait_until

pytestmark = pytest.mark.engine

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Rome", "Oslo"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string", "enum": ["yes", "no"]}},
    "required": ["answer"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def gateway(tiny_model: Path, embedding_model: Path) -> Iterator[Gateway]:
    embedder = model_lua("embedder", embedding_model, (512,), args=', "--embeddings"').replace(
        "presets.engines.llamacpp", "presets.engines.llamacpp_secondary"
    )
    with Gateway(
        model_lua("tiny", tiny_model, (1024, 4096), slots=2), embedder, server='api_keys = { "sk-local" }'
    ) as running:
        yield running


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="sk-local", max_retries=0) as client:
        yield client


def test_chat(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="tiny", messages=[{"role": "user", "content": "hello"}], max_tokens=8
    )
    completion = raw.parse()
    assert completion.choices[0].finish_reason in {"length", "stop"}
    assert completion.usage is not None
    assert completion.usage.prompt_tokens > 0
    assert completion._request_id == raw.headers["x-request-id"]
    assert raw.headers["x-gw-variant"] == "1024"


def test_stream_with_usage(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "hello"}],
            max_tokens=8,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_tools(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "weather in Rome?"}],
        tools=[WEATHER],  # type: ignore[list-item]
        tool_choice="required",
        max_tokens=200,
    )
    calls = completion.choices[0].message.tool_calls
    assert calls
    assert calls[0].type == "function"
    assert calls[0].function.name == "get_weather"
    assert json.loads(calls[0].function.arguments)["city"] in {"Rome", "Oslo"}


def test_json_schema(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "yes or no?"}],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
        },
        max_tokens=60,
    )
    assert json.loads(completion.choices[0].message.content or "")["answer"] in {"yes", "no"}


def test_embeddings(client: openai.OpenAI) -> None:
    result = client.embeddings.create(model="embedder", input=["one", "two"])
    assert len(result.data) == 2
    assert len(result.data[0].embedding) > 8


def test_responses(client: openai.OpenAI) -> None:
    response = client.responses.create(model="tiny", input="hello", max_output_tokens=8)
    assert response.output


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny", "embedder"]
    assert client.models.retrieve("tiny").id == "tiny"


def test_errors_raise_what_the_client_has_for_them(client: openai.OpenAI, gateway: Gateway) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "hi"}])
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as large:
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "word " * 30_000}])
    assert large.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as long_answer:
        client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hi"}], max_tokens=100_000, stream=True
        )
    assert long_answer.value.code == "context_length_exceeded"
    with (
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        stranger.models.list()
    assert refused.value.code == "invalid_api_key"
    assert "wrong" not in gateway.log
    assert "sk-local" not in gateway.log


def test_the_client_does_not_retry_what_cannot_help(gateway: Gateway) -> None:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="sk-local", max_retries=2) as eager:
        before = gateway.log.count(" failed 404")
        with pytest.raises(openai.NotFoundError):
            eager.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "hi"}])
    wait_until(lambda: gateway.log.count(" failed 404") > before, "the request is logged")
    assert gateway.log.count(" failed 404") == before + 1
