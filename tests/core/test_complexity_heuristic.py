import math

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from gatewright.selection.complexity import TaskComplexity
from gatewright.selection.complexity_heuristic import (
    DEFAULT_THRESHOLDS,
    DIMENSIONS,
    complexity_at,
    confidence_at,
    estimate_complexity,
)
from gatewright.selection.signals import PromptSignals, signals_of_text

COUNTS = ("text_characters", "inputs", "turns", "reasoning_cues", "steps", "code", "mathematics", "terms",
          "constraints", "tools", "media", "task_words")  # fmt: skip
counts = st.integers(0, 10**9)
signals = st.builds(
    PromptSignals,
    **dict.fromkeys(COUNTS, counts) | {"task_words": st.integers(-50, 50)},
    answer_tokens=st.none() | counts,
)


def of(task: str, description: str, **inputs: object) -> TaskComplexity:
    return estimate_complexity(signals_of_text(task, description, inputs)).complexity


def test_easy_work_on_little_text_is_trivial():
    assert of("format_text", "Simple formatting", text="hi") is TaskComplexity.TRIVIAL
    assert of("extract_values", "Extract from text", text="short input").level <= TaskComplexity.SIMPLE.level


def test_hard_work_on_much_text_is_not_simple():
    task = of("analyze_multi_step_reasoning", "Complex multi-step synthesis", data="x" * 3000)
    assert task.level >= TaskComplexity.MODERATE.level


def test_the_words_of_a_task_matter():
    levels = [of(name, "", text="x" * 1500).level for name in ("format", "handle", "prove_theorem")]
    assert levels == sorted(levels)
    assert levels[0] < levels[-1]


@given(signals)
def test_the_score_is_a_number_from_0_to_1_and_the_level_is_its(found):
    estimate = estimate_complexity(found)
    assert 0 <= estimate.score <= 1
    assert 0 <= estimate.confidence < 1
    assert estimate.complexity is complexity_at(estimate.score)


@given(signals)
def test_the_dimensions_explain_the_score(found):
    estimate = estimate_complexity(found)
    assert tuple(dimension.name for dimension in estimate.dimensions) == DIMENSIONS
    assert all(0 <= dimension.score <= 1 and dimension.reason for dimension in estimate.dimensions)
    assert math.isclose(sum(dimension.weight for dimension in estimate.dimensions), 1)
    mean = sum(dimension.weight * dimension.score for dimension in estimate.dimensions)
    assert math.isclose(estimate.score, 1 - (1 - mean) ** 4, abs_tol=1e-9)


@given(signals, st.sampled_from(COUNTS), st.integers(1, 10_000))
def test_more_of_anything_is_never_easier(found, name, more):
    larger = evolve(found, **{name: getattr(found, name) + more})
    assert estimate_complexity(larger).score >= estimate_complexity(found).score - 1e-12


@given(
    st.integers(0, 30_000), st.integers(0, 30_000), st.sampled_from(["x", "word ", "1 ", "why? ", "- a\n"])
)
def test_a_larger_input_never_lowers_the_level(size, more, piece):
    smaller, larger = (signals_of_text("do_it", "Do it.", {"data": piece * n}) for n in (size, size + more))
    assert estimate_complexity(larger).score >= estimate_complexity(smaller).score


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=50), max_size=5), st.text(max_size=50))
def test_one_more_input_never_lowers_the_level(inputs, value):
    fewer = estimate_complexity(signals_of_text("do_it", "", inputs))
    more = estimate_complexity(signals_of_text("do_it", "", {**inputs, "one more": value}))
    assert more.score >= fewer.score


def test_thresholds_are_the_operator_s():
    found = signals_of_text("", "", {"text": "x" * 3000})
    assert (
        estimate_complexity(found, thresholds=(0.001, 0.002, 0.003, 0.004)).complexity
        is TaskComplexity.EXPERT
    )
    assert estimate_complexity(found, thresholds=(0.9, 0.95, 0.97, 0.99)).complexity is TaskComplexity.TRIVIAL


def test_the_levels_begin_at_the_thresholds():
    assert [complexity_at(score) for score in DEFAULT_THRESHOLDS] == list(TaskComplexity)[1:]
    assert complexity_at(0.0) is TaskComplexity.TRIVIAL


def test_confidence_is_the_distance_to_the_nearest_threshold():
    assert confidence_at(0.4) == 0
    assert confidence_at(0.45) == pytest.approx(0.5)
    assert confidence_at(0.5) > confidence_at(0.45)


def test_weights_are_the_operator_s():
    found = signals_of_text("", "", {"text": "Prove it, and explain why."})
    without = estimate_complexity(found, weights={"reasoning": 0})
    alone = estimate_complexity(found, weights={name: 0 for name in DIMENSIONS if name != "reasoning"})
    assert without.score < estimate_complexity(found).score < alone.score
    (reasoning,) = (part for part in alone.dimensions if part.name == "reasoning")
    assert reasoning.weight == 1


def test_without_any_weight_nothing_is_hard():
    found = estimate_complexity(PromptSignals(text_characters=10**6), weights=dict.fromkeys(DIMENSIONS, 0))
    assert (found.score, found.complexity) == (0, TaskComplexity.TRIVIAL)


@pytest.mark.parametrize("weights", [{"length": 1.0}, {"size": -0.1}, {"size": math.nan}, {"size": math.inf}])
def test_a_wrong_weight_is_a_mistake(weights):
    with pytest.raises(ValueError, match=r"dimension|weight"):
        estimate_complexity(PromptSignals(), weights=weights)


def test_the_reason_names_what_counts_most():
    found = estimate_complexity(PromptSignals(code=500, mathematics=1))
    assert found.reason.startswith("signs of code: 500")
