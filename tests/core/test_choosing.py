from random import Random
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from gatewright import errors
from gatewright.leases import EngineLoad, LoadState
from gatewright.route_config import FallbackPolicy, RouteConfig
from gatewright.selection.catalogue import Catalogue
from gatewright.selection.choosing import NoModelFits, choose, rank_available, select_model
from gatewright.selection.criteria import Relaxation, ScoringWeights, SelectionCriteria
from gatewright.selection.decision import Decision, Requirements
from tests.support.profiles import REQUIREMENTS, KnownModel, MadeUpPast, catalogues, estimate, profile

SMALL = profile("small", quality=0.6, price=0.1, latency_ms=400.0)
MIDDLE = profile("middle", quality=0.8, price=1.0, latency_ms=1200.0)
LARGE = profile("large", quality=0.95, price=10.0, latency_ms=3000.0)
ALL = Catalogue([SMALL, MIDDLE, LARGE])
NEEDS = Requirements(prompt_tokens=1000, answer_tokens=200, complexity=estimate("moderate"))


def decided(requirements=NEEDS, catalogue=ALL, **how: Any):
    decision = choose(requirements, catalogue, **how)
    assert isinstance(decision, Decision)
    return decision


def refused(requirements, catalogue=ALL, **how: Any):
    decision = choose(requirements, catalogue, **how)
    assert isinstance(decision, NoModelFits)
    return decision


def test_a_decision_says_who_why_and_at_what_cost():
    decision = decided(catalogue=Catalogue([SMALL, MIDDLE]), route=RouteConfig(name="auto"))
    assert decision.reason == "middle: best of 2 for a moderate task: quality 0.80, $0.0016, ~1.2 s"
    assert decision.chain == ("middle", "small")
    assert decision.estimated_cost_usd == pytest.approx(0.0016)
    assert (decision.route, decision.considered, decision.relaxed) == ("auto", 2, ())
    assert (decision.complexity, decision.complexity_score, decision.estimator) == (
        "moderate",
        0.5,
        "heuristic",
    )
    assert (decision.propensity, decision.explored) == (1.0, False)
    assert decision.score == rank_available(NEEDS, [SMALL, MIDDLE])[0][1]


def test_without_an_estimate_the_reason_names_no_task():
    decision = decided(evolve(NEEDS, complexity=None), Catalogue([SMALL]))
    assert decision.reason == "small: best of 1: quality 0.60, $0.00016, ~0.4 s"
    assert (decision.complexity, decision.estimator, decision.route) == (None, "", None)


def test_the_chain_is_as_long_as_the_route_says():
    for length in (1, 2, 3, 7):
        route = RouteConfig(name="auto", fallback=FallbackPolicy(max_length=length))
        assert len(decided(route=route).chain) == min(length, 3)
        assert len(decided(route=route, chance=Random(1)).chain) == min(length, 3)


def test_the_routes_weights_count_unless_others_are_given():
    cheap = RouteConfig(name="cheap", weights=ScoringWeights(quality=0, cost=1, latency=0, readiness=0))
    assert decided(route=cheap).chain == ("small", "middle", "large")
    good = ScoringWeights(quality=1, cost=0, latency=0, readiness=0)
    assert decided(route=cheap, weights=good).chain == ("large", "middle", "small")


def test_a_decision_says_what_was_given_up():
    needs = evolve(NEEDS, criteria=SelectionCriteria(max_latency_ms=1, min_quality_threshold=0.9))
    route = RouteConfig(name="auto", relax=(Relaxation.COST, Relaxation.LATENCY, Relaxation.QUALITY))
    decision = decided(needs, route=route)
    assert (decision.chain, decision.relaxed) == (("large",), ("latency",))
    assert decision.reason.endswith("; no model met all criteria, given up: latency")


# --- nobody


def test_an_error_says_who_failed_on_what():
    needs = evolve(
        NEEDS,
        need_tokens=9000,
        excluded={"small": "the API key may not use it"},
        criteria=SelectionCriteria(max_cost_per_1k_tokens=0.01),
    )
    catalogue = Catalogue(
        [evolve(SMALL, context_tokens=16_384), MIDDLE, evolve(LARGE, context_tokens=16_384)]
    )
    nobody = refused(needs, catalogue, route=RouteConfig(name="auto", relax=(Relaxation.QUALITY,)))
    assert nobody.problem.message == (
        "no model of 3 fits: large: costs $0.02 per 1,000 tokens, allowed are $0.01; "
        "middle: has 8192 tokens of context, needed are 9000; small: the API key may not use it"
    )
    assert (nobody.problem.status, nobody.problem.code, nobody.problem.param) == (
        400,
        "no_model_fits",
        "model",
    )
    assert nobody.problem.details == {"rejected": "context 1, cost 1, key 1"}
    assert [(each.model, each.criterion) for each in nobody.rejections] == [
        ("large", "cost"),
        ("middle", "context"),
        ("small", "key"),
    ]


def test_an_error_about_many_models_stays_short():
    many = Catalogue([profile(f"m{number:02}") for number in range(40)])
    message = refused(Requirements(need_tokens=9000), many).problem.message
    assert message.endswith("m04: has 8192 tokens of context, needed are 9000; and 35 more")


def test_an_error_about_thousands_of_models_puts_few_of_them_into_words(monkeypatch):
    from gatewright.selection import explaining, refusing  # noqa: PLC0415 - to count its looks

    looks = []

    def counting(*args: Any):
        looks.append(args)
        return explaining.rejection_of(*args)

    monkeypatch.setattr(refusing, "rejection_of", counting)
    many = Catalogue([profile(f"m{number:05}") for number in range(3000)])
    nobody = refused(evolve(NEEDS, need_tokens=9000), many)
    assert looks == [], "whoever does not ask for it, such as a fallback, has no need of it"
    assert nobody.problem.details == {"rejected": "context 3000"}
    assert nobody.problem.message.endswith("; and 2995 more")
    assert len(looks) == 10  # five for each time that it was asked for
    assert len(nobody.rejections) == 3000


def test_however_much_a_client_asks_for_the_error_stays_short():
    words = frozenset(f"capability-{number}" for number in range(1000))
    nobody = refused(evolve(NEEDS, criteria=SelectionCriteria(required_capabilities=words)))
    assert len(nobody.problem.message) < 1500
    assert nobody.problem.message.endswith("...")


def test_an_error_says_what_was_given_up_in_vain():
    needs = Requirements(need_tokens=9000, criteria=SelectionCriteria(max_latency_ms=1))
    route = RouteConfig(name="auto", relax=(Relaxation.COST, Relaxation.LATENCY))
    assert "no model of 3 fits even without latency: large: has 8192 tokens" in (
        refused(needs, route=route).problem.message
    )


def test_without_candidates_there_is_nobody():
    nobody = refused(NEEDS, Catalogue([]))
    assert nobody.problem.message == "no model fits: there are no candidates"
    assert nobody.rejections == ()


@pytest.mark.parametrize(
    ("tags", "end"),
    [
        ((), ""),
        (("eu",), ": no model has the tag 'eu'"),
        (("eu", "us"), ": no model has any of the tags 'eu', 'us'"),
    ],
)
def test_without_candidates_the_route_and_its_tags_are_named(tags, end):
    nobody = refused(NEEDS, Catalogue([]), route=RouteConfig(name="later", tags=tags))
    assert nobody.problem.message == f"no model fits: the route 'later' has no candidates{end}"


# --- how sure it is


def test_a_clear_lead_and_much_evidence_make_a_choice_sure():
    twins = Catalogue([profile("a"), profile("b")])
    assert decided(catalogue=twins).confidence == pytest.approx(0.25)
    assert decided(catalogue=Catalogue([SMALL])).confidence == pytest.approx(0.5)
    known = MadeUpPast({"a": KnownModel(successes=990, failures=10), "b": KnownModel(1, 99)})
    assert decided(catalogue=twins, past=known).confidence > 0.9


def test_the_confidence_of_a_told_chance_counts_what_it_is_worth():
    told = evolve(NEEDS, chances={"a": 0.9, "b": 0.9})
    twins = Catalogue([profile("a"), profile("b")])
    assert decided(told, twins).confidence == pytest.approx((1 + 20 / 30) / 4)


@given(catalogues(least=1, most=10), REQUIREMENTS, st.none() | st.randoms(use_true_random=False))
def test_whatever_is_decided_makes_sense(models, requirements, chance):
    catalogue = Catalogue(models)
    decision = choose(requirements, catalogue, chance=chance)
    if isinstance(decision, NoModelFits):
        assert len(decision.rejections) == len(models)
        return
    assert 0 <= decision.score <= 1
    assert 0.25 <= decision.confidence <= 1
    assert 0 < decision.propensity <= 1
    assert len(set(decision.chain)) == len(decision.chain) <= 3
    fitting = {name for name, _ in rank_available(requirements, models)}
    assert set(decision.chain) <= fitting
    if chance is None:
        assert decision == choose(requirements, catalogue)
        assert list(decision.chain) == [name for name, _ in rank_available(requirements, models)][:3]


# --- by chance


def test_draws_can_be_repeated_and_try_others_than_the_best():
    past = MadeUpPast({"middle": KnownModel(8, 2)})
    decisions = [decided(past=past, chance=Random(seed)) for seed in range(60)]
    assert decisions == [decided(past=past, chance=Random(seed)) for seed in range(60)]
    best = decided(past=past)
    for decision in decisions:
        assert decision.explored == (decision.chain[0] != best.chain[0])
        assert (": tried of 3 " in decision.reason) == decision.explored
        # Whoever comes after the choice comes by expectation.
        assert decision.chain[1:] == tuple(name for name in best.chain if name != decision.chain[0])
    assert len({decision.chain[0] for decision in decisions}) > 1
    assert all(0 < decision.propensity < 1 for decision in decisions)


def test_one_candidate_is_chosen_for_certain():
    assert decided(catalogue=Catalogue([SMALL]), chance=Random(1)).propensity == 1.0


# --- in short


def test_the_short_forms_take_profiles():
    assert select_model(NEEDS, [SMALL, MIDDLE]) == "middle"
    names = [name for name, _ in rank_available(NEEDS, [SMALL, MIDDLE, LARGE])]
    assert names == list(decided().chain)
    cheap = ScoringWeights(quality=0, cost=1, latency=0, readiness=0)
    assert rank_available(NEEDS, [LARGE, SMALL], cheap)[0][0] == "small"
    with pytest.raises(errors.NoModelFits, match="no model of 1 fits: small: has 8192"):
        select_model(Requirements(need_tokens=9000), [SMALL])


def test_readiness_can_decide():
    loads = {
        "a": EngineLoad(model="a", context_tokens=8192, state=LoadState.STOPPED, evicts=("x@1",)),
        "b": EngineLoad(model="b", context_tokens=8192),
    }
    assert decided(
        catalogue=Catalogue([profile("a", quality=0.75), profile("b", quality=0.7)]), loads=loads
    ).chain == (
        "b",
        "a",
    )


def test_the_reason_says_who_is_left_alone():
    loads = {
        name: EngineLoad(model=name, context_tokens=8192, state=LoadState.UNAVAILABLE)
        for name in ("large", "small")
    }
    decision = decided(loads=loads)
    assert decision.chain[0] == "middle"
    assert decision.reason.endswith("~1.2 s; left alone after failures: large, small")
    many = [profile(f"m{number}") for number in range(9)]
    loads = {each.name: evolve(loads["large"], model=each.name) for each in many[1:]}
    assert decided(catalogue=Catalogue(many), loads=loads).reason.endswith("m1, m2, m3 and 5 more")
