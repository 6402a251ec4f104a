from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright.accounting.offpolicy import ModelValue, model_values, policy_value, wilson_bounds
from gatewright.accounting.outcomes import ModelOutcome
from gatewright.selection.complexity import TaskComplexity
from tests.core.accounting.build import outcome

EASY, HARD = TaskComplexity.SIMPLE, TaskComplexity.EXPERT
CHANCE_OF_STRONG = {EASY: 0.1, HARD: 0.9}
SUCCESS = {("strong", EASY): 0.95, ("strong", HARD): 0.7, ("weak", EASY): 0.9, ("weak", HARD): 0.3}


def traffic(seed: int, requests: int = 4000) -> list[ModelOutcome]:
    """Hard requests go mostly to the strong model, so that its plain success looks the worse."""
    chance = Random(seed)
    found = []
    for number in range(requests):
        complexity = chance.choice((EASY, HARD))
        strong = chance.random() < CHANCE_OF_STRONG[complexity]
        model = "strong" if strong else "weak"
        propensity = CHANCE_OF_STRONG[complexity] if strong else 1 - CHANCE_OF_STRONG[complexity]
        found.append(
            outcome(
                number,
                model,
                success=chance.random() < SUCCESS[model, complexity],
                complexity=complexity,
                propensity=propensity,
                cost_usd=3.0 if complexity is HARD else 1.0,
                latency_ms=200.0 if complexity is HARD else 100.0,
            )
        )
    return found


def by_name(values: tuple[ModelValue, ...]) -> dict[str, ModelValue]:
    return {value.model: value for value in values}


def test_models_are_compared_as_if_each_had_had_all_requests() -> None:
    values = model_values(traffic(1))
    found = by_name(values)
    assert found["strong"].observed < found["weak"].observed
    assert [value.model for value in values] == ["strong", "weak"]
    assert found["strong"].success == pytest.approx(0.825, abs=0.05)
    assert found["weak"].success == pytest.approx(0.6, abs=0.05)
    assert found["weak"].cost_usd == pytest.approx(2.0, abs=0.2)
    assert found["weak"].latency_ms == pytest.approx(150, abs=10)
    assert all(value.is_comparable for value in values)
    assert all(value.effective_requests < value.requests for value in values)


def test_intervals_hold_what_is_true_about_as_often_as_they_say() -> None:
    missed = 0
    for seed in range(60):
        found = by_name(model_values(traffic(seed, 800)))
        missed += not found["strong"].low <= 0.825 <= found["strong"].high
        missed += not found["weak"].low <= 0.6 <= found["weak"].high
    assert missed <= 18  # 6 of 120 are expected; weights make the intervals approximate


def test_a_model_that_had_no_chance_with_most_requests_is_not_comparable() -> None:
    greedy = [outcome(number, "strong" if number % 4 else "weak") for number in range(400)]
    found = by_name(model_values(greedy))
    assert found["weak"].coverage == pytest.approx(0.25)
    assert not found["weak"].is_comparable


def test_another_way_to_choose_can_be_tried_on_what_was_seen() -> None:
    def by_difficulty(outcome: ModelOutcome) -> float:
        return float((outcome.model == "strong") == (outcome.complexity is HARD))

    found = policy_value("by difficulty", by_difficulty, traffic(2))
    assert found is not None
    assert found.success == pytest.approx((0.9 + 0.7) / 2, abs=0.04)
    assert found.is_comparable
    assert policy_value("none", lambda _: 0.0, traffic(2, 10)) is None


def test_only_first_choices_that_were_answered_count() -> None:
    outcomes = [
        outcome(0, "a", is_available=False),
        outcome(1, "a", sequence=1),
        outcome(2, "a", success=False, propensity=0.0),
    ]
    (found,) = model_values(outcomes)
    assert (found.requests, found.success, found.coverage) == (1, 0, 100)
    assert model_values([]) == ()


@given(st.floats(0, 1), st.floats(0.5, 1e6))
def test_wilson_s_interval_is_within_0_and_1(mean: float, count: float) -> None:
    low, high = wilson_bounds(mean, count, 0.05)
    assert 0 <= low <= mean <= high <= 1


def test_wilson_s_interval_is_the_known_one() -> None:
    assert wilson_bounds(0.5, 10, 0.05) == pytest.approx((0.2366, 0.7634), abs=1e-4)
