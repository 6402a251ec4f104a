import inspect

import msgspec
import pytest

from gatewright import errors
from gatewright.api.errors import render_problem
from gatewright.errors import (
    BudgetExceeded,
    ConfigError,
    ContextTooLarge,
    FailedAttempt,
    FallbackExhausted,
    GatewrightError,
    ModelNotAllowed,
    ModelNotFound,
    NoModelFits,
    QueueFull,
    RateLimited,
    UpstreamRefused,
)

ALL = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, GatewrightError) and value is not GatewrightError
]
ARGUMENTS = {
    ContextTooLarge: (5000, 4096),
    UpstreamRefused: ("no", 418, None, None),
    ConfigError: (("a", "b"),),
    FallbackExhausted: ([FailedAttempt(model="a", kind="CircuitOpen", message="open")],),
}


def make(kind):
    return kind(*ARGUMENTS.get(kind, ("what happened",)))


@pytest.mark.parametrize("kind", ALL)
def test_every_error_is_a_problem_for_the_wire(kind):
    problem = make(kind).problem
    assert problem.kind == kind.__name__
    assert 400 <= problem.status <= 599
    assert problem.message
    assert problem.type
    assert str(make(kind)).splitlines()[0] in problem.message


@pytest.mark.parametrize("kind", ALL)
def test_only_what_may_pass_is_worth_a_retry(kind):
    problem = make(kind).problem
    if problem.status < 500 and problem.status != 429 and kind is not UpstreamRefused:
        assert problem.should_retry is False


def test_model_not_found():
    error = ModelNotFound("nope")
    assert isinstance(error, ValueError)
    assert str(error) == "Model 'nope' not found in configuration"
    assert (error.problem.status, error.problem.code, error.problem.param) == (
        404,
        "model_not_found",
        "model",
    )


def test_context_too_large():
    error = ContextTooLarge(5000, 4096, 4900)
    assert isinstance(error, ValueError)
    assert str(error) == "Request requires 5000 tokens, but largest variant only supports 4096"
    assert (error.problem.status, error.problem.code) == (400, "context_length_exceeded")
    assert error.problem.details == {"n_ctx": 4096, "n_prompt_tokens": 4900}


def test_a_problem_is_a_value():
    assert QueueFull("full").problem == QueueFull("full").problem
    assert hash(QueueFull("full").problem) == hash(QueueFull("full").problem)
    assert QueueFull("full").problem.with_retry_after(3) == QueueFull("full", retry_after_s=3).problem


def test_an_upstreams_error_keeps_its_own_words_and_status():
    problem = UpstreamRefused("no tea", 418, "teapot_error", "short_and_stout").problem
    assert (problem.status, problem.type, problem.code) == (418, "teapot_error", "short_and_stout")
    assert UpstreamRefused("no", 500, None, None).problem.type == "server_error"


def rendered(error):
    status, headers, body = render_problem(error.problem)
    return status, dict(headers), msgspec.json.decode(body)["error"]


def test_a_used_up_budget_is_not_worth_a_retry_and_says_when_its_window_ends():
    error = BudgetExceeded("the budget is used up", budget="monthly/key=ci", resets_at=1_800_000_000)
    status, headers, body = rendered(error)
    assert (status, headers[b"x-should-retry"]) == (429, b"false")
    assert (body["type"], body["code"]) == ("insufficient_quota", "insufficient_quota")
    assert (body["budget"], body["resets_at"]) == ("monthly/key=ci", 1_800_000_000)
    assert BudgetExceeded("no").problem.details == {}


def test_a_rate_limit_says_when_to_come_back():
    status, headers, body = rendered(RateLimited("too many requests", retry_after_s=1.5))
    assert (status, headers[b"retry-after"], headers[b"retry-after-ms"]) == (429, b"2", b"1500")
    assert body["code"] == "rate_limit_exceeded"


def test_used_up_fallbacks_tell_the_first_cause_and_every_attempt():
    attempts = [
        FailedAttempt(model="a", kind="UpstreamTimeout", message="silent", upstream_status=None),
        FailedAttempt(model="b", kind="UpstreamRefused", message="no tea", upstream_status=418),
    ]
    error = FallbackExhausted(attempts)
    status, _, body = rendered(error)
    assert error.attempts == tuple(attempts)
    assert str(error) == "2 attempts with 2 models failed; first a: silent"
    assert (status, [each["model"] for each in body["attempts"]]) == (502, ["a", "b"])


def test_where_no_model_fits_the_client_learns_what_they_failed_on():
    status, headers, body = rendered(NoModelFits("no model of 3 fits", {"context": 2, "cost": 1}))
    assert (status, headers[b"x-should-retry"]) == (400, b"false")
    assert (body["param"], body["code"], body["rejected"]) == ("model", "no_model_fits", "context 2, cost 1")
    assert "rejected" not in rendered(NoModelFits("there are no models"))[2]


def test_a_model_that_a_key_may_not_use():
    status, _, body = rendered(ModelNotAllowed("key 'ci' may not use model 'gpt'"))
    assert (status, body["param"], body["code"]) == (403, "model", "model_not_allowed")
