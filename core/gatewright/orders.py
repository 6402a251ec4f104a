"""What the Gateway asks of the Fleet and of its adapter for one request: the fields of those commands."""

from gatewright import replies
from gatewright.commands import BeginRelay, CallUpstream, CountTokens
from gatewright.config import ModelConfig, ServerConfig
from gatewright.engines.spec import EngineSpec
from gatewright.ids import CommandId, LeaseId
from gatewright.leases import LeaseEngine, LeaseGranted, LeasePurpose
from gatewright.requests import Held, Request
from gatewright.selection.variants import Fits


def lease_to_count(lease_id: LeaseId, model: ModelConfig) -> LeaseEngine:
    """Ask for whatever engine of the model is ready."""
    return LeaseEngine(lease_id=lease_id, variants=model.variants, purpose=LeasePurpose.COUNT)


def lease_to_answer(lease_id: LeaseId, request: Request, fits: Fits, server: ServerConfig) -> LeaseEngine:
    """Ask for an engine that the request fits; a full queue does not turn out who was let in before."""
    was_let_in = request.attempts.calls or request.attempts.retries
    return LeaseEngine(
        lease_id=lease_id,
        variants=fits.variants,
        need_tokens=fits.need_tokens,
        max_waiting=server.max_connections if was_let_in else server.max_waiting,
        max_wait_s=server.max_wait_s,
        queue_timeout_s=server.queue_timeout_s,
        last_resort=request.model.is_remote and request.attempts.is_last,
    )


def count(command_id: CommandId, request: Request, base_url: str | None) -> CountTokens:
    """Count the prompt on an engine, or with the model's tokenizer program where none is named."""
    return CountTokens(
        command_id=command_id,
        request_id=request.request_id,
        base_url=base_url,
        tokenization=request.model.tokenization if base_url is None else None,
    )


def call(
    command_id: CommandId, request: Request, granted: LeaseGranted, spec: EngineSpec, now: float
) -> CallUpstream:
    """Send the request to the engine that was granted."""
    timeouts, is_fallback = request.model.timeouts, request.attempts.index > 0
    stream = request.facts.stream
    head_s, first_token_s = timeouts.head_s, timeouts.first_token_s
    if stream and first_token_s is not None:
        head_s = first_token_s if head_s is None else min(head_s, first_token_s)
    return CallUpstream(
        command_id=command_id,
        request_id=request.request_id,
        base_url=granted.base_url,
        # What a fallback is called is not what the client has asked for.
        upstream_model=spec.upstream_model or (request.model.name if is_fallback else None),
        api_key_env=spec.api_key_env,
        connect_timeout_s=timeouts.connect_s,
        head_timeout_s=_in_time(request, head_s, now),
        # A document has no first token, but it must not trickle away the time of the next model either.
        first_token_timeout_s=_in_time(request, first_token_s if stream else None, now),
        stall_timeout_s=None if stream else _in_time(request, timeouts.between_chunks_s, now),
        continuation=request.continuation,
        must_stream=request.stream_begun and request.continuation is None,
    )


def _in_time(request: Request, timeout_s: float | None, now: float) -> float | None:
    """Half of what is left of the client's patience at most, where another model could use the other half."""
    give_up_at = request.give_up_at
    if give_up_at is None or request.attempts.is_last or not request.model.is_remote:
        return timeout_s
    half_s = max(0.0, give_up_at - now) / 2
    return half_s if timeout_s is None else min(timeout_s, half_s)


def relay(
    command_id: CommandId, request: Request, held: Held, server: ServerConfig, now: float
) -> BeginRelay:
    """Pass the answer on."""
    return BeginRelay(
        command_id=command_id,
        request_id=request.request_id,
        headers=replies.headers(request, held, now),
        stall_timeout_s=request.model.timeouts.between_chunks_s or server.stall_timeout_s,
    )
