from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewright.selection.beliefs import Belief
from gatewright.selection.catalogue import Catalogue
from gatewright.selection.criteria import ScoringWeights
from gatewright.selection.decision import Requirements
from gatewright.selection.exploring import LEAST_PROPENSITY, draw, propensity
from gatewright.selection.ranking import select
from tests.support.profiles import KnownModel, MadeUpPast, profile

QUALITY_FIRST = ScoringWeights(quality=0.8, cost=0.2, latency=0, readiness=0)


def shortlist(models, known=None, weights=QUALITY_FIRST):
    past = MadeUpPast(known or {})
    found = select(Requirements(prompt_tokens=1000), Catalogue(models), weights=weights, past=past)
    return found.scored, found.scorer


def test_draws_are_the_same_from_the_same_generator():
    listed, scorer = shortlist([profile(f"m{number}") for number in range(4)])
    assert draw(listed, scorer, Random(3)) == draw(listed, scorer, Random(3))
    assert draw(listed, scorer, Random(3)) != draw(listed, scorer, Random(4))


def test_the_chosen_one_has_the_best_drawn_score():
    listed, scorer = shortlist([profile(f"m{number}") for number in range(4)])
    for seed in range(20):
        drawn = draw(listed, scorer, Random(seed))
        assert drawn.scores[drawn.chosen] == max(drawn.scores)
        assert all(0 <= score <= 1 for score in drawn.scores)


def shares(listed, scorer, draws=4000):
    chance, chosen = Random(11), [0] * len(listed)
    for _ in range(draws):
        chosen[draw(listed, scorer, chance).chosen] += 1
    return [count / draws for count in chosen]


@pytest.mark.parametrize(
    "known",
    [
        {},
        {"m0": KnownModel(90, 10), "m1": KnownModel(88, 12)},
        {"m0": KnownModel(900, 100), "m1": KnownModel(2, 0)},
        {"m0": KnownModel(0, 40), "m2": KnownModel(40, 0)},
        {"m0": KnownModel(20_000, 4000), "m1": KnownModel(20_010, 3990)},
    ],
)
@pytest.mark.parametrize("quality", [0.5, 0.9, 0.99])
def test_propensities_are_the_frequencies_of_draws(known, quality):
    models = [profile(f"m{number}", quality=quality, price=0.5 + number) for number in range(4)]
    listed, scorer = shortlist(models, known)
    beliefs = [scorer.belief(each.row) for each in listed]
    expected = shares(listed, scorer)
    for index, frequency in enumerate(expected):
        # 0.02 for the width of the cells, and four standard deviations of 4000 draws.
        tolerance = 0.02 + 4 * (frequency * (1 - frequency) / 4000) ** 0.5
        assert propensity(listed, beliefs, index, scorer.weights.quality) == pytest.approx(
            max(frequency, LEAST_PROPENSITY), abs=tolerance
        )


@given(
    st.lists(st.tuples(st.floats(0.05, 400), st.floats(0.05, 400)), min_size=2, max_size=6),
    st.lists(st.floats(0.1, 10), min_size=6, max_size=6),
)
@settings(max_examples=60, deadline=None)
def test_propensities_add_up_to_1(counts, prices):
    models = [profile(f"m{number}", price=prices[number]) for number in range(len(counts))]
    listed, _ = shortlist(models)
    beliefs = [Belief(alpha, beta) for alpha, beta in counts]
    total = sum(propensity(listed, beliefs, index, 0.8) for index in range(len(listed)))
    assert total == pytest.approx(1, abs=0.1)


def test_where_quality_counts_nothing_there_is_nothing_to_draw():
    cost_only = ScoringWeights(quality=0, cost=1, latency=0, readiness=0)
    listed, scorer = shortlist([profile("a"), profile("b", price=2.0)], weights=cost_only)
    drawn = draw(listed, scorer, Random(0))
    assert drawn.chosen == 0
    assert propensity(listed, drawn.beliefs, 0, scorer.weights.quality) == 1.0


def test_who_is_surely_worse_has_a_propensity_that_can_be_divided_by():
    known = {"good": KnownModel(5000, 10), "bad": KnownModel(10, 5000)}
    listed, scorer = shortlist([profile("good"), profile("bad")], known)
    beliefs = [scorer.belief(each.row) for each in listed]
    assert propensity(listed, beliefs, 0, scorer.weights.quality) == pytest.approx(1)
    assert propensity(listed, beliefs, 1, scorer.weights.quality) == LEAST_PROPENSITY


def test_the_less_is_known_of_a_model_the_likelier_it_gets_a_try():
    models = [profile("best", quality=0.8), profile("other", quality=0.7)]
    known = {"best": KnownModel(80, 20)}
    propensities = []
    for other in (KnownModel(), KnownModel(successes=100, failures=50)):
        listed, scorer = shortlist(models, {**known, "other": other})
        beliefs = [scorer.belief(each.row) for each in listed]
        propensities.append(propensity(listed, beliefs, 1, scorer.weights.quality))
    stranger, acquaintance = propensities
    assert acquaintance < 0.1 < stranger


COUNTS = st.floats(0, 1e15) | st.sampled_from([0.0, 1e-300, 1e-3, 1.0, 1e6])


@given(st.lists(st.tuples(COUNTS, COUNTS), min_size=3, max_size=3), st.floats(0, 1))
def test_no_belief_is_too_sure_or_too_vague(counts, weight):
    listed, _ = shortlist([profile(f"m{number}", price=1.0 + number) for number in range(3)])
    beliefs = [Belief(alpha or 1e-9, beta) for alpha, beta in counts]
    for index in range(3):
        assert 0 < propensity(listed, beliefs, index, weight) <= 1
