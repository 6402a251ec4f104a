"""Models and criteria as callers of the library write them down, and the same as the selection in the core knows them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from attrs import field, frozen

from gatewright import presets
from gatewright.accounting.costs import cost_usd
from gatewright.configuration.names import NAME
from gatewright.configuration.reader import show
from gatewright.errors import ModelNotFound
from gatewright.selection.criteria import SelectionCriteria as CoreCriteria
from gatewright.selection.profiles import Feature, Modality, ModelProfile, Pricing, ProfileSource
from gatewright_library.checks import expect_number, expect_words

_THOUSANDS_PER_PRICE: Final = 1000
"""The library states prices for 1,000 tokens, as providers once did; the core for a million."""

_DIGITS: Final = 12

DEFAULT_MODEL: Final = "deepseek-v3"
LOCAL_TAG: Final = "local"
"""Marks a model that runs on this machine, whoever serves it."""
_LOCAL_PROVIDERS: Final = frozenset({"local", "llamacpp", "tgi"})
"""Names that callers of older libraries give to servers of their own."""
_MODALITY_WORDS: Final = MappingProxyType(
    {"vision": Modality.IMAGE, "image": Modality.IMAGE, "audio": Modality.AUDIO}
)
_FEATURE_WORDS: Final = MappingProxyType(
    {"function_calling": Feature.TOOLS, "tool_use": Feature.TOOLS, "structured_output": Feature.JSON_SCHEMA}
)
"""Other words for the same thing, as callers of older libraries write them."""


def expect_name(name: object, field_name: str) -> None:
    """See that it may be the name of a model, by the rule that gateways have for theirs.

    Args:
        name: The name.
        field_name: Where it stands.

    Raises:
        ValueError: It may not.
    """
    if NAME.accept(name) is None:
        raise ValueError(f"{field_name} is {show(name)}, expected {NAME.expected}")


@frozen
class ModelConfig:
    """One model.

    Attributes:
        name: Name by which it is selected.
        provider: Who serves it; one of `gatewright.presets.PROVIDERS`, or a name of one's own.
        model_id: The provider's name for it; empty if that is the same.
        cost_per_1k_input: US dollars for 1,000 prompt tokens.
        cost_per_1k_output: US dollars for 1,000 completion tokens.
        max_tokens: Context: prompt and answer together.
        capabilities: What it is good at and what its API does: values of `Capability` and `Feature`, or words of one's own.
        latency_ms_avg: Time of a short answer in milliseconds, before anything was learnt.
        quality_score: Chance that it does a task of middling difficulty well, before anything was learnt; 0 to 1.
        enabled: Whether it may be selected.
        tags: Words of one's own to select by; "local" says that it runs on this machine.
        description: One line for people.
        elo_score: Rating on some leaderboard, for people; `quality_score` is what counts.
    """

    name: str
    provider: str = "together"
    model_id: str = ""
    cost_per_1k_input: float = 0.001
    cost_per_1k_output: float = 0.002
    max_tokens: int = 32_000
    capabilities: Sequence[str] = field(default=(), hash=False)
    latency_ms_avg: float = 1000.0
    quality_score: float = 0.7
    enabled: bool = True
    tags: Sequence[str] = field(default=(), hash=False)
    description: str = ""
    elo_score: float | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse what no selection could make sense of.

        Raises:
            ValueError: A field is out of its range.
        """
        expect_name(self.name, "ModelConfig.name")
        expect_number(self.quality_score, f"ModelConfig.quality_score of {self.name}", most=1.0)
        for name in ("cost_per_1k_input", "cost_per_1k_output", "latency_ms_avg"):
            expect_number(getattr(self, name), f"ModelConfig.{name} of {self.name}")
        expect_number(self.max_tokens, f"ModelConfig.max_tokens of {self.name}", above=True)
        for name in ("capabilities", "tags"):
            expect_words(getattr(self, name), f"ModelConfig.{name} of {self.name}")

    @property
    def is_local(self) -> bool:
        """Whether it runs on a machine of one's own, so that it can be reached when providers cannot."""
        preset = presets.PROVIDERS.get(self.provider)
        is_preset = preset is not None and preset.is_local
        return is_preset or self.provider in _LOCAL_PROVIDERS or LOCAL_TAG in self.tags

    @property
    def upstream_name(self) -> str:
        """What its provider calls it."""
        return self.model_id or self.name

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "name": self.name,
            "provider": self.provider,
            "model_id": self.model_id,
            "cost_per_1k_input": self.cost_per_1k_input,
            "cost_per_1k_output": self.cost_per_1k_output,
            "max_tokens": self.max_tokens,
            "capabilities": list(self.capabilities),
            "latency_ms_avg": self.latency_ms_avg,
            "quality_score": self.quality_score,
            "enabled": self.enabled,
            "tags": list(self.tags),
            "description": self.description,
            "elo_score": self.elo_score,
        }


@frozen
class SelectionCriteria:
    """Hard conditions on a model; None where there is none.

    Attributes:
        required_capabilities: What it must be good at.
        required_features: What its API must do.
        max_cost_per_1k_tokens: US dollars: mean of the prices of 1,000 prompt and 1,000 completion tokens.
        max_latency_ms: Expected time of the whole answer, in milliseconds.
        min_quality_threshold: Expected quality, 0 to 1.
        min_context_tokens: Least context.
    """

    required_capabilities: Sequence[str] | None = field(factory=list, hash=False)
    required_features: Sequence[str] | None = field(factory=list, hash=False)
    max_cost_per_1k_tokens: float | None = 0.01
    max_latency_ms: float | None = 5000
    min_quality_threshold: float | None = 0.5
    min_context_tokens: int | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse what no model could be measured by.

        Raises:
            ValueError: A field is out of its range.
        """
        for name in ("required_capabilities", "required_features"):
            expect_words(getattr(self, name), f"SelectionCriteria.{name}")
        for name in ("max_cost_per_1k_tokens", "max_latency_ms", "min_context_tokens"):
            expect_number(getattr(self, name), f"SelectionCriteria.{name}", optional=True)
        label = "SelectionCriteria.min_quality_threshold"
        expect_number(self.min_quality_threshold, label, most=1.0, optional=True)


def pricing_of(model: ModelConfig) -> Pricing:
    """What a model costs, as the core counts it."""
    preset = _preset_of(model)
    if preset is not None:
        return preset.pricing
    return Pricing(
        input_per_million=model.cost_per_1k_input * _THOUSANDS_PER_PRICE,
        output_per_million=model.cost_per_1k_output * _THOUSANDS_PER_PRICE,
    )


def to_profile(model: ModelConfig) -> ModelProfile:
    """A model as the selection in the core sees it.

    Its words count as capabilities and as features, since callers put both into one list; words that the core has
    other names for count under these. Where none of them is about its API, its provider's preset tells.
    """
    preset = _preset_of(model)
    if preset is not None:
        return preset
    words = {str(word).lower() for word in model.capabilities}
    return ModelProfile(
        name=model.name,
        provider=model.provider,
        context_tokens=model.max_tokens,
        capabilities=frozenset(words),
        features=_features(model.provider, words),
        modalities=frozenset(
            {Modality.TEXT, *(_MODALITY_WORDS[word] for word in words if word in _MODALITY_WORDS)}
        ),
        tags=frozenset(model.tags),
        pricing=pricing_of(model),
        quality=model.quality_score,
        latency_ms=model.latency_ms_avg,
        is_local=model.is_local,
        source=ProfileSource.CONFIG,
        description=model.description,
    )


def _features(provider: str, words: set[str]) -> frozenset[str]:
    found = frozenset(words | {_FEATURE_WORDS[word] for word in words if word in _FEATURE_WORDS})
    preset = presets.PROVIDERS.get(provider)
    if preset is None or not found.isdisjoint(Feature):
        return found
    return found | preset.features


def to_core_criteria(criteria: SelectionCriteria, tags: Sequence[str] = ()) -> CoreCriteria:
    """Criteria as the selection in the core reads them.

    Args:
        criteria: The caller's.
        tags: Words of the caller's own, all of which the model must have.
    """
    return CoreCriteria(
        required_capabilities=frozenset(str(word).lower() for word in criteria.required_capabilities or ()),
        required_features=frozenset(str(word).lower() for word in criteria.required_features or ()),
        required_tags=frozenset(tags),
        max_cost_per_1k_tokens=criteria.max_cost_per_1k_tokens,
        max_latency_ms=criteria.max_latency_ms,
        min_quality_threshold=criteria.min_quality_threshold,
        min_context_tokens=criteria.min_context_tokens,
    )


def estimate_cost(model: "ModelConfig | ModelProfile | str", tokens: int | tuple[int, int]) -> float:
    """What a call costs, in US dollars.

    Args:
        model: The model, or the name of one of `DEFAULT_MODELS`.
        tokens: Prompt and completion tokens; one number stands for the prompt alone.

    Raises:
        ModelNotFound: There is none of that name.
    """
    prompt_tokens, completion_tokens = (tokens, 0) if isinstance(tokens, int) else tokens
    if isinstance(model, str):
        if model not in DEFAULT_MODELS:
            raise ModelNotFound(model)
        model = DEFAULT_MODELS[model]
    pricing = model.pricing if isinstance(model, ModelProfile) else pricing_of(model)
    return cost_usd(pricing, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)


def models_by_name(
    models: Mapping[str, ModelConfig] | Iterable[ModelConfig] | None,
) -> dict[str, ModelConfig]:
    """Models as callers give them, by the names under which they are chosen.

    Args:
        models: Models by name, or models; None for `DEFAULT_MODELS`.

    Raises:
        ValueError: One of the names may be none.
    """
    if models is None:
        models = DEFAULT_MODELS
    if not isinstance(models, Mapping):
        return {model.name: model for model in models}
    for name in models:
        expect_name(name, "models: a name")
    return dict(models)


class DefaultModels(Mapping[str, ModelConfig]):
    """The presets. Names with a date, which older callers use, are found as well, but not listed.

    Args:
        models: By name.
        aliases: Other names, and whom they mean.
    """

    def __init__(self, models: Mapping[str, ModelConfig], aliases: Mapping[str, str]) -> None:
        self._models = dict(models)
        self._aliases = dict(aliases)

    def resolve(self, name: str) -> str:
        """The name under which a model is listed; names that are nobody's stay as they are."""
        return self._aliases.get(name, name)

    def __getitem__(self, name: str) -> ModelConfig:
        return self._models[self.resolve(name)]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.resolve(name) in self._models

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def __repr__(self) -> str:
        return f"DefaultModels({', '.join(self._models)})"


def _of_preset(profile: ModelProfile) -> ModelConfig:
    words = profile.capabilities | profile.features
    if Modality.IMAGE in profile.modalities:
        words |= {"vision"}
    return ModelConfig(
        name=profile.name,
        provider=profile.provider,
        model_id=presets.UPSTREAM_NAMES.get(profile.name, ""),
        cost_per_1k_input=_per_1k(profile.pricing.input_per_million),
        cost_per_1k_output=_per_1k(profile.pricing.output_per_million),
        max_tokens=profile.context_tokens,
        capabilities=tuple(sorted(str(word) for word in words)),
        latency_ms_avg=profile.latency_ms,
        quality_score=profile.quality,
        tags=tuple(sorted(profile.tags)),
        description=profile.description,
    )


def _per_1k(per_million: float) -> float:
    return round(per_million / _THOUSANDS_PER_PRICE, _DIGITS)


DEFAULT_MODELS: Final = DefaultModels(
    {name: _of_preset(profile) for name, profile in presets.DEFAULT_MODELS.items()},
    {"deepseek-v3-0324": DEFAULT_MODEL},
)
"""Models that most people can reach; `docs/library.md` says where their prices and qualities come from."""


def _preset_of(model: ModelConfig) -> ModelProfile | None:
    """The preset behind a model that nobody has changed; it tells more than a `ModelConfig` can."""
    is_preset = model.name in DEFAULT_MODELS and DEFAULT_MODELS[model.name] is model
    return presets.DEFAULT_MODELS[model.name] if is_preset else None
