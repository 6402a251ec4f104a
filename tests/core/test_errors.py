import inspect

import pytest

from gatewright import errors
from gatewright.errors import (
    ConfigError,
    ContextTooLarge,
    GatewrightError,
    ModelNotFound,
    QueueFull,
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
