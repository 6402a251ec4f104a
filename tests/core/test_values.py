from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright.leases import EngineLoad, LoadState
from gatewright.selection.complexity import TaskComplexity
from gatewright.selection.values import (
    HALF_LATENCY_MS,
    adjusted_quality,
    cost_value,
    is_plain,
    latency_value,
    loading_s,
    readiness_value,
    waiting_ahead,
)
from gatewright.selection.wording import dollars, seconds


def load(**fields: Any):
    return EngineLoad(model="a", context_tokens=8192, **fields)


# --- quality


def test_a_task_of_middling_difficulty_leaves_the_quality_as_it_is():
    assert adjusted_quality(0.7, TaskComplexity.MODERATE) == 0.7
    assert adjusted_quality(0.7, None) == 0.7


def test_harder_tasks_take_more_from_weaker_models():
    assert adjusted_quality(0.9, TaskComplexity.EXPERT) == pytest.approx(0.6561)
    assert adjusted_quality(0.6, TaskComplexity.EXPERT) == pytest.approx(0.1296)
    assert adjusted_quality(0.6, TaskComplexity.TRIVIAL) == pytest.approx(0.880, abs=0.001)


@given(st.floats(0, 1), st.floats(0, 1))
def test_better_stays_better_and_harder_is_never_easier(one, other):
    low, high = sorted((one, other))
    chances = [adjusted_quality(low, complexity) for complexity in TaskComplexity]
    assert chances == sorted(chances, reverse=True)
    assert all(0 <= chance <= 1 for chance in chances)
    for complexity in TaskComplexity:
        assert adjusted_quality(low, complexity) <= adjusted_quality(high, complexity)


# --- cost and time


def test_each_factor_of_ten_in_cost_takes_a_fifth():
    assert cost_value(0.0) == 1.0
    assert cost_value(0.01) - cost_value(0.1) == pytest.approx(0.2, abs=0.002)
    assert cost_value(10.0) == pytest.approx(0.0, abs=1e-5)
    assert cost_value(1000.0) == 0.0


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_more_money_and_more_time_are_never_worth_more(one, other):
    low, high = sorted((one, other))
    assert 0 <= cost_value(high) <= cost_value(low) <= 1
    assert 0 < latency_value(high) <= latency_value(low) <= 1


def test_half_of_a_time_is_worth_a_half():
    assert (latency_value(0.0), latency_value(HALF_LATENCY_MS)) == (1.0, 0.5)


# --- readiness


def test_nothing_known_and_a_free_slot_are_ready():
    assert readiness_value(None) == readiness_value(load(free_slots=1)) == readiness_value(load()) == 1.0


def test_a_queue_divides_readiness():
    assert waiting_ahead(load(free_slots=2, waiting=1)) == 0
    assert waiting_ahead(load(free_slots=0, waiting=1)) == 2
    assert waiting_ahead(load(waiting=3)) == 3
    assert readiness_value(load(free_slots=0)) == 0.5


def test_loading_takes_readiness_and_an_engine_that_is_half_loaded_takes_half_the_time():
    stopped, loading = load(state=LoadState.STOPPED, load_s=30.0), load(state=LoadState.LOADING, load_s=30.0)
    assert (loading_s(stopped), loading_s(loading), loading_s(load())) == (30.0, 15.0, 0.0)
    assert readiness_value(stopped) == 0.5 < readiness_value(loading)
    assert 0 < readiness_value(load(state=LoadState.STOPPED)) < 1  # of an engine that was never started


def test_whom_it_evicts_counts_each():
    assert readiness_value(load(evicts=("b@1", "c@1"))) == 0.25


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, True),
        ({"free_slots": 2}, True),
        ({"free_slots": 0}, False),
        ({"waiting": 1, "free_slots": 4}, False),
        ({"state": LoadState.STOPPED}, False),
        ({"evicts": ("b@1",)}, False),
        ({"state": LoadState.UNAVAILABLE}, False),
    ],
)
def test_loads_that_change_nothing(fields, expected):
    assert is_plain(load(**fields)) is expected
    if expected:
        assert readiness_value(load(**fields)) == 1.0
        assert waiting_ahead(load(**fields)) == loading_s(load(**fields)) == 0


# --- words


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (0.0, "free"),
        (1e-12, "next to nothing"),
        (0.0000844, "$0.000084"),
        (0.00042, "$0.00042"),
        (0.012, "$0.012"),
        (0.1, "$0.10"),
        (12.345, "$12.35"),
    ],
)
def test_money_in_words(usd, text):
    assert dollars(usd) == text


@pytest.mark.parametrize(
    ("ms", "text"), [(40, "0.04 s"), (1234, "1.2 s"), (10_000, "10 s"), (123_456, "123 s")]
)
def test_times_in_words(ms, text):
    assert seconds(ms) == text
