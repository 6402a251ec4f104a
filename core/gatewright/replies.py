"""What clients and the operator are told of a request: pure functions of what is known of it."""

from typing import Final

from attrs import evolve

from gatewright.api.facts import RequestFacts
from gatewright.commands import CutConnection, FailStream, Outcome, RecordRequest, SendProblem
from gatewright.config import Config
from gatewright.errors import InvalidRequest, Problem, RequestTimeout
from gatewright.events import RelayEnded
from gatewright.ids import RequestId
from gatewright.requests import AwaitingLease, Held, Request
from gatewright.selection.variants import Fits

STREAM_STATUS: Final = 200
"""Of a stream that began before there was an answer."""

Headers = tuple[tuple[str, str], ...]


def headers(request: Request, held: Held | None, now: float) -> Headers:
    """Headers that tell the client how its answer came about."""
    variant = () if held is None else (("x-gw-variant", str(held.context_tokens)),)
    return (
        ("x-request-id", request.request_id),
        ("x-gw-model", request.model.name),
        *variant,
        ("x-gw-attempts", str(request.attempts.calls)),
        ("x-gw-wait-ms", str(round(request.wait_s(now) * 1000))),
    )


def waiting_comment(request: Request, now: float) -> str:
    """What a streaming client that waits is told."""
    waited_s = int(now - request.received_at)
    match request.state:
        case AwaitingLease(progress=progress) if progress is not None:
            expected = f" of about {progress.expected_s:.0f} s" if progress.expected_s else ""
            return (
                f"gatewright: {progress.engine} {progress.phase}, position {progress.position} in the queue, "
                f"waited {waited_s} s{expected}"
            )
        case _:
            return f"gatewright: waiting for {request.model.name}, {waited_s} s"


def not_counted(request: Request, reason: str, guess: Fits) -> str:
    """What the operator is told where nobody could count a prompt."""
    return (
        f"{request.request_id}: prompt of {request.facts.prompt_bytes} bytes for {request.model.name} "
        f"was not counted ({reason}); going by its length: variant {guess.variants[0].context_tokens}"
    )


def model_missing(config: Config) -> Problem:
    """For a request that names no model where several are configured."""
    names = ", ".join(model.name for model in config.models[:10])
    return InvalidRequest(f"'model' is missing; it names one of: {names}", param="model").problem


def failure(
    request: Request, problem: Problem, held: Held | None, now: float
) -> SendProblem | FailStream | CutConnection:
    """The way that is left to tell the client."""
    if request.stream_begun:
        return FailStream(request_id=request.request_id, problem=problem)
    if request.begun_status:
        return CutConnection(request_id=request.request_id)
    return SendProblem(request_id=request.request_id, problem=problem, headers=headers(request, held, now))


def exhausted(request: Request) -> Problem:
    """Why nothing that was tried gave an answer: the first failure of all, or the one that broke an answer off."""
    failures = request.attempts.failures
    problem = failures[request.broke_at or 0].problem
    return problem if len(failures) == 1 else with_attempts(request, problem)


def with_attempts(request: Request, problem: Problem) -> Problem:
    """The problem with a list of what was tried before."""
    return evolve(problem, attempts=tuple([failure.told for failure in request.attempts.failures]))


def too_slow(request: Request, now: float) -> Problem:
    """For a request whose time is over."""
    text = f"no complete answer of {request.model.name} within {now - request.received_at:.0f} s"
    return with_attempts(request, RequestTimeout(text).problem)


def record(
    request: Request,
    outcome: Outcome,
    now: float,
    *,
    status: int = 0,
    held: Held | None = None,
    relay: RelayEnded | None = None,
    problem: Problem | None = None,
) -> RecordRequest:
    """The one record of a request; `status` 0 is what the client saw before an answer began."""
    failures = request.attempts.failures
    if len(failures) == 1 and problem == failures[0].problem:
        failures = ()  # it says all that there is to say
    return RecordRequest(
        request_id=request.request_id,
        outcome=outcome,
        path=request.facts.path,
        model=request.model.name,
        context_tokens=held.context_tokens if held is not None else None,
        status=status or (STREAM_STATUS if request.stream_begun else 0),
        attempts=request.attempts.calls,
        wait_s=request.wait_s(now),
        first_byte_s=request.first_byte_s,
        total_s=now - request.received_at,
        usage=relay.usage if relay is not None else None,
        finish_reason=relay.finish_reason if relay is not None else None,
        problem=problem,
        failed_attempts=tuple([failure.told for failure in failures]),
    )


def record_of_refusal(request_id: RequestId, facts: RequestFacts, problem: Problem) -> RecordRequest:
    """The record of a request that reached no model."""
    return RecordRequest(
        request_id=request_id,
        outcome=Outcome.FAILED,
        path=facts.path,
        model=facts.model,
        status=problem.status,
        problem=problem,
    )
