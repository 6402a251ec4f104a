"""Requests that name a route: from their arrival to their record."""

from random import Random

import pytest
from attrs import evolve

from gatewright.accounting.outcomes import Feedback, ModelOutcome
from gatewright.api.facts import ApiFormat, Usage, Wishes
from gatewright.api.transforms import Transform
from gatewright.commands import (
    BeginRelay,
    CallUpstream,
    CancelUpstream,
    EstimateComplexity,
    Log,
    RecordRequest,
)
from gatewright.config import Config
from gatewright.errors import CircuitOpen, EngineHostLost
from gatewright.events import (
    CallFailure,
    ClientGone,
    ComplexityEstimated,
    ConfigReplaced,
    EstimationFailed,
    ExperimentsSet,
    OutcomesLearnt,
    ShutdownRequested,
    UpstreamAnswered,
)
from gatewright.leases import (
    AskLoads,
    EngineLoad,
    LeaseEngine,
    LeaseLost,
    LeasePurpose,
    LeaseRefused,
    LoadState,
    LoadsTold,
)
from gatewright.route_config import (
    ArmConfig,
    EstimatorConfig,
    EstimatorKind,
    ExperienceConfig,
    ExperimentConfig,
    ExperimentState,
    FallbackPolicy,
    FallbackStrategy,
    JudgeConfig,
    RouteConfig,
)
from gatewright.selection.complexity import ComplexityEstimate, TaskComplexity
from gatewright.selection.criteria import WEIGHTS, Prefer, SelectionCriteria
from gatewright.selection.decision import Exploration
from tests.core.machines.build import model, overflow, rid
from tests.core.machines.route_tester import CHEAP, DEAR, LOCAL, RouteTester, described, priced

# --- the choice


def test_a_route_goes_to_the_best_by_its_weights():
    tester = RouteTester(
        DEAR,
        CHEAP,
        routes=(
            RouteConfig(name="auto"),
            RouteConfig(name="thrifty", criteria=SelectionCriteria(max_cost_per_1k_tokens=0.001)),
        ),
    )
    tester.ask(0)
    assert tester.leased == "dear"
    tester.ask(1, "s", model="thrifty")
    assert tester.leased == "cheap"


def test_the_decision_is_told_in_headers_and_kept_in_the_record():
    tester = RouteTester(DEAR, CHEAP)
    tester.ask(0)
    record = tester.carry_through(1)
    headers = dict(tester.last[BeginRelay].headers)
    assert headers["x-gw-route"] == "auto"
    assert headers["x-gw-model"] == "dear"
    assert headers["x-gw-chain"] == "dear,cheap"
    assert headers["x-gw-complexity"] == "trivial"
    assert float(headers["x-gw-score"]) > 0
    assert 0 <= float(headers["x-gw-confidence"]) <= 1
    assert float(headers["x-gw-estimated-cost-usd"]) > 0
    assert headers["x-gw-reason"].startswith("dear")
    assert record.decision is not None
    assert (record.route, record.model, record.decision.chain) == ("auto", "dear", ("dear", "cheap"))
    assert record.complexity is TaskComplexity.TRIVIAL
    assert record.cost_usd == pytest.approx(1500 * 10 / 1e6)
    assert record.estimated_cost_usd == record.decision.estimated_cost_usd


def test_the_upstream_hears_its_own_name_for_the_model():
    tester = RouteTester(DEAR)
    tester.ask(0)
    tester.granted(0)
    assert tester.last[CallUpstream].upstream_model == "dear-large"


def test_what_the_client_wishes_counts():
    tester = RouteTester(DEAR, CHEAP)
    tester.ask(0, wishes=Wishes(prefer=Prefer.COST))
    assert tester.leased == "cheap"
    tester.ask(1, "s", wishes=Wishes(criteria=SelectionCriteria(required_capabilities=frozenset({"code"}))))
    assert tester.leased == "dear"
    tester.ask(2, "t", wishes=Wishes(criteria=SelectionCriteria(max_cost_per_1k_tokens=0.001)))
    assert tester.leased == "cheap"


def test_nobody_that_fits_is_an_error_that_says_who_failed_on_what():
    tester = RouteTester(DEAR, CHEAP)
    criteria = SelectionCriteria(required_capabilities=frozenset({"code"}), max_cost_per_1k_tokens=0.001)
    tester.ask(0, wishes=Wishes(criteria=criteria))
    assert (tester.problem.status, tester.problem.code, tester.problem.param) == (
        400,
        "no_model_fits",
        "model",
    )
    assert "dear" in tester.problem.message
    assert "cheap" in tester.problem.message
    assert tester.gateway.active == 0
    assert tester.record.problem == tester.problem


def test_the_default_model_may_be_a_route():
    tester = RouteTester(DEAR, CHEAP)
    server = evolve(tester.config.server, default_model="auto")
    tester.tell(0, ConfigReplaced(config=evolve(tester.config, server=server)))
    tester.ask(0, model=None)
    assert tester.leased == "dear"


def test_candidates_are_named_or_tagged():
    tester = RouteTester(
        DEAR,
        CHEAP,
        LOCAL,
        routes=(
            RouteConfig(name="auto", tags=("small",)),
            RouteConfig(name="named", candidates=("local", "cheap")),
        ),
    )
    tester.ask(0)
    assert tester.leased == "cheap"
    tester.ask(1, "s", model="named")
    assert {spec.model for spec in tester.last[AskLoads].variants} == {"local", "cheap"}


def test_the_cost_of_an_answer_that_is_complete_is_told():
    tester = RouteTester(DEAR)
    tester.ask(0)
    tester.granted(1)
    usage = Usage(prompt_tokens=1000, completion_tokens=500)
    command_id = tester.last[CallUpstream].command_id
    tester.tell(2, UpstreamAnswered(command_id=command_id, status=200, usage=usage))
    assert dict(tester.last[BeginRelay].headers)["x-gw-cost-usd"] == "0.015000000"


def test_what_was_tried_in_vain_is_told():
    tester = RouteTester(DEAR, CHEAP)
    tester.ask(0)
    tester.granted(1)
    tester.failed(5)
    tester.carry_through(6)
    headers = dict(tester.last[BeginRelay].headers)
    assert (headers["x-gw-model"], headers["x-gw-failed"]) == ("cheap", "dear: UpstreamTimeout")


# --- who is asked before


def test_the_fleet_is_asked_where_a_model_may_have_to_be_loaded():
    tester = RouteTester(LOCAL, CHEAP)
    [asked] = tester.ask(0)
    assert isinstance(asked, AskLoads)
    assert [spec.label for spec in asked.variants] == ["local@4096", "local@16384", "cheap@32000"]
    ready = (
        EngineLoad(model="local", context_tokens=4096, state=LoadState.UNAVAILABLE),
        EngineLoad(model="cheap", context_tokens=32000),
    )
    tester.tell(0, LoadsTold(lease_id=asked.lease_id, loads=ready))
    assert tester.leased == "cheap"


@pytest.mark.parametrize("news", [LeaseRefused, LeaseLost])
def test_a_fleet_that_goes_away_is_not_waited_for(news):
    tester = RouteTester(LOCAL, CHEAP)
    [asked] = tester.ask(0)
    tester.tell(0, news(lease_id=asked.lease_id, problem=EngineHostLost("gone").problem))
    assert isinstance(tester.commands[-1], LeaseEngine)


def test_a_model_that_vanishes_from_the_configuration_still_answers_those_that_may_have_chosen_it():
    """As it does those that have named it: what began with one configuration ends with it."""
    tester = RouteTester(LOCAL, DEAR)
    [asked] = tester.ask(0)
    tester.tell(1, ConfigReplaced(config=Config(models=(CHEAP,), routes=())))
    tester.tell(2, LoadsTold(lease_id=asked.lease_id, loads=()))
    assert tester.leased == "dear"
    assert tester.carry_through(3).decision.chain == ("dear", "local")


def test_a_model_that_vanishes_from_the_configuration_is_still_found_after_a_failure():
    small = [priced(f"m{number}", 0.1, quality=0.9) for number in range(4)]
    tester = RouteTester(*small, priced("huge", 20.0, context=1_000_000, quality=0.3))
    tester.ask(0)
    tester.granted(1)
    tester.tell(1, ConfigReplaced(config=Config(models=(CHEAP,), routes=())))
    command_id = tester.last[CallUpstream].command_id
    tester.tell(2, UpstreamAnswered(command_id=command_id, status=400, error=overflow(40_000, 32_000)))
    assert tester.leased == "huge"


def test_a_model_is_there_as_long_as_one_of_its_engines_is():
    tester = RouteTester(LOCAL, priced("poor", 50.0, quality=0.1))
    [asked] = tester.ask(0)
    small, large, _ = asked.variants
    loads = (
        EngineLoad(model="local", context_tokens=small.context_tokens, state=LoadState.UNAVAILABLE),
        EngineLoad(model="local", context_tokens=large.context_tokens, state=LoadState.STOPPED, load_s=1.0),
    )
    tester.tell(0, LoadsTold(lease_id=asked.lease_id, loads=loads))
    assert tester.leased == "local"


def test_without_a_fleet_the_choice_is_made_all_the_same():
    tester = RouteTester(LOCAL, CHEAP)
    [asked] = tester.ask(0)
    assert isinstance(asked, AskLoads)
    tester.tell(1, LeaseRefused(lease_id=asked.lease_id, problem=EngineHostLost("gone").problem))
    assert tester.leased in {"local", "cheap"}
    assert tester.gateway.stale == 0


def test_an_engine_that_runs_is_preferred_to_one_that_evicts_it():
    twin = described(model("twin", 4096), quality=0.55)
    tester = RouteTester(LOCAL, twin)
    for number, busy, idle in ((0, "local", "twin"), (10, "twin", "local")):
        [asked] = tester.ask(number, f"r{number}")
        assert isinstance(asked, AskLoads)
        loads = (
            EngineLoad(
                model=idle,
                context_tokens=4096,
                state=LoadState.STOPPED,
                load_s=20.0,
                evicts=(f"{busy}@4096",),
            ),
            EngineLoad(model=busy, context_tokens=4096, state=LoadState.READY, free_slots=1),
        )
        tester.tell(number, LoadsTold(lease_id=asked.lease_id, loads=loads))
        assert tester.leased == busy


@pytest.mark.parametrize(("load_s", "chosen"), [(None, "cheap"), (1.0, "local")])
def test_a_model_that_is_known_to_load_fast_is_chosen_though_it_never_ran(
    load_s: float | None, chosen: str
) -> None:
    fast = evolve(LOCAL, profile=evolve(LOCAL.profile, quality=0.9, load_s=load_s))
    tester = RouteTester(fast, CHEAP)
    [asked] = tester.ask(0)
    assert isinstance(asked, AskLoads)
    loads = (
        EngineLoad(model="local", context_tokens=4096, state=LoadState.STOPPED),
        EngineLoad(model="cheap", context_tokens=8192, state=LoadState.READY),
    )
    tester.tell(0, LoadsTold(lease_id=asked.lease_id, loads=loads))
    assert tester.leased == chosen


MODEL_ESTIMATOR = EstimatorConfig(kind=EstimatorKind.MODEL, model="cheap")


def test_an_estimator_is_asked_first():
    tester = RouteTester(DEAR, CHEAP, routes=(RouteConfig(name="auto", estimator=MODEL_ESTIMATOR),))
    [asked] = tester.ask(0)
    assert asked == EstimateComplexity(
        command_id=asked.command_id,  # type: ignore[union-attr]  # it is one
        request_id=rid("r"),
        estimator=MODEL_ESTIMATOR,
        candidates=("dear", "cheap"),
    )
    estimate = ComplexityEstimate(complexity=TaskComplexity.EXPERT, score=0.95, estimator="model")
    event = ComplexityEstimated(command_id=tester.last[EstimateComplexity].command_id, estimate=estimate)
    tester.tell(1.5, event)
    record = tester.carry_through(2)
    assert record.decision is not None
    assert (record.decision.complexity, record.decision.estimator) == (TaskComplexity.EXPERT, "model")
    assert record.select_s == 1.5


def test_the_chances_that_a_learned_estimator_tells_decide():
    learned = EstimatorConfig(kind=EstimatorKind.LEARNED)
    tester = RouteTester(DEAR, CHEAP, routes=(RouteConfig(name="auto", estimator=learned),))
    tester.ask(0)
    estimate = ComplexityEstimate(complexity=TaskComplexity.MODERATE, score=0.5, estimator="learned")
    chances = {"dear": 0.3, "cheap": 0.9}
    command_id = tester.last[EstimateComplexity].command_id
    tester.tell(0, ComplexityEstimated(command_id=command_id, estimate=estimate, chances=chances))
    assert tester.leased == "cheap"


def test_an_estimator_that_fails_leaves_it_to_the_heuristic():
    tester = RouteTester(DEAR, CHEAP, routes=(RouteConfig(name="auto", estimator=MODEL_ESTIMATOR),))
    tester.ask(0)
    command_id = tester.last[EstimateComplexity].command_id
    commands = tester.tell(2, EstimationFailed(command_id=command_id, reason="too slow"))
    assert isinstance(commands[0], Log)
    assert "too slow" in commands[0].text
    record = tester.carry_through(3)
    assert record.decision is not None
    assert record.decision.estimator == "heuristic"


def test_a_client_that_leaves_while_the_estimator_is_asked():
    tester = RouteTester(DEAR, CHEAP, routes=(RouteConfig(name="auto", estimator=MODEL_ESTIMATOR),))
    tester.ask(0)
    assert tester.tell(1, ClientGone(request_id=rid("r"))) == [CancelUpstream(request_id=rid("r"))]
    assert tester.gateway.active == 1
    tester.tell(1, EstimationFailed(command_id=tester.last[EstimateComplexity].command_id, reason="canceled"))
    assert (tester.gateway.active, tester.record.model) == (0, None)


def test_a_client_that_leaves_while_the_fleet_is_asked():
    tester = RouteTester(LOCAL, CHEAP)
    [asked] = tester.ask(0)
    assert isinstance(asked, AskLoads)
    tester.tell(1, ClientGone(request_id=rid("r")))
    assert tester.gateway.active == 0
    assert tester.tell(1, LoadsTold(lease_id=asked.lease_id, loads=())) == []
    assert tester.gateway.stale == 1


def test_a_shutdown_cuts_those_that_choose():
    tester = RouteTester(LOCAL, CHEAP)
    tester.ask(0)
    tester.tell(1, ShutdownRequested(force=True))
    assert (tester.gateway.active, tester.problem.code) == (0, "shutting_down")


# --- fallback


def test_the_next_in_the_ranking_is_asked_after_a_failure():
    tester = RouteTester(DEAR, CHEAP)
    tester.ask(0)
    tester.granted(1)
    tester.failed(5)
    assert tester.leased == "cheap"
    record = tester.carry_through(6)
    assert [(each.model, each.success, each.is_available) for each in record.outcomes] == [
        ("dear", False, False),
        ("cheap", True, True),
    ]
    assert [each.cost_usd for each in record.outcomes] == [0.0, pytest.approx(1500 * 0.1 / 1e6)]


def test_a_policy_may_say_that_nobody_else_is_asked():
    policy = FallbackPolicy(strategies=(FallbackStrategy.RETRY,), max_length=1)
    tester = RouteTester(DEAR, CHEAP, routes=(RouteConfig(name="auto", fallback=policy),))
    tester.ask(0)
    tester.granted(1)
    tester.failed(5)
    assert tester.problem.code == "upstream_timeout"


def test_the_client_may_say_whom_to_ask_instead():
    tester = RouteTester(DEAR, CHEAP, LOCAL, routes=(RouteConfig(name="auto", candidates=("dear", "cheap")),))
    tester.ask(0, wishes=Wishes(fallbacks=("local",)))
    tester.granted(1)
    tester.failed(5)
    assert tester.leased == "local"
    tester.granted(6)
    tester.answered(7)
    assert dict(tester.last[BeginRelay].headers)["x-gw-chain"] == "dear,local"
    tester.ask(10, "s", wishes=Wishes(fallbacks=()))
    tester.granted(11)
    tester.failed(15)
    assert tester.problem.code == "upstream_timeout"


def test_a_prompt_that_is_too_large_for_the_chain_finds_a_larger_candidate():
    """The ranking's first have 32,000; of the others one is larger, and only one."""
    small = [priced(f"m{number}", 0.1, quality=0.9) for number in range(4)]
    huge = priced("huge", 20.0, context=1_000_000, quality=0.3)
    tester = RouteTester(*small, huge)
    tester.ask(0)
    tester.granted(1)
    command_id = tester.last[CallUpstream].command_id
    tester.tell(2, UpstreamAnswered(command_id=command_id, status=400, error=overflow(40_000, 32_000)))
    assert tester.leased == "huge"


def test_a_model_that_runs_here_stands_in_for_providers_that_cannot_be_reached():
    strategies = (FallbackStrategy.LOCAL_WHEN_OFFLINE, FallbackStrategy.NEXT_IN_RANKING)
    policy = FallbackPolicy(strategies=strategies, max_length=2)
    tester = RouteTester(
        DEAR, priced("other", 10.0, quality=0.94), LOCAL, routes=(RouteConfig(name="auto", fallback=policy),)
    )
    tester.ask(0)
    tester.tell(0, LoadsTold(lease_id=tester.last[AskLoads].lease_id, loads=()))
    assert tester.leased == "dear"
    tester.granted(1)
    tester.failed(2, CallFailure.UNREACHABLE)
    assert tester.leased == "other"
    tester.granted(3)
    tester.failed(4, CallFailure.UNREACHABLE)
    assert tester.leased == "local"


def test_a_model_that_runs_here_stands_in_for_providers_that_are_left_alone_for_a_while():
    """Nobody could reach them lately, so that they are not even called."""
    policy = FallbackPolicy(strategies=(FallbackStrategy.LOCAL_WHEN_OFFLINE,))
    tester = RouteTester(DEAR, LOCAL, routes=(RouteConfig(name="auto", fallback=policy),))
    tester.ask(0)
    tester.tell(0, LoadsTold(lease_id=tester.last[AskLoads].lease_id, loads=()))
    assert tester.leased == "dear"
    lease_id = tester.last[LeaseEngine].lease_id
    tester.tell(1, LeaseRefused(lease_id=lease_id, problem=CircuitOpen("left alone").problem))
    assert tester.leased == "local"


def test_a_policy_may_say_that_only_the_configured_ones_are_asked():
    policy = FallbackPolicy(strategies=(FallbackStrategy.CONFIGURED,))
    own = evolve(DEAR, fallbacks=("spare",))
    spare, other = priced("spare", 10.0, quality=0.2), priced("other", 10.0, quality=0.3)
    route = RouteConfig(name="auto", candidates=("dear", "other"), weights=WEIGHTS[Prefer.QUALITY])
    tester = RouteTester(own, spare, other, routes=(evolve(route, fallback=policy),))
    tester.ask(0)
    tester.granted(1)
    tester.failed(2)
    assert tester.leased == "spare"
    tester.granted(3)
    tester.failed(4)
    assert tester.gateway.active == 0


# --- what is learnt


def outcomes(name: str, count: int, *, success: bool) -> tuple[ModelOutcome, ...]:
    return tuple(
        ModelOutcome(request_id=f"{name}{number}", model=name, success=success, at=-float(number))
        for number in range(count)
    )


def test_outcomes_of_others_change_the_choice():
    tester = RouteTester(DEAR, CHEAP)
    news = OutcomesLearnt(outcomes=outcomes("dear", 40, success=False) + outcomes("cheap", 40, success=True))
    assert tester.tell(0, news) == []
    tester.ask(1)
    assert tester.leased == "cheap"


def test_a_gateways_own_outcomes_change_its_choice():
    tester = RouteTester(DEAR, CHEAP)
    for number in range(30):
        tester.ask(number, f"r{number}")
        tester.granted(number)
        tester.answered(number)
        tester.relayed(number, finish_reason="content_filter")
    tester.ask(100, "last")
    assert tester.leased == "cheap"


def test_feedback_changes_the_choice():
    tester = RouteTester(DEAR, CHEAP)
    tester.tell(0, OutcomesLearnt(outcomes=outcomes("dear", 40, success=True)))
    bad = tuple(Feedback(request_id=f"dear{number}", score=0.0, at=0.0) for number in range(40))
    tester.tell(0, OutcomesLearnt(feedback=bad))
    tester.ask(1)
    assert tester.leased == "cheap"


@pytest.mark.parametrize(("days", "chosen"), [(365.0, "cheap"), (1.0, "dear")])
def test_how_long_outcomes_count_is_for_the_configuration_to_say(days: float, chosen: str):
    tester = RouteTester(DEAR, CHEAP, experience=ExperienceConfig(half_life_days=days))
    tester.tell(0, OutcomesLearnt(outcomes=outcomes("dear", 40, success=False)))
    tester.ask(14 * 86_400.0)
    assert tester.leased == chosen


def test_an_upstream_that_is_down_is_no_worse_for_it():
    tester = RouteTester(DEAR, CHEAP)
    down = tuple(evolve(each, is_available=False) for each in outcomes("dear", 40, success=False))
    tester.tell(0, OutcomesLearnt(outcomes=down))
    tester.ask(1)
    assert tester.leased == "dear"


def test_exploring_draws_from_the_generator_that_it_was_given():
    def choices(seed: int) -> list[str]:
        route = RouteConfig(name="auto", exploration=Exploration.THOMPSON)
        near = [priced(f"m{number}", 1.0, quality=0.7) for number in range(3)]
        tester = RouteTester(*near, chance=Random(seed), routes=(route,))
        made = []
        for number in range(20):
            tester.ask(number, f"r{number}")
            made.append(tester.leased)
            assert 0 < tester.carry_through(number).outcomes[0].propensity <= 1
        return made

    assert choices(1) == choices(1)
    assert len(set(choices(1))) > 1


# --- experiments

EXPERIMENT = ExperimentConfig(
    name="trial",
    arms=(
        ArmConfig(name="a", share=0.5, candidates=("dear",)),
        ArmConfig(name="b", share=0.5, candidates=("cheap",), transform=Transform(system_prefix="Be brief.")),
    ),
)


def in_trial(tester: RouteTester, user: str) -> RecordRequest:
    tester.ask(0, f"of-{user}", wishes=Wishes(user=user))
    return tester.carry_through(0)


def test_a_user_stays_in_an_arm_and_both_arms_are_used():
    tester = RouteTester(DEAR, CHEAP, routes=(RouteConfig(name="auto", experiment=EXPERIMENT),))
    arms = {}
    for number in range(20):
        record = in_trial(tester, f"user{number}")
        assert record.decision is not None
        assert record.decision.experiment == "trial"
        arms[number] = record.decision.arm
        assert record.model == {"a": "dear", "b": "cheap"}[str(record.decision.arm)]
        assert record.outcomes[0].propensity == pytest.approx(0.5)
        assert (record.outcomes[0].experiment, record.outcomes[0].arm) == ("trial", record.decision.arm)
        assert bool(tester.last[CallUpstream].transforms) is (record.decision.arm == "b")
    assert set(arms.values()) == {"a", "b"}
    again = in_trial(tester, "user3").decision
    assert again is not None
    assert again.arm == arms[3]


def test_what_was_done_by_hand_holds():
    tester = RouteTester(DEAR, CHEAP, routes=(RouteConfig(name="auto", experiment=EXPERIMENT),))
    tester.tell(0, ExperimentsSet(states=(ExperimentState(experiment="trial", promoted="b"),)))
    assert {in_trial(tester, f"user{number}").model for number in range(10)} == {"cheap"}
    tester.tell(0, ExperimentsSet(states=(ExperimentState(experiment="trial", is_ended=True),)))
    ended = in_trial(tester, "anyone").decision
    assert ended is not None
    assert (ended.experiment, ended.arm, set(ended.chain)) == (None, None, {"dear", "cheap"})


# --- judges, transforms


def test_an_answer_that_is_to_be_judged_is_kept():
    judge = JudgeConfig(model="cheap", sample=1.0)
    tester = RouteTester(DEAR, routes=(RouteConfig(name="auto", judge=judge),))
    tester.ask(0)
    record = tester.carry_through(0)
    assert tester.last[BeginRelay].keeps_answer
    assert record.judge == judge


def test_only_a_sample_is_judged():
    judge = JudgeConfig(model="cheap", sample=0.3)
    tester = RouteTester(DEAR, chance=Random(3), routes=(RouteConfig(name="auto", judge=judge),))
    judged = 0
    for number in range(200):
        tester.ask(number, f"r{number}")
        judged += tester.carry_through(number).judge is not None
    assert 40 <= judged <= 80


def test_a_models_transform_comes_before_the_routes():
    first, second = Transform(system_prefix="model"), Transform(system_prefix="route")
    tester = RouteTester(evolve(DEAR, transform=first), routes=(RouteConfig(name="auto", transform=second),))
    tester.ask(0)
    tester.granted(0)
    assert tester.last[CallUpstream].transforms == (first, second)


def test_a_longer_answer_by_a_transform_needs_a_larger_variant_after_an_overflow_as_well():
    three = described(model("three", 4096, 8192, 32_768), quality=0.5)
    lengthy = RouteConfig(name="auto", transform=Transform(overrides={"max_tokens": 3000}))
    tester = RouteTester(three, routes=(lengthy,))
    tester.ask(0, answer_tokens=10)
    tester.granted(0)
    command_id = tester.last[CallUpstream].command_id
    tester.tell(1, UpstreamAnswered(command_id=command_id, status=400, error=overflow(6000, 4096)))
    assert tester.last[LeaseEngine].variants[0].context_tokens == 32_768


def test_a_longer_prompt_by_a_transform_needs_a_larger_variant():
    long = Transform(system_prefix="word " * 6000)
    plain = RouteConfig(name="auto", candidates=("local",))
    tester = RouteTester(LOCAL, routes=(plain, evolve(plain, name="wordy", transform=long)))
    tester.ask(0)
    assert tester.last[LeaseEngine].variants[0].context_tokens == 4096
    tester.ask(1, "s", model="wordy")
    to_count = tester.last[LeaseEngine]
    assert to_count.purpose is LeasePurpose.COUNT
    tester.tell(1, LeaseRefused(lease_id=to_count.lease_id, problem=EngineHostLost("none is ready").problem))
    assert tester.last[LeaseEngine].variants[0].context_tokens == 16384


def test_named_models_are_recorded_with_their_complexity_and_task():
    tester = RouteTester(DEAR)
    tester.ask(0, model="dear", wishes=Wishes(task="extract", user="u1"))
    record = tester.carry_through(0)
    assert (record.route, record.decision, record.task, record.user) == (None, None, "extract", "u1")
    assert record.complexity is TaskComplexity.TRIVIAL
    assert record.outcomes[0].task == "extract"


def test_the_chain_that_is_told_is_the_one_that_is_tried():
    own = evolve(DEAR, fallbacks=("local",))
    tester = RouteTester(own, CHEAP, LOCAL, routes=(RouteConfig(name="auto", candidates=("dear", "cheap")),))
    tester.ask(0)
    tester.granted(0)
    tester.answered(1)
    assert dict(tester.last[BeginRelay].headers)["x-gw-chain"] == "dear,cheap,local"
    tester.ask(5, "s", wishes=Wishes(fallbacks=("local",)))
    tester.granted(5)
    tester.answered(6)
    assert dict(tester.last[BeginRelay].headers)["x-gw-chain"] == "dear,local"


def test_a_chain_is_no_longer_than_the_policy_says():
    own = evolve(DEAR, fallbacks=("local",))
    route = RouteConfig(name="auto", candidates=("dear", "cheap"), fallback=FallbackPolicy(max_length=2))
    tester = RouteTester(own, CHEAP, LOCAL, routes=(route,))
    tester.ask(0)
    tester.granted(0)
    tester.answered(1)
    assert dict(tester.last[BeginRelay].headers)["x-gw-chain"] == "dear,cheap"


@pytest.mark.parametrize("name", ["auto", "dear"])
def test_a_fallback_that_nobody_knows_is_refused(name):
    tester = RouteTester(DEAR, CHEAP)
    tester.ask(0, model=name, wishes=Wishes(fallbacks=("cheap", "nobody")))
    assert (tester.problem.status, tester.problem.param) == (400, "gatewright.fallbacks")
    assert "'nobody'" in tester.problem.message
    assert tester.gateway.active == 0


def test_an_answer_of_another_than_the_choice_says_why():
    tester = RouteTester(DEAR, CHEAP)
    tester.ask(0)
    tester.granted(1)
    tester.failed(5)
    tester.carry_through(6)
    reason = dict(tester.last[BeginRelay].headers)["x-gw-reason"]
    assert reason.startswith("cheap, since dear: UpstreamTimeout; first choice: dear: best of 2")


@pytest.mark.parametrize(
    ("path", "format_", "expected"),
    [
        ("/v1/embeddings", ApiFormat.OTHER, "vectors"),
        ("/embedding?a=b", ApiFormat.OTHER, "vectors"),
        ("/v1/rerank", ApiFormat.OTHER, "sorter"),
        ("/v1/chat/completions", ApiFormat.CHAT, "dear"),
    ],
)
def test_a_request_goes_to_a_model_that_makes_what_it_wants(path, format_, expected):
    vectors = priced("vectors", 0.001, quality=0.99, capabilities=frozenset({"embedding"}))
    sorter = priced("sorter", 0.001, quality=0.99, capabilities=frozenset({"rerank", "embedding"}))
    tester = RouteTester(DEAR, vectors, evolve(sorter, name="sorter"))
    tester.ask(0, path=path, format=format_)
    leased = tester.leased
    assert leased == expected or (expected == "vectors" and leased in {"vectors", "sorter"})


def test_where_no_profile_tells_every_model_may_make_anything():
    tester = RouteTester(CHEAP)
    tester.ask(0, path="/v1/embeddings", format=ApiFormat.OTHER)
    assert tester.leased == "cheap"
