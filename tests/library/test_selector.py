"""Choosing: always one of the models, and never silently against the criteria."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from gatewright.selection.complexity import ComplexityEstimate
from gatewright_library import (
    DEFAULT_MODELS,
    FallbackChain,
    ModelConfig,
    ModelNotFound,
    ModelSelector,
    Prefer,
    SelectionCriteria,
    TaskComplexity,
    get_model_for_complexity,
    select_model,
)


@dataclass
class Spec:
    name: str
    docstring: str


SPEC = Spec("extract_values", "Extract values from a text")
INPUTS = {"text": "a short text"}

CHEAP = ModelConfig("cheap", cost_per_1k_input=0.0001, cost_per_1k_output=0.0001, quality_score=0.7)
GOOD = ModelConfig(
    "good", cost_per_1k_input=0.004, cost_per_1k_output=0.008, quality_score=0.9, capabilities=["code"]
)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def static(*models: ModelConfig, **settings: Any) -> ModelSelector:
    return ModelSelector(models=models or None, enable_learning=False, **settings)


def record(selector, model, *, success, times=1, task=SPEC.name, complexity=None):
    for _ in range(times):
        selector.record_execution(
            task, model, INPUTS, success=success, latency_ms=500.0, complexity=complexity
        )


# --- defaults


def test_a_selector_has_models_and_a_default():
    selector = ModelSelector()
    assert len(selector.models) > 0
    assert set(selector.models) == set(DEFAULT_MODELS)
    assert selector.default_model == "deepseek-v3"
    assert selector.enable_learning is True


def test_a_selector_is_built_by_position_as_in_older_code(store):
    selector = ModelSelector(store, {"cheap": CHEAP}, "cheap", False, None, None)  # noqa: FBT003  # that is the point
    assert selector.experience_store is store
    assert (selector.default_model, selector.enable_learning) == ("cheap", False)
    assert selector.select(SPEC, INPUTS) == "cheap"


def test_nothing_is_made_at_home_before_something_is_recorded(home):
    selector = ModelSelector()
    selector.select(SPEC, INPUTS)
    selector.get_fallback_chain(SPEC, INPUTS)
    assert list(home.iterdir()) == []
    record(selector, "gpt-4o", success=True)
    assert [path.name for path in home.iterdir()] == [".gatewright"]
    selector.experience_store.close()


def test_nothing_is_recorded_where_learning_is_switched_off(home, store):
    selector = ModelSelector(store, enable_learning=False)
    record(selector, "gpt-4o", success=True)
    record(ModelSelector(enable_learning=False), "gpt-4o", success=True)
    assert store.get_performance("gpt-4o", SPEC.name) is None
    assert list(home.iterdir()) == []


# --- the choice


@pytest.mark.parametrize("task", [SPEC, "extract", len, Spec("", "")])
@pytest.mark.parametrize("inputs", [None, {}, INPUTS, "text", {"data": ["x"] * 1000}])
def test_the_choice_is_one_of_the_models(task, inputs):
    selector = static()
    result = selector.select_with_details(task, inputs)
    assert result.selected_model in selector.models
    assert result.config is selector.models[result.selected_model]
    assert result.reason
    assert 0 <= result.confidence <= 1
    assert result.estimated_cost > 0
    assert isinstance(result.complexity, TaskComplexity)
    assert selector.select(task, inputs) == result.selected_model
    assert result.selected_model not in result.fallback_chain


def test_criteria_are_met():
    criteria = SelectionCriteria(required_capabilities=["reasoning"], max_cost_per_1k_tokens=0.01)
    selector = static()
    result = selector.select_with_details(SPEC, INPUTS, criteria)
    assert result.selected_model in selector.models
    assert "reasoning" in result.config.capabilities
    assert result.relaxed == []


@given(
    st.lists(st.sampled_from(["code", "reasoning", "math", "tools", "flying"]), max_size=3),
    st.none() | st.floats(0, 0.02),
    st.none() | st.floats(0, 10_000),
    st.none() | st.floats(0, 1),
    st.none() | st.integers(0, 400_000),
)
def test_whatever_is_asked_one_model_is_chosen_and_what_was_given_up_is_told(
    capabilities, cost, latency_ms, quality, context
):
    selector = static()
    criteria = SelectionCriteria(capabilities, [], cost, latency_ms, quality, context)
    result = selector.select_with_details(SPEC, INPUTS, criteria)
    model = selector.models[result.selected_model]
    has_all = set(capabilities) <= set(model.capabilities)
    price = (model.cost_per_1k_input + model.cost_per_1k_output) / 2
    broken = {
        "capabilities": not has_all,
        "cost": cost is not None and price > cost * (1 + 1e-9),
        "quality": quality is not None and model.quality_score < quality - 1e-9,
        "context": context is not None and model.max_tokens < context,
    }
    for criterion, is_broken in broken.items():
        assert not is_broken or criterion in result.relaxed
        assert not is_broken or criterion in result.reason or "last resort" in result.reason


def test_what_no_model_can_do_is_given_up_in_the_stated_order():
    selector = static(CHEAP, GOOD)
    order = ["latency", "cost", "quality", "capabilities"]
    for criteria, relaxed in (
        (SelectionCriteria(max_latency_ms=1), order[:1]),
        (SelectionCriteria(max_cost_per_1k_tokens=0.000001), order[:2]),
        (SelectionCriteria(min_quality_threshold=0.99), order[:3]),
        (SelectionCriteria(["flying"]), order[:4]),
    ):
        result = selector.select_with_details(SPEC, INPUTS, criteria)
        assert list(result.relaxed) == relaxed
        assert f"given up: {', '.join(relaxed)}" in result.reason


def test_a_task_that_no_context_holds_goes_to_the_largest_and_says_so():
    small, large = ModelConfig("small", max_tokens=1000), ModelConfig("large", max_tokens=2000)
    result = static(small, large, default_model="small").select_with_details(SPEC, {"text": "word" * 9000})
    assert result.selected_model == "large"
    assert "last resort" in result.reason
    assert "context" in result.relaxed
    assert result.confidence == 0.0


def test_the_default_model_may_be_unknown_and_the_inputs_too_long_for_it():
    result = static(CHEAP, default_model="nobody").select_with_details(SPEC, {"text": "word" * 90_000})
    assert result.selected_model == "cheap"


def test_prompts_count_against_the_context():
    small, large = evolve(CHEAP, max_tokens=1000), evolve(GOOD, max_tokens=100_000)
    selector = static(small, large, weights=Prefer.COST)
    assert selector.select(SPEC, INPUTS) == "cheap"
    assert selector.select(SPEC, {"text": "word" * 5000}) == "good"


def test_hard_tasks_get_better_models_than_easy_ones():
    selector = static(CHEAP, GOOD)
    assert selector.select("format_text", {"text": "hi"}) == "cheap"
    hard = Spec("prove_theorem", "Analyze step by step, reason about the proof, compare and synthesize")
    assert selector.select(hard, {"data": "Prove why. " * 400}) == "good"


def test_what_is_preferred_is_chosen():
    assert static(CHEAP, GOOD, weights=Prefer.COST).select(SPEC, INPUTS) == "cheap"
    assert static(CHEAP, GOOD, weights=Prefer.QUALITY).select("prove", {"data": "why? " * 900}) == "good"


def test_models_that_are_switched_off_or_lack_a_tag_are_never_chosen():
    tagged = evolve(CHEAP, tags=("eu", "local"))
    assert static(evolve(CHEAP, enabled=False), GOOD, weights=Prefer.COST).select(SPEC, INPUTS) == "good"
    selector = static(tagged, GOOD, required_tags=["eu"], default_model="good")
    result = selector.select_with_details(SPEC, INPUTS, SelectionCriteria(["code"]))
    assert result.selected_model == "cheap"
    assert "capabilities" in result.relaxed
    assert list(selector.get_fallback_chain(SPEC, INPUTS)) == ["cheap"]


def test_without_any_model_there_is_no_choice():
    for selector, why in (
        (ModelSelector(models=[], enable_learning=False), "the selector's `models` are empty"),
        (static(evolve(CHEAP, enabled=False)), "of cheap none is enabled"),
        (static(CHEAP, required_tags=["eu"]), "of cheap none has all required tags (eu)"),
    ):
        with pytest.raises(ModelNotFound) as caught:
            selector.select(SPEC, INPUTS)
        assert str(caught.value) == f"There are no models to choose from: {why}"


def test_presets_are_known_by_their_names():
    assert static(CHEAP, GOOD, weights="cost").select(SPEC, INPUTS) == "cheap"
    assert static(CHEAP, GOOD, weights="Quality").select("prove", {"data": "why? " * 900}) == "good"
    assert ModelSelector(exploration="thompson")._chance is not None
    assert ModelSelector(exploration="greedy")._chance is None
    with pytest.raises(
        ValueError, match='weights is \'cheap\', expected one of "balanced", "quality", "cost", "speed"'
    ):
        ModelSelector(weights="cheap")
    with pytest.raises(ValueError, match="weights is 1, expected one of"):
        ModelSelector(weights=1)
    with pytest.raises(ValueError, match='exploration is \'wild\', expected one of "greedy", "thompson"'):
        ModelSelector(exploration="wild")
    with pytest.raises(ValueError, match="required_tags is 'eu', expected a list of words"):
        ModelSelector(required_tags="eu")


def test_the_default_model_need_not_be_there():
    assert static(CHEAP, default_model="deepseek-v3").select(SPEC, INPUTS) == "cheap"


def test_models_may_be_changed_at_any_time():
    selector = static(CHEAP)
    assert selector.select(SPEC, INPUTS) == "cheap"
    selector.models["free"] = ModelConfig(
        "anything", cost_per_1k_input=0, cost_per_1k_output=0, quality_score=0.95
    )
    assert selector.select(SPEC, INPUTS) == "free"
    selector.models["free"] = evolve(selector.models["free"], enabled=False)
    assert selector.select(SPEC, INPUTS) == "cheap"
    assert len(DEFAULT_MODELS) == 6


def test_an_estimator_of_ones_own_is_asked():
    seen = []

    def estimator(task, inputs):
        seen.append((task, inputs))
        return TaskComplexity.EXPERT

    result = static(complexity_estimator=estimator).select_with_details(SPEC, INPUTS)
    assert result.complexity is TaskComplexity.EXPERT
    assert seen == [(SPEC, INPUTS)]
    estimate = ComplexityEstimate(complexity=TaskComplexity.SIMPLE, score=0.3)
    assert (
        static(complexity_estimator=lambda *_: estimate).select_with_details(SPEC, INPUTS).complexity
        == "simple"
    )


# --- chains


@pytest.mark.parametrize("max_length", [1, 2, 3, 5, 6, 20])
def test_a_chain_has_one_to_so_many_models(max_length):
    selector = static()
    chain = selector.get_fallback_chain(SPEC, INPUTS, max_length=max_length)
    assert isinstance(chain, FallbackChain)
    assert 1 <= len(chain) <= max_length
    assert len(set(chain)) == len(chain)
    assert set(chain) <= set(selector.models)
    assert chain.models[0] == selector.select(SPEC, INPUTS)
    assert chain.reason
    assert max_length < 2 or "deepseek-v3" in chain


@pytest.mark.parametrize("default", list(DEFAULT_MODELS))
def test_any_known_default_is_in_a_chain_with_room(default):
    selector = static(default_model=default)
    assert default in selector.get_fallback_chain(SPEC, INPUTS, max_length=5)
    assert len(selector.get_fallback_chain(SPEC, INPUTS, max_length=6)) == 6


def test_a_default_with_a_date_means_the_model():
    assert "deepseek-v3" in static(default_model="deepseek-v3-0324").get_fallback_chain(SPEC, INPUTS, 2)


def test_a_chain_without_models_is_refused():
    with pytest.raises(ValueError, match="max_length is 0"):
        static().get_fallback_chain(SPEC, INPUTS, max_length=0)


# --- without a selector


@pytest.mark.parametrize("name", ["format_text", "analyze_multi_step_reasoning"])
def test_a_static_choice_is_a_preset(name, home):
    assert select_model(name, {"data": "x" * 3000}) in DEFAULT_MODELS
    assert select_model(name, {}, default="gpt-4o") in DEFAULT_MODELS
    assert select_model(name, {}, default="nobody") in DEFAULT_MODELS
    assert list(Path(home).iterdir()) == []


def test_harder_levels_get_models_that_are_at_least_as_good():
    names = [get_model_for_complexity(level) for level in TaskComplexity]
    qualities = [DEFAULT_MODELS[name].quality_score for name in names]
    assert qualities == sorted(qualities)
    assert len(set(names)) > 1
    assert get_model_for_complexity("trivial") == names[0]
    assert get_model_for_complexity("purple") == "deepseek-v3"
    assert get_model_for_complexity("purple", default="gpt-4o") == "gpt-4o"
