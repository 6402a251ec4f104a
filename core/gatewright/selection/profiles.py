"""What is known of a model before it was ever asked: who serves it, what it can do, what it costs, how good it is said to be."""

from enum import StrEnum

from attrs import field, frozen


class Capability(StrEnum):
    """What a model is good at."""

    CHAT = "chat"
    CODE = "code"
    REASONING = "reasoning"
    MATH = "math"
    EXTRACTION = "extraction"
    SUMMARIZATION = "summarization"
    CREATIVE = "creative"
    MULTILINGUAL = "multilingual"
    LONG_CONTEXT = "long_context"
    AGENT = "agent"
    EMBEDDING = "embedding"
    RERANK = "rerank"


class Feature(StrEnum):
    """What a model's API does."""

    TOOLS = "tools"
    JSON_MODE = "json_mode"
    JSON_SCHEMA = "json_schema"
    STREAMING = "streaming"
    SYSTEM_PROMPT = "system_prompt"
    LOGPROBS = "logprobs"
    PREFILL = "prefill"
    REASONING_EFFORT = "reasoning_effort"
    PROMPT_CACHE = "prompt_cache"


class Modality(StrEnum):
    """What a model takes besides text."""

    TEXT = "text"
    IMAGE = "image"
    AUDIO = "audio"


class ProfileSource(StrEnum):
    """Where a profile comes from; only those of the store can be changed while the gateway runs."""

    CONFIG = "config"
    STORE = "store"
    PRESET = "preset"


@frozen(kw_only=True)
class Pricing:
    """What a model's tokens cost, in US dollars.

    Attributes:
        input_per_million: A million prompt tokens.
        output_per_million: A million completion tokens.
        cached_input_per_million: A million prompt tokens that came out of the provider's cache; None: as all others.
        engine_hour: An hour of an engine of one's own, power and wear; charged for the time that a request has it.
    """

    input_per_million: float = 0.0
    output_per_million: float = 0.0
    cached_input_per_million: float | None = None
    engine_hour: float = 0.0


@frozen(kw_only=True)
class ModelProfile:
    """One model as the selection sees it.

    Attributes:
        name: Name that clients use.
        provider: Who serves it: "openai", "anthropic", "together", "llama.cpp", ...
        context_tokens: Largest context, prompt and answer together.
        capabilities: Values of `Capability`.
        features: Values of `Feature`.
        modalities: Values of `Modality`.
        tags: The operator's own words.
        pricing: What it costs.
        quality: Chance that it does a task of middling difficulty well, before anything was learnt; 0 to 1.
        quality_by_task: The same for tasks by name, where it is known.
        latency_ms: Time of a short answer of about 200 tokens, before anything was learnt.
        output_tokens_per_s: Speed of its answers; None: not known.
        load_s: Seconds that its engine takes to load, before one of them was started; None: not known.
        is_local: It runs on this machine: may have to be loaded, and takes memory from others.
        source: Where the profile comes from.
        description: One line for people.
    """

    name: str
    provider: str = ""
    context_tokens: int = 0
    capabilities: frozenset[str] = frozenset()
    features: frozenset[str] = frozenset()
    modalities: frozenset[str] = frozenset({Modality.TEXT})
    tags: frozenset[str] = frozenset()
    pricing: Pricing = field(factory=Pricing)
    quality: float = 0.7
    quality_by_task: dict[str, float] = field(factory=dict, hash=False)
    latency_ms: float = 1000.0
    output_tokens_per_s: float | None = None
    load_s: float | None = None
    is_local: bool = False
    source: ProfileSource = ProfileSource.CONFIG
    description: str = ""
