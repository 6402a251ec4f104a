"""Models, criteria and results as callers write them down and read them."""

import json
import re
from functools import partial

import pytest
from attrs import evolve

from gatewright.accounting.costs import mean_cost_per_1k_tokens
from gatewright.selection.profiles import Capability, Feature, Modality
from gatewright_library import (
    DEFAULT_MODELS,
    ModelConfig,
    ModelManager,
    ModelNotFound,
    ModelPerformance,
    ModelSelector,
    SelectionCriteria,
    SelectionResult,
    TaskComplexity,
    estimate_cost,
    rank_models,
)
from gatewright_library.models import pricing_of, to_profile


def test_levels_have_their_names():
    assert [level.value for level in TaskComplexity] == ["trivial", "simple", "moderate", "complex", "expert"]
    assert TaskComplexity("trivial") is TaskComplexity.TRIVIAL
    assert [level.level for level in TaskComplexity] == [0, 1, 2, 3, 4]


def test_a_model_has_the_usual_defaults():
    model = ModelConfig("m")
    assert (model.provider, model.max_tokens, model.quality_score) == ("together", 32_000, 0.7)
    assert (model.cost_per_1k_input, model.cost_per_1k_output) == (0.001, 0.002)
    assert (model.latency_ms_avg, model.enabled, model.elo_score, model.model_id) == (1000.0, True, None, "")
    assert list(model.capabilities) == list(model.tags) == []


def test_a_model_as_plain_data_makes_the_same_model_again():
    model = ModelConfig("m", "openai", "m-2024", capabilities=["code"], tags=("a",), elo_score=1200.0)
    data = json.loads(json.dumps(model.to_dict()))
    assert data["capabilities"] == ["code"]
    assert evolve(ModelConfig(**data), tags=("a",)) == model


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("quality_score", 1.5),
        ("quality_score", float("nan")),
        ("cost_per_1k_input", -1.0),
        ("cost_per_1k_output", float("nan")),
        ("latency_ms_avg", -1.0),
        ("max_tokens", 0),
        ("max_tokens", "many"),
        ("max_tokens", None),
        ("quality_score", "good"),
        ("cost_per_1k_input", True),
        ("capabilities", "chat"),
        ("tags", 5),
    ],
)
def test_nonsense_is_refused_by_field(field, value):
    with pytest.raises(ValueError, match=rf"ModelConfig\.{field} of m is"):
        ModelConfig("m", **{field: value})


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("min_quality_threshold", 4, "4, expected a number from 0 to 1 or None"),
        ("min_quality_threshold", "high", "'high', expected a number from 0 to 1 or None"),
        ("max_cost_per_1k_tokens", -1, "-1, expected a number, at least 0 or None"),
        ("max_latency_ms", float("nan"), "nan, expected a number, at least 0 or None"),
        ("min_context_tokens", "32k", "'32k', expected a number, at least 0 or None"),
        ("required_capabilities", "code", "'code', expected a list of words"),
        ("required_features", "tools", "'tools', expected a list of words"),
    ],
)
def test_nonsense_in_criteria_is_refused(field, value, expected):
    with pytest.raises(ValueError, match=re.escape(f"SelectionCriteria.{field} is {expected}")):
        SelectionCriteria(**{field: value})


@pytest.mark.parametrize("name", ["", " coder", "co\nder", "x" * 201, None])
def test_names_go_by_the_rule_that_gateways_have(name):
    expected = "expected a name of 1 to 200 printable characters"
    with pytest.raises(ValueError, match=rf"ModelConfig\.name is .*, {expected}"):
        ModelConfig(name)
    for kind in (ModelManager, partial(ModelSelector, None)):
        with pytest.raises(ValueError, match=rf"models: a name is .*, {expected}"):
            kind({name: ModelConfig("coder")})


def test_criteria_have_the_defaults_that_callers_rely_on():
    criteria = SelectionCriteria()
    assert criteria.max_latency_ms == 5000
    assert criteria.min_quality_threshold == 0.5
    assert criteria.max_cost_per_1k_tokens == 0.01
    assert criteria.required_capabilities == criteria.required_features == []
    assert criteria.min_context_tokens is None


def test_a_result_as_plain_data():
    result = SelectionResult("m", ModelConfig("m"), "because", fallback_chain=["n"])
    data = json.loads(json.dumps(result.to_dict()))
    assert data["selected_model"] == "m"
    assert data["config"]["name"] == "m"
    assert (data["reason"], data["confidence"], data["fallback_chain"]) == ("because", 0.8, ["n"])
    assert (data["estimated_cost"], data["complexity"]) == (0.0, None)
    assert SelectionResult("m", complexity=TaskComplexity.EXPERT).to_dict()["complexity"] == "expert"


def test_a_performance_without_calls_has_no_success():
    assert ModelPerformance("m", "t").success_rate == 0.0
    assert ModelPerformance("m", "t").last_updated is None


def test_a_performance_as_plain_data_makes_the_same_again():
    performance = ModelPerformance("m", "t", 10, 8, 120.0, 0.5, "2026-01-01T00:00:00+00:00")
    data = json.loads(json.dumps(performance.to_dict()))
    assert data["success_rate"] == 0.8
    assert ModelPerformance.from_dict(data) == performance
    assert ModelPerformance.from_dict({"model_name": "m", "ptool_name": "t", "of_a_later_version": 1}) == (
        ModelPerformance("m", "t")
    )


# --- the presets


def test_the_presets_are_the_promised_ones():
    assert set(DEFAULT_MODELS) == {
        "deepseek-v3",
        "llama-3.1-70b",
        "llama-3.1-8b",
        "gpt-4o",
        "gpt-4o-mini",
        "claude-3-sonnet",
    }


@pytest.mark.parametrize("name", DEFAULT_MODELS)
def test_a_preset_is_complete(name):
    model = DEFAULT_MODELS[name]
    assert model.name == name
    assert model.provider
    assert 0 <= model.quality_score <= 1
    assert model.cost_per_1k_input >= 0
    assert model.cost_per_1k_output >= 0
    assert model.latency_ms_avg > 0
    profile = to_profile(model)
    assert pricing_of(model) == profile.pricing
    assert model.cost_per_1k_input * 1000 == pytest.approx(profile.pricing.input_per_million)


def test_a_preset_with_a_date_is_found_but_not_listed():
    assert "deepseek-v3-0324" in DEFAULT_MODELS
    assert DEFAULT_MODELS["deepseek-v3-0324"] is DEFAULT_MODELS["deepseek-v3"]
    assert DEFAULT_MODELS.get("deepseek-v3-0324") is not None
    assert "deepseek-v3-0324" not in list(DEFAULT_MODELS)
    assert len(DEFAULT_MODELS) == len(dict(DEFAULT_MODELS)) == 6
    assert 7 not in DEFAULT_MODELS
    with pytest.raises(KeyError):
        DEFAULT_MODELS["nobody"]


def test_a_preset_that_somebody_changed_counts_as_it_is_now():
    model = evolve(DEFAULT_MODELS["gpt-4o"], cost_per_1k_input=1.0, quality_score=0.1)
    assert pricing_of(model).input_per_million == 1000.0
    assert to_profile(model).quality == 0.1
    assert Modality.IMAGE in to_profile(model).modalities


# --- as the core sees them


def test_capabilities_and_features_come_from_one_list():
    profile = to_profile(ModelConfig("m", capabilities=["Code", "function_calling", "vision", "my-own"]))
    assert {Capability.CODE, "my-own"} <= profile.capabilities
    assert Feature.TOOLS in profile.features
    assert profile.modalities == {Modality.TEXT, Modality.IMAGE}


def test_a_model_that_says_nothing_of_its_api_has_its_providers_features():
    assert Feature.TOOLS in to_profile(ModelConfig("m", "openai", capabilities=["code"])).features
    assert Feature.TOOLS not in to_profile(ModelConfig("m", "openai", capabilities=["json_mode"])).features
    assert Feature.TOOLS not in to_profile(ModelConfig("m", "mine", capabilities=["code"])).features


def test_prices_are_the_same_in_both_units():
    assert mean_cost_per_1k_tokens(pricing_of(ModelConfig("m"))) == pytest.approx(0.0015)
    assert estimate_cost(ModelConfig("m"), (1000, 500)) == pytest.approx(0.002)
    assert estimate_cost(ModelConfig("m"), 2000) == pytest.approx(0.002)
    assert estimate_cost("gpt-4o", 1_000_000) == pytest.approx(2.5)
    assert estimate_cost(to_profile(ModelConfig("m")), 1000) == pytest.approx(0.001)
    with pytest.raises(ModelNotFound, match="nobody"):
        estimate_cost("nobody", 1)


@pytest.mark.parametrize(
    ("provider", "tags", "is_local"),
    [
        ("ollama", (), True),
        ("llamacpp", (), True),
        ("openai", (), False),
        ("openai", ("local",), True),
        ("mine", (), False),
    ],
)
def test_who_serves_a_model_says_where_it_runs(provider, tags, is_local):
    model = ModelConfig("m", provider, tags=tags)
    assert model.is_local is is_local
    assert to_profile(model).is_local is is_local


def test_ranking_leaves_out_whom_the_criteria_do():
    models = [
        ModelConfig("good", quality_score=0.9, capabilities=["code"]),
        ModelConfig("cheap", quality_score=0.6, cost_per_1k_input=0, cost_per_1k_output=0),
        ModelConfig("off", quality_score=0.9, enabled=False),
    ]
    ranked = rank_models(SelectionCriteria(), models)
    assert {name for name, _ in ranked} == {"good", "cheap"}
    assert [score for _, score in ranked] == sorted((score for _, score in ranked), reverse=True)
    assert all(0 <= score <= 1 for _, score in ranked)
    assert [name for name, _ in rank_models(SelectionCriteria(["code"]), models)] == ["good"]
    assert len(rank_models(SelectionCriteria(None, None, None, None, None), models)) == 2
    assert rank_models(SelectionCriteria(["flying"]), {model.name: model for model in models}) == []
    assert len(rank_models(SelectionCriteria(), [to_profile(models[0])])) == 1
