from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings

from gatewright.accounting.costs import cost_usd
from gatewright.leases import EngineLoad, LoadState
from gatewright.selection.catalogue import Catalogue, row_of
from gatewright.selection.complexity import TaskComplexity
from gatewright.selection.criteria import ScoringWeights
from gatewright.selection.decision import Requirements
from gatewright.selection.explaining import explain
from gatewright.selection.pruning import bounds, plain_scores
from gatewright.selection.scoring import Scorer, needs_of
from gatewright.selection.values import adjusted_quality
from tests.support.profiles import (
    REQUIREMENTS,
    WEIGHTS,
    KnownModel,
    MadeUpPast,
    estimate,
    profile,
    profiles,
)

NEEDS = Requirements(prompt_tokens=1000, answer_tokens=200)
EVEN = ScoringWeights(quality=1, cost=1, latency=1, readiness=1)


def scorer(requirements=NEEDS, weights=EVEN, **known: Any):
    return Scorer(requirements, weights, **known)


def score_of(model, requirements=NEEDS, weights=EVEN, **known: Any):
    return scorer(requirements, weights, **known).score(row_of(model))


# --- figures


@given(profiles(), REQUIREMENTS)
def test_the_estimate_of_cost_is_the_price_that_is_charged(model, requirements):
    scored = score_of(model, requirements)
    assert scored.cost_usd == cost_usd(
        model.pricing,
        prompt_tokens=requirements.prompt_tokens,
        completion_tokens=requirements.answer_tokens,
        engine_s=scored.answer_ms / 1000,
    )


def test_quality_is_the_prior_for_the_task_and_its_complexity():
    model = profile(quality=0.7, quality_by_task={"translate": 0.9})
    assert score_of(model).quality == 0.7
    assert score_of(model, evolve(NEEDS, task="translate")).quality == 0.9
    hard = evolve(NEEDS, task="translate", complexity=estimate("expert"))
    assert score_of(model, hard).quality == adjusted_quality(0.9, TaskComplexity.EXPERT)


def test_what_was_learnt_counts_with_the_prior():
    past = MadeUpPast({"a": KnownModel(successes=0, failures=6)})
    assert score_of(profile(quality=0.5), past=past).quality == pytest.approx(2 / 10)
    assert score_of(profile("b", quality=0.5), past=past).quality == 0.5


def test_a_told_chance_stands_for_quality():
    told = evolve(NEEDS, chances={"a": 0.25})
    assert score_of(profile(quality=0.9), told, past=MadeUpPast({"a": KnownModel(9, 0)})).quality == 0.25


def test_seen_times_count_by_their_evidence():
    past = MadeUpPast({"a": KnownModel(successes=5, failures=0, mean_ms=3000.0)})
    assert score_of(profile(latency_ms=1000.0), past=past).answer_ms == pytest.approx(2000.0)


def test_queue_and_loading_come_before_the_answer():
    loads = {
        "a": EngineLoad(
            model="a", context_tokens=8192, state=LoadState.STOPPED, load_s=10.0, free_slots=0, waiting=1
        )
    }
    scored = score_of(profile(latency_ms=1000.0), loads=loads)
    assert (scored.answer_ms, scored.wait_ms) == (1000.0, 12_000.0)
    assert scored.readiness < 1
    assert scored.minus_score > score_of(profile(latency_ms=1000.0)).minus_score


def test_weights_need_not_add_up_and_where_nothing_counts_the_usual_ones_do():
    assert score_of(profile()) == score_of(
        profile(), weights=ScoringWeights(quality=5, cost=5, latency=5, readiness=5)
    )
    nothing = ScoringWeights(quality=0, cost=0, latency=0, readiness=0)
    assert score_of(profile(), weights=nothing) == score_of(profile(), weights=ScoringWeights())


# --- properties


@given(profiles(), REQUIREMENTS, WEIGHTS)
def test_scores_are_from_0_to_1(model, requirements, weights):
    scored = score_of(model, requirements, weights)
    assert 0 <= -scored.minus_score <= 1
    assert 0 <= scored.quality <= 1


@given(profiles(), REQUIREMENTS, WEIGHTS)
@settings(max_examples=300)
def test_the_short_way_for_plain_models_gives_the_same_and_stays_below_its_bound(
    model, requirements, weights
):
    slow, row, needs = scorer(requirements, weights), row_of(model), needs_of(requirements)
    quick = plain_scores(slow, needs)(row)
    assert quick == (slow.score(row) if slow.meets(row, needs) else None)
    if quick is not None:
        (best,) = Catalogue([model], few=0).levels[0]
        assert bounds(slow, needs)(best) >= -quick.minus_score


@given(profiles(), REQUIREMENTS, WEIGHTS)
def test_terms_make_up_the_score(model, requirements, weights):
    made = scorer(requirements, weights)
    ranked = explain(made, made.score(row_of(model)))
    assert sum(term.value * term.weight for term in ranked.terms) == pytest.approx(ranked.score)
    assert sum(term.weight for term in ranked.terms) == pytest.approx(1)
    assert all(term.detail for term in ranked.terms)


# --- words


def test_terms_say_where_they_come_from():
    past = MadeUpPast({"a": KnownModel(successes=30, failures=10, mean_ms=1500.0)})
    loads = {
        "a": EngineLoad(
            model="a",
            context_tokens=8192,
            state=LoadState.LOADING,
            load_s=20.0,
            free_slots=0,
            waiting=2,
            evicts=("qwen3@8192",),
        )
    }
    needs = evolve(NEEDS, task="translate", complexity=estimate("complex"))
    made = scorer(needs, past=past, loads=loads)
    row = row_of(profile(quality=0.7, quality_by_task={"translate": 0.9}, latency_ms=1500.0))
    details = {term.name: term.detail for term in explain(made, made.score(row)).terms}
    assert details == {
        "quality": "0.90 by its profile for translate, 0.81 for a complex task; 40 outcomes make it 0.76",
        "cost": "$0.0016 for 1000 + 200 tokens",
        "latency": "1.5 s for the answer by 40 answers (p95 3 s), 14 s before it begins",
        "readiness": "loading for another 10 s, 3 before it in the queue, evicts qwen3@8192",
    }


def test_terms_of_a_stranger_say_so():
    made = scorer(evolve(NEEDS, complexity=estimate("expert"), chances={"b": 0.5}))
    plain = explain(made, made.score(row_of(profile(quality=0.9, is_local=True))))
    assert [term.detail for term in plain.terms] == [
        "0.90 by its profile, 0.66 for an expert task",
        "$0.0016 for 1000 + 200 tokens",
        "1 s for the answer by its profile",
        "local, nothing known",
    ]
    told = explain(made, made.score(row_of(profile("b"))))
    assert told.terms[0].detail == "as the learned estimator says for this request"
    assert told.terms[3].detail == "a provider's, always ready"
