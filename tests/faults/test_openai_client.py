"""The official client, which retries nothing itself, of upstreams that fail."""

from collections.abc import Iterator
from contextlib import contextmanager

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.faults.upstream import FaultUpstream
from tests.faults.world import TEXT, World, all_at_once, each_at_once

KINDS = {
    "alone": "",
    "once": 'retries = 0, api_key_env = "KEY_OF_NAME"',
    "backed": 'fallbacks = { "ok" }, retries = 0',
    "keyed": 'fallbacks = { "ok" }, retries = 0, api_key_env = "KEY_OF_NAME"',
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


@contextmanager
def connected(world: World) -> Iterator[openai.OpenAI]:
    url = f"{world.gateway.url}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=20) as client:
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


@each_at_once(
    ("alone", "fail-1"),
    ("alone", "fail-1-reset"),
    ("alone", "429-retry-after-ms-600|ok"),
    ("backed", "status-500"),
    ("backed", "html-200"),
    ("keyed", "bad-key"),
    ("short", "silent"),
    ("short", "silent-after-head"),
)
def test_failures_are_not_noticed(world: World, case: tuple[str, str]) -> None:
    with connected(world) as client:
        completion = client.chat.completions.create(model=world.model(*case), messages=HI)
        assert completion.choices[0].message.content == TEXT
        assert completion.usage is not None
        assert completion.usage.completion_tokens == 20
        text, ids, reason = streamed(client, world.model(*case))
        assert (text, len(ids), reason) == (TEXT, 1, "stop")


@each_at_once("cut-after-7", "reset-after-7", "error-event-8", "no-finish")
def test_a_stream_that_goes_on_is_one(world: World, fault: str) -> None:
    with connected(world) as client:
        for kind in ("continues", "alone"):
            text, ids, reason = streamed(client, world.model(kind, f"{fault}|ok"))
            assert (text, len(ids), reason) == (TEXT, 1, "stop")
        model = world.model("continues", f"{fault}|ok")
        stream = client.completions.create(model=model, prompt="hi", stream=True)
        assert "".join(chunk.choices[0].text for chunk in stream) == TEXT


@all_at_once(*FAILING)
def test_errors_are_the_clients_own(world: World, fault: str, *, stream: bool) -> None:
    with connected(world) as client:
        with pytest.raises(FAILING[fault]) as raised:
            client.chat.completions.create(model=world.model("once", fault), messages=HI, stream=stream)
        assert type(raised.value) is FAILING[fault]
        assert raised.value.message


@each_at_once("cut-after-7", "error-event-8")
def test_a_stream_that_cannot_go_on_raises(world: World, fault: str) -> None:
    with connected(world) as client:
        for kind in ("once", "then_other"):
            with pytest.raises(openai.APIError) as raised:
                streamed(client, world.model(kind, fault))
            assert raised.value.message


@all_at_once()
def test_the_clients_own_limit_is_told_of_in_time(world: World, *, stream: bool) -> None:
    with connected(world) as client:
        with pytest.raises(openai.InternalServerError) as raised:
            # The gateway gives up a twentieth before: on a busy machine less than this would be too little.
            client.with_options(timeout=10).chat.completions.create(
                model=world.model("alone", "silent"), messages=HI, stream=stream
            )
        assert raised.value.status_code == 504
        assert raised.value.code == "request_timeout"
