from typing import Any

import pytest
from attrs import evolve

from gatewright.api.transforms import Transform
from gatewright.config import EngineKind, ModelConfig
from gatewright.errors import ConfigError
from gatewright.presets import DEFAULT_MODELS, PROVIDERS, UPSTREAM_NAMES
from gatewright.selection.profiles import Feature, Pricing, ProfileSource
from tests.support.configs import local_model, remote_model
from tests.support.routes import read


def test_profiles_of_models():
    config = read(
        remote_model(quality=0.9, features=["tools"], input_per_million=1, tags=["eu"]), local_model()
    )
    remote, local = (model.profile for model in config.models)
    assert (remote.quality, remote.features, remote.is_local) == (0.9, {"tools"}, False)
    assert (remote.pricing, remote.tags) == (Pricing(input_per_million=1.0), {"eu"})
    assert (local.name, local.features, local.is_local, local.context_tokens) == (
        "qwen",
        frozenset(Feature),
        True,
        4096,
    )


def test_a_model_that_is_told_of_schemas_in_words_has_the_feature():
    config = read(remote_model(features=["tools"], transform={"json_instructions": True}))
    assert config.models[0].profile.features == {"tools", "json_mode", "json_schema"}
    assert config.models[0].transform == Transform(json_instructions=True)


def test_fields_of_a_model_stand_in_no_variant():
    with pytest.raises(
        ConfigError, match=r"variants\[1\]\.quality: belongs into the model, not into a variant"
    ):
        read(local_model(variants=[{"binary": "x", "args": ["${PORT}"], "context": 1, "quality": 1}]))


def test_parameters_of_a_transform_are_json():
    config = read(
        remote_model(transform={"overrides": {"a": {"b": [1.0, 2.5, True, "x"]}, "max_tokens": 512.0}})
    )
    transform = config.models[0].transform
    assert transform is not None
    assert transform.overrides == {"a": {"b": [1, 2.5, True, "x"]}, "max_tokens": 512}
    assert [type(value) for value in transform.overrides["a"]["b"]] == [int, float, bool, str]


# --- providers


def model(**fields: Any) -> ModelConfig:
    (found,) = read(fields).models
    return found


def test_a_provider_that_is_known_needs_no_more_than_a_name():
    found = model(name="gpt-4o-mini", provider="openai")
    (spec,) = found.variants
    assert (found.engine, found.is_remote) == (EngineKind.OPENAI, True)
    assert (spec.connect, spec.api_key_env, spec.upstream_model) == (
        "https://api.openai.com",
        "OPENAI_API_KEY",
        None,
    )
    known = DEFAULT_MODELS["gpt-4o-mini"]
    assert found.profile == evolve(known, source=ProfileSource.CONFIG)
    assert spec.context_tokens == known.context_tokens


def test_what_a_table_says_counts_more_than_what_is_known():
    found = model(
        name="mini",
        provider="openai",
        upstream_model="gpt-4o-mini",
        context=5000,
        api_key_env="MY_KEY",
        quality=0.5,
        input_per_million=9,
    )
    (spec,) = found.variants
    assert (spec.context_tokens, spec.api_key_env, spec.upstream_model) == (5000, "MY_KEY", "gpt-4o-mini")
    known = DEFAULT_MODELS["gpt-4o-mini"]
    assert (found.profile.name, found.profile.quality, found.profile.context_tokens) == ("mini", 0.5, 5000)
    assert found.profile.pricing == evolve(known.pricing, input_per_million=9.0)
    assert found.profile.capabilities == known.capabilities


def test_models_of_which_nothing_is_known_have_the_providers_features():
    found = model(name="x", provider="anthropic")
    assert found.profile.features == PROVIDERS["anthropic"].features
    assert (found.profile.provider, found.profile.pricing) == ("anthropic", Pricing())


def test_known_models_are_called_as_their_provider_calls_them():
    (spec,) = model(name="llama-3.1-8b", provider="together").variants
    assert spec.upstream_model == UPSTREAM_NAMES["llama-3.1-8b"]
    by_upstream = model(name="small", provider="together", upstream_model=UPSTREAM_NAMES["llama-3.1-8b"])
    assert by_upstream.profile.pricing == DEFAULT_MODELS["llama-3.1-8b"].pricing


def test_a_key_is_not_sent_to_another_url():
    (spec,) = model(name="x", provider="openai", connect="https://proxy.example.com/v1").variants
    assert (spec.connect, spec.api_key_env) == ("https://proxy.example.com", None)


def test_known_models_are_known_by_their_providers_url_alone():
    found = model(name="gpt-4o", engine="openai", connect="https://api.openai.com/v1/")
    assert found.profile.pricing == DEFAULT_MODELS["gpt-4o"].pricing
    elsewhere = model(name="gpt-4o", engine="openai", connect="https://proxy.example.com")
    assert elsewhere.profile.pricing == Pricing()
    assert model(name="gpt-4o", provider="together").profile.pricing == Pricing()


def test_providers_that_are_not_known():
    with pytest.raises(ConfigError) as caught:
        read({"name": "x", "provider": "mine"})
    (problem,) = caught.value.problems
    assert problem.startswith(
        "models[1].provider: its URL is not known; name it in connect, or one of the providers"
    )
    with pytest.raises(
        ConfigError, match=r'its URL is not known; did you mean "openai"\? Or name it in connect'
    ):
        read({"name": "x", "provider": "opnai"})
    assert model(name="x", provider="mine", connect="http://10.0.0.1").profile.provider == "mine"
    with pytest.raises(ConfigError, match=r"provider: only for engine = presets\.engines\.openai"):
        read(local_model(provider="openai"))
