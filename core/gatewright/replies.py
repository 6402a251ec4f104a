"""What clients and the operator are told of a request: pure functions of what is known of it."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Final
from urllib.parse import quote

from attrs import evolve

from gatewright.api.facts import RequestFacts
from gatewright.commands import CutConnection, FailStream, Outcome, RecordRequest, SendProblem
from gatewright.config import Config
from gatewright.errors import InvalidRequest, ModelNotFound, Problem, RequestTimeout
from gatewright.events import RelayEnded
from gatewright.ids import RequestId
from gatewright.requests import AwaitingLease, Held, Request
from gatewright.selection.decision import Decision
from gatewright.selection.variants import Fits

STREAM_STATUS: Final = 200
"""Of a stream that began before there was an answer."""

Headers = tuple[tuple[str, str], ...]

_NAME_CHARACTERS: Final = "-_.~/:@+ "
_LONGEST_HEADER: Final = 400


def headers(request: Request, held: Held | None, now: float) -> Headers:
    """Headers that tell the client how its answer came about."""
    variant = () if held is None else (("x-gw-variant", str(held.context_tokens)),)
    model = (("x-gw-model", request.model.name),) if request.is_chosen else ()
    return (
        ("x-request-id", request.request_id),
        *model,
        *variant,
        *decision_headers(request),
        ("x-gw-attempts", str(request.attempts.calls)),
        ("x-gw-wait-ms", str(round(request.wait_s(now) * 1000))),
    )


def cost_header(cost_usd: float) -> Headers:
    """What the answer has cost; nothing where that is nothing."""
    return (("x-gw-cost-usd", f"{cost_usd:.9f}"),) if cost_usd else ()


def decision_headers(request: Request) -> Headers:
    """How the model was chosen; nothing where the client named it."""
    decision = request.decision
    if decision is None:
        return ()
    failures = [each for each in request.attempts.failures if not each.is_clients]
    in_vain = dict.fromkeys([f"{each.model}: {each.problem.kind}" for each in failures])
    found = [
        ("x-gw-route", decision.route or ""),
        ("x-gw-complexity", decision.complexity or ""),
        ("x-gw-score", f"{decision.score:.3f}"),
        ("x-gw-confidence", f"{decision.confidence:.2f}"),
        # What the client wishes and the models' own fallbacks have changed in the ranking is in here, too.
        ("x-gw-chain", ",".join(quote(each.name, safe=_NAME_CHARACTERS) for each in request.attempts.chain)),
        ("x-gw-estimated-cost-usd", f"{decision.estimated_cost_usd:.9f}"),
        ("x-gw-relaxed", ",".join(decision.relaxed)),
        ("x-gw-experiment", f"{decision.experiment}/{decision.arm}" if decision.experiment else ""),
        ("x-gw-reason", _reason(request, decision, in_vain)),
        ("x-gw-failed", ", ".join(in_vain)),
    ]
    return tuple([(name, _header_text(text)) for name, text in found if text])


def _reason(request: Request, decision: Decision, in_vain: Iterable[str]) -> str:
    """Why this model: as the decision says, or since others have failed."""
    if not request.attempts.index:
        return decision.reason
    return f"{request.model.name}, since {', '.join(in_vain)}; first choice: {decision.reason}"


def _header_text(text: str) -> str:
    """Text that any header may hold: without line breaks, in ASCII, as long as a line."""
    line = " ".join(text.split())
    return "".join(c if " " <= c <= "~" else "?" for c in line)[:_LONGEST_HEADER]


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
        case _ if request.is_chosen:
            return f"gatewright: waiting for {request.model.name}, {waited_s} s"
        case _:
            return f"gatewright: choosing a model, {waited_s} s"


def not_counted(request: Request, reason: str, guess: Fits) -> str:
    """What the operator is told where nobody could count a prompt."""
    return (
        f"{request.request_id}: prompt of {request.facts.prompt_bytes} bytes for {request.model.name} "
        f"was not counted ({reason}); going by its length: variant {guess.variants[0].context_tokens}"
    )


def model_missing(config: Config) -> Problem:
    """For a request that names no model where several are configured."""
    known = [route.name for route in config.routes] + [model.name for model in config.models]
    names = ", ".join(known[:10])
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
    of_whom = f" of {request.model.name}" if request.is_chosen else ""
    text = f"no complete answer{of_whom} within {now - request.received_at:.0f} s"
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
    facts, decision, choice, log = request.facts, request.decision, request.choice, request.log
    is_answered = outcome is Outcome.ANSWERED
    return RecordRequest(
        request_id=request.request_id,
        outcome=outcome,
        path=facts.path,
        model=request.model.name if request.is_chosen else None,
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
        route=choice.route.name if choice is not None else None,
        decision=decision,
        task=log.task,
        complexity=log.complexity,
        key_id=facts.key.key_id if facts.key is not None else None,
        user=facts.wishes.user if facts.wishes is not None else None,
        estimated_cost_usd=decision.estimated_cost_usd if decision is not None else 0.0,
        cost_usd=log.cost_usd,
        charges=tuple(log.accounts.values()),
        charged_usd=log.charged_usd,
        outcomes=log.outcomes,
        select_s=choice.duration_s if choice is not None else 0.0,
        judge=choice.judge if choice is not None and is_answered else None,
    )


def record_of_refusal(
    request_id: RequestId, facts: RequestFacts, problem: Problem, config: Config
) -> RecordRequest:
    """The record of a request that reached no model.

    It has the model or route that was named only where there is one: clients may make up as many names as they like, and
    figures are kept for each.
    """
    route = config.find_route(facts.model)
    model: str | None = None
    if facts.model is not None and route is None:
        with suppress(ModelNotFound):
            model = config.find_model(facts.model).name
    return RecordRequest(
        request_id=request_id,
        outcome=Outcome.FAILED,
        path=facts.path,
        model=model,
        route=route.name if route is not None else None,
        status=problem.status,
        problem=problem,
        key_id=facts.key.key_id if facts.key is not None else None,
    )
