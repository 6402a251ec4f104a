"""Providers whose addresses are known, and models of which something is known before they were ever asked.

Prices change: what stands here is a beginning, and a model's own entry says what holds. The sources were read on
2026-11-20 in stored copies of the pages, not at the providers themselves:

- Prices of gpt-4o and gpt-4o-mini: OpenAI's price page, as cited by several clients that carry its table
  (2.50/1.25/10.00 and 0.15/0.075/0.60 dollars for a million prompt, cached and completion tokens).
- Prices of claude-3-sonnet: 3 and 15 dollars, as OpenRouter listed Anthropic's own on 2024-03-05. Anthropic has since
  retired the model; it stays here as a name that older programs use.
- Prices of the Llama models and of deepseek-v3: Together's for its "Turbo" Llamas and for DeepSeek-V3 (0.88, 0.18 and
  1.25 dollars, prompt and completion alike), as clients that carry its table cite them; not verified at Together. DeepSeek's
  own API was cheaper (0.27 and 1.10 in 2025-02), but serves later models now.
- Qualities: the square root of the accuracy on MMLU-Pro, whose questions are harder than middling, so that
  `adjusted_quality` for a complex task gives the accuracy again. deepseek-v3 75.9 (DeepSeek-V3's model card), gpt-4o 72.55 and
  claude-3-sonnet 56.8 (the benchmark's README), Llama 3.1 70B 66.4 and 8B 48.3 (Meta's model card). For gpt-4o-mini no
  source was found; 63 is an estimate between its neighbours, and not verified.
- Times and speeds: rough guesses, to be replaced by what is measured as soon as a model was asked.
"""

from collections.abc import Mapping
from math import sqrt
from types import MappingProxyType
from typing import Final

from attrs import frozen

from gatewright.selection.profiles import Capability, Feature, Modality, ModelProfile, Pricing, ProfileSource


@frozen(kw_only=True)
class ProviderPreset:
    """A provider with an OpenAI-compatible API.

    Attributes:
        name: Value for a model's `provider`.
        connect: Base URL without the API path; where an engine of one's own usually listens.
        api_key_env: Environment variable that holds its key; None where none is needed.
        features: What its API does for models of which nothing else is known.
        is_local: It usually runs on this machine.
        description: One line for people.
    """

    name: str
    connect: str
    api_key_env: str | None = None
    features: frozenset[str]
    is_local: bool = False
    description: str = ""


_EVERYWHERE: Final = frozenset(
    {Feature.STREAMING, Feature.SYSTEM_PROMPT, Feature.TOOLS, Feature.JSON_MODE, Feature.JSON_SCHEMA}
)
_OPENAI: Final = _EVERYWHERE | {Feature.LOGPROBS, Feature.PROMPT_CACHE}


def _by_name(*presets: ProviderPreset) -> Mapping[str, ProviderPreset]:
    return MappingProxyType({preset.name: preset for preset in presets})


PROVIDERS: Final = _by_name(
    ProviderPreset(
        name="openai",
        connect="https://api.openai.com",
        api_key_env="OPENAI_API_KEY",
        features=_OPENAI,
        description="OpenAI",
    ),
    ProviderPreset(
        name="anthropic",
        connect="https://api.anthropic.com",
        api_key_env="ANTHROPIC_API_KEY",
        # Its OpenAI-compatible endpoint takes tools, but neither JSON modes nor logprobs, and caches nothing.
        features=frozenset({Feature.STREAMING, Feature.SYSTEM_PROMPT, Feature.TOOLS}),
        description="Anthropic, by its OpenAI-compatible endpoint",
    ),
    ProviderPreset(
        name="together",
        connect="https://api.together.xyz",
        api_key_env="TOGETHER_API_KEY",
        features=_EVERYWHERE | {Feature.LOGPROBS},
        description="Together AI",
    ),
    ProviderPreset(
        name="huggingface",
        connect="https://router.huggingface.co",
        api_key_env="HF_TOKEN",
        features=_EVERYWHERE,
        description="HuggingFace's router to inference providers",
    ),
    ProviderPreset(
        name="huggingface-tgi",
        connect="http://127.0.0.1:3000",
        features=_EVERYWHERE | {Feature.LOGPROBS},
        is_local=True,
        description="HuggingFace's Text Generation Inference",
    ),
    ProviderPreset(
        name="ollama",
        connect="http://127.0.0.1:11434",
        features=_EVERYWHERE,
        is_local=True,
        description="Ollama",
    ),
    ProviderPreset(
        name="vllm",
        connect="http://127.0.0.1:8000",
        features=_OPENAI | {Feature.PREFILL},
        is_local=True,
        description="vLLM",
    ),
    ProviderPreset(
        name="llama.cpp",
        connect="http://127.0.0.1:8081",
        features=_OPENAI | {Feature.PREFILL},
        is_local=True,
        description="A llama-server that somebody else starts",
    ),
)
"""Providers by name."""

_GENERAL: Final = frozenset(
    {Capability.CHAT, Capability.SUMMARIZATION, Capability.EXTRACTION, Capability.CREATIVE}
)
_STRONG: Final = _GENERAL | {
    Capability.CODE,
    Capability.REASONING,
    Capability.MATH,
    Capability.MULTILINGUAL,
    Capability.LONG_CONTEXT,
    Capability.AGENT,
}


def _from_mmlu_pro(accuracy: float) -> float:
    return round(sqrt(accuracy), 2)


DEFAULT_MODELS: Final[Mapping[str, ModelProfile]] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            ModelProfile(
                name="deepseek-v3",
                provider="together",
                context_tokens=131_072,
                capabilities=_STRONG,
                features=PROVIDERS["together"].features,
                pricing=Pricing(input_per_million=1.25, output_per_million=1.25),
                quality=_from_mmlu_pro(0.759),
                latency_ms=4000.0,
                output_tokens_per_s=60.0,
                source=ProfileSource.PRESET,
                description="DeepSeek-V3, 671 billion parameters, of which 37 at a time",
            ),
            ModelProfile(
                name="llama-3.1-70b",
                provider="together",
                context_tokens=131_072,
                capabilities=_STRONG,
                features=PROVIDERS["together"].features,
                pricing=Pricing(input_per_million=0.88, output_per_million=0.88),
                quality=_from_mmlu_pro(0.664),
                latency_ms=2500.0,
                output_tokens_per_s=90.0,
                source=ProfileSource.PRESET,
                description="Llama 3.1 70B Instruct",
            ),
            ModelProfile(
                name="llama-3.1-8b",
                provider="together",
                context_tokens=131_072,
                capabilities=_GENERAL | {Capability.CODE, Capability.LONG_CONTEXT, Capability.MULTILINGUAL},
                features=PROVIDERS["together"].features,
                pricing=Pricing(input_per_million=0.18, output_per_million=0.18),
                quality=_from_mmlu_pro(0.483),
                latency_ms=1400.0,
                output_tokens_per_s=170.0,
                source=ProfileSource.PRESET,
                description="Llama 3.1 8B Instruct",
            ),
            ModelProfile(
                name="gpt-4o",
                provider="openai",
                context_tokens=128_000,
                capabilities=_STRONG,
                features=PROVIDERS["openai"].features,
                modalities=frozenset({Modality.TEXT, Modality.IMAGE}),
                pricing=Pricing(
                    input_per_million=2.5, output_per_million=10.0, cached_input_per_million=1.25
                ),
                quality=_from_mmlu_pro(0.7255),
                latency_ms=3000.0,
                output_tokens_per_s=80.0,
                source=ProfileSource.PRESET,
                description="GPT-4o",
            ),
            ModelProfile(
                name="gpt-4o-mini",
                provider="openai",
                context_tokens=128_000,
                capabilities=_STRONG,
                features=PROVIDERS["openai"].features,
                modalities=frozenset({Modality.TEXT, Modality.IMAGE}),
                pricing=Pricing(
                    input_per_million=0.15, output_per_million=0.6, cached_input_per_million=0.075
                ),
                quality=_from_mmlu_pro(0.63),
                latency_ms=2500.0,
                output_tokens_per_s=90.0,
                source=ProfileSource.PRESET,
                description="GPT-4o mini",
            ),
            ModelProfile(
                name="claude-3-sonnet",
                provider="anthropic",
                context_tokens=200_000,
                capabilities=_STRONG,
                features=PROVIDERS["anthropic"].features,
                modalities=frozenset({Modality.TEXT, Modality.IMAGE}),
                pricing=Pricing(input_per_million=3.0, output_per_million=15.0),
                quality=_from_mmlu_pro(0.568),
                latency_ms=3800.0,
                output_tokens_per_s=65.0,
                source=ProfileSource.PRESET,
                description="Claude 3 Sonnet; retired by its provider",
            ),
        )
    }
)
"""Models by name."""

UPSTREAM_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "deepseek-v3": "deepseek-ai/DeepSeek-V3",
        "llama-3.1-70b": "meta-llama/Meta-Llama-3.1-70B-Instruct-Turbo",
        "llama-3.1-8b": "meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo",
        "claude-3-sonnet": "claude-3-sonnet-20240229",
    }
)
"""What the providers of `DEFAULT_MODELS` call them, where that is another name."""
