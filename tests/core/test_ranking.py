from collections import Counter
from random import Random
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewright.leases import EngineLoad, LoadState
from gatewright.selection.catalogue import Catalogue
from gatewright.selection.complexity import TaskComplexity
from gatewright.selection.criteria import Relaxation, ScoringWeights, SelectionCriteria
from gatewright.selection.decision import Requirements
from gatewright.selection.explaining import reject
from gatewright.selection.profiles import Capability, Feature, Modality, Pricing
from gatewright.selection.ranking import AVAILABILITY, rank_models, select
from gatewright.selection.refusing import count_rejections, first_rejections
from gatewright.selection.scoring import Scorer, needs_of
from tests.support.profiles import (
    CRITERIA,
    REQUIREMENTS,
    WEIGHTS,
    KnownModel,
    MadeUpPast,
    catalogues,
    estimate,
    profile,
    profiles,
    random_profiles,
)

EVERYTHING = tuple(Relaxation)


def load(model, **fields: Any):
    return EngineLoad(model=model, context_tokens=8192, **fields)


def ranked(requirements, models, **how: Any):
    found = select(requirements, Catalogue(models), **how)
    return [each.name for each in found.scored]


def needing(**criteria: Any):
    return Requirements(criteria=SelectionCriteria(**criteria))


# --- hard conditions

FITTING = profile(
    capabilities=frozenset({Capability.CODE}),
    features=frozenset({Feature.TOOLS}),
    modalities=frozenset({Modality.TEXT, Modality.IMAGE}),
    tags=frozenset({"ours"}),
    price=1.0,
    quality=0.8,
    latency_ms=1000.0,
)


@pytest.mark.parametrize(
    ("requirements", "criterion", "reason"),
    [
        (needing(required_capabilities=frozenset({"code", "math"})), "capabilities", "lacks math"),
        (needing(required_features=frozenset({"logprobs"})), "features", "lacks logprobs"),
        (
            Requirements(features=frozenset({"json_mode", "logprobs"})),
            "features",
            "lacks json_mode, logprobs",
        ),
        (Requirements(modalities=frozenset({"audio"})), "modalities", "lacks audio"),
        (needing(required_tags=frozenset({"fast"})), "tags", "lacks fast"),
        (Requirements(need_tokens=9000), "context", "has 8192 tokens of context, needed are 9000"),
        (needing(min_context_tokens=8193), "context", "has 8192 tokens of context, needed are 8193"),
        (
            needing(max_cost_per_1k_tokens=0.001),
            "cost",
            "costs $0.002 per 1,000 tokens, allowed are $0.001",
        ),
        (
            needing(max_cost_per_1k_tokens=0.0),
            "cost",
            "costs $0.002 per 1,000 tokens, allowed are free models only",
        ),
        (needing(max_latency_ms=999), "latency", "takes about 1000 ms, allowed are 999 ms"),
        (needing(min_quality_threshold=0.81), "quality", "has a quality of 0.80, asked for are 0.81"),
        (Requirements(excluded={"a": "the budget 'x' is used up"}), "budget", "the budget 'x' is used up"),
        (Requirements(excluded={"a": "the API key may not use it"}), "key", "the API key may not use it"),
        (Requirements(excluded={"a": "was tried"}), "excluded", "was tried"),
    ],
)
def test_what_a_model_fails_on(requirements, criterion, reason):
    ranking = rank_models(requirements, Catalogue([FITTING]))
    assert ranking.ranked == ()
    (rejection,) = ranking.rejections
    assert (rejection.model, rejection.criterion, rejection.reason) == ("a", criterion, reason)


def test_a_model_that_just_meets_everything():
    requirements = evolve(
        needing(
            required_capabilities=frozenset({"code"}),
            required_features=frozenset({"tools"}),
            required_tags=frozenset({"ours"}),
            max_cost_per_1k_tokens=0.002,
            max_latency_ms=1000,
            min_quality_threshold=0.8,
            min_context_tokens=8192,
        ),
        modalities=frozenset({"image"}),
        need_tokens=8192,
    )
    ranking = rank_models(requirements, Catalogue([FITTING]))
    assert [each.model for each in ranking.ranked] == ["a"]
    assert (ranking.rejections, ranking.relaxed, ranking.considered) == ((), (), 1)


def test_the_least_quality_is_about_the_model_and_not_about_this_task():
    hard = evolve(needing(min_quality_threshold=0.75), complexity=estimate("expert"))
    assert ranked(hard, [FITTING]) == ["a"]
    assert ranked(evolve(hard, complexity=estimate("trivial")), [evolve(FITTING, quality=0.74)]) == []


def test_experience_decides_whether_the_least_quality_is_met():
    past = MadeUpPast({"a": KnownModel(successes=0, failures=4)})
    assert ranked(needing(min_quality_threshold=0.5), [FITTING], past=past) == []
    told = evolve(needing(min_quality_threshold=0.5), chances={"a": 0.4})
    assert ranked(told, [FITTING]) == []


def test_loading_counts_against_the_longest_time():
    loads = {"a": load("a", state=LoadState.STOPPED, load_s=5.0)}
    assert ranked(needing(max_latency_ms=5999), [FITTING], loads=loads) == []
    assert ranked(needing(max_latency_ms=6000), [FITTING], loads=loads) == ["a"]


# --- order


def test_better_cheaper_quicker_and_readier_models_come_first():
    plain = profile("plain", quality=0.7)
    for better in (
        profile("z", quality=0.71),
        profile("z", quality=0.7, price=0.5),
        profile("z", quality=0.7, latency_ms=900.0),
    ):
        assert ranked(Requirements(prompt_tokens=1000), [plain, better]) == ["z", "plain"]
    loads = {"a": load("a", state=LoadState.STOPPED), "b": load("b", free_slots=1)}
    assert ranked(Requirements(), [profile("a"), profile("b")], loads=loads) == ["b", "a"]


def test_ties_break_by_cost_and_then_by_name():
    quality_only = ScoringWeights(quality=1, cost=0, latency=0, readiness=0)
    models = [profile("c", price=2.0), profile("b", price=1.0), profile("a", price=2.0)]
    needs = Requirements(prompt_tokens=1000)
    assert ranked(needs, models, weights=quality_only) == ["b", "a", "c"]


def test_hard_tasks_go_to_strong_models_and_easy_ones_to_cheap_ones():
    models = [profile("small", quality=0.7, price=0.1), profile("large", quality=0.95, price=5.0)]
    needs = Requirements(prompt_tokens=1000, answer_tokens=500)
    assert ranked(evolve(needs, complexity=estimate("trivial")), models)[0] == "small"
    assert ranked(evolve(needs, complexity=estimate("expert")), models)[0] == "large"


@given(profiles(), REQUIREMENTS, WEIGHTS, st.floats(0, 1), st.floats(0, 1))
def test_a_cheaper_model_that_is_the_same_otherwise_never_ranks_lower(
    model, requirements, weights, input_share, output_share
):
    cheaper = evolve(
        model,
        name="z",  # names break ties the other way
        pricing=Pricing(
            input_per_million=model.pricing.input_per_million * input_share,
            output_per_million=model.pricing.output_per_million * output_share,
            engine_hour=model.pricing.engine_hour * input_share,
        ),
    )
    needs = evolve(requirements, criteria=SelectionCriteria())
    first, second = select(needs, Catalogue([model, cheaper]), weights=weights).scored or (None, None)
    if first is not None and first.cost_usd != second.cost_usd:
        assert (first.name, second.name) == ("z", "a")


@given(catalogues(most=7), REQUIREMENTS, WEIGHTS, st.randoms())
def test_the_order_of_the_catalogue_changes_nothing(models, requirements, weights, chance):
    shuffled = list(models)
    chance.shuffle(shuffled)
    first = rank_models(requirements, Catalogue(models), weights=weights, relax=EVERYTHING)
    second = rank_models(requirements, Catalogue(shuffled), weights=weights, relax=EVERYTHING)
    assert first.ranked == second.ranked
    assert (first.relaxed, first.rejections) == (second.relaxed, second.rejections)


@given(catalogues(most=7), REQUIREMENTS, CRITERIA)
def test_tightening_criteria_never_adds_a_candidate(models, requirements, more):
    had = requirements.criteria

    def tighter(one, other, pick):
        return other if one is None else one if other is None else pick(one, other)

    both = SelectionCriteria(
        required_capabilities=had.required_capabilities | more.required_capabilities,
        required_features=had.required_features | more.required_features,
        required_tags=had.required_tags | more.required_tags,
        max_cost_per_1k_tokens=tighter(had.max_cost_per_1k_tokens, more.max_cost_per_1k_tokens, min),
        max_latency_ms=tighter(had.max_latency_ms, more.max_latency_ms, min),
        min_quality_threshold=tighter(had.min_quality_threshold, more.min_quality_threshold, max),
        min_context_tokens=tighter(had.min_context_tokens, more.min_context_tokens, max),
    )
    before = set(ranked(requirements, models))
    assert set(ranked(evolve(requirements, criteria=both), models)) <= before


@given(catalogues(most=7), REQUIREMENTS)
def test_each_model_is_ranked_or_rejected_and_never_both(models, requirements):
    ranking = rank_models(requirements, Catalogue(models))
    named = [each.model for each in ranking.ranked] + [each.model for each in ranking.rejections]
    assert sorted(named) == sorted(model.name for model in models)


# --- without a look at each

SPECIAL = {"m0003": KnownModel(9, 1, 700.0), "m0017": KnownModel(0, 9), "m0101": KnownModel(40, 0)}


def random_requirements(chance):
    return Requirements(
        prompt_tokens=chance.choice([0, 100, 5000, 50_000]),
        answer_tokens=chance.choice([1, 200, 3000]),
        need_tokens=chance.choice([0, 6000]),
        task=chance.choice(["", "translate"]),
        complexity=chance.choice([None, *[estimate(each) for each in TaskComplexity]]),
        chances=chance.choice([{}, {"m0005": 0.99, "m0006": 0.0}]),
        criteria=SelectionCriteria(
            required_capabilities=frozenset(chance.sample(["code", "math", "chat"], chance.randint(0, 2))),
            required_tags=frozenset(chance.sample(["fast", "ours"], chance.randint(0, 1))),
            max_cost_per_1k_tokens=chance.choice([None, 0.002]),
            max_latency_ms=chance.choice([None, 3000]),
            min_quality_threshold=chance.choice([None, 0.7]),
        ),
        features=frozenset(chance.sample(["tools", "json_mode"], chance.randint(0, 1))),
        excluded=chance.choice([{}, {f"m{number:04}": "the key" for number in range(0, 600, 2)}]),
    )


@given(st.integers(0, 2**32), st.sampled_from([1, 3, 24]), st.sampled_from([40, 700]))
@settings(max_examples=60, deadline=None)
def test_the_tree_finds_exactly_what_a_look_at_each_finds(seed, limit, count):
    chance = Random(seed)
    models = random_profiles(chance, count)
    many = MadeUpPast(
        {
            f"m{number:04}": KnownModel(chance.uniform(0, 50), chance.uniform(0, 9), chance.uniform(1, 9000))
            for number in range(0, count, 3)
        }
    )
    known = {
        "past": chance.choice([None, MadeUpPast(SPECIAL), MadeUpPast({"elsewhere": KnownModel(1, 1)}), many]),
        "loads": chance.choice(
            [
                {},
                {
                    "m0001": load("m0001"),
                    "m0002": load("m0002", state=LoadState.UNAVAILABLE),
                    "m0008": load("m0008", state=LoadState.STOPPED),
                },
            ]
        ),
        "weights": ScoringWeights(
            quality=chance.random(), cost=chance.random(), latency=chance.random(), readiness=chance.random()
        ),
        "relax": chance.sample(EVERYTHING, chance.randint(0, 5)),
    }
    tree, each = Catalogue(models, few=0), Catalogue(models, few=count)
    assert tree.levels
    assert not each.levels
    requirements = random_requirements(chance)
    quick = select(requirements, tree, limit=limit, **known)
    thorough = select(requirements, each, **known)
    assert quick.scored == thorough.scored[:limit]
    assert quick.relaxed == thorough.relaxed


@given(st.integers(0, 2**32), st.sampled_from([40, 700]))
@settings(max_examples=60, deadline=None)
def test_rejections_are_counted_as_they_are_found(seed, count):
    chance = Random(seed)
    models = random_profiles(chance, count)
    many = MadeUpPast({f"m{number:04}": KnownModel(chance.uniform(0, 50), 9, 5000) for number in range(99)})
    scorer = Scorer(
        random_requirements(chance),
        ScoringWeights(),
        past=chance.choice([None, MadeUpPast(SPECIAL), many]),
        loads={
            "m0001": load("m0001"),
            "m0002": load("m0002", state=LoadState.UNAVAILABLE),
            "m0008": load("m0008", state=LoadState.STOPPED),
        },
    )
    needs, catalogue = needs_of(scorer.requirements), Catalogue(models)
    rejections = reject(catalogue, scorer, needs)
    counts = count_rejections(catalogue, scorer, needs)
    assert counts == Counter(each.criterion for each in rejections)
    assert list(counts.values()) == sorted(counts.values(), reverse=True)
    if len(rejections) == count:
        assert first_rejections(catalogue, scorer, needs, 5) == rejections[:5]


def test_the_tree_looks_at_few(monkeypatch):
    from gatewright.selection import pruning  # noqa: PLC0415 - to count its looks

    looks = []
    honest = pruning.plain_scores

    def counting(scorer, needs):
        score = honest(scorer, needs)
        return lambda row: looks.append(row) or score(row)

    monkeypatch.setattr(pruning, "plain_scores", counting)
    select(Requirements(prompt_tokens=1000), Catalogue(random_profiles(Random(1), 2000)), limit=3)
    assert len(looks) < 400


# --- giving up criteria

STRICT = needing(
    max_latency_ms=1, max_cost_per_1k_tokens=0.0, min_quality_threshold=1.0, required_tags=frozenset({"no"})
)


def test_criteria_are_given_up_in_the_order_of_the_route_and_no_further_than_need_be():
    catalogue = Catalogue([FITTING])
    order = (
        Relaxation.TAGS,
        Relaxation.QUALITY,
        Relaxation.LATENCY,
        Relaxation.COST,
        Relaxation.CAPABILITIES,
    )
    ranking = rank_models(STRICT, catalogue, relax=order)
    assert ranking.relaxed == ("tags", "quality", "latency", "cost")
    assert [each.model for each in ranking.ranked] == ["a"]
    assert rank_models(STRICT, catalogue, relax=order[:3]).ranked == ()
    only_slow = needing(max_latency_ms=1)
    assert rank_models(only_slow, catalogue, relax=order).relaxed == ("latency",)
    assert rank_models(Requirements(), catalogue, relax=order).relaxed == ()


def test_those_who_are_ranked_meet_what_was_not_given_up():
    cheap = evolve(FITTING, name="cheap", pricing=Pricing())
    ranking = rank_models(
        STRICT, Catalogue([FITTING, cheap]), relax=(*EVERYTHING[:1], Relaxation.QUALITY, Relaxation.TAGS)
    )
    assert [each.model for each in ranking.ranked] == ["cheap"]
    assert [(each.model, each.criterion) for each in ranking.rejections] == [("a", "cost")]


@pytest.mark.parametrize(
    "requirements",
    [
        Requirements(need_tokens=9000),
        needing(min_context_tokens=9000),
        Requirements(features=frozenset({"logprobs"})),
        needing(required_features=frozenset({"logprobs"})),
        Requirements(modalities=frozenset({"audio"})),
        Requirements(excluded={"a": "the API key may not use it"}),
    ],
)
def test_what_is_never_given_up(requirements):
    assert rank_models(requirements, Catalogue([FITTING]), relax=EVERYTHING).ranked == ()


def test_unavailable_models_are_left_out_while_others_are_there():
    loads = {"a": load("a", state=LoadState.UNAVAILABLE)}
    other = profile("b", quality=0.1)
    ranking = rank_models(Requirements(), Catalogue([FITTING, other]), loads=loads)
    assert [each.model for each in ranking.ranked] == ["b"]
    assert [(each.model, each.criterion) for each in ranking.rejections] == [("a", "unavailable")]


def test_rather_a_model_that_may_be_unavailable_than_none_at_all():
    loads = {"a": load("a", state=LoadState.UNAVAILABLE)}
    ranking = rank_models(Requirements(), Catalogue([FITTING]), loads=loads)
    assert ([each.model for each in ranking.ranked], ranking.relaxed) == (["a"], (AVAILABILITY,))
    assert ranking.rejections == ()
    # but rather one that costs too much, where the route allows it
    dear = evolve(FITTING, name="dear", pricing=Pricing(input_per_million=100.0))
    needs = needing(max_cost_per_1k_tokens=0.01)
    ranking = rank_models(needs, Catalogue([FITTING, dear]), loads=loads, relax=(Relaxation.COST,))
    assert ([each.model for each in ranking.ranked], ranking.relaxed) == (["dear"], ("cost",))


# --- by chance


def test_a_ranking_by_draws_has_the_drawn_qualities_in_it():
    models = [profile(f"m{number}", quality=0.6) for number in range(5)]
    past = MadeUpPast({"m1": KnownModel(50, 50)})
    first = rank_models(Requirements(), Catalogue(models), past=past, chance=Random(7))
    assert first.ranked == rank_models(Requirements(), Catalogue(models), past=past, chance=Random(7)).ranked
    assert [each.score for each in first.ranked] == sorted(
        (each.score for each in first.ranked), reverse=True
    )
    for each in first.ranked:
        assert each.terms[0].value == each.expected_quality
        assert sum(term.value * term.weight for term in each.terms) == pytest.approx(each.score)
    assert len({each.expected_quality for each in first.ranked}) == 5
    assert len(rank_models(Requirements(), Catalogue(models), chance=Random(7), limit=2).ranked) == 2
