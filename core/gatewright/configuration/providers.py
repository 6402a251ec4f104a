"""What a model's `provider` says without being told: where it is, which variable holds its key, what its models are like."""

from typing import Final

from attrs import evolve

from gatewright.config import EngineKind, plain_profile
from gatewright.configuration.reader import Table, usable_text
from gatewright.engines.spec import EngineSpec
from gatewright.near_names import near_name
from gatewright.presets import DEFAULT_MODELS, PROVIDERS, UPSTREAM_NAMES, ProviderPreset
from gatewright.selection.profiles import ModelProfile, ProfileSource

_CONNECT: Final = "connect"


def with_preset(table: Table) -> Table:
    """A remote model's table with what is known of its provider and of itself, where it says nothing of its own.

    The provider's key is not for another URL: a table with its own `connect` names the variable itself.
    """
    preset, known = _preset(table), _known(table)
    usual: dict[object, object] = {}
    if preset is not None and _CONNECT not in table:
        usual[_CONNECT] = preset.connect
        usual["api_key_env"] = preset.api_key_env
    if known is not None:
        usual["context"] = known.context_tokens
        usual["upstream_model"] = UPSTREAM_NAMES.get(known.name)
    if _CONNECT not in usual and _CONNECT not in table and "provider" in table:
        near = near_provider(table)
        hint = f'did you mean "{near}"? Or ' if near is not None else ""
        table.place.field("provider").report(
            f"its URL is not known; {hint}name it in connect, or one of the providers {', '.join(sorted(PROVIDERS))}"
        )
        usual[_CONNECT] = "http://127.0.0.1"  # read on, so that all problems are seen
    given = {field: value for field, value in table.values.items() if value is not None}
    return Table(table.place, {**usual, **given})


def base_profile(
    table: Table, name: str, engine: EngineKind, variants: tuple[EngineSpec, ...]
) -> ModelProfile:
    """What is known of a model before its table says more.

    Args:
        table: The model's, as it stands in the file.
        name: The model's name.
        engine: Its engine type.
        variants: Its engines.
    """
    plain = plain_profile(name, engine, variants)
    if engine is not EngineKind.OPENAI:
        return plain
    known, preset = _known(table), _preset(table)
    if known is not None:
        return evolve(known, name=name, context_tokens=plain.context_tokens, source=ProfileSource.CONFIG)
    return plain if preset is None else evolve(plain, provider=preset.name, features=preset.features)


def near_provider(table: Table) -> str | None:
    """The known provider that a table's may have meant; None if there is none like it."""
    provider = table.values.get("provider")
    return near_name(provider, PROVIDERS) if isinstance(provider, str) else None


def _preset(table: Table) -> ProviderPreset | None:
    provider = table.values.get("provider")
    return PROVIDERS.get(provider) if isinstance(provider, str) else None


def _known(table: Table) -> ModelProfile | None:
    """The known model of that name or upstream name, if the same provider serves it."""
    names = (table.values.get("upstream_model"), table.values.get("name"))
    name = next((name for name in names if isinstance(name, str)), "")
    by_upstream = {upstream: name for name, upstream in UPSTREAM_NAMES.items()}
    known = DEFAULT_MODELS.get(by_upstream.get(name, name))
    return known if known is not None and known.provider == _provider(table) else None


def _provider(table: Table) -> str | None:
    """The provider by its name, or by its URL."""
    provider = table.values.get("provider")
    if provider is not None:
        return provider if isinstance(provider, str) else None
    url = usable_text(table.values.get(_CONNECT))
    if url is None:
        return None
    base = url.rstrip("/").removesuffix("/v1").rstrip("/")
    return next(
        (name for name, preset in PROVIDERS.items() if preset.connect == base and not preset.is_local), None
    )
