"""Everything that can go wrong, once: as an exception for Python callers and as a `Problem` for the wire.

The machines never raise these; they carry the `Problem` in commands and events. Statuses, types and codes
are OpenAI's, so that the official clients retry what helps and nothing else.
"""

from collections.abc import Iterable, Mapping
from typing import ClassVar

from attrs import evolve, field, frozen


@frozen(kw_only=True)
class FailedAttempt:
    """One try that came to nothing.

    Attributes:
        model: Model that was to answer.
        kind: Name of the exception class that stands for the failure.
        message: What happened, one line.
        upstream_status: HTTP status of the upstream, where it answered.
    """

    model: str
    kind: str
    message: str
    upstream_status: int | None = None


@frozen(kw_only=True)
class Problem:
    """One failure as a value, ready to be rendered by any transport.

    Attributes:
        kind: Name of the exception class that stands for it.
        message: What happened and what to do about it, one line.
        status: HTTP status.
        type: OpenAI error type.
        code: OpenAI error code.
        param: Request field at fault.
        retry_after_s: Seconds after which another try may help.
        should_retry: Whether a client's own retry can help; None leaves it to the client's rules.
        details: Further members of the error object, such as `n_prompt_tokens`.
        attempts: What was tried in vain, where that was more than one thing.
    """

    kind: str
    message: str
    status: int
    type: str
    code: str | None = None
    param: str | None = None
    retry_after_s: float | None = None
    should_retry: bool | None = None
    details: dict[str, int | str] = field(factory=dict, hash=False)
    attempts: tuple[FailedAttempt, ...] = ()

    def with_retry_after(self, retry_after_s: float) -> "Problem":
        """The same failure, with the time after which a retry may help."""
        return evolve(self, retry_after_s=retry_after_s)


class GatewrightError(Exception):
    """Base of every failure that Gatewright names.

    Args:
        message: What happened, one line.
        param: Request field at fault.
        retry_after_s: Seconds after which another try may help.
        details: Further members of the error object.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = None
    should_retry: ClassVar[bool | None] = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        details: dict[str, int | str] | None = None,
    ) -> None:
        super().__init__(message)
        self.problem = Problem(
            kind=type(self).__name__,
            message=message,
            status=self.status,
            type=self.type,
            code=self.code,
            param=param,
            retry_after_s=retry_after_s,
            should_retry=self.should_retry,
            details=details or {},
        )


class InvalidRequest(GatewrightError, ValueError):
    """The request cannot be understood, whoever would answer it."""

    status = 400
    type = "invalid_request_error"
    should_retry = False


class Unauthorized(GatewrightError):
    """No API key, or a wrong one."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"
    should_retry = False


class KeysUnknown(GatewrightError):
    """The store has not told yet which API keys there are."""

    status = 503
    type = "server_error"
    code = "keys_unknown"


class NotAllowed(GatewrightError):
    """The API key, or whoever has none, may not do this."""

    status = 403
    type = "invalid_request_error"
    code = "not_allowed"
    should_retry = False


class NotFound(GatewrightError, LookupError):
    """There is nothing of that name or id."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"
    should_retry = False


class NameTaken(GatewrightError):
    """What is there already, or stands in the configuration, does not allow this."""

    status = 409
    type = "invalid_request_error"
    code = "conflict"
    should_retry = False


class HostNotAllowed(GatewrightError):
    """The `Host` header names a host that this server does not answer for (DNS rebinding)."""

    status = 403
    type = "invalid_request_error"
    code = "host_not_allowed"
    should_retry = False


class EndpointNotFound(GatewrightError):
    """No such path."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"
    should_retry = False


class MethodNotAllowed(GatewrightError):
    """The path exists, with another method."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"
    should_retry = False


class BodyTooLarge(GatewrightError):
    """The request body exceeds `server.max_body_bytes`."""

    status = 413
    type = "invalid_request_error"
    code = "request_too_large"
    should_retry = False


class ModelNotFound(GatewrightError, ValueError):
    """No model of that name or alias.

    Args:
        name: What was asked for.
        near: What may have been meant; None if nothing is near.
    """

    status = 404
    type = "invalid_request_error"
    code = "model_not_found"
    should_retry = False

    def __init__(self, name: str, *, near: str | None = None) -> None:
        hint = f"; did you mean '{near}'?" if near is not None else ""
        super().__init__(f"Model '{name}' not found in configuration{hint}", param="model")


class ModelNotAllowed(GatewrightError):
    """The API key may not use this model or route."""

    status = 403
    type = "invalid_request_error"
    code = "model_not_allowed"
    should_retry = False

    def __init__(self, message: str) -> None:
        super().__init__(message, param="model")


class CapabilityNotSupported(GatewrightError, ValueError):
    """The model cannot do what the request needs."""

    status = 400
    type = "invalid_request_error"
    code = "capability_not_supported"
    should_retry = False


class NoModelFits(GatewrightError, ValueError):
    """A route has no candidate that meets all criteria.

    Args:
        message: Who failed on what, one line.
        rejected: Candidates turned away, by criterion.
    """

    status = 400
    type = "invalid_request_error"
    code = "no_model_fits"
    should_retry = False

    def __init__(self, message: str, rejected: Mapping[str, int] | None = None) -> None:
        counts = ", ".join(f"{criterion} {count}" for criterion, count in (rejected or {}).items())
        super().__init__(message, param="model", details={"rejected": counts} if counts else None)


class ContextTooLarge(GatewrightError, ValueError):
    """The request needs more context than the model's largest variant has.

    Args:
        need_tokens: Prompt, answer and margin together.
        largest_tokens: Context of the largest variant.
        prompt_tokens: The prompt alone, where it is known.
    """

    status = 400
    type = "invalid_request_error"
    code = "context_length_exceeded"
    should_retry = False

    def __init__(self, need_tokens: int, largest_tokens: int, prompt_tokens: int | None = None) -> None:
        details: dict[str, int | str] = {"n_ctx": largest_tokens}
        if prompt_tokens is not None:
            details["n_prompt_tokens"] = prompt_tokens
        super().__init__(
            f"Request requires {need_tokens} tokens, but largest variant only supports {largest_tokens}",
            param="messages",
            details=details,
        )


class TooManyConnections(GatewrightError):
    """`server.max_connections` clients are connected already."""

    status = 503
    type = "server_error"
    code = "too_many_connections"


class QueueFull(GatewrightError):
    """`server.max_waiting` requests wait already."""

    status = 429
    type = "rate_limit_exceeded"
    code = "rate_limit_exceeded"


class RateLimited(GatewrightError):
    """The API key has used up its requests or tokens of this minute."""

    status = 429
    type = "rate_limit_exceeded"
    code = "rate_limit_exceeded"


class BudgetExceeded(GatewrightError):
    """A budget does not allow the call.

    Args:
        message: What happened, one line.
        budget: Account that is used up.
        resets_at: When its window ends, in seconds since 1970 (UTC); None where nobody knows.
    """

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"
    should_retry = False

    def __init__(self, message: str, *, budget: str = "", resets_at: int | None = None) -> None:
        details: dict[str, int | str] = {"budget": budget} if budget else {}
        if resets_at is not None:
            details["resets_at"] = resets_at
        super().__init__(message, details=details)


class StoreUnavailable(GatewrightError):
    """The store cannot be asked, and `store.when_unavailable` says that nothing is served without it."""

    status = 503
    type = "server_error"
    code = "store_unavailable"


class ResourceExhausted(GatewrightError):
    """There is not enough memory, or no slot, for what was asked."""

    status = 503
    type = "server_error"
    code = "resource_exhausted"


class FallbackExhausted(GatewrightError):
    """Everything that may be tried was tried in vain.

    Args:
        attempts: What was tried, in order; the first is the cause. Never empty.
    """

    status = 502
    type = "server_error"
    code = "fallback_exhausted"

    def __init__(self, attempts: Iterable[FailedAttempt]) -> None:
        self.attempts = tuple(attempts)
        first = self.attempts[0]
        models = len({attempt.model for attempt in self.attempts})
        super().__init__(
            f"{len(self.attempts)} attempts with {models} models failed; first {first.model}: {first.message}"
        )
        self.problem = evolve(self.problem, attempts=self.attempts)


class QueueTimeout(GatewrightError):
    """No engine became free within `server.queue_timeout`."""

    status = 503
    type = "server_error"
    code = "queue_timeout"


class EngineNotReady(GatewrightError):
    """No engine of the model is ready now; none was started for this."""

    status = 503
    type = "server_error"
    code = "engine_not_ready"


class EngineStartFailed(GatewrightError):
    """The engine exited before it was ready, or could not be run at all."""

    status = 503
    type = "server_error"
    code = "engine_start_failed"
    should_retry = False


class EngineStartTimeout(GatewrightError):
    """The engine was not ready within its start-up timeout."""

    status = 503
    type = "server_error"
    code = "engine_start_timeout"
    should_retry = False


class EngineCrashed(GatewrightError):
    """The engine died, or hung and was killed, under a request."""

    status = 502
    type = "server_error"
    code = "engine_crashed"


class EngineStopped(GatewrightError):
    """The engine was stopped by the operator, by force, under a request."""

    status = 503
    type = "server_error"
    code = "engine_stopped"


class UpstreamUnreachable(GatewrightError):
    """No connection to the upstream, or it broke before its answer began."""

    status = 502
    type = "server_error"
    code = "upstream_unreachable"


class CircuitOpen(GatewrightError):
    """The upstream has failed again and again: nobody calls it for a while."""

    status = 503
    type = "server_error"
    code = "circuit_open"


class RequestTimeout(GatewrightError):
    """The request took longer than its model's `timeouts.total`, or than its client waits."""

    status = 504
    type = "server_error"
    code = "request_timeout"


class UpstreamTimeout(GatewrightError):
    """The upstream was silent for too long."""

    status = 504
    type = "server_error"
    code = "upstream_timeout"


class UpstreamBroke(GatewrightError):
    """The answer broke off after its first byte."""

    status = 502
    type = "server_error"
    code = "upstream_broke"


class UpstreamRefused(GatewrightError):
    """The upstream answered with an error, and it can no longer be passed on as it came.

    Args:
        message: The upstream's words.
        upstream_status: Its HTTP status.
        upstream_type: Its error type, where it named one.
        upstream_code: Its error code, where it named one.
    """

    status = 502
    type = "server_error"

    def __init__(
        self, message: str, upstream_status: int, upstream_type: str | None, upstream_code: str | None
    ) -> None:
        super().__init__(message)
        self.problem = evolve(
            self.problem,
            status=upstream_status,
            type=upstream_type or self.type,
            code=upstream_code,
        )


class ShuttingDown(GatewrightError):
    """The server takes no new requests, or cuts this one, because it stops."""

    status = 503
    type = "server_error"
    code = "shutting_down"
    should_retry = True


class EngineHostLost(GatewrightError):
    """The process that owns the engines went away."""

    status = 503
    type = "server_error"
    code = "engine_host_lost"


class ConfigError(GatewrightError, ValueError):
    """The configuration is not valid.

    Args:
        problems: One line each: the field's path, its value and what is allowed. Never empty.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
