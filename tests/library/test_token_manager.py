"""Tokens and money: what is used is counted exactly, and budgets hold however many threads spend."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright_library import (
    Budget,
    BudgetExceeded,
    ModelConfig,
    ModelNotFound,
    ResourceExhausted,
    TokenManager,
    TokenUsage,
)

MODELS = {
    "paid": ModelConfig("paid", cost_per_1k_input=0.01, cost_per_1k_output=0.02),
    "free": ModelConfig("free", cost_per_1k_input=0.0, cost_per_1k_output=0.0),
}


def manager(*budgets: Budget, clock=lambda: 1000.0):
    return TokenManager(MODELS, budgets=budgets, clock=clock)


def test_tokens_and_costs_are_estimated():
    tokens = manager()
    assert tokens.estimate_tokens("word" * 10) == 10
    assert tokens.estimate_tokens({"text": "word" * 10}) == 10
    assert tokens.estimate_cost("paid", 1000) == pytest.approx(0.01)
    assert tokens.estimate_cost("paid", (1000, 1000)) == pytest.approx(0.03)
    assert TokenManager().estimate_cost("gpt-4o", 1000) == pytest.approx(0.0025)


def test_unknown_models_are_refused():
    for ask in (
        lambda: manager().estimate_cost("nobody", 1),
        lambda: manager().track_usage("nobody", 1, 1),
        lambda: manager().check_budget("nobody"),
    ):
        with pytest.raises(ModelNotFound, match="nobody"):
            ask()


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("limit_usd", -1, "-1, expected a number, at least 0 or None"),
        ("limit_usd", "5", "'5', expected a number, at least 0 or None"),
        ("limit_tokens", -1, "-1, expected a number, at least 0 or None"),
        ("period_s", 0, "0, expected a number above 0 or None"),
    ],
)
def test_nonsense_in_budgets_is_refused(field, value, expected):
    with pytest.raises(ValueError, match=re.escape(f"Budget.{field} is {expected}")):
        Budget(**{field: value})


def test_use_is_counted_by_model_and_altogether():
    tokens = manager()
    assert tokens.track_usage("paid", 1000, 500, 200) == pytest.approx(0.02)
    tokens.track_usage("paid", 1000, 0)
    tokens.track_usage("free", 10, 10)
    assert tokens.usage("paid").prompt_tokens == 2000
    assert tokens.usage("paid").cached_tokens == 200
    assert tokens.usage().total_tokens == 2520
    assert tokens.usage().cost_usd == pytest.approx(0.03)
    assert tokens.usage().calls == 3
    assert tokens.usage("nobody") == TokenUsage()
    assert set(tokens.usage_by_model()) == {"paid", "free"}


def test_cached_tokens_are_priced_as_such_where_the_preset_says_so():
    tokens = TokenManager()
    assert tokens.track_usage("gpt-4o", 1_000_000, 0, 1_000_000) == pytest.approx(1.25)


def test_a_budget_of_money_holds():
    tokens = manager(Budget(limit_usd=0.02))
    tokens.check_budget("paid", 2000)
    tokens.track_usage("paid", 1500, 0)
    with pytest.raises(BudgetExceeded, match=r"'overall' has \$0.005000 of \$0.020000 left"):
        tokens.check_budget("paid", 1000)
    tokens.check_budget("paid", 500)
    tokens.track_usage("paid", 500, 0)
    with pytest.raises(BudgetExceeded):
        tokens.check_budget("paid")


def test_a_model_that_costs_nothing_may_be_called_without_money():
    tokens = manager(Budget(limit_usd=0.0))
    tokens.check_budget("free", 1000)
    with pytest.raises(BudgetExceeded):
        tokens.check_budget("paid", 1)


def test_a_budget_of_tokens_holds():
    tokens = manager(Budget(limit_tokens=100))
    tokens.track_usage("free", 60, 30)
    tokens.check_budget("free", 10)
    with pytest.raises(ResourceExhausted, match="10 of 100 tokens left; the call needs 11"):
        tokens.check_budget("free", 5, 6)


def test_a_budget_of_one_model_leaves_the_others_alone():
    tokens = manager(Budget(model="paid", limit_tokens=10), Budget(limit_tokens=1000))
    with pytest.raises(ResourceExhausted, match="model=paid"):
        tokens.check_budget("paid", 11)
    tokens.check_budget("free", 11)


def test_a_limit_may_be_changed_and_what_was_spent_counts_on():
    tokens = manager()
    tokens.set_budget(Budget(limit_tokens=100))
    tokens.track_usage("free", 90, 0)
    tokens.set_budget(Budget(limit_tokens=95))
    with pytest.raises(ResourceExhausted, match="5 of 95"):
        tokens.check_budget("free", 6)


def test_a_budget_with_a_period_begins_anew_and_says_when():
    now = [1000.0]
    tokens = manager(Budget(limit_usd=0.01, period_s=60), clock=lambda: now[0])
    tokens.track_usage("paid", 1000, 0)
    now[0] = 1059.0
    with pytest.raises(BudgetExceeded) as caught:
        tokens.check_budget("paid", 1)
    assert caught.value.problem.details["resets_at"] == 1060
    assert caught.value.problem.status == 429
    assert caught.value.problem.should_retry is False
    now[0] = 1060.0
    tokens.check_budget("paid", 1000)
    assert tokens.usage("paid").prompt_tokens == 1000


def test_what_is_reserved_counts_until_it_is_settled_or_released():
    tokens = manager(Budget(limit_tokens=100))
    first = tokens.reserve("free", 60)
    with pytest.raises(ResourceExhausted):
        tokens.reserve("free", 41)
    first.settle(20, 5)
    with tokens.reserve("free", 75), pytest.raises(ResourceExhausted):
        tokens.check_budget("free", 1)
    tokens.check_budget("free", 75)
    first.release()
    first.release()
    tokens.check_budget("free", 75)
    with pytest.raises(ResourceExhausted):
        tokens.check_budget("free", 76)


def test_a_limit_set_meanwhile_is_not_thrown_off_by_older_reservations():
    tokens = manager()
    old = tokens.reserve("free", 50)
    tokens.set_budget(Budget(limit_tokens=100))
    tokens.reserve("free", 60)
    old.release()
    with pytest.raises(ResourceExhausted):
        tokens.check_budget("free", 41)


@given(
    st.lists(
        st.tuples(st.integers(0, 400), st.integers(0, 400), st.sampled_from(["settle", "release", "keep"])),
        max_size=30,
    )
)
def test_a_budget_is_never_overspent_and_always_balances(calls):
    limit = 1000
    tokens = manager(Budget(limit_tokens=limit))
    open_tokens = spent = 0
    for prompt, completion, end in calls:
        try:
            reservation = tokens.reserve("free", prompt, completion)
        except ResourceExhausted:
            left = limit - spent - open_tokens
            assert prompt + completion > left or left <= 0
            continue
        if end == "settle":
            reservation.settle(prompt, completion)
            spent += prompt + completion
        elif end == "release":
            reservation.release()
        else:
            open_tokens += prompt + completion
        assert spent + open_tokens <= limit
    assert tokens.usage().total_tokens == spent


def test_threads_that_spend_at_once_never_overspend():
    tokens = manager(Budget(limit_usd=1.0))

    def work(_):
        done = 0
        for _ in range(40):
            try:
                with tokens.reserve("paid", 1000) as reservation:
                    reservation.settle(1000, 0)
                    done += 1
            except BudgetExceeded:
                pass
        return done

    with ThreadPoolExecutor(8) as pool:
        calls = sum(pool.map(work, range(8)))
    assert calls == 100
    assert tokens.usage().cost_usd == pytest.approx(1.0)
