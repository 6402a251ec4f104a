"""What exceptions mean, what each strategy does against them, and where a chain ends."""

import errno
import io
import socket
import urllib.error
from collections.abc import Sequence
from email.message import Message
from types import SimpleNamespace
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright.errors import (
    BudgetExceeded,
    CapabilityNotSupported,
    ContextTooLarge,
    ModelNotFound,
    QueueTimeout,
    RateLimited,
    ResourceExhausted,
)
from gatewright.selection.failures import Remedy
from gatewright_library import (
    AnswerRejected,
    Cheaper,
    ConfiguredFallbacks,
    FallbackChain,
    FallbackStep,
    FallbackStrategy,
    LargerContext,
    LocalWhenOffline,
    ModelConfig,
    NextInRanking,
    Retry,
    default_strategies,
    failure_of,
)
from gatewright_library.failures import is_unavailability, says_something_of_quality
from gatewright_library.fallback import MOST_CALLS

REQUEST = httpx2.Request("POST", "http://upstream/v1/chat/completions")

MODELS = {
    model.name: model
    for model in (
        ModelConfig("first", cost_per_1k_input=0.01, cost_per_1k_output=0.01, max_tokens=8000),
        ModelConfig("second", cost_per_1k_input=0.01, cost_per_1k_output=0.01, max_tokens=8000),
        ModelConfig("large", cost_per_1k_input=0.02, cost_per_1k_output=0.02, max_tokens=100_000),
        ModelConfig("cheap", cost_per_1k_input=0.001, cost_per_1k_output=0.001, max_tokens=4000),
        ModelConfig("here", "ollama", cost_per_1k_input=0.01, cost_per_1k_output=0.01, max_tokens=8000),
    )
}


def chain(
    *strategies: FallbackStrategy, models: Sequence[str] = ("first", "second"), **settings: Any
) -> FallbackChain:
    others = [name for name in MODELS if name not in models]
    return FallbackChain(strategies, models=models, others=others, configs=MODELS, **settings)


def status_error(
    status: int, code: str | None = None, message: str = "no", headers: dict[str, str] | None = None
):
    body = {"error": {"message": message, "type": "some_error", "code": code}}
    response = httpx2.Response(status, json=body, headers=headers, request=REQUEST)
    return openai.APIStatusError(message, response=response, body=body["error"])


OVERFLOW = status_error(400, "context_length_exceeded", "This model's maximum context length is 9000 tokens.")
OFFLINE = openai.APIConnectionError(request=REQUEST)
BUSY = status_error(429)


# --- what exceptions mean


@pytest.mark.parametrize(
    ("error", "remedy", "is_available"),
    [
        (BUSY, Remedy.RETRY, False),
        (status_error(500), Remedy.RETRY, False),
        (status_error(503), Remedy.RETRY, False),
        (status_error(401), Remedy.NEXT, False),
        (status_error(429, "insufficient_quota"), Remedy.NEXT, False),
        (status_error(404), Remedy.NEXT, True),
        (status_error(400), Remedy.NONE, True),
        (status_error(400, "content_policy_violation"), Remedy.NONE, True),
        (OVERFLOW, Remedy.LARGER, True),
        (OFFLINE, Remedy.RETRY, False),
        (openai.APITimeoutError(request=REQUEST), Remedy.NEXT, False),
        (httpx2.ConnectError("refused"), Remedy.RETRY, False),
        (httpx2.ReadTimeout("slow"), Remedy.NEXT, False),
        (ConnectionRefusedError(), Remedy.RETRY, False),
        (TimeoutError(), Remedy.NEXT, False),
        (socket.gaierror(-2, "Name or service not known"), Remedy.RETRY, False),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), Remedy.RETRY, False),
        (urllib.error.URLError("down"), Remedy.RETRY, False),
        (urllib.error.HTTPError("http://x", 502, "bad", Message(), io.BytesIO()), Remedy.RETRY, False),
        (FileNotFoundError(errno.ENOENT, "no file"), Remedy.NEXT, True),
        (ValueError("not JSON"), Remedy.NEXT, True),
        (KeyError("choices"), Remedy.NEXT, True),
        (AnswerRejected("bad"), Remedy.NEXT, True),
        (BudgetExceeded("spent"), Remedy.CHEAPER, True),
        (ContextTooLarge(9000, 8000), Remedy.LARGER, True),
        (ModelNotFound("m"), Remedy.NEXT, True),
        (CapabilityNotSupported("tools"), Remedy.NEXT, True),
        (ResourceExhausted("memory"), Remedy.NEXT, True),
        (QueueTimeout("busy"), Remedy.RETRY, False),
        (RateLimited("busy"), Remedy.RETRY, False),
    ],
)
def test_exceptions_of_any_client_are_understood(error, remedy, is_available):
    failure = failure_of(error, MODELS["first"])
    assert failure.model == "first"
    assert failure.remedy is remedy
    assert is_unavailability(failure) is not is_available
    assert failure.told.message


@pytest.mark.parametrize(
    "error", [ValueError("x"), AnswerRejected("x"), status_error(400, "content_policy_violation")]
)
def test_what_the_model_itself_did_counts_against_it(error):
    assert says_something_of_quality(failure_of(error, MODELS["first"]))


@pytest.mark.parametrize(
    "error",
    [BUSY, OVERFLOW, OFFLINE, TimeoutError(), BudgetExceeded("x"), status_error(400), ModelNotFound("m")],
)
def test_what_is_no_fault_of_the_model_does_not(error):
    assert not says_something_of_quality(failure_of(error, MODELS["first"]))


def test_an_attempt_tells_what_the_upstream_said():
    told = failure_of(status_error(500, message="kaputt"), MODELS["first"]).told
    assert (told.model, told.kind, told.message, told.upstream_status) == (
        "first",
        "UpstreamRefused",
        "kaputt",
        500,
    )
    told = failure_of(ValueError("not\nJSON"), MODELS["first"]).told
    assert (told.kind, told.message) == ("ValueError", "ValueError: not JSON")


def test_an_error_without_a_body_or_with_a_strange_one_is_understood():
    for body in (None, "text", b'{"error": {"message": "x"}}', ["x"], {"message": object()}):
        error = status_error(500)
        error.body = body
        assert failure_of(error).remedy is Remedy.RETRY
    requests_like = type("HTTPError", (Exception,), {})("bad")
    requests_like.response = SimpleNamespace(status_code=503, headers={"Retry-After": "3"})
    assert failure_of(requests_like).retry_after_s == 3.0


def test_only_what_is_far_away_can_be_offline():
    assert failure_of(OFFLINE, MODELS["first"]).is_offline
    assert not failure_of(OFFLINE, MODELS["here"]).is_offline


# --- strategies


@pytest.mark.parametrize(
    ("strategy", "handled"),
    [
        (Retry(), {"busy", "offline"}),
        (NextInRanking(), {"busy", "offline", "odd"}),
        (LargerContext(), {"overflow"}),
        (Cheaper(), {"budget"}),
        (ConfiguredFallbacks(["x"]), {"busy", "offline", "odd"}),
        (LocalWhenOffline(), {"offline"}),
    ],
)
def test_each_strategy_says_what_it_can_handle(strategy, handled):
    errors = {
        "busy": BUSY,
        "offline": OFFLINE,
        "odd": ValueError("x"),
        "overflow": OVERFLOW,
        "budget": BudgetExceeded("x"),
        "refused": status_error(400),
    }
    assert {name for name, error in errors.items() if strategy.can_handle(error)} == handled


def test_a_retry_waits_longer_each_time_and_ends():
    strategy = Retry(2, jitter=lambda: 0.0)
    steps = [chain(strategy).next_step(BUSY, ["first"] * count) for count in (1, 2, 3)]
    assert steps == [FallbackStep("first", "retry", 0.5), FallbackStep("first", "retry", 1.0), None]
    assert chain(Retry(1, jitter=lambda: 0.5)).next_step(BUSY, ["first"]) == FallbackStep(
        "first", "retry", 0.375
    )
    assert chain(Retry(0)).next_step(BUSY, ["first"]) is None
    with pytest.raises(ValueError, match="max_retries is 7"):
        Retry(7)


@pytest.mark.parametrize(
    ("seconds", "models", "delay_s"),
    [
        ("5", ("first", "second"), 5.0),
        ("20", ("first", "second"), None),
        ("20", ("first",), 20.0),
        ("90", ("first",), None),
    ],
)
def test_an_upstream_that_wants_to_be_left_alone_is_waited_for_where_nobody_else_could_answer(
    seconds, models, delay_s
):
    step = chain(Retry(), models=models).next_step(
        status_error(429, headers={"retry-after": seconds}), ["first"]
    )
    assert (None if step is None else step.delay_s) == delay_s


def test_the_next_in_the_ranking_is_the_first_that_was_not_tried():
    assert chain(NextInRanking()).next_step(BUSY, ["first"]).model == "second"
    assert chain(NextInRanking()).next_step(BUSY, ["second"]).model == "first"
    assert chain(NextInRanking()).next_step(BUSY, ["first", "second"]) is None


def test_an_overflow_goes_to_a_larger_context_even_beyond_the_chain():
    assert chain(LargerContext()).next_step(OVERFLOW, ["first"]).model == "large"
    assert chain(LargerContext()).next_step(OVERFLOW, ["large"]) is None
    assert chain(LargerContext()).next_step(ContextTooLarge(9, 8), ["cheap"]).model == "first"


def test_a_context_that_the_upstream_says_is_larger_than_ours_counts():
    error = status_error(
        400, "context_length_exceeded", "This model's maximum context length is 200000 tokens."
    )
    assert chain(LargerContext()).next_step(error, ["first"]) is None


def test_a_used_up_budget_goes_to_a_cheaper_model():
    assert chain(Cheaper()).next_step(BudgetExceeded("x"), ["first"]).model == "cheap"
    assert chain(Cheaper()).next_step(BudgetExceeded("x"), ["first", "cheap"]) is None
    assert chain(Cheaper()).next_step(BudgetExceeded("x"), ["large"]).model == "first"


def test_configured_fallbacks_are_asked_in_their_order():
    strategy = ConfiguredFallbacks(["large", "cheap"])
    assert chain(strategy).next_step(BUSY, ["first"]).model == "large"
    assert chain(strategy).next_step(BUSY, ["first", "large"]).model == "cheap"
    assert chain(strategy).next_step(BUSY, ["first", "large", "cheap"]) is None


def test_without_a_connection_a_model_here_answers():
    assert chain(LocalWhenOffline()).next_step(OFFLINE, ["first"]).model == "here"
    assert chain(LocalWhenOffline()).next_step(OFFLINE, ["first", "here"]) is None
    assert chain(LocalWhenOffline()).next_step(BUSY, ["first"]) is None


# --- chains


def test_a_chain_is_a_list_of_names():
    found = FallbackChain(models=["a", "b"], reason="because")
    assert len(found) == 2
    assert list(found) == ["a", "b"]
    assert found.models == ["a", "b"]
    assert found.reason == "because"
    assert len(FallbackChain()) == 0
    assert "a" in repr(found)


def test_a_chain_of_names_alone_goes_through_them():
    found = FallbackChain([NextInRanking(), LargerContext()], models=["a", "b"])
    assert found.next_step(BUSY, ["a"]) == FallbackStep("b", "next_in_ranking")
    assert found.next_step(OVERFLOW, ["a"]) is None


def test_the_first_strategy_that_knows_something_counts():
    both = chain(Retry(1, jitter=lambda: 0.0), NextInRanking())
    assert [
        both.next_step(BUSY, tried) for tried in (["first"], ["first"] * 2, ["first"] * 2 + ["second"])
    ] == [
        FallbackStep("first", "retry", 0.5),
        FallbackStep("second", "next_in_ranking"),
        FallbackStep("second", "retry", 0.5),
    ]
    assert both.next_step(status_error(400), ["first"]) is None


def test_without_strategies_a_chain_has_the_usual_ones():
    assert [each.name for each in chain().strategies] == [each.name for each in default_strategies()]
    assert chain().next_step(OVERFLOW, ["first"]).model == "large"


def test_attempts_are_limited():
    limited = chain(NextInRanking(), max_attempts=1)
    assert limited.next_step(BUSY, ["first"]) is None
    with pytest.raises(ValueError, match="max_attempts is 0"):
        FallbackChain(max_attempts=0)


def test_a_strategy_of_ones_own_may_do_anything_but_not_for_ever():
    class Stubborn:
        name = "stubborn"

        def can_handle(self, _error):
            return True

        def next_step(self, _error, situation):
            return FallbackStep(situation.failed, self.name)

    stubborn, tried = chain(Stubborn()), ["first"]
    while stubborn.next_step(status_error(400), tried) is not None:
        tried.append("first")
    assert len(tried) == MOST_CALLS


ERRORS = [BUSY, OVERFLOW, OFFLINE, TimeoutError(), ValueError("x"), BudgetExceeded("x"), status_error(400)]


@given(st.lists(st.sampled_from(ERRORS), min_size=1, max_size=60), st.sampled_from(list(MODELS)))
def test_whatever_fails_a_chain_ends_and_asks_nobody_too_often(errors, first):
    found, tried = chain(models=tuple(MODELS)), [first]
    for error in errors:
        step = found.next_step(error, tried)
        if step is None:
            break
        assert step.model in MODELS
        assert 0 <= step.delay_s <= 8
        tried.append(step.model)
    assert all(tried.count(model) <= 2 for model in MODELS)
