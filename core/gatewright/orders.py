"""What the Gateway asks of the Fleet and of its adapter for one request: the fields of those commands."""

from typing import Final

from gatewright import replies
from gatewright.accounting.costs import cost_usd
from gatewright.accounting.spending import Charge
from gatewright.api.facts import ApiFormat, Usage
from gatewright.choice import Choice
from gatewright.commands import BeginRelay, CallUpstream, CountTokens, EstimateComplexity, ReserveSpend
from gatewright.config import ModelConfig, ServerConfig
from gatewright.engines.spec import EngineSpec
from gatewright.ids import CommandId, LeaseId
from gatewright.leases import LeaseEngine, LeaseGranted, LeasePurpose
from gatewright.requests import Held, Request
from gatewright.selection.variants import Fits

USUAL_TOKENS_PER_S: Final = 20.0
"""Of an engine of one's own whose profile tells no speed: for reserving what its time costs."""


def lease_to_count(lease_id: LeaseId, model: ModelConfig) -> LeaseEngine:
    """Ask for whatever engine of the model is ready."""
    return LeaseEngine(lease_id=lease_id, variants=model.variants, purpose=LeasePurpose.COUNT)


def estimate(command_id: CommandId, request: Request, choice: Choice) -> EstimateComplexity:
    """Ask somebody how hard the request is."""
    return EstimateComplexity(
        command_id=command_id,
        request_id=request.request_id,
        estimator=choice.estimator,
        candidates=tuple([model.name for model in choice.candidates]),
    )


def reservation(request: Request, charges: tuple[Charge, ...], prompt_tokens: int) -> ReserveSpend:
    """Keep what a call to the present model may cost, and what earlier ones have; the command's id is still to be given."""
    key = request.facts.key
    has_limits = key is not None and (
        key.requests_per_minute is not None or key.tokens_per_minute is not None
    )
    return ReserveSpend(
        command_id=CommandId(0),
        request_id=request.request_id,
        charges=charges,
        amount_usd=most_cost_usd(request, request.model, prompt_tokens) + request.log.cost_usd,
        amount_tokens=prompt_tokens + _most_answer_tokens(request, request.model),
        key=key if has_limits and not request.is_rated else None,
    )


def most_cost_usd(request: Request, model: ModelConfig, prompt_tokens: int) -> float:
    """What a call may cost: its answer is taken to be as long as the request or the model allows."""
    answer_tokens, profile = _most_answer_tokens(request, model), model.profile
    speed = profile.output_tokens_per_s or USUAL_TOKENS_PER_S
    return cost_usd(
        profile.pricing,
        prompt_tokens=prompt_tokens,
        completion_tokens=answer_tokens,
        engine_s=0.0 if model.is_remote else answer_tokens / speed,
    )


def no_more_than_asked(request: Request, answer_tokens: int) -> int:
    """An estimate of an answer's tokens, within the limit that the request names."""
    limit = _answer_limit(request)
    return answer_tokens if limit is None else min(answer_tokens, limit * request.facts.choices)


def _most_answer_tokens(request: Request, model: ModelConfig) -> int:
    limit = _answer_limit(request)
    return (model.answer_tokens if limit is None else limit) * request.facts.choices


def _answer_limit(request: Request) -> int | None:
    return request.transformed_facts.answer_tokens if request.is_chosen else request.facts.answer_tokens


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
        transforms=request.transforms,
        provider=request.model.profile.provider if request.transforms else "",
    )


def call(
    command_id: CommandId, request: Request, granted: LeaseGranted, spec: EngineSpec, now: float
) -> CallUpstream:
    """Send the request to the engine that was granted."""
    timeouts, is_fallback = request.model.timeouts, request.attempts.index > 0
    is_chosen = request.choice is not None
    stream = request.facts.stream
    head_s, first_token_s = timeouts.head_s, timeouts.first_token_s
    if stream and first_token_s is not None:
        head_s = first_token_s if head_s is None else min(head_s, first_token_s)
    return CallUpstream(
        command_id=command_id,
        request_id=request.request_id,
        base_url=granted.base_url,
        # What a fallback or a chosen model is called is not what the client has asked for.
        upstream_model=spec.upstream_model or (request.model.name if is_fallback or is_chosen else None),
        api_key_env=spec.api_key_env,
        connect_timeout_s=timeouts.connect_s,
        head_timeout_s=_in_time(request, head_s, now),
        # A document has no first token, but it must not trickle away the time of the next model either.
        first_token_timeout_s=_in_time(request, first_token_s if stream else None, now),
        stall_timeout_s=None if stream else _in_time(request, timeouts.between_chunks_s, now),
        continuation=request.continuation,
        must_stream=request.stream_begun and request.continuation is None,
        asks_usage=_asks_usage(request),
        transforms=request.transforms,
        provider=request.model.profile.provider if request.transforms else "",
    )


def _asks_usage(request: Request) -> bool:
    """Whether only the provider knows what a stream costs, and would not tell. Who removes the parameter is not asked."""
    facts, model = request.facts, request.model
    pricing = model.profile.pricing
    return (
        facts.stream
        and facts.format in {ApiFormat.CHAT, ApiFormat.COMPLETION}
        and not facts.wants_usage
        and model.is_remote
        and bool(pricing.input_per_million or pricing.output_per_million)
        and not any("stream_options" in transform.removals for transform in request.transforms)
    )


def _in_time(request: Request, timeout_s: float | None, now: float) -> float | None:
    """Half of what is left of the client's patience at most, where another model could use the other half."""
    give_up_at = request.give_up_at
    if give_up_at is None or request.attempts.is_last or not request.model.is_remote:
        return timeout_s
    half_s = max(0.0, give_up_at - now) / 2
    return half_s if timeout_s is None else min(timeout_s, half_s)


def relay(
    command_id: CommandId,
    request: Request,
    held: Held,
    server: ServerConfig,
    now: float,
    *,
    usage: Usage | None = None,
) -> BeginRelay:
    """Pass the answer on; `usage` where all of it is here already."""
    cost = () if usage is None else replies.cost_header(request.log.cost_of(request.model, now, usage))
    return BeginRelay(
        command_id=command_id,
        request_id=request.request_id,
        headers=replies.headers(request, held, now) + cost,
        stall_timeout_s=request.model.timeouts.between_chunks_s or server.stall_timeout_s,
        keeps_answer=request.choice is not None and request.choice.judge is not None,
    )
