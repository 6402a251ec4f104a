"""What the Gateway asks of the Fleet and of its adapter for one request: the fields of those commands."""

from typing import Final

from gatewright import replies
from gatewright.commands import BeginRelay, CallUpstream, CountTokens
from gatewright.config import ModelConfig, ServerConfig
from gatewright.engines.spec import EngineSpec
from gatewright.ids import CommandId, LeaseId
from gatewright.leases import LeaseEngine, LeaseGranted, LeasePurpose
from gatewright.requests import Held, Request
from gatewright.selection.variants import Fits

REMOTE_FIRST_BYTE_S: Final = 300.0
"""A remote upstream has no health probes that would tell a long prompt from a dead connection."""


def lease_to_count(lease_id: LeaseId, model: ModelConfig) -> LeaseEngine:
    """Ask for whatever engine of the model is ready."""
    return LeaseEngine(lease_id=lease_id, variants=model.variants, purpose=LeasePurpose.COUNT)


def lease_to_answer(lease_id: LeaseId, request: Request, fits: Fits, server: ServerConfig) -> LeaseEngine:
    """Ask for an engine that the request fits; a full queue does not turn out who was let in before."""
    was_let_in = request.attempts or request.retries
    return LeaseEngine(
        lease_id=lease_id,
        variants=fits.variants,
        need_tokens=fits.need_tokens,
        max_waiting=server.max_connections if was_let_in else server.max_waiting,
        max_wait_s=server.max_wait_s,
        queue_timeout_s=server.queue_timeout_s,
    )


def count(command_id: CommandId, request: Request, base_url: str | None) -> CountTokens:
    """Count the prompt on an engine, or with the model's tokenizer program where none is named."""
    return CountTokens(
        command_id=command_id,
        request_id=request.request_id,
        base_url=base_url,
        tokenization=request.model.tokenization if base_url is None else None,
    )


def call(command_id: CommandId, request: Request, granted: LeaseGranted, spec: EngineSpec) -> CallUpstream:
    """Send the request to the engine that was granted."""
    return CallUpstream(
        command_id=command_id,
        request_id=request.request_id,
        base_url=granted.base_url,
        upstream_model=spec.upstream_model,
        api_key_env=spec.api_key_env,
        first_byte_timeout_s=REMOTE_FIRST_BYTE_S if spec.is_remote else None,
    )


def relay(
    command_id: CommandId, request: Request, held: Held, server: ServerConfig, now: float
) -> BeginRelay:
    """Pass the answer on."""
    return BeginRelay(
        command_id=command_id,
        request_id=request.request_id,
        headers=replies.headers(request, held, now),
        stall_timeout_s=server.stall_timeout_s,
    )
