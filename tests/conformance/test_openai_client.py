"""The official client, on every transport."""

import importlib
import json
from collections.abc import Iterator

import openai
import pytest
from openai.types.chat import ChatCompletionMessageFunctionToolCall, ChatCompletionToolParam

from tests.conformance.transports import KEYS, World

pytestmark = pytest.mark.engine

# The HTTP library goes by another name from one major version of the client to the next.
HTTPX = next(
    importlib.import_module(base.__module__.partition(".")[0])
    for base in openai.DefaultHttpxClient.__mro__
    if base.__module__.startswith("httpx")
)
WEATHER: ChatCompletionToolParam = {
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


def connect(world: World, key: str = KEYS[0]) -> openai.OpenAI:
    target = world.client.target
    if target.socket_path is None:
        return openai.OpenAI(base_url=f"{target.url}/v1", api_key=key, max_retries=0, timeout=20)
    over_socket = HTTPX.Client(transport=HTTPX.HTTPTransport(uds=target.socket_path), timeout=20)
    return openai.OpenAI(
        base_url="http://localhost/v1", api_key=key, max_retries=0, timeout=20, http_client=over_socket
    )


@pytest.fixture
def client(world: World) -> Iterator[openai.OpenAI]:
    with connect(world) as client:
        yield client


def test_chat(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": "hello"}], max_tokens=8
    )
    assert completion.choices[0].finish_reason in {"length", "stop"}
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 8
    assert completion._request_id is not None
    assert completion._request_id.startswith("req_")


def test_stream(client: openai.OpenAI) -> None:
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


def test_a_stream_that_is_left_by_the_client(client: openai.OpenAI) -> None:
    for _ in range(3):
        with client.chat.completions.create(
            model="slow", messages=[{"role": "user", "content": "go on"}], max_tokens=3000, stream=True
        ) as stream:
            next(stream)


def test_a_tool_is_called(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "weather in Rome?"}],
        tools=[WEATHER],
        tool_choice="required",
        max_tokens=200,
    )
    (call,) = completion.choices[0].message.tool_calls or ()
    assert isinstance(call, ChatCompletionMessageFunctionToolCall)
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["city"] in {"Rome", "Oslo"}


def test_embeddings(client: openai.OpenAI) -> None:
    result = client.embeddings.create(model="embedder", input=["one", "two"])
    assert [item.index for item in result.data] == [0, 1]
    assert len(result.data[0].embedding) == len(result.data[1].embedding) > 8


def test_responses_and_models(client: openai.OpenAI) -> None:
    assert client.responses.create(model="tiny", input="hello", max_output_tokens=8).output
    assert "tiny" in [model.id for model in client.models.list()]
    assert client.models.retrieve("gpt-4o").id == "tiny"


def test_errors_raise_what_the_client_has_for_them(world: World, client: openai.OpenAI) -> None:
    ask = client.chat.completions.create
    with pytest.raises(openai.NotFoundError) as missing:
        ask(model="nobody", messages=[{"role": "user", "content": "hi"}])
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as large:
        ask(model="tiny", messages=[{"role": "user", "content": "word " * 20_000}])
    assert large.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as stream:
        ask(model="tiny", messages=[{"role": "user", "content": "hi"}], max_tokens=100_000, stream=True)
    assert stream.value.code == "context_length_exceeded"
    with connect(world, key="wrong") as stranger, pytest.raises(openai.AuthenticationError) as refused:
        stranger.models.list()
    assert refused.value.code == "invalid_api_key"
    with pytest.raises(openai.APIStatusError) as teapot:
        ask(model="refuses", messages=[{"role": "user", "content": "hi"}])
    assert teapot.value.status_code == 418


def test_a_stream_that_breaks_off_raises(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="short", messages=[{"role": "user", "content": "hi"}], stream=True
    )
    with pytest.raises(openai.APIError, match="broke off"):
        list(stream)
