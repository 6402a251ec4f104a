from types import MappingProxyType

import pytest
from attrs import evolve

from gatewright.api.facts import UpstreamError
from gatewright.errors import (
    CircuitOpen,
    ContextTooLarge,
    EngineCrashed,
    EngineHostLost,
    EngineStartFailed,
    EngineStartTimeout,
    EngineStopped,
    FailedAttempt,
    QueueFull,
    QueueTimeout,
    ShuttingDown,
    UpstreamBroke,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gatewright.events import CallFailure, RelayEnded, RelayFailure, UpstreamAnswered, UpstreamFailed
from gatewright.leases import CallResult
from gatewright.selection import failures
from gatewright.selection.failures import Remedy
from tests.core.machines.build import LOADING, cid, model, overflow, remote_model

LOCAL, REMOTE = model("qwen", 4096, 8192), remote_model("gpt", 8192)
RETRY, NEXT, LARGER, NONE = Remedy.RETRY, Remedy.NEXT, Remedy.LARGER, Remedy.NONE
WELL, FAILED, CREDENTIAL = CallResult.WELL, CallResult.FAILED, CallResult.CREDENTIAL
SORRY = UpstreamError(message="sorry")
CRASHED = EngineCrashed("it died").problem

# --- statuses

REMOTE_STATUSES = MappingProxyType(
    {
        401: (NEXT, CREDENTIAL),
        402: (NEXT, CREDENTIAL),
        403: (NEXT, CREDENTIAL),
        404: (NEXT, WELL),
        408: (RETRY, FAILED),
        409: (RETRY, None),
        429: (RETRY, FAILED),
        501: (NEXT, WELL),
        505: (NEXT, WELL),
    }
)
LOCAL_STATUSES = MappingProxyType({401: NEXT, 402: NEXT, 403: NEXT, 408: NEXT, 409: NEXT, 429: NEXT})


@pytest.mark.parametrize("status", range(400, 600))
def test_what_may_help_against_a_providers_status(status):
    failure = failures.of_answer(REMOTE, SORRY, status)
    usual = (NONE, WELL) if status < 500 else (RETRY, FAILED)
    assert (failure.remedy, failure.result) == REMOTE_STATUSES.get(status, usual)
    assert not failure.at_once
    assert not failure.is_refusal
    assert failure.upstream_status == status
    assert failure.problem == UpstreamRefused("sorry", status, None, None).problem


@pytest.mark.parametrize("status", range(400, 600))
def test_an_engine_of_our_own_says_the_same_again(status):
    """A local engine is not overloaded by others, and nobody keeps a circuit of it."""
    failure = failures.of_answer(LOCAL, SORRY, status)
    assert failure.remedy is LOCAL_STATUSES.get(status, NONE if status < 500 else NEXT)
    assert failure.result is None
    assert not failure.at_once


@pytest.mark.parametrize(("who", "at_once"), [(LOCAL, True), (REMOTE, False)])
def test_an_engine_that_is_loading_is_asked_again(who, at_once):
    failure = failures.of_answer(who, LOADING, 503)
    assert (failure.remedy, failure.at_once) == (RETRY, at_once)


# --- names of errors


@pytest.mark.parametrize("field", ["type", "code"])
@pytest.mark.parametrize(
    "name",
    [
        "content_policy_violation",
        "content_filter",
        "moderation_blocked",
        "ResponsibleAIPolicyViolation",
    ],
)
@pytest.mark.parametrize("status", [400, 403, 422, 429])
@pytest.mark.parametrize("who", [LOCAL, REMOTE])
def test_a_refusal_for_what_the_request_says_helps_nowhere(field, name, status, who):
    failure = failures.of_answer(who, evolve(SORRY, **{field: name}), status)
    assert (failure.remedy, failure.is_refusal) == (NONE, True)
    assert failure.result is (WELL if who.is_remote else None)


def test_a_filter_that_is_out_of_order_is_no_refusal():
    failure = failures.of_answer(REMOTE, evolve(SORRY, code="content_filter"), 503)
    assert (failure.remedy, failure.is_refusal) == (RETRY, False)


@pytest.mark.parametrize("name", ["insufficient_quota", "billing_hard_limit_reached", "insufficient_balance"])
@pytest.mark.parametrize("field", ["type", "code"])
@pytest.mark.parametrize("status", [400, 429, 503])
def test_credit_that_is_used_up_does_not_come_back_by_waiting(name, field, status):
    failure = failures.of_answer(REMOTE, evolve(SORRY, **{field: name}), status)
    assert (failure.remedy, failure.result) == (NEXT, CREDENTIAL)


def test_a_prompt_that_is_too_large_goes_to_who_is_larger_than_the_upstream_says():
    failure = failures.of_answer(REMOTE, overflow(9000, 4096), 400)
    assert (failure.remedy, failure.result, failure.context_tokens) == (LARGER, WELL, 4096)


def test_a_prompt_that_is_too_large_goes_to_who_is_larger_than_it_is_configured():
    assert failures.of_answer(REMOTE, overflow(None), 413).context_tokens == 8192
    assert failures.of_answer(LOCAL, overflow(None), 400).context_tokens == 8192


def test_words_type_and_code_are_kept():
    failure = failures.of_answer(REMOTE, UpstreamError(message="no", type="t", code="c"), 418)
    assert failure.problem == UpstreamRefused("no", 418, "t", "c").problem
    assert failure.told == FailedAttempt(
        model="gpt", kind="UpstreamRefused", message="no", upstream_status=418
    )


def test_a_time_that_was_named_is_kept():
    failure = failures.of_answer(REMOTE, evolve(SORRY, retry_after_s=7.0), 429)
    assert (failure.retry_after_s, failure.problem.retry_after_s) == (7.0, 7.0)


# --- errors under a good status


@pytest.mark.parametrize("status", [0, 200, 206])
def test_an_error_in_the_place_of_an_answer_has_the_status_that_it_names(status):
    failure = failures.of_answer(REMOTE, evolve(SORRY, status=404), status)
    assert (failure.remedy, failure.upstream_status) == (NEXT, 404)


def test_an_error_in_the_place_of_an_answer_that_names_no_status_is_the_upstreams_fault():
    failure = failures.of_answer(REMOTE, SORRY, 200)
    assert (failure.remedy, failure.result, failure.problem.status) == (RETRY, FAILED, 502)


def test_a_refusal_or_an_overflow_that_names_no_status_is_the_requests_fault():
    refusal = failures.of_answer(REMOTE, evolve(SORRY, code="content_filter"), 200)
    assert (refusal.remedy, refusal.is_refusal, refusal.problem.status) == (NONE, True, 400)
    too_large = failures.of_answer(REMOTE, overflow(9000), 200)
    assert (too_large.remedy, too_large.problem.status) == (LARGER, 400)


def test_what_is_wrong_with_an_answer():
    assert failures.error_of(UpstreamAnswered(command_id=cid(1), status=200)) is None
    assert failures.error_of(UpstreamAnswered(command_id=cid(1), status=200, error=SORRY)) == SORRY
    assert failures.error_of(UpstreamAnswered(command_id=cid(1), status=500, error=SORRY)) == SORRY
    nameless = failures.error_of(UpstreamAnswered(command_id=cid(1), status=400))
    assert nameless == UpstreamError(message="the upstream answered 400")


# --- calls that gave no answer


def of_call(who, failure, lost=None):
    return failures.of_call(who, UpstreamFailed(command_id=cid(1), failure=failure, reason="reset"), lost)


CALLS = [
    (CallFailure.UNREACHABLE, RETRY, FAILED, UpstreamUnreachable),
    (CallFailure.BROKEN, RETRY, FAILED, UpstreamUnreachable),
    (CallFailure.MALFORMED, RETRY, FAILED, UpstreamUnreachable),
    (CallFailure.TIMEOUT, NEXT, FAILED, UpstreamTimeout),
    (CallFailure.DIFFERENT, NEXT, WELL, UpstreamBroke),
    (CallFailure.CANCELED, RETRY, FAILED, UpstreamUnreachable),  # by nobody that we know
]


def test_every_kind_of_failed_call_is_tried():
    assert [failure for failure, *_ in CALLS] == list(CallFailure)


@pytest.mark.parametrize(("failure", "remedy", "result", "error"), CALLS)
def test_what_may_help_against_a_failed_call(failure, remedy, result, error):
    remote, local = of_call(REMOTE, failure), of_call(LOCAL, failure)
    assert (remote.remedy, remote.result, remote.at_once) == (remedy, result, False)
    assert (local.remedy, local.result, local.at_once) == (remedy, None, True)
    assert remote.problem == error("upstream of gpt: reset").problem
    assert local.problem == error("upstream of qwen: reset").problem
    assert remote.upstream_status is None


@pytest.mark.parametrize(("failure", "remedy"), [(failure, remedy) for failure, remedy, *_ in CALLS])
def test_an_engine_that_died_is_the_reason(failure, remedy):
    failed = of_call(LOCAL, failure, CRASHED)
    assert (failed.problem, failed.remedy) == (CRASHED, remedy)


# --- answers that broke off


def of_relay(who, failure, lost=None, error=None):
    ended = RelayEnded(command_id=cid(1), failure=failure, reason="reset", error=error)
    return failures.of_relay(who, ended, lost)


BROKEN_RELAYS = [
    failure
    for failure in RelayFailure
    if failure not in {RelayFailure.CLIENT_GONE, RelayFailure.CANCELED, RelayFailure.REFUSED}
]


@pytest.mark.parametrize("failure", BROKEN_RELAYS)
def test_what_may_help_against_an_answer_that_broke_off(failure):
    remote, local = of_relay(REMOTE, failure), of_relay(LOCAL, failure)
    # One that has fallen silent may do so again: rather somebody else.
    remedy = Remedy.NEXT_OR_RETRY if failure is RelayFailure.STALLED else RETRY
    assert (remote.remedy, remote.result, remote.at_once) == (remedy, FAILED, False)
    assert (local.remedy, local.result, local.at_once) == (remedy, None, True)
    assert remote.problem == UpstreamBroke("the answer of gpt broke off: reset").problem


@pytest.mark.parametrize("failure", BROKEN_RELAYS)
def test_an_engine_that_died_is_why_the_answer_broke_off(failure):
    assert of_relay(LOCAL, failure, CRASHED).problem == CRASHED


@pytest.mark.parametrize("status", [None, 400, 401, 404, 429, 500, 503])
def test_an_error_in_the_middle_of_an_answer_is_one_as_if_it_came_before(status):
    error = evolve(SORRY, status=status, retry_after_s=3.0)
    assert of_relay(REMOTE, RelayFailure.REFUSED, error=error) == failures.of_answer(
        REMOTE, error, status or 502
    )


# --- no engine


@pytest.mark.parametrize("who", [LOCAL, REMOTE])
@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (EngineHostLost, RETRY),
        (ShuttingDown, NONE),
        (CircuitOpen, NEXT),
        (QueueFull, NEXT),
        (QueueTimeout, NEXT),
        (EngineStartFailed, NEXT),
        (EngineStartTimeout, NEXT),
        (EngineStopped, NEXT),
        (EngineCrashed, NEXT),
    ],
)
def test_what_may_help_where_there_is_no_engine(who, error, remedy):
    failure = failures.of_lease(who, error("no").problem)
    assert (failure.remedy, failure.at_once, failure.result) == (remedy, True, None)
    assert failure.problem == error("no").problem


@pytest.mark.parametrize(("error", "remedy"), [(EngineStopped, NEXT), (ShuttingDown, NONE)])
def test_an_engine_that_was_stopped_on_purpose_is_not_started_for_this(error, remedy):
    lost = error("stopped").problem
    for failure in (
        of_call(LOCAL, CallFailure.BROKEN, lost),
        of_relay(LOCAL, RelayFailure.BROKEN, lost),
        of_relay(LOCAL, RelayFailure.REFUSED, lost, SORRY),
    ):
        assert (failure.problem, failure.remedy) == (lost, remedy)


def test_no_variant_is_large_enough():
    problem = ContextTooLarge(9000, 8192).problem
    failure = failures.of_size(LOCAL, problem)
    assert (failure.remedy, failure.context_tokens, failure.problem) == (LARGER, 8192, problem)
    assert failure.result is None
