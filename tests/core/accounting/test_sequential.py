from itertools import product
from math import exp, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright.accounting.sequential import (
    Sums,
    difference_bounds,
    log_difference_evidence,
    log_evidence,
    mean_bounds,
)

ALPHA = 0.05
LIMIT = log(1 / ALPHA)


@st.composite
def sums(draw):
    count = draw(st.integers(0, 2000))
    return Sums(count, draw(st.floats(0, 1)) * count)


def test_without_outcomes_there_is_no_evidence() -> None:
    assert log_evidence(Sums(), 0.3) == pytest.approx(0)
    assert log_difference_evidence(Sums(), Sums(10, 9)) <= 0
    assert mean_bounds(Sums(), ALPHA) == (0.0, 1.0)
    assert difference_bounds(Sums(), Sums(), ALPHA) == (-1.0, 1.0)


@pytest.mark.parametrize("mean", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("outcomes", [1, 2, 7])
def test_bets_on_a_true_mean_are_fair(mean: float, outcomes: int) -> None:
    """The expected e-value over all sequences of outcomes is exactly 1."""
    total = 0.0
    for values in product((0, 1), repeat=outcomes):
        successes = sum(values)
        chance = mean**successes * (1 - mean) ** (outcomes - successes)
        total += chance * exp(log_evidence(Sums(outcomes, successes), mean))
    assert total == pytest.approx(1.0)


@pytest.mark.parametrize("mean", [0.2, 0.5, 0.8])
def test_bets_on_scores_between_0_and_1_are_fair_or_worse(mean: float) -> None:
    """The same with values 0, 1/2 and 1 of that mean."""
    half = 0.3
    one = mean - half / 2
    chances = {0.0: 1 - half - one, 0.5: half, 1.0: one}
    total = 0.0
    for values in product(chances, repeat=5):
        chance = 1.0
        for value in values:
            chance *= chances[value]
        total += chance * exp(log_evidence(Sums(5, sum(values)), mean))
    assert total <= 1.0 + 1e-9


@pytest.mark.parametrize("mean", [0.1, 0.5, 0.7])
def test_bets_on_equal_means_are_fair_or_worse(mean: float) -> None:
    total = 0.0
    for values in product((0, 1), repeat=8):
        successes = sum(values)
        chance = mean**successes * (1 - mean) ** (8 - successes)
        first, second = Sums(3, sum(values[:3])), Sums(5, sum(values[3:]))
        total += chance * exp(log_difference_evidence(first, second))
    assert total <= 1.0 + 1e-9


@given(sums())
def test_the_mean_that_was_seen_is_inside_its_bounds(seen: Sums) -> None:
    low, high = mean_bounds(seen, ALPHA)
    assert 0 <= low <= high <= 1
    if seen.count:
        assert low <= seen.mean <= high


@given(sums(), st.floats(0.001, 0.999))
def test_what_is_outside_the_bounds_is_refuted(seen: Sums, mean: float) -> None:
    low, high = mean_bounds(seen, ALPHA)
    is_refuted = log_evidence(seen, mean) >= LIMIT
    if abs(mean - low) > 1e-6 and abs(mean - high) > 1e-6:
        assert is_refuted == (not low < mean < high)


@given(sums(), sums())
def test_the_interval_excludes_nothing_exactly_where_a_difference_is_shown(first: Sums, second: Sums) -> None:
    low, high = difference_bounds(first, second, ALPHA)
    assert -1 <= low <= high <= 1
    evidence = log_difference_evidence(first, second)
    if abs(evidence - LIMIT) > 1e-6:
        assert (evidence >= LIMIT) == (low > 0 or high < 0)


@given(sums(), sums())
def test_both_sides_see_the_same(first: Sums, second: Sums) -> None:
    assert log_difference_evidence(first, second) == pytest.approx(
        log_difference_evidence(second, first), abs=1e-6
    )
    low, high = difference_bounds(first, second, ALPHA)
    mirrored = difference_bounds(second, first, ALPHA)
    assert (low, high) == pytest.approx((-mirrored[1], -mirrored[0]), abs=1e-5)


@given(sums(), sums())
def test_a_smaller_chance_of_error_makes_wider_intervals(first: Sums, second: Sums) -> None:
    narrow, wide = difference_bounds(first, second, 0.1), difference_bounds(first, second, 0.001)
    assert wide[0] <= narrow[0] + 1e-9
    assert wide[1] >= narrow[1] - 1e-9


def test_more_outcomes_make_narrower_intervals() -> None:
    widths = []
    for count in (10, 100, 1000, 10_000):
        low, high = difference_bounds(Sums(count, 0.6 * count), Sums(count, 0.7 * count), ALPHA)
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.07


def test_rounding_leaves_sums_within_their_bounds() -> None:
    assert Sums(3, 3.0000001).mean == 1.0
    assert log_evidence(Sums(3, -1e-12), 0.5) == pytest.approx(log_evidence(Sums(3, 0), 0.5))
