"""What the Gateway does about upstreams that fail: event in, exact commands out."""

from typing import Any

import pytest
from attrs import evolve

from gatewright.api.facts import ApiFormat, Continuation, Resumable, UpstreamError, Usage
from gatewright.commands import (
    BeginRelay,
    BeginStream,
    CallUpstream,
    CancelUpstream,
    CutConnection,
    DiscardAnswer,
    Drained,
    FailStream,
    GatewayCommand,
    Outcome,
    SendComment,
    SendProblem,
)
from gatewright.config import CallTimeouts, ModelConfig
from gatewright.engines.spec import EngineSpec
from gatewright.errors import (
    CircuitOpen,
    ContextTooLarge,
    EngineCrashed,
    EngineHostLost,
    EngineStopped,
    Problem,
    QueueFull,
    RequestTimeout,
    ShuttingDown,
    UpstreamBroke,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gatewright.events import CallFailure, RelayFailure, ShutdownRequested
from gatewright.leases import CallResult, LeaseEngine, ReleaseLease, ReportCall
from gatewright.selection.beliefs import Certain
from gatewright.timers import Deadline
from tests.core.machines.build import (
    chat,
    cid,
    lid,
    model,
    overflow,
    remote_model,
    remote_spec,
    rid,
    spec,
)
from tests.core.machines.gateway_tester import URL, GatewayTester, attempt, headers, record

R = rid("r")
NO_LIMITS = CallTimeouts()
GPT = remote_model("gpt", call_timeouts=NO_LIMITS)
MISTRAL = remote_model("mistral", call_timeouts=NO_LIMITS)
QWEN = model("qwen")
SORRY = UpstreamError(message="sorry")
USAGE = Usage(prompt_tokens=100, completion_tokens=20)
CRASHED = EngineCrashed("engine qwen@4096 died: signal 9").problem
UNREACHABLE = UpstreamUnreachable("upstream of gpt: reset").problem
SILENT = UpstreamTimeout("upstream of gpt: reset").problem
BROKE = UpstreamBroke("the answer of gpt broke off: reset").problem
SHUT = ShuttingDown("the server shut down before the answer was complete").problem
WELL, FAILED, CREDENTIAL = CallResult.WELL, CallResult.FAILED, CallResult.CREDENTIAL

PLAIN = chat("gpt", given=100)
STREAM = chat("gpt", given=100, stream=True)
TEXT = chat("gpt", given=100, stream=True, continuable=True)
LOCAL_TEXT = chat("qwen", given=100, stream=True, continuable=True)


def before(*fallbacks: ModelConfig, first: ModelConfig = GPT, **options: Any) -> tuple[ModelConfig, ...]:
    """These models, of which the others are the first one's fallbacks."""
    return (evolve(first, fallbacks=tuple([each.name for each in fallbacks]), **options), *fallbacks)


def refusal(status: int, message: str = "sorry", code: str | None = None) -> Problem:
    return UpstreamRefused(message, status, None, code).problem


def release(number: int, result: CallResult | None = FAILED, **facts: Any) -> ReleaseLease:
    return ReleaseLease(lease_id=lid(number), result=result, **facts)


def lease(number: int, variant: EngineSpec | None = None, *, is_last: bool = True) -> LeaseEngine:
    """Asked for again."""
    variant = variant or remote_spec()
    return LeaseEngine(
        lease_id=lid(number),
        variants=(variant,),
        need_tokens=232 if variant.process else 1156,  # by how much each reserves for the answer
        max_waiting=1024,
        last_resort=is_last and variant.process is None,
    )


def call(number: int, name: str = "gpt", **facts: Any) -> CallUpstream:
    return CallUpstream(
        command_id=cid(number),
        request_id=R,
        base_url=URL,
        upstream_model=f"{name}-large",
        api_key_env="EXAMPLE_KEY",
        **facts,
    )


def remote_headers(calls: int, name: str = "gpt", context: int = 128_000, wait_ms: int = 0) -> Any:
    return headers(calls, wait_ms, variant=context, model=name)


def ended(outcome: Outcome, name: str = "gpt", **facts: Any) -> GatewayCommand:
    return record(outcome, **{"model": name, "context_tokens": 128_000, **facts})


class Halfway(Certain):
    def random(self) -> float:
        return 0.5


def called(*models: ModelConfig, facts: Any = PLAIN, **options: Any) -> GatewayTester:
    """At second 0 the first model is called."""
    tester = GatewayTester(*(models or (GPT,)), **options)
    tester.receive(0, facts)
    tester.granted(0)
    return tester


def kinds(commands: list[GatewayCommand]) -> list[type]:
    return [type(command) for command in commands]


# --- the same upstream again


def test_a_call_is_repeated_after_a_while():
    tester = called()
    assert tester.answered(1, 503, SORRY) == [DiscardAnswer(request_id=R), release(1)]
    assert tester.gateway.wake_at == Deadline(1.5, "backoff or end of a request's time")
    assert tester.wake(1.49) == []
    assert tester.wake(1.5) == [lease(3)]
    assert tester.gateway.wake_at is None
    assert tester.granted(1.5) == [call(4)]
    assert tester.answered(2) == [
        BeginRelay(command_id=cid(5), request_id=R, headers=remote_headers(2), stall_timeout_s=120.0)
    ]
    assert tester.relayed(3, usage=USAGE) == [
        release(3, WELL),
        ended(
            Outcome.ANSWERED,
            status=200,
            attempts=2,
            first_byte_s=2,
            total_s=3,
            usage=USAGE,
            failed_attempts=(attempt(refusal(503), "gpt", 503),),
        ),
    ]


def test_the_second_retry_waits_for_twice_as_long_and_there_is_no_third():
    tester = called()
    tester.failed(10)
    tester.wake(10.5)
    tester.granted(10.5)
    assert tester.failed(20) == [release(3, suspect=True)]
    assert tester.gateway.wake_at.at == 21
    tester.wake(21)
    tester.granted(21)
    problem = evolve(UNREACHABLE, attempts=(attempt(UNREACHABLE, "gpt"),) * 3)
    assert tester.failed(30) == [
        release(5, suspect=True),
        SendProblem(request_id=R, problem=problem, headers=remote_headers(3)),
        ended(
            Outcome.FAILED,
            status=502,
            attempts=3,
            total_s=30,
            problem=problem,
            failed_attempts=problem.attempts,
        ),
    ]
    assert tester.gateway.wake_at is None


def test_the_jitter_of_the_gateway_shortens_the_wait():
    tester = called(chance=Halfway())
    tester.failed(1)
    assert tester.gateway.wake_at.at == 1.375


def test_a_late_wake_up_repeats_all_the_same():
    tester = called()
    tester.failed(1)
    assert tester.wake(700) == [lease(3)]


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_statuses_that_may_be_tried_again(status):
    tester = called()
    result = None if status == 409 else FAILED
    assert tester.answered(1, status) == [DiscardAnswer(request_id=R), release(1, result)]
    assert tester.wake(1.5) == [lease(3)]


@pytest.mark.parametrize(
    ("status", "result"),
    [(400, WELL), (401, CREDENTIAL), (403, CREDENTIAL), (404, WELL), (413, WELL), (422, WELL), (501, WELL)],
)
def test_statuses_that_are_not_tried_again_are_passed_on_as_they_came(status, result):
    tester = called()
    assert tester.answered(1, status, SORRY) == [
        BeginRelay(command_id=cid(3), request_id=R, headers=remote_headers(1), stall_timeout_s=120.0)
    ]
    assert tester.relayed(2) == [
        release(1, result),
        ended(Outcome.UPSTREAM_ERROR, status=status, attempts=1, first_byte_s=1, total_s=2),
    ]


@pytest.mark.parametrize("failure", [CallFailure.UNREACHABLE, CallFailure.BROKEN, CallFailure.MALFORMED])
def test_a_connection_that_fails_is_tried_again(failure):
    tester = called()
    assert tester.failed(1, failure) == [release(1, suspect=True)]
    assert tester.wake(1.5) == [lease(3)]


def test_an_upstream_is_left_alone_for_as_long_as_it_asks():
    tester = called()
    told = tester.answered(1, 429, evolve(SORRY, retry_after_s=30.0))
    assert told == [DiscardAnswer(request_id=R), release(1, retry_after_s=30.0)]
    assert tester.wake(30.9) == []
    assert tester.wake(31) == [lease(3)]


def test_an_upstream_that_asks_for_more_is_not_asked_again_and_the_client_hears_it_in_its_words():
    tester = called()
    assert kinds(tester.answered(1, 429, evolve(SORRY, retry_after_s=61.0))) == [BeginRelay]
    assert tester.relayed(2)[0] == release(1, retry_after_s=61.0)


def test_no_retries_if_none_are_configured():
    tester = called(evolve(GPT, retries=0))
    assert kinds(tester.answered(1, 503, SORRY)) == [BeginRelay]
    assert tester.relayed(2)[0] == release(1)


def test_no_more_than_two_retries_whatever_is_configured():
    tester = called(evolve(GPT, retries=9))
    for number in range(2):
        assert kinds(tester.failed(10 * number)) == [ReleaseLease]
        tester.wake(10 * number + 5)
        tester.granted(10 * number + 5)
    assert kinds(tester.failed(20)) == [ReleaseLease, SendProblem, type(ended(Outcome.FAILED))]


def test_no_more_calls_than_are_configured():
    tester = called(*before(MISTRAL, max_attempts=2))
    tester.failed(1)
    tester.wake(2)
    tester.granted(2)
    _, told, end = tester.failed(3)
    assert told.problem.kind == "UpstreamUnreachable"
    assert (end.attempts, len(end.failed_attempts)) == (2, 2)


def test_the_fifth_call_within_three_seconds_waits():
    chain = before(MISTRAL, model("qwen", retries=0), remote_model("large"), retries=0, max_attempts=9)
    tester = called(evolve(chain[0], retries=1), evolve(MISTRAL, retries=0), *chain[2:])
    tester.failed(0.1)
    tester.wake(0.6)
    tester.granted(0.6)
    tester.failed(0.7)  # to mistral
    tester.granted(0.8)
    tester.failed(0.9)  # to qwen
    tester.granted(1.0)
    assert kinds(tester.failed(1.1)) == [ReleaseLease]
    assert tester.gateway.wake_at.at == 3.0
    assert tester.wake(2.9) == []
    assert kinds(tester.wake(3.0)) == [LeaseEngine]


def test_an_engine_of_our_own_that_failed_is_asked_again_at_once():
    tester = called(QWEN, facts=chat("qwen", given=100))
    assert tester.failed(1) == [release(1, None, suspect=True), lease(3, spec())]


# --- the next model


def test_a_silent_upstream_is_not_asked_again_but_the_fallback_at_once():
    tester = called(*before(MISTRAL))
    assert tester.failed(10, CallFailure.TIMEOUT) == [
        release(1, suspect=True),
        lease(3, remote_spec("mistral")),
    ]
    assert tester.granted(10) == [call(4, "mistral")]
    tester.answered(12)
    assert tester.relayed(13)[1] == ended(
        Outcome.ANSWERED,
        "mistral",
        status=200,
        attempts=2,
        first_byte_s=12,
        total_s=13,
        failed_attempts=(attempt(SILENT, "gpt"),),
    )


def test_a_silent_upstream_that_nobody_stands_in_for():
    tester = called()
    assert tester.failed(10, CallFailure.TIMEOUT) == [
        release(1, suspect=True),
        SendProblem(request_id=R, problem=SILENT, headers=remote_headers(1)),
        ended(Outcome.FAILED, status=504, attempts=1, total_s=10, problem=SILENT),
    ]


def test_fallbacks_are_asked_in_turn_once_retries_are_spent_and_by_their_names():
    chain = before(evolve(MISTRAL, retries=1), QWEN, retries=0)
    tester = called(*chain)
    assert tester.answered(1, 500, SORRY) == [
        DiscardAnswer(request_id=R),
        release(1),
        lease(3, remote_spec("mistral"), is_last=False),
    ]
    assert tester.granted(1) == [call(4, "mistral")]
    assert tester.failed(2) == [release(3, suspect=True)]
    assert tester.wake(2.5) == [lease(5, remote_spec("mistral"), is_last=False)]
    tester.granted(2.5)
    assert tester.answered(3, 502, SORRY)[2:] == [lease(7, spec())]
    assert tester.granted(5) == [
        CallUpstream(command_id=cid(8), request_id=R, base_url=URL, upstream_model="qwen")
    ]
    assert tester.answered(6)[0].headers == headers(4, 2000)


def test_a_model_that_was_asked_for_is_called_as_the_client_calls_it():
    tester = GatewayTester(QWEN)
    tester.receive(0, chat("qwen", given=100))
    assert tester.granted(0)[0].upstream_model is None


@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_credential_that_is_not_accepted_is_told_and_the_next_model_asked(status):
    tester = called(*before(MISTRAL))
    assert tester.answered(1, status, SORRY) == [
        DiscardAnswer(request_id=R),
        release(1, CREDENTIAL),
        lease(3, remote_spec("mistral")),
    ]


@pytest.mark.parametrize("status", [404, 501, 505])
def test_a_model_that_the_provider_does_not_have_is_told_and_the_next_one_asked(status):
    tester = called(*before(MISTRAL))
    assert tester.answered(1, status, SORRY)[1:] == [release(1, WELL), lease(3, remote_spec("mistral"))]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_the_request_got_wrong_goes_to_nobody_else(status):
    tester = called(*before(MISTRAL))
    assert kinds(tester.answered(1, status, SORRY)) == [BeginRelay]


def test_where_another_model_could_answer_nobody_waits_for_long():
    tester = called(*before(MISTRAL))
    told = tester.answered(1, 429, evolve(SORRY, retry_after_s=9.0))
    assert told[1:] == [release(1, retry_after_s=9.0), lease(3, remote_spec("mistral"))]


def test_an_open_circuit_is_passed_by():
    tester = GatewayTester(*before(MISTRAL))
    (asked,) = tester.receive(0, PLAIN)
    assert not asked.last_resort
    assert tester.refused(0, CircuitOpen("open").problem) == [
        evolve(lease(2, remote_spec("mistral")), max_waiting=256)
    ]
    tester.granted(0)
    tester.answered(1)
    _, end = tester.relayed(2)
    assert (end.attempts, end.failed_attempts) == (1, (attempt(CircuitOpen("open").problem, "gpt"),))


@pytest.mark.parametrize("problem", [QueueFull("full").problem, CRASHED, EngineStopped("by hand").problem])
def test_who_gets_no_engine_asks_the_next_model(problem):
    tester = GatewayTester(*before(MISTRAL, first=QWEN))
    tester.receive(0, chat("qwen", given=100))
    assert tester.refused(5, problem)[0].variants == (remote_spec("mistral"),)


def test_who_gets_no_engine_as_everything_ends_asks_nobody():
    tester = GatewayTester(*before(MISTRAL, first=QWEN))
    tester.receive(0, chat("qwen", given=100))
    assert kinds(tester.refused(5, SHUT))[0] is SendProblem


def test_who_loses_the_engine_host_asks_again_and_then_the_next_model():
    lost = EngineHostLost("gone").problem
    tester = GatewayTester(*before(MISTRAL, first=QWEN))
    tester.receive(0, chat("qwen", given=100))
    assert tester.refused(1, lost) == [lease(2, spec())]
    assert tester.refused(2, lost)[0].variants == (remote_spec("mistral"),)


def test_only_the_last_of_the_chain_is_the_last_resort():
    tester = called(*before(MISTRAL, QWEN), facts=PLAIN)
    assert tester.lease is not None
    assert not tester.lease.last_resort
    tester.failed(1, CallFailure.TIMEOUT)
    assert not tester.lease.last_resort
    tester.granted(1)
    tester.failed(2, CallFailure.TIMEOUT)
    assert not tester.lease.last_resort, "an engine of our own has no circuit"
    tester = called(*before(MISTRAL))
    tester.failed(1, CallFailure.TIMEOUT)
    assert tester.lease is not None
    assert tester.lease.last_resort


def test_the_fallbacks_prompt_is_measured_anew():
    large = model("qwen", 4096, 16384)
    tester = GatewayTester(*before(large))
    tester.receive(0, chat("gpt", 12_000))
    tester.granted(0)
    (_, asked) = tester.failed(1, CallFailure.TIMEOUT)
    assert asked.purpose.value == "count"
    assert asked.variants == large.variants


# --- too large a prompt


def larger_chain() -> tuple[ModelConfig, ...]:
    return before(
        remote_model("tiny", 500, call_timeouts=NO_LIMITS),
        remote_model("large", 400_000, call_timeouts=NO_LIMITS),
        first=remote_model("gpt", 1000, call_timeouts=NO_LIMITS),
    )


def test_too_large_a_prompt_goes_only_to_a_larger_model():
    tester = called(*larger_chain())
    assert tester.answered(1, 400, overflow(5000, 1000)) == [
        DiscardAnswer(request_id=R),
        release(1, WELL),
        lease(3, remote_spec("large", 400_000)),
    ]


def test_too_large_a_prompt_for_every_model_is_told_as_it_came():
    tester = called(*larger_chain()[:2])
    assert kinds(tester.answered(1, 400, overflow(5000))) == [BeginRelay]


def test_a_prompt_that_is_known_to_be_too_large_calls_nobody_smaller():
    tester = GatewayTester(*larger_chain())
    (asked,) = tester.receive(0, chat("gpt", given=2000))
    assert asked.variants == (remote_spec("large", 400_000),)
    tester.granted(0, 400_000)
    tester.answered(1)
    _, end = tester.relayed(2)
    assert end.failed_attempts == (attempt(ContextTooLarge(2001, 1000).problem, "gpt"),)


def test_an_engine_of_our_own_moves_to_its_larger_variant_before_another_model_is_asked():
    tester = called(*before(GPT, first=model("qwen", 4096, 8192)), facts=chat("qwen", given=100))
    (_, _, asked) = tester.answered(1, 400, overflow(5000))
    assert asked.variants == (spec("qwen", 8192),)
    tester.granted(2)
    (_, _, asked) = tester.answered(3, 400, overflow(9000))
    assert asked.variants == (remote_spec(),)


# --- what the client is told


def test_a_refusal_for_what_the_request_says_is_passed_on_as_it_came():
    tester = called(*before(MISTRAL))
    error = UpstreamError(message="no", code="content_policy_violation")
    assert kinds(tester.answered(1, 400, error)) == [BeginRelay]
    release_it, end = tester.relayed(2)
    assert release_it == release(1, WELL)
    assert (end.outcome, end.status, end.failed_attempts) == (Outcome.UPSTREAM_ERROR, 400, ())


def test_a_refusal_for_what_the_request_says_is_passed_on_after_other_failures_too():
    tester = called(*before(MISTRAL))
    tester.failed(1, CallFailure.TIMEOUT)
    tester.granted(1)
    assert kinds(tester.answered(2, 400, evolve(SORRY, code="content_filter"))) == [BeginRelay]
    _, end = tester.relayed(3)
    assert end.failed_attempts == (attempt(SILENT, "gpt"),)


def test_an_exhausted_chain_tells_the_first_error_with_its_time_and_all_that_was_tried():
    tester = called(*before(MISTRAL, QWEN))
    tester.answered(1, 429, evolve(SORRY, retry_after_s=30.0))
    tester.granted(1)
    tester.answered(2, 404, UpstreamError(message="who?"))
    tried = (
        attempt(refusal(429), "gpt", 429),
        attempt(refusal(404, "who?"), "mistral", 404),
        attempt(CRASHED, "qwen"),
    )
    problem = evolve(refusal(429), retry_after_s=30.0, attempts=tried)
    assert tester.refused(4, CRASHED) == [
        SendProblem(request_id=R, problem=problem, headers=headers(2, 2000, variant=None)),
        record(
            Outcome.FAILED,
            status=429,
            attempts=2,
            wait_s=2,
            total_s=4,
            problem=problem,
            failed_attempts=tried,
        ),
    ]


def test_a_last_error_of_several_is_not_passed_on_as_it_came():
    tester = called(*before(MISTRAL))
    tester.answered(1, 404, SORRY)
    tester.granted(1)
    discard, _, told, _ = tester.answered(2, 400, UpstreamError(message="bad"))
    assert discard == DiscardAnswer(request_id=R)
    assert (told.problem.status, told.problem.message) == (404, "sorry")


def test_an_error_under_a_good_status_is_told_as_an_error():
    tester = called()
    assert tester.answered(1, 200, UpstreamError(message="who?", status=404)) == [
        DiscardAnswer(request_id=R),
        release(1, WELL),
        SendProblem(request_id=R, problem=refusal(404, "who?"), headers=remote_headers(1)),
        ended(Outcome.FAILED, status=404, attempts=1, total_s=1, problem=refusal(404, "who?")),
    ]


def test_an_error_under_a_good_status_is_tried_again():
    tester = called()
    assert kinds(tester.answered(1, 200, SORRY)) == [DiscardAnswer, ReleaseLease]
    assert tester.wake(1.5) == [lease(3)]


def test_an_error_that_is_passed_on_and_breaks_off_is_cut():
    tester = called(*before(MISTRAL), facts=STREAM)
    tester.answered(1, 400, SORRY)
    assert tester.relayed(2, RelayFailure.BROKEN, resumable=Resumable.CONTINUE) == [
        release(1, suspect=True),
        CutConnection(request_id=R),
        ended(Outcome.BROKE_OFF, status=400, attempts=1, first_byte_s=1, total_s=2, problem=BROKE),
    ]


def test_an_error_that_is_passed_on_and_comes_through_as_the_client_goes_is_no_answer():
    tester = called()
    tester.answered(1, 401, SORRY)
    tester.gone(2)
    release_it, end = tester.relayed(2)
    assert release_it == release(1, CREDENTIAL)
    assert end.outcome is Outcome.UPSTREAM_ERROR


def test_an_error_that_is_passed_on_says_what_it_says_of_the_upstream_even_if_nobody_reads_it():
    tester = called()
    tester.answered(1, 401, SORRY)
    tester.gone(2)
    release_it, end = tester.relayed(2, RelayFailure.CANCELED)
    assert release_it == release(1, CREDENTIAL)
    assert end.outcome is Outcome.CANCELED


def slow_start(*models: ModelConfig, facts: Any = STREAM) -> GatewayTester:
    """Its first model is silent for ten seconds, and of the second one an engine is waited for: comments have begun."""
    tester = GatewayTester(*models)
    tester.receive(0, facts)
    tester.granted(0)
    tester.failed(5, CallFailure.TIMEOUT)
    assert kinds(tester.wake(10)) == [BeginStream, SendComment]
    return tester


def test_a_stream_that_comments_began_is_told_the_first_error_as_an_event():
    tester = slow_start(*before(QWEN))
    tried = (attempt(SILENT, "gpt"), attempt(CRASHED))
    problem = evolve(SILENT, attempts=tried)
    assert tester.refused(12, CRASHED) == [
        FailStream(request_id=R, problem=problem),
        record(
            Outcome.FAILED,
            status=200,
            attempts=1,
            wait_s=7,
            total_s=12,
            problem=problem,
            failed_attempts=tried,
        ),
    ]


def test_a_stream_that_comments_began_gets_a_refusal_as_an_event():
    tester = slow_start(*before(QWEN))
    tester.granted(12)
    discard, _, fail, _ = tester.answered(13, 400, UpstreamError(message="no", code="content_filter"))
    assert discard == DiscardAnswer(request_id=R)
    assert (fail.problem.kind, len(fail.problem.attempts)) == ("UpstreamTimeout", 2)


def test_who_backs_off_for_long_hears_comments():
    tester = called(facts=STREAM)
    tester.answered(1, 429, evolve(SORRY, retry_after_s=30.0))
    assert tester.gateway.wake_at == Deadline(10, "comment for a waiting client")
    text = "gatewright: waiting for gpt, 10 s"
    assert tester.wake(10) == [
        BeginStream(request_id=R, headers=headers(1, 0, variant=None, model="gpt")),
        SendComment(request_id=R, text=text),
    ]
    assert kinds(tester.wake(31)) == [SendComment, LeaseEngine]


# --- probes


def test_a_probe_is_reported_as_soon_as_its_answer_begins():
    tester = GatewayTester(GPT)
    tester.receive(0, PLAIN)
    tester.granted(0, is_probe=True)
    assert kinds(tester.answered(1)) == [ReportCall, BeginRelay]
    assert tester.relayed(9)[0] == release(1, WELL)


def test_how_a_probe_is_reported():
    tester = GatewayTester(GPT)
    tester.receive(0, PLAIN)
    tester.granted(0, is_probe=True)
    assert tester.answered(1)[0] == ReportCall(lease_id=lid(1), result=WELL)


def test_a_probe_that_fails_is_told_with_its_release():
    tester = GatewayTester(GPT)
    tester.receive(0, PLAIN)
    tester.granted(0, is_probe=True)
    assert tester.answered(1, 503, SORRY) == [DiscardAnswer(request_id=R), release(1)]


def test_a_probe_whose_lease_is_lost_is_reported_to_nobody():
    tester = GatewayTester(GPT)
    tester.receive(0, PLAIN)
    tester.granted(0, is_probe=True)
    tester.lost(1, EngineHostLost("gone").problem)
    assert kinds(tester.answered(2)) == [BeginRelay]
    assert kinds(tester.relayed(3)) == [type(ended(Outcome.ANSWERED))]


def test_no_other_call_is_reported_before_its_release():
    tester = called()
    assert kinds(tester.answered(1)) == [BeginRelay]


# --- deadlines


def limited(**limits: float) -> ModelConfig:
    return remote_model("gpt", call_timeouts=CallTimeouts(**limits))


def too_slow(seconds: int, name: str = "gpt", *tried: Any) -> Problem:
    text = f"no complete answer of {name} within {seconds} s"
    return evolve(RequestTimeout(text).problem, attempts=tried)


def test_timeouts_are_those_of_the_model_that_is_called():
    limits = {"connect_s": 1.0, "head_s": 2.0, "first_token_s": 3.0, "between_chunks_s": 4.0}
    tester = called(limited(**limits))
    plain = tester.work
    assert plain == call(2, connect_timeout_s=1.0, head_timeout_s=2.0, stall_timeout_s=4.0)
    assert tester.answered(1)[0].stall_timeout_s == 4.0
    stream = called(limited(**limits), facts=STREAM).work
    assert stream == call(2, connect_timeout_s=1.0, head_timeout_s=2.0, first_token_timeout_s=3.0)
    stream = called(limited(first_token_s=3.0), facts=STREAM).work
    assert stream == call(2, head_timeout_s=3.0, first_token_timeout_s=3.0)


@pytest.mark.parametrize("facts", [chat("gpt", given=100, client_timeout_s=600.0), PLAIN])
def test_total_ends_a_call(facts):
    tester = called(limited(total_s=20.0), facts=facts)
    assert tester.gateway.wake_at == Deadline(20, "backoff or end of a request's time")
    assert tester.wake(19.9) == []
    assert tester.wake(20) == [CancelUpstream(request_id=R)]
    assert tester.gateway.wake_at is None
    assert tester.wake(21) == []
    assert tester.failed(21, CallFailure.CANCELED) == [
        release(1, None),
        SendProblem(request_id=R, problem=too_slow(20), headers=remote_headers(1)),
        ended(Outcome.FAILED, status=504, attempts=1, total_s=21, problem=too_slow(20)),
    ]


def test_total_ends_the_wait_for_an_engine():
    tester = GatewayTester(model("qwen", call_timeouts=CallTimeouts(total_s=20.0)))
    tester.receive(0, chat("qwen", given=100))
    assert tester.wake(20) == [
        ReleaseLease(lease_id=lid(1)),
        SendProblem(request_id=R, problem=too_slow(20, "qwen"), headers=headers(0, 20_000, variant=None)),
        record(Outcome.FAILED, status=504, wait_s=20, total_s=20, problem=too_slow(20, "qwen")),
    ]
    assert tester.gateway.wake_at is None


def test_total_ends_a_count():
    qwen = model("qwen", 4096, 16384, call_timeouts=CallTimeouts(total_s=20.0))
    tester = GatewayTester(qwen)
    tester.receive(0, chat("qwen", 12_000))
    tester.granted(0)
    assert tester.wake(20) == [CancelUpstream(request_id=R)]
    assert kinds(tester.count_failed(20))[:2] == [ReleaseLease, SendProblem]


def test_total_ends_a_backoff_that_was_to_be_over_before():
    tester = called(limited(total_s=20.0))
    tester.failed(19)
    assert tester.gateway.wake_at.at == 19.5
    tried = (attempt(UNREACHABLE, "gpt"),)
    problem = too_slow(21, "gpt", *tried)
    assert tester.wake(21) == [
        SendProblem(request_id=R, problem=problem, headers=headers(1, 0, variant=None, model="gpt")),
        ended(
            Outcome.FAILED,
            context_tokens=None,
            status=504,
            attempts=1,
            total_s=21,
            problem=problem,
            failed_attempts=tried,
        ),
    ]


def test_total_counts_from_the_arrival_over_all_attempts_and_models():
    tester = called(*before(MISTRAL, first=limited(total_s=20.0)))
    tester.failed(15, CallFailure.TIMEOUT)
    tester.granted(15)
    assert tester.gateway.wake_at.at == 20
    tester.wake(20)
    _, told, _ = tester.failed(20, CallFailure.CANCELED)
    assert told.problem == too_slow(20, "mistral", attempt(SILENT, "gpt"))


def test_nothing_is_begun_that_would_begin_after_the_end():
    tester = called(limited(total_s=20.0))
    assert kinds(tester.failed(19.5)) == [ReleaseLease, SendProblem, type(ended(Outcome.FAILED))]
    tester = called(*before(MISTRAL, first=limited(total_s=20.0)))
    assert tester.failed(19.5) == [release(1, suspect=True), lease(3, remote_spec("mistral"))]


def test_total_ends_an_answer():
    tester = called(limited(total_s=20.0), facts=STREAM)
    tester.answered(5)
    assert tester.wake(20) == [CancelUpstream(request_id=R)]
    assert tester.relayed(20, RelayFailure.CANCELED, usage=USAGE) == [
        release(1, None),
        FailStream(request_id=R, problem=too_slow(20)),
        ended(
            Outcome.BROKE_OFF,
            status=200,
            attempts=1,
            first_byte_s=5,
            total_s=20,
            problem=too_slow(20),
            usage=USAGE,
        ),
    ]


def test_total_ends_a_document_that_is_on_its_way_by_cutting_it():
    tester = called(limited(total_s=20.0))
    tester.answered(5)
    tester.wake(20)
    assert tester.relayed(20, RelayFailure.CANCELED)[1] == CutConnection(request_id=R)


def test_an_answer_that_is_complete_just_then_is_a_good_one():
    tester = called(limited(total_s=20.0), facts=STREAM)
    tester.answered(5)
    tester.wake(20)
    release_it, end = tester.relayed(20)
    assert release_it == release(1, WELL)
    assert end.outcome is Outcome.ANSWERED


def test_an_answer_that_begins_just_then_is_too_late():
    tester = called(limited(total_s=20.0))
    tester.wake(20)
    discard, _, told, _ = tester.answered(20)
    assert discard == DiscardAnswer(request_id=R)
    assert told.problem == too_slow(20)


def test_a_client_that_goes_away_after_the_end_hears_nothing():
    tester = called(limited(total_s=20.0))
    tester.wake(20)
    assert tester.gone(20.5) == []
    assert tester.failed(21, CallFailure.CANCELED) == [
        release(1, None),
        ended(Outcome.CANCELED, attempts=1, total_s=21),
    ]


def test_the_end_of_its_time_is_nothing_to_a_client_that_has_gone_away():
    tester = called(limited(total_s=20.0))
    tester.gone(19)
    assert tester.wake(20) == []
    assert tester.failed(21, CallFailure.CANCELED)[1].outcome is Outcome.CANCELED


def test_the_end_of_its_time_is_nothing_to_who_is_shut_down():
    tester = called(limited(total_s=20.0))
    tester.tell(19, ShutdownRequested(force=True))
    assert tester.wake(20) == []
    assert tester.failed(21, CallFailure.CANCELED)[1].problem == SHUT


@pytest.mark.parametrize("facts", [PLAIN, STREAM])
def test_a_client_hears_of_a_timeout_before_it_gives_up_itself(facts):
    tester = called(facts=evolve(facts, client_timeout_s=10.0))
    assert tester.wake(9.4) == []
    assert tester.wake(9.5) == [CancelUpstream(request_id=R)]
    _, told, _ = tester.failed(9.6, CallFailure.CANCELED)
    assert isinstance(told, SendProblem)
    assert told.problem.status == 504


def test_a_client_that_gets_its_answer_is_not_hurried():
    tester = called(facts=evolve(STREAM, client_timeout_s=10.0))
    tester.answered(9)
    assert tester.gateway.wake_at is None
    assert tester.wake(100) == []


def test_a_client_that_gets_comments_is_not_hurried():
    tester = slow_start(*before(QWEN), facts=evolve(STREAM, client_timeout_s=20.0))
    assert tester.gateway.wake_at == Deadline(15, "comment for a waiting client")
    assert kinds(tester.wake(19)) == [SendComment]


@pytest.mark.parametrize(
    ("head_s", "patience_s", "at", "told_s"),
    [(60.0, 20.0, 0.0, 9.5), (5.0, 20.0, 0.0, 5.0), (None, 20.0, 0.0, 9.5), (60.0, 20.0, 9.0, 5.0)],
)
def test_a_provider_gets_half_of_the_time_where_another_could_use_the_other_half(
    head_s, patience_s, at, told_s
):
    limits = CallTimeouts(head_s=head_s)
    tester = GatewayTester(*before(MISTRAL, timeouts=limits))
    tester.receive(0, evolve(PLAIN, client_timeout_s=patience_s))
    (begun,) = tester.granted(at)
    assert begun.head_timeout_s == told_s


@pytest.mark.parametrize(
    ("between_chunks_s", "patience_s", "told_s"), [(20.0, 20.0, 9.5), (5.0, 20.0, 5.0), (None, 20.0, 9.5)]
)
def test_half_of_the_time_is_all_that_silence_within_a_document_gets(between_chunks_s, patience_s, told_s):
    limits = CallTimeouts(between_chunks_s=between_chunks_s)
    tester = GatewayTester(*before(MISTRAL, timeouts=limits))
    tester.receive(0, evolve(PLAIN, client_timeout_s=patience_s))
    (begun,) = tester.granted(0)
    assert begun.stall_timeout_s == told_s


def test_the_last_one_and_an_engine_of_our_own_get_all_of_it():
    facts = chat("qwen", given=100, client_timeout_s=20.0)
    assert called(*before(GPT, first=QWEN), facts=facts).work.head_timeout_s is None
    assert called(facts=evolve(PLAIN, client_timeout_s=20.0)).work.head_timeout_s is None


# --- an answer breaks off in the middle


def broken(
    *models: ModelConfig,
    facts: Any = TEXT,
    failure: RelayFailure = RelayFailure.BROKEN,
    resumable: Resumable = Resumable.CONTINUE,
    **ended_facts: Any,
) -> tuple[GatewayTester, list[GatewayCommand]]:
    """The answer begins at second 1 and breaks off at second 3."""
    tester = called(*models, facts=facts)
    tester.answered(1)
    return tester, tester.relayed(3, failure, resumable=resumable, **ended_facts)


@pytest.mark.parametrize("is_continuable", [True, False])
@pytest.mark.parametrize("prefill", [None, Continuation.PREFIX])
@pytest.mark.parametrize("resumable", list(Resumable))
def test_the_same_provider_goes_on_with_its_answer(resumable, prefill, is_continuable):
    facts = evolve(TEXT, continuable=is_continuable)
    tester, told = broken(evolve(GPT, prefill=prefill), facts=facts, resumable=resumable)
    if resumable is Resumable.NO:
        assert told == [
            release(1, suspect=True),
            FailStream(request_id=R, problem=BROKE),
            ended(Outcome.BROKE_OFF, status=200, attempts=1, first_byte_s=1, total_s=3, problem=BROKE),
        ]
        return
    assert told == [release(1, suspect=True)]
    assert tester.wake(3.5) == [lease(4)]
    asked = Continuation.REPEAT
    if resumable is Resumable.CONTINUE and is_continuable and prefill is not None:
        asked = prefill
    assert tester.granted(3.5) == [call(5, continuation=asked)]
    assert kinds(tester.answered(4)) == [BeginRelay]
    assert tester.relayed(5, usage=USAGE) == [
        release(4, WELL),
        ended(
            Outcome.ANSWERED,
            status=200,
            attempts=2,
            first_byte_s=1,
            total_s=5,
            usage=USAGE,
            failed_attempts=(attempt(BROKE, "gpt"),),
        ),
    ]


@pytest.mark.parametrize("prefill", [None, Continuation.ASSISTANT])
@pytest.mark.parametrize("resumable", [Resumable.REPEAT, Resumable.CONTINUE])
def test_the_fallback_goes_on_with_an_answer_in_its_own_way(resumable, prefill):
    models = before(evolve(MISTRAL, prefill=prefill), retries=0, prefill=Continuation.PREFIX)
    tester, told = broken(*models, resumable=resumable)
    assert told == [release(1, suspect=True), lease(4, remote_spec("mistral"))]
    asked = prefill if resumable is Resumable.CONTINUE and prefill else Continuation.REPEAT
    assert tester.granted(3) == [call(5, "mistral", continuation=asked)]


def test_nothing_is_begun_anew_for_an_answer_that_cannot_be_resumed():
    _, told = broken(*before(MISTRAL), resumable=Resumable.NO)
    assert kinds(told) == [ReleaseLease, FailStream, type(ended(Outcome.BROKE_OFF))]


def test_an_answer_in_one_piece_is_cut():
    _, told = broken(*before(MISTRAL), facts=PLAIN, resumable=Resumable.NO)
    assert told[1] == CutConnection(request_id=R)


def test_text_completions_go_on_by_their_prompt_whatever_the_provider_can():
    facts = evolve(TEXT, format=ApiFormat.COMPLETION)
    tester, _ = broken(facts=facts)
    tester.wake(3.5)
    assert tester.granted(3.5)[0].continuation is Continuation.PROMPT


def test_an_engine_of_our_own_that_died_goes_on_once_it_is_started_again():
    tester = called(QWEN, facts=LOCAL_TEXT)
    tester.answered(1)
    tester.lost(3, CRASHED)
    assert tester.relayed(3, RelayFailure.BROKEN, resumable=Resumable.CONTINUE) == [lease(4, spec())]
    assert tester.gateway.wake_at == Deadline(8, "comment for a waiting client")
    tester.progress(7, position=1, engine="qwen@4096", phase="loading")
    text = "gatewright: qwen@4096 loading, position 1 in the queue, waited 8 s"
    assert tester.wake(8) == [SendComment(request_id=R, text=text)]
    assert tester.granted(9) == [
        CallUpstream(command_id=cid(5), request_id=R, base_url=URL, continuation=Continuation.LLAMACPP)
    ]
    assert kinds(tester.answered(10)) == [BeginRelay]
    assert tester.gateway.wake_at is None
    assert tester.relayed(11, usage=USAGE)[1] == record(
        Outcome.ANSWERED,
        context_tokens=4096,
        status=200,
        attempts=2,
        wait_s=6,
        first_byte_s=1,
        total_s=11,
        usage=USAGE,
        failed_attempts=(attempt(CRASHED),),
    )


def test_an_engine_of_our_own_that_an_operator_stopped_is_not_started_for_the_rest():
    stopped = EngineStopped("by hand").problem
    tester = called(*before(GPT, first=QWEN), facts=LOCAL_TEXT)
    tester.answered(1)
    tester.lost(3, stopped)
    told = tester.relayed(3, RelayFailure.BROKEN, resumable=Resumable.CONTINUE)
    assert told == [lease(4)]


def test_who_has_fallen_silent_is_not_asked_for_the_rest_where_another_can_be():
    tester, told = broken(*before(MISTRAL), failure=RelayFailure.STALLED)
    assert told[1] == lease(4, remote_spec("mistral"))
    tester, told = broken(failure=RelayFailure.STALLED)
    assert told == [release(1, suspect=True)]
    assert tester.wake(3.5) == [lease(4)]


@pytest.mark.parametrize(
    ("failure", "suspect"),
    [
        (RelayFailure.BROKEN, True),
        (RelayFailure.STALLED, True),
        (RelayFailure.INCOMPLETE, False),
        (RelayFailure.MALFORMED, False),
    ],
)
def test_every_way_to_break_off_is_gone_on_from(failure, suspect):
    tester, told = broken(failure=failure)
    assert told == [release(1, suspect=suspect)]
    assert tester.wake(3.5) == [lease(4)]


@pytest.mark.parametrize(
    ("status", "result", "goes_on"),
    [(None, FAILED, True), (503, FAILED, True), (400, WELL, False), (401, CREDENTIAL, False)],
)
def test_an_error_in_the_middle_is_gone_on_from_as_if_it_came_before(status, result, goes_on):
    error = evolve(SORRY, status=status)
    _, told = broken(failure=RelayFailure.REFUSED, error=error)
    assert told[0] == release(1, result)
    assert kinds(told[1:]) == ([] if goes_on else [FailStream, type(ended(Outcome.FAILED))])


def test_a_refusal_in_the_middle_is_told_in_the_stream():
    error = UpstreamError(message="no", code="content_filter")
    _, told = broken(*before(MISTRAL), failure=RelayFailure.REFUSED, error=error)
    assert told[1] == FailStream(request_id=R, problem=refusal(400, "no", "content_filter"))


def continuing(*models: ModelConfig, facts: Any = TEXT) -> GatewayTester:
    """At second 3.5 it is called for the rest."""
    tester, _ = broken(*(models or (evolve(GPT, prefill=Continuation.PREFIX),)), facts=facts)
    tester.wake(3.5)
    tester.granted(3.5)
    assert tester.work is not None
    return tester


def test_a_model_that_does_not_go_on_is_asked_to_begin_again_at_once():
    tester = continuing()
    assert tester.answered(4, 400, SORRY) == [DiscardAnswer(request_id=R), release(4, WELL), lease(6)]
    assert tester.granted(4) == [call(7, continuation=Continuation.REPEAT)]
    assert kinds(tester.answered(5)) == [BeginRelay]


def test_a_model_that_does_not_go_on_and_refuses_to_begin_again_has_failed():
    tester = continuing()
    tester.answered(4, 400, SORRY)
    tester.granted(4)
    assert kinds(tester.answered(5, 400, SORRY)) == [
        DiscardAnswer,
        ReleaseLease,
        FailStream,
        type(ended(Outcome.BROKE_OFF)),
    ]


def test_a_model_that_refused_to_go_on_is_not_asked_to_by_its_next_retry_but_the_fallback_is():
    prefill = Continuation.PREFIX
    tester = continuing(*before(evolve(MISTRAL, prefill=Continuation.ASSISTANT), prefill=prefill))
    tester.answered(4, 422, SORRY)
    tester.granted(4)
    tester.failed(5)
    assert tester.granted(5)[0].continuation is Continuation.ASSISTANT


def test_a_refusal_of_the_rest_for_what_it_says_is_no_refusal_to_go_on():
    tester = continuing()
    told = tester.answered(4, 400, UpstreamError(message="no", code="content_filter"))
    assert kinds(told) == [DiscardAnswer, ReleaseLease, FailStream, type(ended(Outcome.BROKE_OFF))]
    assert told[2].problem.kind == "UpstreamBroke"


def test_a_rest_that_does_not_begin_as_the_client_has_it_goes_to_the_next_model():
    tester = continuing(*before(MISTRAL))
    assert tester.failed(4, CallFailure.DIFFERENT) == [
        release(4, WELL),
        lease(6, remote_spec("mistral")),
    ]


def test_a_rest_that_does_not_begin_as_the_client_has_it_and_nobody_else_is_left():
    tester = continuing(GPT)
    different = UpstreamBroke("upstream of gpt: reset").problem
    tried = (attempt(BROKE, "gpt"), attempt(different, "gpt"))
    problem = evolve(BROKE, attempts=tried)
    assert tester.failed(4, CallFailure.DIFFERENT) == [
        release(4, WELL),
        FailStream(request_id=R, problem=problem),
        ended(
            Outcome.BROKE_OFF,
            status=200,
            attempts=2,
            first_byte_s=1,
            total_s=4,
            problem=problem,
            failed_attempts=tried,
        ),
    ]


def test_an_engine_of_our_own_that_writes_something_else_is_well():
    tester = called(QWEN, facts=LOCAL_TEXT)
    tester.answered(1)
    tester.relayed(2, RelayFailure.INCOMPLETE, resumable=Resumable.REPEAT)
    tester.granted(2)
    assert tester.failed(3, CallFailure.DIFFERENT)[0] == release(4, None)


def test_a_second_break_goes_on_from_there_and_a_third_is_the_end():
    tester = continuing()
    tester.answered(4)
    assert tester.relayed(5, RelayFailure.BROKEN, resumable=Resumable.CONTINUE) == [release(4, suspect=True)]
    assert tester.wake(6) == [lease(7)]
    assert tester.granted(6)[0].continuation is Continuation.PREFIX
    tester.answered(7)
    _, fail, end = tester.relayed(8, RelayFailure.STALLED, reason="silent", resumable=Resumable.CONTINUE)
    assert fail.problem == evolve(BROKE, attempts=end.failed_attempts)
    assert (end.outcome, end.attempts, len(end.failed_attempts)) == (Outcome.BROKE_OFF, 3, 3)


def test_a_second_break_in_what_cannot_be_resumed_is_the_end():
    tester = continuing()
    tester.answered(4)
    told = tester.relayed(5, RelayFailure.BROKEN, resumable=Resumable.NO)
    assert kinds(told) == [ReleaseLease, FailStream, type(ended(Outcome.BROKE_OFF))]
    assert told[1].problem.message == BROKE.message


def test_what_failed_before_the_answer_began_is_not_what_broke_it_off():
    tester = called(*before(MISTRAL), facts=TEXT)
    tester.answered(0.5, 401, SORRY)
    tester.granted(0.5)
    tester.answered(1)
    _, fail, end = tester.relayed(3, RelayFailure.BROKEN, resumable=Resumable.NO)
    assert fail.problem.message == "the answer of mistral broke off: reset"
    assert [tried.model for tried in fail.problem.attempts] == ["gpt", "mistral"]
    assert end.failed_attempts == fail.problem.attempts


def test_errors_after_an_answer_broke_off_are_told_in_the_stream():
    tester = continuing(GPT)
    told = tester.answered(4, 404, SORRY)
    assert kinds(told) == [DiscardAnswer, ReleaseLease, FailStream, type(ended(Outcome.BROKE_OFF))]
    assert told[2].problem.message == BROKE.message


def test_time_ends_while_it_goes_on():
    tester = continuing(evolve(GPT, timeouts=CallTimeouts(total_s=20.0)))
    assert kinds(tester.wake(20)) == [SendComment, CancelUpstream]
    _, fail, end = tester.failed(20, CallFailure.CANCELED)
    assert fail == FailStream(request_id=R, problem=too_slow(20, "gpt", attempt(BROKE, "gpt")))
    assert (end.outcome, end.status) == (Outcome.BROKE_OFF, 200)


def ratio(tester: GatewayTester, name: str) -> float:
    return tester.gateway._estimator.estimate(name, chat(name, 3000)).likely


def test_usage_of_a_whole_answer_is_learnt_from_and_of_a_continued_one_is_not():
    facts = chat("gpt", 3000, stream=True, continuable=True)
    tester = called(facts=facts)
    untaught = ratio(tester, "gpt")
    tester.answered(1)
    tester.relayed(2, RelayFailure.BROKEN, resumable=Resumable.CONTINUE)
    tester.wake(3)
    tester.granted(3)
    tester.answered(4)
    tester.relayed(5, usage=Usage(prompt_tokens=2000))
    assert ratio(tester, "gpt") == untaught
    tester.receive(6, facts, "s")
    tester.granted(6)
    tester.answered(7)
    tester.relayed(8, usage=Usage(prompt_tokens=2000))
    assert ratio(tester, "gpt") > untaught


def test_an_overflow_of_prompt_and_answer_is_not_learnt_from_but_moved_on_from():
    facts = chat("qwen", 3000, stream=True, continuable=True)
    tester = GatewayTester(model("qwen", 4096, 16384, max_oversize=1.0))
    untaught = ratio(tester, "qwen")
    tester.receive(0, facts)
    tester.granted(0, 4096)
    tester.answered(1)
    tester.relayed(2, RelayFailure.BROKEN, resumable=Resumable.CONTINUE)
    tester.granted(2, 4096)
    (_, _, asked) = tester.answered(3, 400, overflow(4200))
    assert asked.variants == (spec("qwen", 16384),)
    assert ratio(tester, "qwen") == untaught


# --- the client is gone, and the end of all


def test_gone_while_it_backs_off():
    tester = called()
    tester.failed(1)
    assert tester.gone(1.2) == [
        ended(
            Outcome.CANCELED,
            context_tokens=None,
            attempts=1,
            total_s=1.2,
            failed_attempts=(attempt(UNREACHABLE, "gpt"),),
        )
    ]
    assert tester.gateway.wake_at is None
    assert tester.wake(2) == []


def test_gone_while_the_fallback_is_waited_for():
    tester = called(*before(QWEN))
    tester.failed(1, CallFailure.TIMEOUT)
    release_it, end = tester.gone(2)
    assert release_it == ReleaseLease(lease_id=lid(3))
    assert (end.outcome, end.model, end.failed_attempts) == (
        Outcome.CANCELED,
        "qwen",
        (attempt(SILENT, "gpt"),),
    )


def test_gone_while_the_rest_of_its_answer_is_asked_for():
    tester = continuing()
    assert tester.gone(4) == [CancelUpstream(request_id=R)]
    assert tester.failed(4, CallFailure.CANCELED) == [
        release(4, None),
        ended(
            Outcome.CANCELED,
            status=200,
            attempts=2,
            first_byte_s=1,
            total_s=4,
            failed_attempts=(attempt(BROKE, "gpt"),),
        ),
    ]


def test_gone_as_its_answer_breaks_off_is_gone_and_nothing_is_tried():
    tester = called(facts=TEXT)
    tester.answered(1)
    tester.gone(2)
    release_it, end = tester.relayed(2, RelayFailure.BROKEN, resumable=Resumable.CONTINUE)
    assert release_it == release(1, None)
    assert end.outcome is Outcome.CANCELED


def test_gone_as_the_relay_saw_it_is_never_tried_again():
    tester = called(facts=TEXT)
    tester.answered(1)
    release_it, end = tester.relayed(2, RelayFailure.CLIENT_GONE, resumable=Resumable.CONTINUE)
    assert release_it == release(1, WELL)
    assert end.outcome is Outcome.CANCELED


def test_forced_shutdown_while_it_backs_off():
    tester = called()
    tester.failed(1)
    tried = (attempt(UNREACHABLE, "gpt"),)
    assert tester.tell(1.2, ShutdownRequested(force=True)) == [
        SendProblem(request_id=R, problem=SHUT, headers=headers(1, 0, variant=None, model="gpt")),
        ended(
            Outcome.FAILED,
            context_tokens=None,
            status=503,
            attempts=1,
            total_s=1.2,
            problem=SHUT,
            failed_attempts=tried,
        ),
        Drained(),
    ]


def test_forced_shutdown_while_the_rest_of_an_answer_is_waited_for():
    tester, _ = broken()
    fail, end, drained = tester.tell(3.2, ShutdownRequested(force=True))
    assert fail == FailStream(request_id=R, problem=SHUT)
    assert (end.outcome, end.status, drained) == (Outcome.BROKE_OFF, 200, Drained())


def test_a_shutdown_lets_a_retry_go_on():
    tester = called()
    tester.failed(1)
    assert tester.tell(1.2, ShutdownRequested()) == []
    assert tester.wake(1.5) == [lease(3)]
    tester.granted(1.5)
    tester.answered(2)
    assert tester.relayed(3)[-1] == Drained()
