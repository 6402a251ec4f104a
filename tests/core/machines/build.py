"""Short ways to write models, requests and facts."""

from attrs import evolve

from gatewright.api.facts import ApiFormat, Continuation, RequestFacts, UpstreamError
from gatewright.commands import StopSignal
from gatewright.config import (
    CallTimeouts,
    Config,
    EngineKind,
    Margin,
    ModelConfig,
    ServerConfig,
    Tokenization,
)
from gatewright.configuration.calls import default_timeouts
from gatewright.engines.spec import EngineSpec, EngineTimeouts, ProcessSpec
from gatewright.ids import CommandId, EngineId, HolderId, LeaseId, RequestId

PATH = "/v1/chat/completions"
HOLDER = HolderId(1)
TERM, KILL = StopSignal.TERMINATE, StopSignal.KILL
NO_MARGIN = Margin(ratio=0.0, tokens=0)


def rid(text: str) -> RequestId:
    return RequestId(text)


def lid(number: int) -> LeaseId:
    return LeaseId(number)


def cid(number: int) -> CommandId:
    return CommandId(number)


def eid(number: int) -> EngineId:
    return EngineId(number)


def spec(
    model: str = "qwen",
    context: int = 4096,
    *,
    place: str = "primary",
    parallel: int | None = 1,
    binary: str = "llama-server",
    **timeouts: float,
) -> EngineSpec:
    return EngineSpec(
        model=model,
        context_tokens=context,
        connect="http://127.0.0.1:${PORT}",
        place=place,
        process=ProcessSpec(binary=binary),
        parallel=parallel,
        timeouts=EngineTimeouts(**timeouts),
    )


def remote_spec(model: str = "gpt", context: int = 128_000, parallel: int | None = None) -> EngineSpec:
    return EngineSpec(
        model=model,
        context_tokens=context,
        connect="https://api.example.com",
        place=f"remote:{model}",
        parallel=parallel,
        upstream_model=f"{model}-large",
        api_key_env="EXAMPLE_KEY",
    )


def model(
    name: str = "qwen",
    *contexts: int,
    secondary: bool = False,
    parallel: int | None = 1,
    answer_tokens: int = 100,
    max_oversize: float = 16.0,
    tokenization: Tokenization | None = None,
    binary: str = "llama-server",
    retries: int = 1,
    fallbacks: tuple[str, ...] = (),
    max_attempts: int | None = None,
    call_timeouts: CallTimeouts | None = None,
    prefill: Continuation | None = Continuation.LLAMACPP,
    **timeouts: float,
) -> ModelConfig:
    place = f"secondary:{name}" if secondary else "primary"
    return ModelConfig(
        name=name,
        engine=EngineKind.LLAMACPP_SECONDARY if secondary else EngineKind.LLAMACPP,
        variants=tuple(
            spec(name, context, place=place, parallel=parallel, binary=binary, **timeouts)
            for context in contexts or (4096,)
        ),
        answer_tokens=answer_tokens,
        margin=NO_MARGIN,
        max_oversize=max_oversize,
        tokenization=tokenization,
        fallbacks=fallbacks,
        retries=retries,
        max_attempts=max_attempts,
        timeouts=call_timeouts or CallTimeouts(),
        prefill=prefill,
    )


def remote_model(
    name: str = "gpt",
    context: int = 128_000,
    parallel: int | None = None,
    *,
    retries: int = 2,
    fallbacks: tuple[str, ...] = (),
    max_attempts: int | None = None,
    call_timeouts: CallTimeouts | None = None,
    prefill: Continuation | None = None,
) -> ModelConfig:
    model = ModelConfig(
        name=name,
        engine=EngineKind.OPENAI,
        variants=(remote_spec(name, context, parallel),),
        margin=NO_MARGIN,
        fallbacks=fallbacks,
        retries=retries,
        max_attempts=max_attempts,
        prefill=prefill,
    )
    return evolve(model, timeouts=call_timeouts or default_timeouts(model))


def config(*models: ModelConfig, **server: float) -> Config:
    return Config(server=ServerConfig(**server), models=models or (model(),))  # type: ignore[arg-type]  # tests only set numbers


def chat(
    model: str | None = "qwen",
    prompt_bytes: int = 0,
    *,
    given: int = 0,
    stream: bool = False,
    answer: int | None = None,
    sized: bool = True,
    continuable: bool = False,
    client_timeout_s: float | None = None,
    format: ApiFormat = ApiFormat.CHAT,  # noqa: A002  # the field's name
) -> RequestFacts:
    """A request; `given` tokens are known exactly, so that they select a variant without a count."""
    return RequestFacts(
        path=PATH,
        format=format,
        model=model,
        stream=stream,
        sized=sized,
        prompt_bytes=prompt_bytes,
        prompt_tokens_given=given,
        messages=1,
        answer_tokens=answer,
        continuable=continuable,
        client_timeout_s=client_timeout_s,
    )


def overflow(prompt_tokens: int | None, context_tokens: int | None = None) -> UpstreamError:
    return UpstreamError(
        message="request exceeds the available context size",
        type="exceed_context_size_error",
        overflow=True,
        prompt_tokens=prompt_tokens,
        context_tokens=context_tokens,
    )


LOADING = UpstreamError(message="Loading model", type="unavailable_error", loading=True)
