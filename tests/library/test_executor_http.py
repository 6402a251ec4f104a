"""The executor with the real `openai` client against an upstream on a real socket."""

import asyncio
import json
import sys
from dataclasses import dataclass

import pytest

from gatewright_library import (
    Executor,
    FallbackExhausted,
    ModelConfig,
    ModelSelector,
    OpenAICaller,
    ProviderUnknown,
)
from tests.library.steady import Steady
from tests.support.upstream import Upstream, reply


@dataclass
class Spec:
    name: str
    docstring: str


SPEC = Spec("extract", "Extract the values")
MODELS = [
    ModelConfig("best", "one", "vendor/best-2026", 0.002, 0.004, quality_score=0.95),
    ModelConfig("second", "two", cost_per_1k_input=0.002, cost_per_1k_output=0.004, quality_score=0.9),
]


def answer(text: str, **usage: object) -> bytes:
    document = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
    }
    return reply(json.dumps({**document, "usage": usage} if usage else document).encode())


def error(status: bytes, message: str, code: str | None = None) -> bytes:
    return reply(json.dumps({"error": {"message": message, "type": "t", "code": code}}).encode(), status)


def upstream(*answers: bytes) -> Upstream:
    """Gives its answers one after the other, the last again and again; an empty one breaks the connection off."""
    left = list(answers)

    def serve(connection, _head, _body):
        said = left.pop(0) if len(left) > 1 else left[0]
        if said:
            connection.sendall(said)
        else:
            connection.close()

    return Upstream(serve)


def caller(one: Upstream, two: Upstream | None = None) -> OpenAICaller:
    urls = {"one": f"{one.url}/v1", "two": f"{(two or one).url}/v1"}
    return OpenAICaller(base_urls=urls, api_keys={"one": "secret-1"}, parameters={"temperature": 0})


@pytest.fixture
def selector(store):
    return ModelSelector(store, MODELS, default_model="second")


@pytest.fixture
def steady(store):
    return Steady(store, MODELS, default_model=MODELS[-1].name)


def run_both(selector, one: Upstream, two: Upstream | None = None):
    """Once on a thread, once in an event loop."""
    with caller(one, two) as call:
        yield Executor(selector, call=call, sleep=lambda _: None).run(SPEC, {"text": "a=1"})

    async def main():
        call = caller(one, two)
        try:
            return await Executor(selector, call=call).arun(SPEC, {"text": "a=1"})
        finally:
            await call.aclose()

    yield asyncio.run(main())


def test_a_task_is_sent_as_a_chat_and_its_tokens_are_counted(selector, store):
    usage = {
        "prompt_tokens": 1000,
        "completion_tokens": 500,
        "total_tokens": 1500,
        "prompt_tokens_details": {"cached_tokens": 10},
    }
    with upstream(answer("1", **usage)) as one:
        for result in run_both(selector, one):
            assert result.answer.text == "1"
            assert result.answer.finish_reason == "stop"
            assert result.answer.cached_tokens == 10
            assert result.cost_usd == pytest.approx(0.004)
        for head, body in one.requests:
            assert head.startswith(b"POST /v1/chat/completions ")
            assert b"authorization: bearer secret-1" in head.lower()
            sent = json.loads(body)
            assert sent["model"] == "vendor/best-2026"
            assert sent["temperature"] == 0
            assert [each["content"] for each in sent["messages"]] == ["Extract the values", "a=1"]
    assert len(one.requests) == 2
    assert store.get_performance("best", "extract").total_calls == 2


def test_an_answer_without_figures_is_estimated(selector):
    with upstream(answer("word" * 8)) as one, caller(one) as call:
        result = Executor(selector, call=call).run(SPEC, {"text": "a=1"})
    assert result.completion_tokens == 8
    assert result.prompt_tokens > 0


@pytest.mark.parametrize(
    "failing",
    [
        error(b"500 Oops", "broken"),
        error(b"401 No", "bad key"),
        error(b"404 None", "no such model"),
        error(b"429 Busy", "quota", "insufficient_quota"),
        reply(b"<html>bad gateway</html>", b"502 Bad"),
        reply(b'{"object": "chat.completion", "choices": []}'),
        reply(b"no JSON at all"),
        b"HTTP/1.1 nonsense\r\n\r\n",
        b"",
    ],
)
def test_whatever_goes_wrong_the_next_model_answers(steady, failing, monkeypatch):
    monkeypatch.setattr("gatewright_library.fallback.FIRST_BACKOFF_S", 0.001)
    with upstream(failing) as one, upstream(answer("ok")) as two:
        for result in run_both(steady, one, two):
            assert (result.model, result.answer.text) == ("second", "ok")
            assert {each.model for each in result.failed_attempts} == {"best"}
            assert all(each.message for each in result.failed_attempts)


def test_an_upstream_that_is_not_there_is_tried_again_then_left(steady, store, monkeypatch):
    monkeypatch.setattr("gatewright_library.fallback.FIRST_BACKOFF_S", 0.001)
    with upstream(b"") as gone:
        pass
    with upstream(answer("ok")) as two:
        for result in run_both(steady, gone, two):
            assert result.model == "second"
            assert [each.kind for each in result.failed_attempts] == ["UpstreamUnreachable"] * 2
    assert store.get_performance("best", "extract") is None


def test_an_upstream_that_recovers_is_not_left(selector, monkeypatch):
    monkeypatch.setattr("gatewright_library.fallback.FIRST_BACKOFF_S", 0.001)
    with upstream(error(b"503 Busy", "busy"), answer("ok")) as one:
        for result in run_both(selector, one):
            assert result.model == "best"


def test_a_silent_upstream_is_not_waited_for(selector):
    with Upstream(lambda *_: None) as one, upstream(answer("ok")) as two:
        urls = {"one": one.url, "two": two.url}
        with OpenAICaller(base_urls=urls, timeout_s=0.2) as call:
            result = Executor(selector, call=call).run(SPEC, {"text": "a=1"})
    assert result.model == "second"
    assert [each.kind for each in result.failed_attempts] == ["UpstreamTimeout"]


def test_a_refused_request_is_not_sent_to_others(selector):
    with (
        upstream(error(b"400 Bad", "unknown parameter")) as one,
        upstream(answer("ok")) as two,
        caller(one, two) as call,
    ):
        with pytest.raises(FallbackExhausted, match="unknown parameter") as caught:
            Executor(selector, call=call).run(SPEC, {"text": "a=1"})
        assert type(caught.value.__cause__).__name__ == "BadRequestError"
        assert caught.value.attempts[0].upstream_status == 400
        assert two.requests == []


def test_an_overflow_goes_to_a_larger_model(store):
    models = [MODELS[0], ModelConfig("huge", "two", max_tokens=1_000_000, quality_score=0.6)]
    overflow = error(
        b"400 Bad", "This model's maximum context length is 32000 tokens.", "context_length_exceeded"
    )
    with upstream(overflow) as one, upstream(answer("ok")) as two, caller(one, two) as call:
        result = Executor(ModelSelector(store, models), call=call).run(SPEC, {"text": "a=1"})
    assert result.model == "huge"


def test_the_clients_connection_is_kept(selector):
    with upstream(answer("ok")) as one, caller(one) as call:
        worker = Executor(selector, call=call)
        for _ in range(5):
            worker.run(SPEC, {"text": "a=1"})
        assert len(one.requests) == 5
        assert one.connections == 1


def test_each_event_loop_has_connections_of_its_own(selector):
    with upstream(answer("ok")) as one:
        call = caller(one)

        async def main():
            try:
                return await Executor(selector, call=call).arun(SPEC, {"text": "a=1"})
            finally:
                await call.aclose()

        assert [asyncio.run(main()).answer.text for _ in range(2)] == ["ok", "ok"]


def test_a_provider_of_which_nothing_is_known_is_named(selector):
    with OpenAICaller() as call, pytest.raises(FallbackExhausted) as caught:
        Executor(selector, call=call).run(SPEC, {"text": "a=1"})
    assert isinstance(caught.value.__cause__, ProviderUnknown)
    assert "base_urls" in str(caught.value.__cause__)


def test_a_misspelt_provider_is_no_provider_once_it_is_called(store):
    selector = ModelSelector(store, [ModelConfig("m", "opnai")])
    assert selector.select(SPEC, {"text": "a=1"}) == "m"
    with Executor(selector) as worker, pytest.raises(FallbackExhausted) as caught:
        worker.run(SPEC, {"text": "a=1"})
    assert "the provider 'opnai'; did you mean \"openai\"?" in str(caught.value.__cause__)


def test_the_executors_own_caller_goes_by_the_presets(store, monkeypatch):
    seen = {}

    class Client:
        def __init__(self, **settings: object) -> None:
            seen.update(settings)
            raise RuntimeError("far enough")

    monkeypatch.setattr("openai.OpenAI", Client)
    monkeypatch.setenv("OPENAI_API_KEY", "from-the-environment")
    selector = ModelSelector(store, [ModelConfig("m", "openai")])
    with Executor(selector) as worker, pytest.raises(FallbackExhausted):
        worker.run(SPEC, {"text": "a=1"})
    assert seen["base_url"] == "https://api.openai.com/v1"
    assert seen["api_key"] == "from-the-environment"
    assert seen["max_retries"] == 0


def test_without_the_openai_package_it_is_said_what_to_install(selector, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with upstream(answer("ok")) as one, caller(one) as call, pytest.raises(FallbackExhausted) as caught:
        Executor(selector, call=call).run(SPEC, {"text": "a=1"})
    assert isinstance(caught.value.__cause__, ImportError)
    assert "[library]'" in str(caught.value.__cause__)
