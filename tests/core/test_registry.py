from typing import Any

import msgspec
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from gatewright.config import Config, EngineKind
from gatewright.configuration.profiles import PROFILE_FIELDS
from gatewright.configuration.reader import Place
from gatewright.configuration.schema import read_config
from gatewright.engines.spec import UNBOUNDED_CONTEXT_TOKENS
from gatewright.presets import DEFAULT_MODELS, PROVIDERS
from gatewright.registry import (
    REGISTERED_FIELDS,
    credential_problem,
    patch_registered_model,
    read_registered_model,
    registered_model_to_plain,
    to_model_config,
    with_registered,
)
from gatewright.route_config import RegistryConfig, RouteConfig
from gatewright.selection.profiles import Feature, ProfileSource
from tests.support.configs import remote_model

PLAIN = {"name": "ours", "connect": "https://llm.example.com/v1"}


def registered(raw=None, **more: Any):
    place = Place("model")
    model = read_registered_model({**(PLAIN if raw is None else raw), **more}, place)
    assert place.problems == []
    return model


def problems(raw):
    place = Place("model")
    assert read_registered_model(raw, place) is None
    return place.problems


def test_a_name_and_a_url_are_enough():
    model = registered()
    assert (model.name, model.connect, model.api_key_env) == ("ours", "https://llm.example.com", None)
    assert model.profile.context_tokens == UNBOUNDED_CONTEXT_TOKENS
    assert model.profile.features == set(Feature)
    assert (model.profile.source, model.profile.is_local, model.profile.provider) == (
        ProfileSource.STORE,
        False,
        "",
    )


def test_a_known_model_needs_only_its_name():
    model = registered({"name": "llama-3.1-8b"})
    assert model.profile == evolve(DEFAULT_MODELS["llama-3.1-8b"], source=ProfileSource.STORE)
    assert model.connect == PROVIDERS["together"].connect
    assert (model.api_key_env, model.upstream_model) == (
        "TOGETHER_API_KEY",
        "meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo",
    )


def test_a_known_name_of_another_provider_is_another_model():
    model = registered({"name": "gpt-4o", "provider": "vllm"})
    assert model.profile.pricing.input_per_million == 0
    assert (model.connect, model.profile.is_local) == (PROVIDERS["vllm"].connect, True)


def test_what_is_said_wins_over_presets():
    model = registered({"name": "gpt-4o"}, quality=0.5, features=["tools"], parallel=4, context=32_000)
    assert (model.profile.quality, model.profile.features) == (0.5, {"tools"})
    assert (model.parallel, model.profile.context_tokens) == (4, 32_000)


def test_a_providers_key_is_not_sent_to_another_address():
    model = registered(provider="openai")
    assert (model.connect, model.api_key_env) == ("https://llm.example.com", None)
    assert model.profile.features == PROVIDERS["openai"].features


def test_all_problems_come_at_once_and_name_their_fields():
    found = problems(
        {
            "name": " x",
            "base_url": "http://x",
            "api_key": "sk-1",
            "colour": 1,
            "capabilities": ["coding"],
            "quality": 2,
            "context": 0,
            "api_key_env": "sk-proj-1",
        }
    )
    for line, start in zip(
        found,
        [
            'model.base_url: did you mean "connect"?',
            "model.api_key: keys are never stored; name the environment variable",
            f"model.colour: unknown field; known are {', '.join(sorted(REGISTERED_FIELDS))}",
            'model.name: got " x", expected a name',
            "model.connect: missing; expected the URL of the provider, or a provider whose URL is known: openai, ",
            "model.context: got 0, expected a whole number of tokens above 0",
            "model.api_key_env: got a string, expected the name of an environment variable",
            'model.capabilities[1]: got "coding", expected one of chat, code, reasoning',
            "model.quality: got 2, expected a number between 0 and 1",
        ],
        strict=True,
    ):
        assert line.startswith(start)


def test_misspelt_fields_get_a_hint():
    assert problems({**PLAIN, "upstreem_model": "x"}) == [
        'model.upstreem_model: unknown field; did you mean "upstream_model"?'
    ]
    assert problems({**PLAIN, "variants": []})[0].startswith(
        "model.variants: registered models have one context"
    )


def test_a_misspelt_provider_gets_a_hint():
    (problem,) = problems({"name": "x", "provider": "opnai"})
    assert problem.endswith('; did you mean the provider "openai"?')


@pytest.mark.parametrize("aliases", [["ours"], ["a", "a"]])
def test_names_of_its_own_twice(aliases):
    assert problems({**PLAIN, "aliases": aliases}) == [
        f'model.aliases[{len(aliases)}]: "{aliases[-1]}" is a name of this model already'
    ]


@pytest.mark.parametrize("raw", [None, [1], "x", 5])
def test_what_is_no_object(raw):
    assert problems(raw)[0].startswith("model: ")


# --- there and back

FIELDS = st.fixed_dictionaries(
    {"name": st.sampled_from(["ours", *DEFAULT_MODELS])},
    optional={
        "aliases": st.lists(st.sampled_from(["a", "b", "c"]), unique=True),
        "provider": st.sampled_from(["elsewhere", *PROVIDERS]),
        "api_key_env": st.sampled_from(["SOME_KEY", "OTHER_KEY"]),
        "upstream_model": st.sampled_from(["org/model", "x"]),
        "context": st.integers(1, 10**6),
        "parallel": st.integers(1, 100),
        "capabilities": st.lists(st.sampled_from(["code", "math"])),
        "features": st.lists(st.sampled_from(["tools", "json_mode"])),
        "tags": st.lists(st.sampled_from(["eu", "fast"])),
        "modalities": st.lists(st.sampled_from(["text", "image"])),
        "input_per_million": st.floats(0, 100),
        "cached_input_per_million": st.floats(0, 100),
        "engine_hour": st.floats(0, 10),
        "quality": st.floats(0, 1),
        "quality_by_task": st.dictionaries(st.sampled_from(["t", "u"]), st.floats(0, 1)),
        "latency_ms": st.floats(1, 1e5),
        "output_tokens_per_s": st.floats(0.1, 1000),
        "description": st.sampled_from(["good", "better"]),
    },
)


@given(FIELDS)
def test_a_model_comes_back_from_json(fields):
    model = registered({"connect": "https://llm.example.com", **fields})
    plain = registered_model_to_plain(model)
    assert set(plain) <= set(REGISTERED_FIELDS)
    assert registered(msgspec.json.decode(msgspec.json.encode(plain))) == model


@given(FIELDS, FIELDS)
def test_a_patch_changes_what_it_names_and_nothing_else(fields, changes):
    model = registered({"connect": "https://llm.example.com", **fields})
    changes = {name: value for name, value in changes.items() if name not in ("name", "provider")}
    place = Place("model")
    changed = patch_registered_model(model, changes, place)
    assert place.problems == []
    assert changed == registered({**registered_model_to_plain(model), **changes})


def patched(model, **changes: Any):
    place = Place("model")
    return patch_registered_model(model, changes, place), place.problems


def test_null_puts_a_field_back():
    model = registered({"name": "gpt-4o"}, quality=0.1, parallel=3)
    changed, _ = patched(model, quality=None, parallel=None)
    assert (changed.profile.quality, changed.parallel) == (DEFAULT_MODELS["gpt-4o"].quality, None)


def test_another_provider_brings_its_address_and_key():
    changed, found = patched(registered({"name": "x", "provider": "openai"}), provider="together")
    assert found == []
    assert (changed.connect, changed.api_key_env) == (PROVIDERS["together"].connect, "TOGETHER_API_KEY")
    assert changed.profile.features == PROVIDERS["together"].features
    own, _ = patched(registered(provider="openai", api_key_env="MY_KEY"), provider="together")
    assert (own.connect, own.api_key_env) == ("https://llm.example.com", "MY_KEY")


def test_patches_that_are_not_allowed():
    assert patched(registered(), name="other") == (
        None,
        ['model.name: cannot be changed from "ours"; register another model and delete this one'],
    )
    assert patched(registered(), name="ours")[1] == []
    assert patched(registered(), quality=5)[0] is None


# --- joined with the configuration

FILE = read_config({"server": {}, "models": [remote_model(name="file", aliases=["f"])]})


def test_a_registered_model_is_served_like_one_of_the_file():
    model = registered(
        aliases=["o"], api_key_env="KEY", upstream_model="up", context=4096, parallel=2, quality=0.9
    )
    allowing = RegistryConfig(api_key_env=(("KEY", "https://llm.example.com"),))
    config = with_registered(evolve(FILE, registry=allowing), [model])
    served = config.find_model("o")
    in_file = read_config(
        {
            "server": {},
            "models": [
                remote_model(
                    name="ours",
                    aliases=["o"],
                    connect="https://llm.example.com",
                    api_key_env="KEY",
                    upstream_model="up",
                    context=4096,
                    parallel=2,
                )
            ],
        }
    ).models[0]
    assert served == evolve(in_file, profile=model.profile)
    assert served == to_model_config(model)
    assert served.engine is EngineKind.OPENAI
    assert served.profile.quality == 0.9


def test_the_file_wins():
    config = evolve(FILE, routes=(RouteConfig(name="auto"),))
    models = [registered(name=name) for name in ("file", "f", "auto", "new")]
    joined = with_registered(config, models)
    assert [model.name for model in joined.models] == ["file", "new"]
    assert joined.find_model("f").name == "file"


def test_aliases_that_are_taken_are_left_out():
    one = registered(name="one", aliases=["f", "two", "free"])
    two = registered(name="two", aliases=["free", "auto"])
    joined = with_registered(evolve(FILE, routes=(RouteConfig(name="auto"),)), [one, two])
    assert [model.aliases for model in joined.models] == [("f",), ("free",), ()]
    assert joined.find_model("two").name == "two"


@pytest.mark.parametrize(
    ("fields", "allowed"),
    [
        ({}, True),  # no credential
        ({"api_key_env": "HOME"}, False),
        ({"provider": "openai", "connect": None}, True),
        ({"provider": "openai", "api_key_env": "OPENAI_API_KEY"}, False),  # to an address of its own
        ({"connect": "https://api.openai.com/v1/", "api_key_env": "OPENAI_API_KEY"}, True),
        ({"connect": "http://api.openai.com", "api_key_env": "OPENAI_API_KEY"}, False),
        ({"connect": "https://api.openai.com", "api_key_env": "HF_TOKEN"}, False),
        ({"connect": "https://file.example.com", "api_key_env": "FILE_KEY"}, True),
        ({"connect": "https://file.example.com/elsewhere", "api_key_env": "FILE_KEY"}, False),
        ({"connect": "https://listed.example.com", "api_key_env": "LISTED_KEY"}, True),
        ({"connect": "https://file.example.com", "api_key_env": "LISTED_KEY"}, False),
    ],
)
def test_variables_of_the_environment_go_only_where_the_configuration_says(fields, allowed):
    raw = {
        "server": {},
        "models": [remote_model(connect="https://file.example.com/v1", api_key_env="FILE_KEY")],
        "registry": {"api_key_env": {"LISTED_KEY": "https://listed.example.com/v1"}},
    }
    config, model = read_config(raw), registered(**fields)
    problem = credential_problem(model, config)
    assert (problem is None) is allowed
    assert problem is None or f'registry = {{ api_key_env = {{ NAME = "{model.connect}" }} }}' in problem
    joined = with_registered(config, [model])
    assert [each.name for each in joined.models] == ["gpt", "ours"][: 1 + allowed]
    if not allowed:  # what one registered model says allows nothing to another one
        served = evolve(joined, models=(*config.models, to_model_config(model)))
        assert credential_problem(model, served) == problem


def test_without_registered_models_nothing_changes():
    assert with_registered(FILE, []) is FILE
    assert isinstance(with_registered(FILE, [registered(name="file")]), Config)


def test_every_field_of_a_profile_can_be_registered():
    assert set(PROFILE_FIELDS) < set(REGISTERED_FIELDS)
