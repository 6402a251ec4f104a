"""What a failed attempt means: what may help, and what it says about the upstream.

The rules for HTTP statuses are those of the official clients (408, 409, 429 and 5xx may be tried again), without
the statuses that say that an upstream never will: 501 and 505 (RFC 9110, 15.6).
"""

from enum import StrEnum
from http import HTTPStatus
from typing import Final

from attrs import frozen

from gatewright.api.facts import FIRST_ERROR_STATUS, UpstreamError
from gatewright.config import ModelConfig
from gatewright.errors import (
    CircuitOpen,
    EngineHostLost,
    EngineStopped,
    FailedAttempt,
    Problem,
    ShuttingDown,
    UpstreamBroke,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gatewright.events import CallFailure, RelayEnded, RelayFailure, UpstreamAnswered, UpstreamFailed
from gatewright.leases import CallResult


class Remedy(StrEnum):
    """What may help against a failure."""

    RETRY = "retry"
    """The same upstream again, then the next model."""
    NEXT = "next"
    """The next model."""
    NEXT_OR_RETRY = "next or retry"
    """The next model; where there is none, the same upstream again."""
    LARGER = "larger"
    """The next model with a larger context."""
    CHEAPER = "cheaper"
    """The next model that costs less."""
    NONE = "none"
    """Nothing: every other model would say the same, or nobody is left to ask."""


@frozen(kw_only=True)
class Failure:
    """One attempt that came to nothing.

    Attributes:
        model: Model that was to answer.
        problem: What the client is told if nothing helps.
        remedy: What may help.
        result: What it says about a remote upstream, if anything.
        at_once: Another try need not wait: nothing is overloaded.
        is_refusal: The upstream will not answer for what the request says (content policy).
        upstream_status: HTTP status of the upstream, where it answered with an error.
        retry_after_s: For how long the upstream asked to be left alone.
        context_tokens: Context that was too small, where a larger one may help.
        cost_usd: Estimated cost that was too much, where a cheaper model may help.
        is_offline: A provider cannot be reached at all, or has not been well and is left alone for a while.
        is_clients: The client's own limit; no model has anything to do with it.
    """

    model: str
    problem: Problem
    remedy: Remedy
    result: CallResult | None = None
    at_once: bool = False
    is_refusal: bool = False
    upstream_status: int | None = None
    retry_after_s: float | None = None
    context_tokens: int = 0
    cost_usd: float = 0.0
    is_offline: bool = False
    is_clients: bool = False

    @property
    def told(self) -> FailedAttempt:
        """It as clients and operators hear of it."""
        return FailedAttempt(
            model=self.model,
            kind=self.problem.kind,
            message=self.problem.message,
            upstream_status=self.upstream_status,
        )


_BAD_STATUS: Final = 502
"""Of an error that came in the place of an answer, names no status of its own, and is not the request's fault."""
_RETRIED: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS})
_NEVER: Final = frozenset({HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED})
_CREDENTIAL: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.PAYMENT_REQUIRED, HTTPStatus.FORBIDDEN})
_NO_CREDIT: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached", "insufficient_balance"})
_POLICY: Final = frozenset(
    {"content_policy_violation", "content_filter", "moderation_blocked", "responsibleaipolicyviolation"}
)
_FIRST_SERVER_ERROR: Final = 500


def of_size(model: ModelConfig, problem: Problem) -> Failure:
    """No variant of the model is large enough."""
    return Failure(
        model=model.name,
        problem=problem,
        remedy=Remedy.LARGER,
        context_tokens=model.largest_context_tokens,
    )


def of_lease(model: ModelConfig, problem: Problem) -> Failure:
    """The Fleet has no engine for it, or no more."""
    match problem.kind:
        case EngineHostLost.__name__:
            remedy = Remedy.RETRY
        case ShuttingDown.__name__:
            remedy = Remedy.NONE
        case _:
            remedy = Remedy.NEXT
    return Failure(
        model=model.name,
        problem=problem,
        remedy=remedy,
        at_once=True,
        is_offline=model.is_remote and problem.kind == CircuitOpen.__name__,
    )


def of_budget(model: ModelConfig, problem: Problem, cost_usd: float, *, is_rate: bool) -> Failure:
    """A budget or a rate limit does not allow the call.

    Args:
        model: Who was to be called.
        problem: What the client is told.
        cost_usd: What the call would cost, by estimate.
        is_rate: It is a rate limit, which counts for every model.
    """
    remedy = Remedy.NONE if is_rate else Remedy.CHEAPER
    return Failure(
        model=model.name,
        problem=problem,
        remedy=remedy,
        at_once=True,
        cost_usd=cost_usd,
        is_clients=is_rate,
    )


def of_call(model: ModelConfig, failed: UpstreamFailed, lost: Problem | None) -> Failure:
    """There is no answer.

    Args:
        model: Who was called.
        failed: How it failed.
        lost: Why the engine is gone, where it is.
    """
    if lost is not None and is_stop(lost):
        return of_lease(model, lost)
    result = CallResult.FAILED if model.is_remote else None
    text = f"upstream of {model.name}: {failed.reason}"
    match failed.failure:
        case CallFailure.TIMEOUT:
            problem, remedy = UpstreamTimeout(text).problem, Remedy.NEXT
        case CallFailure.DIFFERENT:
            problem, remedy = UpstreamBroke(text).problem, Remedy.NEXT
            result = CallResult.WELL if model.is_remote else None
        case _:
            problem, remedy = UpstreamUnreachable(text).problem, Remedy.RETRY
    return Failure(
        model=model.name,
        problem=lost or problem,
        remedy=remedy,
        result=result,
        at_once=not model.is_remote,
        is_offline=model.is_remote and failed.failure is CallFailure.UNREACHABLE,
    )


def error_of(answered: UpstreamAnswered) -> UpstreamError | None:
    """What is wrong with an answer; None if nothing is."""
    if answered.error is None and answered.status >= FIRST_ERROR_STATUS:
        return UpstreamError(message=f"the upstream answered {answered.status}")
    return answered.error


def of_answer(model: ModelConfig, error: UpstreamError, status: int) -> Failure:
    """The answer is an error.

    Args:
        model: Who was called.
        error: What is wrong.
        status: HTTP status under which that came, which may be that of a success.
    """
    named = error.status if status < FIRST_ERROR_STATUS else status
    names = {name.lower() for name in (error.type, error.code) if name is not None}
    is_refusal = bool(names & _POLICY) and (named is None or named < _FIRST_SERVER_ERROR)
    status = named or (HTTPStatus.BAD_REQUEST if is_refusal or error.overflow else _BAD_STATUS)
    result: CallResult | None = CallResult.WELL
    at_once = False
    if is_refusal:
        remedy = Remedy.NONE
    elif error.overflow:
        remedy = Remedy.LARGER
    elif status in _CREDENTIAL or names & _NO_CREDIT:
        remedy, result = Remedy.NEXT, CallResult.CREDENTIAL
    elif status in _RETRIED or (status >= _FIRST_SERVER_ERROR and status not in _NEVER):
        # An engine of one's own that says 500 to a request will say it again, but for one that still loads.
        remedy = Remedy.RETRY if model.is_remote or error.loading else Remedy.NEXT
        result = None if status == HTTPStatus.CONFLICT else CallResult.FAILED
        at_once = error.loading and not model.is_remote
    elif status in _NEVER or (status == HTTPStatus.NOT_FOUND and model.is_remote):
        remedy = Remedy.NEXT
    else:
        remedy = Remedy.NONE
    problem = UpstreamRefused(error.message, status, error.type, error.code).problem
    if error.retry_after_s is not None:
        problem = problem.with_retry_after(error.retry_after_s)
    return Failure(
        model=model.name,
        problem=problem,
        remedy=remedy,
        result=result if model.is_remote else None,
        at_once=at_once,
        is_refusal=is_refusal,
        upstream_status=status,
        retry_after_s=error.retry_after_s,
        context_tokens=error.context_tokens or model.largest_context_tokens,
    )


def of_relay(model: ModelConfig, ended: RelayEnded, lost: Problem | None) -> Failure:
    """The answer broke off after the client had got a part of it.

    Args:
        model: Whose answer.
        ended: How it ended.
        lost: Why the engine is gone, where it is.
    """
    if lost is not None and is_stop(lost):
        return of_lease(model, lost)
    if ended.error is not None:
        return of_answer(model, ended.error, 0)
    text = f"the answer of {model.name} broke off: {ended.reason}"
    is_stalled = ended.failure is RelayFailure.STALLED
    return Failure(
        model=model.name,
        problem=lost or UpstreamBroke(text).problem,
        remedy=Remedy.NEXT_OR_RETRY if is_stalled else Remedy.RETRY,
        result=CallResult.FAILED if model.is_remote else None,
        at_once=not model.is_remote,
    )


def is_stop(lost: Problem) -> bool:
    """Whether an engine is gone because somebody wanted it to be."""
    return lost.kind in {EngineStopped.__name__, ShuttingDown.__name__}
