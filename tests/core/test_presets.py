import pytest

from gatewright.configuration.reader import Place
from gatewright.presets import DEFAULT_MODELS, PROVIDERS, UPSTREAM_NAMES
from gatewright.registry import read_registered_model
from gatewright.selection.choosing import select_model
from gatewright.selection.complexity import TaskComplexity
from gatewright.selection.criteria import SelectionCriteria
from gatewright.selection.decision import Requirements
from gatewright.selection.profiles import Capability, Feature, ProfileSource
from gatewright.selection.values import adjusted_quality
from tests.support.profiles import estimate


def test_the_models_that_everybody_asks_for():
    assert list(DEFAULT_MODELS) == [
        "deepseek-v3",
        "llama-3.1-70b",
        "llama-3.1-8b",
        "gpt-4o",
        "gpt-4o-mini",
        "claude-3-sonnet",
    ]
    assert set(UPSTREAM_NAMES) <= set(DEFAULT_MODELS)


@pytest.mark.parametrize("profile", DEFAULT_MODELS.values(), ids=list(DEFAULT_MODELS))
def test_presets_of_models_are_complete(profile):
    assert profile.provider in PROVIDERS
    assert profile.capabilities <= set(Capability)
    assert profile.features <= set(Feature)
    assert profile.source is ProfileSource.PRESET
    assert 0.5 < profile.quality < 1
    assert 0 < profile.pricing.input_per_million <= profile.pricing.output_per_million
    assert profile.context_tokens >= 100_000
    assert not profile.is_local


def test_qualities_give_their_source_again_for_complex_tasks():
    deepseek = DEFAULT_MODELS["deepseek-v3"].quality
    assert adjusted_quality(deepseek, TaskComplexity.COMPLEX) == pytest.approx(0.759, abs=0.01)


@pytest.mark.parametrize("preset", PROVIDERS.values(), ids=list(PROVIDERS))
def test_a_model_of_each_provider_needs_no_more_than_a_name(preset):
    place = Place("model")
    model = read_registered_model({"name": "some-model", "provider": preset.name}, place)
    assert place.problems == []
    assert (model.connect, model.api_key_env) == (preset.connect, preset.api_key_env)
    assert model.profile.features == preset.features
    assert model.profile.is_local == preset.is_local


def test_the_presets_make_sensible_choices():
    models = DEFAULT_MODELS.values()
    easy = Requirements(prompt_tokens=300, complexity=estimate("trivial"))
    assert select_model(easy, models) == "llama-3.1-8b"
    hard = Requirements(prompt_tokens=300, complexity=estimate("expert"))
    assert DEFAULT_MODELS[select_model(hard, models)].quality > 0.8
    pictures = Requirements(prompt_tokens=300, modalities=frozenset({"image"}))
    assert select_model(pictures, models) == "gpt-4o-mini"
    long = Requirements(criteria=SelectionCriteria(min_context_tokens=150_000))
    assert select_model(long, models) == "claude-3-sonnet"
