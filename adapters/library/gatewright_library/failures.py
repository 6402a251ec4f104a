"""What an exception means: whatever a client library raises, read the way the gateway reads its upstreams."""

import errno
import socket
from collections.abc import Mapping
from typing import Final

import msgspec
from attrs import evolve

from gatewright.api.errors import read_upstream_error
from gatewright.api.facts import FIRST_ERROR_STATUS
from gatewright.config import EngineKind
from gatewright.config import ModelConfig as GatewayModel
from gatewright.engines.spec import EngineSpec
from gatewright.errors import (
    BudgetExceeded,
    CapabilityNotSupported,
    ContextTooLarge,
    GatewrightError,
    ModelNotAllowed,
    ModelNotFound,
    NoModelFits,
    ResourceExhausted,
)
from gatewright.events import CallFailure, UpstreamFailed
from gatewright.ids import CommandId
from gatewright.leases import CallResult
from gatewright.selection import failures
from gatewright.selection.failures import Failure, Remedy
from gatewright.wire.fields import Headers, encode_headers
from gatewright_library.models import ModelConfig

_TIMEOUT_NAMES: Final = frozenset({"APITimeoutError", "TimeoutException", "Timeout", "ServerTimeoutError"})
_CONNECTION_NAMES: Final = frozenset(
    {"APIConnectionError", "TransportError", "ConnectionError", "ClientConnectionError", "URLError"}
)
"""What the client libraries in use call these, none of which has to be installed."""
_UNREACHABLE: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN})
_LAST_STATUS: Final = 599
_NOBODY: Final = ModelConfig(name="a model")
_UNAVAILABLE: Final = frozenset({CallResult.FAILED, CallResult.CREDENTIAL})


class AnswerRejected(GatewrightError):
    """A model answered, and the caller does not take the answer for a good one."""

    status = 502
    code = "answer_rejected"


def failure_of(error: BaseException, model: ModelConfig | None = None) -> Failure:
    """What an exception means, and what may help.

    Args:
        error: Raised by whoever called the model: the `openai` package, httpx, requests, urllib, or code of one's own.
        model: Who was called, where that is known.
    """
    model = model or _NOBODY
    upstream = _as_upstream(model)
    if isinstance(error, GatewrightError):
        failure = _of_named(error, upstream)
    elif (status := _status_of(error)) is not None:
        told = read_upstream_error(status, _headers_of(error), _body_of(error))
        failure = failures.of_answer(upstream, told, status)
    elif (kind := _kind_of(error)) is not None:
        reason = str(error) or type(error).__name__
        failure = failures.of_call(
            upstream, UpstreamFailed(command_id=CommandId(0), failure=kind, reason=reason), None
        )
    else:
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        problem = evolve(GatewrightError(" ".join(text.split())).problem, kind=type(error).__name__)
        failure = Failure(model=model.name, problem=problem, remedy=Remedy.NEXT, at_once=True)
    return evolve(failure, is_offline=failure.is_offline and not model.is_local)


def is_unavailability(failure: Failure) -> bool:
    """Whether a failure says that nobody answered, and so nothing about how good the answers are."""
    return failure.result in _UNAVAILABLE


def says_something_of_quality(failure: Failure) -> bool:
    """Whether a failure counts against the model itself; a request that no model could answer does not."""
    if is_unavailability(failure):
        return False
    return failure.is_refusal or (failure.result is None and failure.remedy is Remedy.NEXT)


def _of_named(error: GatewrightError, upstream: GatewayModel) -> Failure:
    problem = error.problem
    match error:
        case BudgetExceeded():
            return failures.of_budget(upstream, problem, 0.0, is_rate=False)
        case ContextTooLarge():
            return failures.of_size(upstream, problem)
        case AnswerRejected():
            return Failure(model=upstream.name, problem=problem, remedy=Remedy.NEXT, at_once=True)
        case (
            ModelNotFound()
            | ModelNotAllowed()
            | CapabilityNotSupported()
            | NoModelFits()
            | ResourceExhausted()
        ):
            result = CallResult.WELL  # the model was not asked
            return Failure(
                model=upstream.name, problem=problem, remedy=Remedy.NEXT, result=result, at_once=True
            )
        case _:
            said = {"message": problem.message, "type": problem.type, "code": problem.code}
            told = read_upstream_error(problem.status, (), msgspec.json.encode({"error": said}))
            told = evolve(told, retry_after_s=problem.retry_after_s)
            return evolve(failures.of_answer(upstream, told, problem.status), problem=problem)


def _status_of(error: BaseException) -> int | None:
    """HTTP status that an exception names, where client libraries put it."""
    for holder in (error, getattr(error, "response", None)):
        for attribute in ("status_code", "status"):
            status = getattr(holder, attribute, None)
            if isinstance(status, int) and FIRST_ERROR_STATUS <= status <= _LAST_STATUS:
                return int(status)
    return None


def _headers_of(error: BaseException) -> Headers:
    headers = getattr(getattr(error, "response", None), "headers", None) or getattr(error, "headers", None)
    items = getattr(headers, "items", None)
    if items is None:
        return ()
    return encode_headers((str(name).lower(), str(value)) for name, value in items())


def _body_of(error: BaseException) -> bytes:
    """The upstream's words, as it sent them or as the client library has kept them."""
    body = getattr(error, "body", None)
    if isinstance(body, Mapping):
        try:
            return msgspec.json.encode(body if "error" in body else {"error": body})
        except (TypeError, ValueError):
            return str(error).encode("utf-8", "replace")
    if isinstance(body, bytes):
        return body
    return str(error).encode("utf-8", "replace")


def _kind_of(error: BaseException) -> CallFailure | None:
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, TimeoutError) or names & _TIMEOUT_NAMES:
        return CallFailure.TIMEOUT
    if isinstance(error, ConnectionError | socket.gaierror) or names & _CONNECTION_NAMES:
        return CallFailure.UNREACHABLE
    if isinstance(error, OSError) and error.errno in _UNREACHABLE:
        return CallFailure.UNREACHABLE
    return None


def _as_upstream(model: ModelConfig) -> GatewayModel:
    """A model as the gateway would have it that calls a provider: what fails there fails here."""
    variant = EngineSpec(model=model.name, context_tokens=model.max_tokens, connect="", place="remote")
    return GatewayModel(name=model.name, engine=EngineKind.OPENAI, variants=(variant,))
