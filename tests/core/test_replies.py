import pytest

from gatewright import replies
from gatewright.commands import CutConnection, FailStream, Outcome, SendProblem
from gatewright.errors import EngineCrashed, FailedAttempt, Problem, RequestTimeout, UpstreamRefused
from gatewright.leases import LeaseProgress
from gatewright.requests import AwaitingLease, BackingOff, Held, Request
from gatewright.selection.failures import Failure, Remedy
from gatewright.selection.fallback import Attempts
from gatewright.selection.variants import Fits
from tests.core.machines.build import chat, config, lid, model, rid, spec


def request() -> Request:
    return Request(rid("r"), chat(stream=True), Attempts((model(),)), 10.0, 10.0, 20.0)


def test_headers_name_the_variant_that_answered():
    assert replies.headers(request(), Held(lid(1), 4096), 10.0996) == (
        ("x-request-id", "r"),
        ("x-gw-model", "qwen"),
        ("x-gw-variant", "4096"),
        ("x-gw-attempts", "0"),
        ("x-gw-wait-ms", "100"),
    )


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (None, "gatewright: waiting for qwen, 7 s"),
        (
            LeaseProgress(lease_id=lid(1), position=3, engine="qwen@4096", phase="loading"),
            "gatewright: qwen@4096 loading, position 3 in the queue, waited 7 s",
        ),
        (
            LeaseProgress(lease_id=lid(1), position=1, engine="qwen@4096", phase="starting", expected_s=41.7),
            "gatewright: qwen@4096 starting, position 1 in the queue, waited 7 s of about 42 s",
        ),
    ],
)
def test_comments_say_what_is_waited_for(progress, text):
    waiting = request()
    waiting.state = AwaitingLease(lid(1), Fits((spec(),), 100), progress)
    assert replies.waiting_comment(waiting, 17.9) == text


def test_who_backs_off_is_told_no_more_than_that_it_waits():
    waiting = request()
    waiting.state = BackingOff(20.0)
    assert replies.waiting_comment(waiting, 17.9) == "gatewright: waiting for qwen, 7 s"


def test_at_most_ten_models_are_named():
    message = replies.model_missing(config(*(model(f"m{number}") for number in range(12)))).message
    assert message.endswith("m8, m9")


def test_a_stream_that_began_was_seen_with_its_status():
    begun = request()
    assert replies.record(begun, Outcome.CANCELED, 12.0).status == 0
    begun.stream_begun = True
    assert replies.record(begun, Outcome.CANCELED, 12.0).status == 200


REFUSED = UpstreamRefused("no", 503, None, None).problem
CRASHED = EngineCrashed("died").problem


def failed(*problems: Problem) -> Request:
    """These failures, in order."""
    subject = request()
    subject.attempts.failures = tuple(
        [
            Failure(model=f"m{number}", problem=problem, remedy=Remedy.NEXT)
            for number, problem in enumerate(problems)
        ]
    )
    return subject


def told(*kinds: tuple[str, str]) -> tuple[FailedAttempt, ...]:
    return tuple(
        [FailedAttempt(model=f"m{at}", kind=kind, message=text) for at, (kind, text) in enumerate(kinds)]
    )


def test_a_single_failure_is_told_as_it_is():
    assert replies.exhausted(failed(REFUSED)) == REFUSED
    record = replies.record(failed(REFUSED), Outcome.FAILED, 12.0, problem=REFUSED)
    assert record.failed_attempts == ()


def test_of_several_failures_the_first_is_told_and_all_are_listed():
    subject = failed(REFUSED, CRASHED)
    problem = replies.exhausted(subject)
    attempts = told(("UpstreamRefused", "no"), ("EngineCrashed", "died"))
    assert (problem.kind, problem.message, problem.attempts) == ("UpstreamRefused", "no", attempts)
    assert replies.record(subject, Outcome.FAILED, 12.0, problem=problem).failed_attempts == attempts


def test_an_answer_that_broke_off_is_told_by_what_broke_it():
    subject = failed(REFUSED, CRASHED, REFUSED)
    subject.broke_at = 1
    problem = replies.exhausted(subject)
    assert problem.kind == "EngineCrashed"
    assert len(problem.attempts) == 3


def test_a_failure_that_was_overcome_is_recorded():
    record = replies.record(failed(REFUSED), Outcome.ANSWERED, 12.0)
    assert record.failed_attempts == told(("UpstreamRefused", "no"))


@pytest.mark.parametrize("problems", [(), (REFUSED,), (REFUSED, CRASHED)])
def test_who_took_too_long_hears_for_how_long_and_why(problems):
    problem = replies.too_slow(failed(*problems), 71.2)
    assert (problem.kind, problem.status) == (RequestTimeout.__name__, 504)
    assert problem.message == "no complete answer of qwen within 61 s"
    assert len(problem.attempts) == len(problems)


def test_there_is_one_way_left_to_tell_a_failure():
    subject = request()
    assert replies.failure(subject, REFUSED, None, 11.0) == SendProblem(
        request_id=rid("r"), problem=REFUSED, headers=replies.headers(subject, None, 11.0)
    )
    subject.begun_status = 200
    assert replies.failure(subject, REFUSED, None, 11.0) == CutConnection(request_id=rid("r"))
    subject.stream_begun = True
    assert replies.failure(subject, REFUSED, None, 11.0) == FailStream(request_id=rid("r"), problem=REFUSED)
