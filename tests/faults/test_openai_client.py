"""The official client, which retries nothing itself, of upstreams that fail."""

from collections.abc import Iterator

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.faults.upstream import FaultUpstream
from tests.faults.world import TEXT, World

KINDS = {
    "alone": "",
    "once": "retries = 0",
    "backed": 'fallbacks = { "ok" }, retries = 0',
    "continues": "prefill = true",
    "then_other": 'fallbacks = { "other" }, retries = 0',
    "short": 'fallbacks = { "ok" }, timeouts = { first_token = 0.5, head = 0.5, between_chunks = 0.5 }',
}
HI: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]
FAILING = {
    "status-400": openai.BadRequestError,
    "bad-key": openai.AuthenticationError,
    "forbidden": openai.PermissionDeniedError,
    "status-404": openai.NotFoundError,
    "status-409": openai.ConflictError,
    "status-422": openai.UnprocessableEntityError,
    "429": openai.RateLimitError,
    "status-503": openai.InternalServerError,
    "reset-before-head": openai.InternalServerError,
    "html-200": openai.InternalServerError,
    "error-200": openai.InternalServerError,
    "bad-json-200": openai.InternalServerError,
}


def models(faults: FaultUpstream) -> list[str]:
    faults.set("other", "wrong-text")
    return [faults.lua("other", "other", "retries = 0")]


@pytest.fixture
def client(world: World) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{world.gateway.url}/v1", api_key="none", max_retries=0, timeout=20
    ) as client:
        yield client


def streamed(client: openai.OpenAI, model: str) -> tuple[str, set[str], str | None]:
    """The text, the ids and the last finish reason of a stream."""
    text, ids, reason = "", set(), None
    for chunk in client.chat.completions.create(model=model, messages=HI, stream=True):
        ids.add(chunk.id)
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
    return text, ids, reason


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("alone", "fail-1"),
        ("alone", "fail-1-reset"),
        ("alone", "429-retry-after-ms-600|ok"),
        ("backed", "status-500"),
        ("backed", "html-200"),
        ("backed", "bad-key"),
        ("short", "silent"),
        ("short", "silent-after-head"),
    ],
)
def test_failures_are_not_noticed(client: openai.OpenAI, world: World, kind: str, fault: str) -> None:
    completion = client.chat.completions.create(model=world.model(kind, fault), messages=HI)
    assert completion.choices[0].message.content == TEXT
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 20
    text, ids, reason = streamed(client, world.model(kind, fault))
    assert (text, len(ids), reason) == (TEXT, 1, "stop")


@pytest.mark.parametrize("fault", ["cut-after-7", "reset-after-7", "error-event-8", "no-finish"])
def test_a_stream_that_goes_on_is_one(client: openai.OpenAI, world: World, fault: str) -> None:
    for kind in ("continues", "alone"):
        text, ids, reason = streamed(client, world.model(kind, f"{fault}|ok"))
        assert (text, len(ids), reason) == (TEXT, 1, "stop")
    stream = client.completions.create(
        model=world.model("continues", f"{fault}|ok"), prompt="hi", stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in stream) == TEXT


@pytest.mark.parametrize("fault", FAILING)
def test_errors_are_the_clients_own(client: openai.OpenAI, world: World, fault: str) -> None:
    for stream in (False, True):
        with pytest.raises(FAILING[fault]) as raised:
            client.chat.completions.create(model=world.model("once", fault), messages=HI, stream=stream)
        assert type(raised.value) is FAILING[fault]
        assert raised.value.message


@pytest.mark.parametrize("fault", ["cut-after-7", "error-event-8"])
def test_a_stream_that_cannot_go_on_raises(client: openai.OpenAI, world: World, fault: str) -> None:
    for kind in ("once", "then_other"):
        with pytest.raises(openai.APIError) as raised:
            streamed(client, world.model(kind, fault))
        assert raised.value.message


def test_the_clients_own_limit_is_told_of_in_time(client: openai.OpenAI, world: World) -> None:
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError) as raised:
            client.with_options(timeout=1.5).chat.completions.create(
                model=world.model("alone", "silent"), messages=HI, stream=stream
            )
        assert raised.value.status_code == 504
        assert raised.value.code == "request_timeout"
