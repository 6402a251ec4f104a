"""What clients and the operator are told of a request: pure functions of what is known of it."""

from typing import Final

from gatewright.api.facts import RequestFacts
from gatewright.commands import CutConnection, FailStream, Outcome, RecordRequest, SendProblem
from gatewright.config import Config
from gatewright.errors import (
    InvalidRequest,
    Problem,
    UpstreamBroke,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gatewright.events import CallFailure, RelayEnded, UpstreamAnswered, UpstreamFailed
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
        ("x-gw-attempts", str(request.attempts)),
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
    request: Request, problem: Problem, held: Held | None, now: float, *, has_begun: bool
) -> SendProblem | FailStream | CutConnection:
    """The way that is left to tell the client; `has_begun` if part of an answer has gone out."""
    if request.stream_begun:
        return FailStream(request_id=request.request_id, problem=problem)
    if has_begun:
        return CutConnection(request_id=request.request_id)
    return SendProblem(request_id=request.request_id, problem=problem, headers=headers(request, held, now))


def call_problem(request: Request, held: Held, failed: UpstreamFailed) -> Problem:
    """Why there is no answer."""
    text = f"upstream of {request.model.name}: {failed.reason}"
    if held.lost is not None:
        return held.lost
    return (UpstreamTimeout if failed.failure is CallFailure.TIMEOUT else UpstreamUnreachable)(text).problem


def refused_problem(answered: UpstreamAnswered) -> Problem:
    """An upstream's error for a client that cannot have it as it came."""
    error = answered.error
    if error is None:
        return UpstreamRefused(
            f"the upstream answered {answered.status}", answered.status, None, None
        ).problem
    return UpstreamRefused(error.message, answered.status, error.type, error.code).problem


def relay_problem(request: Request, held: Held, ended: RelayEnded) -> Problem:
    """Why the answer is not complete."""
    if held.lost is not None:
        return held.lost
    return UpstreamBroke(f"the answer of {request.model.name} broke off: {ended.reason}").problem


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
    return RecordRequest(
        request_id=request.request_id,
        outcome=outcome,
        path=request.facts.path,
        model=request.model.name,
        context_tokens=held.context_tokens if held is not None else None,
        status=status or (STREAM_STATUS if request.stream_begun else 0),
        attempts=request.attempts,
        wait_s=request.wait_s(now),
        first_byte_s=request.first_byte_s,
        total_s=now - request.received_at,
        usage=relay.usage if relay is not None else None,
        finish_reason=relay.finish_reason if relay is not None else None,
        problem=problem,
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
