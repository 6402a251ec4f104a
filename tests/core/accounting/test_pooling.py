import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright.accounting.pooling import CERTAIN, transfer, update

difficulties = st.sampled_from((0.25, 0.5, 1.0, 2.0, 4.0))
counts = st.floats(0, 10_000)
means = st.floats(0, 1)


@given(means, st.floats(0.1, 100), difficulties, difficulties, st.tuples(counts, means))
def test_what_is_transferred_is_a_chance(
    mean: float, strength: float, difficulty: float, other: float, seen: tuple[float, float]
) -> None:
    count, rate = seen
    assert CERTAIN <= transfer(mean, strength, difficulty, [(other, count, count * rate)]) <= 1 - CERTAIN


@given(means, difficulties, difficulties, st.tuples(counts, means), st.floats(0.01, 100))
def test_a_success_anywhere_never_makes_it_less(
    mean: float, difficulty: float, other: float, seen: tuple[float, float], more: float
) -> None:
    count, rate = seen
    before = transfer(mean, 6.0, difficulty, [(other, count, count * rate)])
    after = transfer(mean, 6.0, difficulty, [(other, count + more, count * rate + more)])
    assert after >= before - 1e-12


@given(st.floats(0.01, 0.99), difficulties, difficulties, st.floats(0.01, 100))
def test_a_failure_against_the_prior_never_makes_it_more(
    mean: float, difficulty: float, other: float, more: float
) -> None:
    assert transfer(mean, 6.0, difficulty, [(other, more, 0.0)]) <= mean + 1e-9


@given(st.floats(0.01, 0.99), difficulties, difficulties, st.floats(0.01, 1e6))
def test_what_was_expected_changes_nothing(
    mean: float, difficulty: float, other: float, count: float
) -> None:
    expected = mean ** (other / difficulty)
    assert transfer(mean, 6.0, difficulty, [(other, count, count * expected)]) == pytest.approx(
        mean, rel=1e-3
    )


def test_many_outcomes_overrule_the_prior() -> None:
    """A model that is 0.9 at middling difficulty does easy tasks with 0.9 ** 0.25."""
    count = 100_000.0
    found = transfer(0.5, 6.0, 1.0, [(0.25, count, count * 0.9**0.25)])
    assert found == pytest.approx(0.9, abs=0.01)


def test_outcomes_of_the_same_difficulty_count_as_they_are() -> None:
    assert update((2.0, 4.0, 0.0), 6.0, 1.0, [(1.0, 3.0, 2.0), (1.0, 1.0, 1.0)]) == (5.0, 5.0, 4.0)


def test_evidence_at_other_difficulties_is_worth_no_more_than_the_strength() -> None:
    found = update((3.0, 3.0, 0.0), 6.0, 1.0, [(0.25, 1e6, 9e5)])
    alpha, beta, evidence = found
    assert evidence == pytest.approx(6, abs=0.01)
    assert alpha + beta == pytest.approx(6)
