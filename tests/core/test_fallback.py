from itertools import product
from types import MappingProxyType

import pytest

from gatewright.errors import UpstreamUnreachable
from gatewright.route_config import FallbackStrategy
from gatewright.selection.failures import Failure, Remedy
from gatewright.selection.fallback import (
    Again,
    Attempts,
    Exhausted,
    NextModel,
    Step,
    can_handle,
    next_step,
)
from tests.core.machines.build import model, remote_model

NOW = 100.0
PROBLEM = UpstreamUnreachable("no").problem
RETRY, NEXT, NEXT_OR_RETRY, LARGER, CHEAPER, NONE = (
    Remedy.RETRY,
    Remedy.NEXT,
    Remedy.NEXT_OR_RETRY,
    Remedy.LARGER,
    Remedy.CHEAPER,
    Remedy.NONE,
)


def failure(
    remedy: Remedy = RETRY,
    *,
    at_once: bool = False,
    retry_after_s: float | None = None,
    context_tokens: int = 8000,
    cost_usd: float = 0.5,
    is_offline: bool = False,
) -> Failure:
    return Failure(
        model="gpt",
        problem=PROBLEM,
        remedy=remedy,
        at_once=at_once,
        retry_after_s=retry_after_s,
        context_tokens=context_tokens,
        cost_usd=cost_usd,
        is_offline=is_offline,
    )


def attempts(
    *,
    used: int = 0,
    allowed: int = 2,
    has_next: bool = False,
    max_attempts: int | None = None,
    called_at: tuple[float, ...] = (0.0,),
) -> Attempts:
    """A model that was called at these times, and a fallback that is larger."""
    chain = [remote_model("gpt", 8000, retries=allowed, max_attempts=max_attempts)]
    if has_next:
        chain.append(model("qwen", 4096, 16384))
    made = Attempts(tuple(chain), retries=used, costs_usd={"gpt": 0.5, "qwen": 0.1})
    for at in called_at:
        made.called(at)
    return made


def no_jitter() -> float:
    return 0.0


def unwanted() -> float:
    raise AssertionError("nothing is repeated after a while")


# --- the table

WAIT, OTHER, END = Again(NOW + 0.5), NextModel(1, NOW), Exhausted()
TABLE = MappingProxyType(
    {
        # remedy, retries are left, another model is: what follows
        (RETRY, True, True): WAIT,
        (RETRY, True, False): WAIT,
        (RETRY, False, True): OTHER,
        (RETRY, False, False): END,
        (NEXT, True, True): OTHER,
        (NEXT, True, False): END,
        (NEXT, False, True): OTHER,
        (NEXT, False, False): END,
        (NEXT_OR_RETRY, True, True): OTHER,
        (NEXT_OR_RETRY, True, False): WAIT,
        (NEXT_OR_RETRY, False, True): OTHER,
        (NEXT_OR_RETRY, False, False): END,
        (LARGER, True, True): OTHER,
        (LARGER, True, False): END,
        (LARGER, False, True): OTHER,
        (LARGER, False, False): END,
        (CHEAPER, True, True): OTHER,
        (CHEAPER, True, False): END,
        (CHEAPER, False, True): OTHER,
        (CHEAPER, False, False): END,
        (NONE, True, True): END,
        (NONE, True, False): END,
        (NONE, False, True): END,
        (NONE, False, False): END,
    }
)
CASES = [(*case, step) for case, step in TABLE.items()]


def follows(remedy: Remedy, retries_left: bool, has_next: bool, **facts: object) -> Step:
    """What follows now; with `at_once`, and with `give_up_at`."""
    give_up_at = facts.pop("give_up_at", None)
    allowed = 2 if retries_left else 0
    failed = failure(remedy, **facts)  # type: ignore[arg-type]  # as given
    tried = attempts(allowed=allowed, has_next=has_next)
    return next_step(tried, failed, NOW, no_jitter, give_up_at)  # type: ignore[arg-type]  # as given


def test_the_table_is_complete():
    assert set(TABLE) == set(product(Remedy, (True, False), (True, False)))


@pytest.mark.parametrize(("remedy", "retries_left", "has_next", "step"), CASES)
def test_what_follows(remedy, retries_left, has_next, step):
    assert follows(remedy, retries_left, has_next) == step


@pytest.mark.parametrize(("remedy", "retries_left", "has_next", "step"), CASES)
def test_what_follows_where_nothing_is_overloaded(remedy, retries_left, has_next, step):
    expected = Again(NOW) if step == WAIT else step
    assert follows(remedy, retries_left, has_next, at_once=True) == expected


@pytest.mark.parametrize(("remedy", "retries_left", "has_next", "step"), CASES)
def test_what_follows_before_an_end_that_is_far(remedy, retries_left, has_next, step):
    assert follows(remedy, retries_left, has_next, give_up_at=NOW + 0.51) == step


@pytest.mark.parametrize(("remedy", "retries_left", "has_next", "step"), CASES)
def test_what_follows_where_the_backoff_would_be_too_long(remedy, retries_left, has_next, step):
    expected = step if step != WAIT else OTHER if has_next else END
    assert follows(remedy, retries_left, has_next, give_up_at=NOW + 0.5) == expected


@pytest.mark.parametrize(("remedy", "retries_left", "has_next"), TABLE)
@pytest.mark.parametrize("at_once", [False, True])
def test_nothing_follows_at_the_end_of_the_time(remedy, retries_left, has_next, at_once):
    assert follows(remedy, retries_left, has_next, at_once=at_once, give_up_at=NOW) == END


@pytest.mark.parametrize(("remedy", "retries_left", "has_next"), TABLE)
def test_nothing_follows_after_the_last_call_that_is_allowed(remedy, retries_left, has_next):
    tried = attempts(
        allowed=2 if retries_left else 0, has_next=has_next, max_attempts=3, called_at=(0.0, 10.0, 20.0)
    )
    assert next_step(tried, failure(remedy), NOW, unwanted) == END


# --- retries


@pytest.mark.parametrize("allowed", range(6))
def test_at_most_two_retries_whatever_is_configured(allowed):
    tried, steps = attempts(allowed=allowed), []
    for _ in range(10):
        step = next_step(tried, failure(), NOW, no_jitter)
        if isinstance(step, Again):
            tried.retries += 1
        steps.append(step)
    assert sum(isinstance(step, Again) for step in steps) == min(allowed, 2)
    assert steps[-1] == END


@pytest.mark.parametrize(("used", "backoff_s"), [(0, 0.5), (1, 1.0)])
@pytest.mark.parametrize(("jitter", "share"), [(0.0, 1.0), (0.25, 0.875), (0.5, 0.75), (0.999, 0.5005)])
def test_the_backoff_is_doubled_and_the_jitter_takes_away_up_to_half(used, backoff_s, jitter, share):
    step = next_step(attempts(used=used), failure(), NOW, lambda: jitter)
    assert step == Again(pytest.approx(NOW + backoff_s * share))


def test_the_jitter_is_asked_once_for_each_backoff():
    given = []

    def jitter() -> float:
        given.append(0.0)
        return 0.0

    next_step(attempts(), failure(), NOW, jitter)
    assert len(given) == 1


@pytest.mark.parametrize("case", [(NEXT, False), (LARGER, False), (NONE, False), (RETRY, True)])
def test_the_jitter_is_not_asked_for_anything_else(case):
    remedy, at_once = case
    step = next_step(attempts(has_next=True), failure(remedy, at_once=at_once), NOW, unwanted)
    assert step in {OTHER, END, Again(NOW)}


# --- times that the upstream names


@pytest.mark.parametrize(
    ("retry_after_s", "has_next", "step"),
    [
        (0.0, False, Again(NOW + 0.5)),
        (0.2, False, Again(NOW + 0.5)),
        (7.0, False, Again(NOW + 7.0)),
        (60.0, False, Again(NOW + 60.0)),
        (60.1, False, END),
        (7.0, True, Again(NOW + 7.0)),
        (8.0, True, Again(NOW + 8.0)),
        (8.1, True, OTHER),
        (60.1, True, OTHER),
    ],
)
def test_an_upstream_is_left_alone_for_as_long_as_it_asks_if_that_is_worth_it(retry_after_s, has_next, step):
    failed = failure(retry_after_s=retry_after_s)
    assert next_step(attempts(has_next=has_next), failed, NOW, no_jitter) == step


def test_the_jitter_takes_nothing_from_a_time_that_was_named():
    assert next_step(attempts(), failure(retry_after_s=7.0), NOW, lambda: 0.9) == Again(NOW + 7.0)


def test_a_time_that_was_named_is_not_for_the_next_model():
    failed = failure(NEXT, retry_after_s=50.0)
    assert next_step(attempts(has_next=True), failed, NOW, unwanted) == OTHER


# --- how many calls


@pytest.mark.parametrize(
    ("called_at", "at"),
    [
        ((97.5, 98.0, 98.5), NOW),
        ((97.5, 98.0, 98.5, 99.0), 100.5),
        ((99.0, 99.0, 99.0, 99.0), 102.0),
        ((90.0, 98.0, 98.5, 99.0), NOW),
        ((97.0, 98.0, 98.5, 99.0), NOW),
        ((1.0, 2.0, 97.5, 98.0, 98.5, 99.0), 100.5),
    ],
)
def test_the_fifth_call_within_three_seconds_waits(called_at, at):
    again = next_step(attempts(called_at=called_at), failure(at_once=True), NOW, unwanted)
    assert again == Again(at)
    other = next_step(attempts(has_next=True, called_at=called_at), failure(NEXT), NOW, unwanted)
    assert other == NextModel(1, at)


def test_the_longer_of_both_waits_counts():
    called_at = (97.25,) * 4
    assert next_step(attempts(called_at=called_at), failure(), NOW, no_jitter) == Again(100.5)
    called_at = (99.0,) * 4
    assert next_step(attempts(called_at=called_at), failure(), NOW, no_jitter) == Again(102.0)


@pytest.mark.parametrize(("give_up_at", "step"), [(102.0, END), (102.1, NextModel(1, 102.0))])
def test_who_has_to_wait_for_too_long_is_not_called(give_up_at, step):
    tried = attempts(allowed=0, has_next=True, called_at=(99.0,) * 4)
    assert next_step(tried, failure(), NOW, unwanted, give_up_at) == step


def test_the_limit_is_that_of_the_model_that_was_asked_for():
    chain = (remote_model("gpt", max_attempts=2), remote_model("mistral", max_attempts=1))
    tried = Attempts(chain)
    tried.called(0.0)
    tried.move_to(1)
    assert next_step(tried, failure(), NOW, no_jitter) == Again(NOW + 0.5)
    tried.called(0.0)
    assert next_step(tried, failure(), NOW, unwanted) == END


# --- which model is next


def chain_of(*contexts: int) -> Attempts:
    return Attempts(tuple([remote_model(f"m{context}", context) for context in contexts]))


@pytest.mark.parametrize(
    ("contexts", "index", "too_small", "step"),
    [
        ((1000, 1000, 2000), 0, 1000, NextModel(2, NOW)),
        ((1000, 2000, 3000), 0, 1000, NextModel(1, NOW)),
        ((1000, 2000, 3000), 0, 2500, NextModel(2, NOW)),
        ((1000, 2000, 3000), 1, 2000, NextModel(2, NOW)),
        ((3000, 1000, 2000), 1, 1000, NextModel(2, NOW)),
        ((1000, 1000, 500), 0, 1000, END),
        ((3000, 1000), 1, 1000, END),
    ],
)
def test_a_prompt_that_is_too_large_goes_on_to_the_next_that_is_larger(contexts, index, too_small, step):
    tried = chain_of(*contexts)
    tried.move_to(index)
    assert next_step(tried, failure(LARGER, context_tokens=too_small), NOW, unwanted) == step


def test_any_other_failure_goes_on_to_the_next_of_any_size():
    assert next_step(chain_of(1000, 500), failure(NEXT), NOW, unwanted) == NextModel(1, NOW)


def test_a_local_model_is_as_large_as_its_largest_variant():
    tried = Attempts((remote_model("gpt", 8000), model("qwen", 512, 16384)))
    assert next_step(tried, failure(LARGER, context_tokens=8000), NOW, unwanted) == NextModel(1, NOW)


# --- attempts


def test_each_model_has_its_own_retries_and_calls_are_counted_over_all():
    tried = Attempts((remote_model("gpt"), remote_model("mistral")))
    assert not tried.is_last
    tried.called(1.0)
    tried.retries = 2
    tried.move_to(1)
    tried.called(2.0)
    assert (tried.model.name, tried.is_last, tried.retries, tried.calls) == ("mistral", True, 0, 2)


# --- strategies

HANDLED = MappingProxyType(
    {
        FallbackStrategy.RETRY: {RETRY, NEXT_OR_RETRY},
        FallbackStrategy.NEXT_IN_RANKING: {RETRY, NEXT, NEXT_OR_RETRY},
        FallbackStrategy.CONFIGURED: {RETRY, NEXT, NEXT_OR_RETRY},
        FallbackStrategy.LARGER_CONTEXT: {LARGER},
        FallbackStrategy.CHEAPER: {CHEAPER},
        FallbackStrategy.LOCAL_WHEN_OFFLINE: set(),
    }
)


def test_every_strategy_is_known():
    assert set(HANDLED) == set(FallbackStrategy)


@pytest.mark.parametrize("strategy", FallbackStrategy)
@pytest.mark.parametrize("remedy", Remedy)
def test_which_failures_a_strategy_can_handle(strategy, remedy):
    assert can_handle(strategy, failure(remedy)) is (remedy in HANDLED[strategy])


def test_local_models_stand_in_for_providers_that_cannot_be_reached():
    assert can_handle(FallbackStrategy.LOCAL_WHEN_OFFLINE, failure(RETRY, is_offline=True))


def route_attempts(*strategies: FallbackStrategy) -> Attempts:
    """Two providers and then a model that runs here, of a route with this policy."""
    chain = (remote_model("gpt", 8000), remote_model("mistral", 8000), model("qwen", 4096, 16384))
    costs = {"gpt": 0.5, "mistral": 0.7, "qwen": 0.1}
    made = Attempts(chain, strategies=strategies, costs_usd=costs)
    made.called(0.0)
    return made


def test_what_a_policy_does_not_name_is_not_done():
    tried = route_attempts(FallbackStrategy.NEXT_IN_RANKING)
    assert next_step(tried, failure(RETRY), NOW, unwanted) == NextModel(1, NOW)
    assert next_step(tried, failure(LARGER), NOW, unwanted) == END
    assert next_step(tried, failure(CHEAPER), NOW, unwanted) == END
    nothing = route_attempts()
    assert [next_step(nothing, failure(remedy), NOW, unwanted) for remedy in Remedy] == [END] * len(Remedy)


def test_of_the_strategies_that_can_the_first_one_counts():
    offline = failure(NEXT, is_offline=True)
    local_first = route_attempts(FallbackStrategy.LOCAL_WHEN_OFFLINE, FallbackStrategy.NEXT_IN_RANKING)
    ranked_first = route_attempts(FallbackStrategy.NEXT_IN_RANKING, FallbackStrategy.LOCAL_WHEN_OFFLINE)
    assert next_step(local_first, offline, NOW, unwanted) == NextModel(2, NOW)
    assert next_step(ranked_first, offline, NOW, unwanted) == NextModel(1, NOW)
    assert next_step(local_first, failure(NEXT), NOW, unwanted) == NextModel(1, NOW)


def test_who_was_passed_over_may_be_asked_later_or_not():
    tried = route_attempts(*FallbackStrategy)
    tried.move_to(2, keeps_others=True)
    assert ([each.name for each in tried.chain], tried.index) == (["gpt", "qwen", "mistral"], 1)
    skipped = route_attempts(*FallbackStrategy)
    skipped.move_to(2)
    assert (skipped.model.name, skipped.is_last) == ("qwen", True)


def test_a_budget_goes_on_to_the_next_that_costs_less():
    tried = route_attempts(*FallbackStrategy)
    assert next_step(tried, failure(CHEAPER, cost_usd=0.5), NOW, unwanted) == NextModel(2, NOW)
    assert next_step(tried, failure(CHEAPER, cost_usd=0.1), NOW, unwanted) == END


def test_one_more_model_comes_last():
    tried = route_attempts(*FallbackStrategy)
    assert tried.append(remote_model("large", 99_000)) == 3
    assert tried.chain[3].name == "large"


def test_a_limit_of_its_own_takes_the_place_of_the_first_models():
    tried = Attempts((remote_model("gpt", max_attempts=9),), limit=1)
    assert not tried.is_used_up
    tried.called(0.0)
    assert tried.is_used_up
