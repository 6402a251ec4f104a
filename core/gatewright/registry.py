"""Models that are registered while the gateway runs: read, written, changed, and joined with those of the file.

A registered model is one behind a provider's or an engine's URL, in one flat table with the same fields as the
configuration file, whether it comes as JSON from a client or from the store.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from attrs import evolve, frozen

from gatewright.config import Config, EngineKind, ModelConfig, plain_profile
from gatewright.configuration.calls import read_calls
from gatewright.configuration.engines import remote_variant
from gatewright.configuration.names import NAME
from gatewright.configuration.profiles import PROFILE_FIELDS, profile_to_plain, read_profile
from gatewright.configuration.providers import near_provider
from gatewright.configuration.reader import ListOf, Place, Table, TableOf
from gatewright.engines.spec import UNBOUNDED_CONTEXT_TOKENS, EngineSpec, EngineTimeouts
from gatewright.presets import DEFAULT_MODELS, PROVIDERS, UPSTREAM_NAMES
from gatewright.selection.profiles import ModelProfile, ProfileSource

REGISTERED_FIELDS: Final = (
    "name",
    "aliases",
    "connect",
    "api_key_env",
    "upstream_model",
    "context",
    "parallel",
    *PROFILE_FIELDS,
)
"""Fields of a registered model."""

_LOOPBACK: Final = ("http://127.0.0.1", "http://localhost", "http://[::1]")
_ELSEWHERE: Final = {
    "engine": "registered models are behind a URL; engines are run by models of the configuration file",
    "variants": "registered models have one context; variants belong into the configuration file",
    "context_tokens": 'did you mean "context"?',
    "price": 'did you mean "input_per_million" and "output_per_million"?',
    "base_url": 'did you mean "connect"?',
    "api_key": "keys are never stored; name the environment variable that holds it in api_key_env",
}


@frozen(kw_only=True)
class RegisteredModel:
    """One model.

    Attributes:
        profile: What is known of it for choices between models; its name is in here.
        connect: Base URL without the API path.
        api_key_env: Environment variable that holds the upstream's key; None sends no credential.
        upstream_model: Name to put into requests; None leaves the body untouched.
        parallel: Requests at a time; None for any number.
        aliases: Other names that mean the same model.
    """

    profile: ModelProfile
    connect: str
    api_key_env: str | None = None
    upstream_model: str | None = None
    parallel: int | None = None
    aliases: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name that clients use."""
        return self.profile.name


def read_registered_model(raw: Mapping[str, object], place: Place) -> RegisteredModel | None:
    """A model from plain values.

    What is not said comes from the provider's preset, and from `DEFAULT_MODELS` where the name is one of theirs and no other
    provider is named. null stands for what is not said.

    Args:
        raw: The fields.
        place: Where the values stand; every problem is noted there, with its field.

    Returns:
        The model; None if there is any problem.
    """
    table = TableOf("an object with the fields of a model").read(raw, place)
    if table is None:
        return None
    problems_before = len(place.problems)
    table.expect_only(REGISTERED_FIELDS, _ELSEWHERE)
    name = table.require("name", NAME) or ""
    aliases = table.get("aliases", ListOf(NAME), ())
    for number, alias in enumerate(aliases, 1):
        if alias == name or alias in aliases[: number - 1]:
            place.field("aliases").item(number).report(f'"{alias}" is a name of this model already')
    known = _known_profile(name, table.values.get("provider"))
    spec = _read_engine(table, name, known)
    base = known or plain_profile(name, EngineKind.OPENAI, (spec,))
    preset = _preset_name(table, known)
    if known is None and preset is not None:
        base = evolve(base, provider=preset, features=PROVIDERS[preset].features)
    elif known is None:
        base = evolve(base, provider="")
    profile = evolve(
        read_profile(table, base),
        context_tokens=spec.context_tokens,
        is_local=spec.connect.startswith(_LOOPBACK),
        source=ProfileSource.STORE,
    )
    if len(place.problems) > problems_before:
        return None
    return RegisteredModel(
        profile=profile,
        connect=spec.connect,
        api_key_env=spec.api_key_env,
        upstream_model=spec.upstream_model,
        parallel=spec.parallel,
        aliases=aliases,
    )


def patch_registered_model(
    model: RegisteredModel, raw: Mapping[str, object], place: Place
) -> RegisteredModel | None:
    """The model with some fields changed; null puts a field back to what it is if nothing is said.

    Args:
        model: The model as it is.
        raw: The fields that change.
        place: Where the values stand, and where problems are noted.

    Returns:
        The changed model; None if there is any problem.
    """
    table = TableOf("an object with the fields to change").read(raw, place)
    if table is None:
        return None
    if raw.get("name", model.name) != model.name:
        place.field("name").report(
            f'cannot be changed from "{model.name}"; register another model and delete this one'
        )
        return None
    plain = registered_model_to_plain(model)
    if raw.get("provider", model.profile.provider) != model.profile.provider:
        plain = _without_preset(plain, model)
    return read_registered_model({**plain, **raw}, place)


def _without_preset(plain: dict[str, Any], model: RegisteredModel) -> dict[str, Any]:
    """The fields without those that are as the provider's preset says, for another provider to fill in."""
    preset = PROVIDERS.get(model.profile.provider)
    if preset is None or model.connect != preset.connect:
        return plain
    kept = {name: value for name, value in plain.items() if name not in ("connect", "api_key_env")}
    if model.profile.features == preset.features:
        del kept["features"]
    return kept


def registered_model_to_plain(model: RegisteredModel) -> dict[str, Any]:
    """The model as plain values; `read_registered_model` makes the same model of them."""
    context = model.profile.context_tokens
    fields = {
        "name": model.name,
        "aliases": list(model.aliases),
        "connect": model.connect,
        "api_key_env": model.api_key_env,
        "upstream_model": model.upstream_model,
        "context": None if context == UNBOUNDED_CONTEXT_TOKENS else context,
        "parallel": model.parallel,
        **profile_to_plain(model.profile),
    }
    return {name: value for name, value in fields.items() if value is not None}


def to_model_config(model: RegisteredModel) -> ModelConfig:
    """The model as the gateway serves it: with the usual retries and timeouts of a provider's model."""
    spec = EngineSpec(
        model=model.name,
        context_tokens=model.profile.context_tokens,
        connect=model.connect,
        place=f"remote:{model.name}",
        parallel=model.parallel,
        upstream_model=model.upstream_model,
        api_key_env=model.api_key_env,
    )
    plain = ModelConfig(
        name=model.name,
        aliases=model.aliases,
        engine=EngineKind.OPENAI,
        variants=(spec,),
        profile=model.profile,
    )
    return read_calls(plain, Table(Place(""), {}))


def with_registered(config: Config, models: Iterable[RegisteredModel]) -> Config:
    """A configuration with registered models after its own.

    The file wins: a model whose name is taken there, by a model, an alias or a route, is left out; so is an alias that is
    taken, there or by a model before it.

    A model whose credential is not for its URL (see `credential_problem`) is left out as well: what was allowed when it was
    registered need not be allowed any more, nor by every configuration that shares a store.

    Args:
        config: As it was read from the file, without registered models.
        models: The registered ones, each name once.
    """
    taken = {name for model in config.models for name in (model.name, *model.aliases)}
    taken.update(route.name for route in config.routes)
    allowed = _credentials(config)
    added = [
        model
        for model in models
        if model.name not in taken and (model.api_key_env is None or _credential(model) in allowed)
    ]
    taken.update(model.name for model in added)
    joined = []
    for model in added:
        free = tuple([alias for alias in model.aliases if alias not in taken])
        taken.update(free)
        joined.append(to_model_config(evolve(model, aliases=free)))
    return evolve(config, models=(*config.models, *joined)) if joined else config


def credential_problem(model: RegisteredModel, config: Config) -> str | None:
    """Why the model must not be called with the credential that it names; None if it may.

    Whoever registers a model names both an environment variable of the server and the address to which its value goes, so
    that any variable could be had by naming it. Only pairs that whoever runs the server has put together are allowed:
    those of models of the configuration file, of known providers, and of `registry.api_key_env`.

    Args:
        model: The model.
        config: The configuration; models that it has from the registry are not looked at.
    """
    if model.api_key_env is None or _credential(model) in _credentials(config):
        return None
    return (
        "not for this connect; a registered model may only name a variable that a model of the configuration file or a known "
        f'provider has for the same URL, or that the configuration allows: registry = {{ api_key_env = {{ NAME = "{model.connect}" }} }}'
    )


def _credential(model: RegisteredModel) -> tuple[str | None, str]:
    return model.api_key_env, model.connect


def _credentials(config: Config) -> set[tuple[str | None, str]]:
    """Environment variables and the URLs to which their values may be sent for registered models."""
    allowed: set[tuple[str | None, str]] = set(config.registry.api_key_env)
    allowed.update((preset.api_key_env, preset.connect) for preset in PROVIDERS.values())
    for model in config.models:
        if model.profile.source is not ProfileSource.STORE:
            allowed.update((spec.api_key_env, spec.connect) for spec in model.variants)
    return allowed


def expect_free_names(
    model: RegisteredModel, config: Config, others: Iterable[RegisteredModel], place: Place
) -> None:
    """Note the model's names that mean somebody else, whom requests would get instead.

    Args:
        model: The model that is to be registered or changed.
        config: The configuration; models that it has from the registry are not looked at.
        others: All registered models; the model itself may be among them, as it was.
        place: Of the model.
    """
    owners = {
        name: f'the model "{other.name}"'
        for other in others
        if other.name != model.name
        for name in (other.name, *other.aliases)
    }
    for configured in config.models:
        if configured.profile.source is not ProfileSource.STORE:
            owner = f'the model "{configured.name}" of the configuration file'
            owners.update(dict.fromkeys((configured.name, *configured.aliases), owner))
    owners.update({route.name: "a route of the configuration file" for route in config.routes})
    aliases = place.field("aliases")
    claims = [(model.name, place.field("name"))]
    claims += [(alias, aliases.item(number)) for number, alias in enumerate(model.aliases, 1)]
    for name, where in claims:
        if name in owners:
            where.report(f'"{name}" is already taken by {owners[name]}')


def _known_profile(name: str, provider: object) -> ModelProfile | None:
    known = DEFAULT_MODELS.get(name)
    if known is None or (provider is not None and provider != known.provider):
        return None
    return known


def _preset_name(table: Table, known: ModelProfile | None) -> str | None:
    """The provider whose preset fills in what is not said."""
    provider = table.values.get("provider")
    if provider is None:
        return None if known is None else known.provider
    return provider if isinstance(provider, str) and provider in PROVIDERS else None


def _read_engine(table: Table, name: str, known: ModelProfile | None) -> EngineSpec:
    """Where the model is reached: what the table says over what the presets say."""
    said = {field: value for field, value in table.values.items() if value is not None}
    usual: dict[object, object] = {}
    preset = _preset_name(table, known)
    if preset is not None:
        usual = {"connect": PROVIDERS[preset].connect}
        if "connect" not in said and PROVIDERS[preset].api_key_env is not None:
            usual["api_key_env"] = PROVIDERS[preset].api_key_env
    if known is not None:
        usual["context"] = known.context_tokens
        if name in UPSTREAM_NAMES:
            usual["upstream_model"] = UPSTREAM_NAMES[name]
    if "connect" not in said and "connect" not in usual:
        providers, near = ", ".join(PROVIDERS), near_provider(table)
        hint = f'; did you mean the provider "{near}"?' if near is not None else ""
        table.place.field("connect").report(
            f"missing; expected the URL of the provider, or a provider whose URL is known: {providers}{hint}"
        )
        said = {**said, "connect": "http://127.0.0.1"}  # read on, so that all problems are seen
    return remote_variant(Table(table.place, {**usual, **said}), name, EngineTimeouts())[0]
