"""Money: reserved, settled, given back; on both databases."""

import pytest
from attrs import evolve

from gatewright.accounting.spending import Window, WindowKind
from gatewright.api.facts import Usage
from gatewright.events import SpendRefused, SpendReserved
from gatewright.ids import RequestId
from gatewright_host.store import Store
from tests.host.store.stored import NOON_S, Clock, charge, ended, reserve, settle, use_of, written

MINUTE_S = 60.0
HOUR_S = 3600.0
DAY_S = 86_400.0


def test_what_is_reserved_is_not_left_for_others(store: Store) -> None:
    assert isinstance(reserve(store, "a", 0.6, charge()), SpendReserved)
    refused = reserve(store, "b", 0.5, charge())
    assert isinstance(refused, SpendRefused)
    assert refused.left_usd == 0.4
    assert not refused.is_rate
    assert isinstance(reserve(store, "c", 0.4, charge()), SpendReserved)
    assert use_of(store).reserved_usd == 1.0


def test_a_refusal_says_who_how_much_and_until_when(store: Store) -> None:
    settle(store, "a", 0.75, charge())
    refused = reserve(store, "b", 0.5, charge(account="monthly/key=ci"), charge())
    assert isinstance(refused, SpendRefused)
    problem = refused.problem
    assert (problem.status, problem.type, problem.code, problem.should_retry) == (
        429,
        "insufficient_quota",
        "insufficient_quota",
        False,
    )
    # 2026-02-01 00:00:00 UTC
    assert problem.details == {"budget": "monthly", "resets_at": 1_769_904_000}
    assert problem.message == (
        "Budget 'monthly' ($1.00 for the calendar month) does not allow it: $0.25 is left, and the call takes about "
        "$0.50; its window ends at 2026-02-01 00:00:00 UTC"
    )


def test_a_refusal_leaves_no_account_with_a_part(store: Store) -> None:
    wide, narrow = charge(10.0, "wide"), charge(0.1, "narrow")
    assert isinstance(reserve(store, "a", 0.5, wide, narrow), SpendRefused)
    assert use_of(store, "wide").reserved_usd == 0.0
    assert use_of(store, "narrow").reserved_usd == 0.0


def test_a_reservation_takes_the_place_of_the_request_s_earlier_one(store: Store) -> None:
    reserve(store, "a", 0.9, charge(), charge(5.0, "model/large"))
    assert isinstance(reserve(store, "a", 1.0, charge()), SpendReserved)
    assert use_of(store).reserved_usd == 1.0
    assert use_of(store, "model/large").reserved_usd == 0.0
    assert isinstance(reserve(store, "a", 1.1, charge()), SpendRefused)
    assert use_of(store).reserved_usd == 0.0


def test_settling_puts_the_cost_in_the_place_of_the_reservation(store: Store) -> None:
    reserve(store, "a", 0.5, charge())
    settle(store, "a", 0.2, charge(), usage=Usage(prompt_tokens=30, completion_tokens=12))
    use = use_of(store)
    assert (use.spent_usd, use.reserved_usd, use.requests, use.tokens) == (0.2, 0.0, 1, 42)
    assert use.left_usd == 0.8


def test_settling_twice_counts_once(store: Store) -> None:
    for _ in range(3):
        settle(store, "a", 0.2, charge())
    assert use_of(store).spent_usd == 0.2


def test_only_named_accounts_are_charged(store: Store) -> None:
    first, second = charge(account="model/a"), charge(account="model/b")
    reserve(store, "a", 0.5, first, second)
    record = {"charged_usd": {"model/b": 0.3}}

    store.write([written(evolve(ended("a", 0.3, first, second), **record))])
    assert use_of(store, "model/a").spent_usd == 0.0
    assert use_of(store, "model/b").spent_usd == 0.3
    assert use_of(store, "model/a").reserved_usd == 0.0


def test_a_release_gives_back_everything(store: Store) -> None:
    reserve(store, "a", 1.0, charge())
    store.release(RequestId("a"))
    assert use_of(store).left_usd == 1.0


def test_nothing_is_reserved_for_a_request_that_has_ended(store: Store) -> None:
    settle(store, "a", 0.2, charge())
    assert isinstance(reserve(store, "a", 0.5, charge()), SpendReserved)
    assert use_of(store).reserved_usd == 0.0


def test_what_costs_nothing_is_allowed_when_all_is_spent(store: Store) -> None:
    settle(store, "a", 5.0, charge())
    assert isinstance(reserve(store, "b", 0.0, charge()), SpendReserved)
    assert isinstance(reserve(store, "c", 1e-9, charge()), SpendRefused)


def test_a_soft_budget_warns_and_never_refuses(store: Store) -> None:
    soft = charge(hard=False, warn_at=0.5)
    assert reserve(store, "a", 0.4, soft).warnings == ()  # type: ignore[union-attr]
    assert reserve(store, "b", 0.1, soft).warnings == ("monthly: 50 % of $1.00 used",)  # type: ignore[union-attr]
    assert reserve(store, "c", 9.0, soft).warnings == ("monthly: over its limit of $1.00",)  # type: ignore[union-attr]


def test_a_call_that_is_larger_than_the_whole_budget_is_told_so(store: Store) -> None:
    refused = reserve(store, "a", 2.0, charge())
    assert isinstance(refused, SpendRefused)
    assert "$2.00, more than the whole budget" in refused.problem.message


@pytest.mark.parametrize(
    ("period", "ends_s"),
    [
        ("hour", NOON_S + HOUR_S),
        ("day", NOON_S + 12 * HOUR_S),
        ("week", NOON_S + 5 * DAY_S + 12 * HOUR_S),
        ("month", NOON_S + 25 * DAY_S + 12 * HOUR_S),
    ],
)
def test_a_calendar_window_begins_anew_at_its_end(
    store: Store, clock: Clock, period: str, ends_s: float
) -> None:
    budget = charge(period=period)
    settle(store, "a", 1.0, budget)
    use = use_of(store)
    assert use.ends_s == ends_s
    clock.now_s = ends_s - 1
    assert isinstance(reserve(store, "b", 0.1, budget), SpendRefused)
    clock.now_s = ends_s
    assert use_of(store).spent_usd == 0.0
    assert isinstance(reserve(store, "b", 1.0, budget), SpendReserved)


@pytest.mark.parametrize(
    ("period", "length_s"), [("hour", HOUR_S), ("day", DAY_S), ("week", 7 * DAY_S), ("month", 30 * DAY_S)]
)
def test_a_rolling_window_forgets_only_what_is_older(
    store: Store, clock: Clock, period: str, length_s: float
) -> None:
    budget = charge(period=period, rolling=True)
    settle(store, "a", 1.0, budget)
    clock.now_s = NOON_S + length_s - 1
    store.heartbeat()
    refused = reserve(store, "b", 0.1, budget)
    assert isinstance(refused, SpendRefused)
    resets_s = refused.problem.details["resets_at"]
    assert isinstance(resets_s, int)
    # No more than a bucket late, and not early.
    assert NOON_S + length_s <= resets_s <= NOON_S + length_s * (1 + 1 / 120)
    clock.now_s = resets_s + 1
    assert isinstance(reserve(store, "b", 1.0, budget), SpendReserved)


def test_a_rolling_window_tells_when_enough_of_it_has_expired(store: Store, clock: Clock) -> None:
    budget = charge(period="hour", rolling=True)
    for minute, cost in enumerate((0.25, 0.25, 0.5)):
        settle(store, f"r{minute}", cost, budget, at_s=NOON_S + 10 * minute * MINUTE_S)
    clock.now_s = NOON_S + 30 * MINUTE_S
    refused = reserve(store, "b", 0.5, budget)
    assert isinstance(refused, SpendRefused)
    assert refused.problem.details["resets_at"] == int(NOON_S + 70 * MINUTE_S + 30)


def test_changed_limits_count_at_once(store: Store) -> None:
    settle(store, "a", 0.9, charge(1.0))
    assert isinstance(reserve(store, "b", 0.5, charge(2.0)), SpendReserved)
    use = use_of(store)
    assert (use.limit_usd, use.window) == (2.0, Window(kind=WindowKind.CALENDAR, period="month"))
    assert isinstance(reserve(store, "c", 0.05, charge(1.0)), SpendRefused)


def test_what_was_spent_while_nobody_could_reserve_shows_up(store: Store) -> None:
    settle(store, "a", 0.7, charge())
    assert [use.account for use in store.budget_use()] == ["monthly"]


def test_amounts_are_whole_nano_dollars(store: Store) -> None:
    budget = charge(0.000_000_003)
    for name in "abc":
        assert isinstance(reserve(store, name, 0.000_000_000_4, budget), SpendReserved)
    assert isinstance(reserve(store, "d", 0.000_000_000_4, budget), SpendRefused)
    for name in "abc":
        settle(store, name, 0.000_000_001, budget)
    assert use_of(store).left_usd == pytest.approx(0.0, abs=1e-18)


def test_odd_amounts_do_no_harm(store: Store) -> None:
    settle(store, "a", float("nan"), charge())
    settle(store, "b", -5.0, charge())
    settle(store, "c", 1e30, charge(account="huge"))
    assert use_of(store).spent_usd == 0.0
    assert use_of(store, "huge").left_usd < 0


# --- the dead


def test_what_the_dead_have_reserved_comes_back_when_their_heartbeat_has_expired(
    url: str, store: Store, clock: Clock
) -> None:
    with Store.open(url, now=clock) as other:
        reserve(other, "a", 1.0, charge())
        clock.advance(14.0)
        assert isinstance(reserve(store, "b", 0.1, charge()), SpendRefused)
        clock.advance(2.0)
        assert isinstance(reserve(store, "b", 0.1, charge()), SpendReserved)


def test_a_heartbeat_keeps_what_is_reserved(url: str, store: Store, clock: Clock) -> None:
    with Store.open(url, now=clock) as other:
        reserve(other, "a", 1.0, charge())
        for _ in range(10):
            clock.advance(10.0)
            other.heartbeat()
        assert isinstance(reserve(store, "b", 0.1, charge()), SpendRefused)


def test_an_owner_that_comes_back_has_what_it_reserved(url: str, store: Store, clock: Clock) -> None:
    with Store.open(url, now=clock) as other:
        reserve(other, "a", 1.0, charge())
        clock.advance(60.0)
        store.clean_ledger()
        assert use_of(store).reserved_usd == 0.0
        other.heartbeat()
        assert use_of(store).reserved_usd == 1.0
        settle(other, "a", 0.3, charge())
    assert use_of(store).spent_usd == 0.3


def test_a_store_that_is_closed_gives_everything_back(url: str, store: Store, clock: Clock) -> None:
    other = Store.open(url, now=clock)
    reserve(other, "a", 1.0, charge())
    other.close()
    assert isinstance(reserve(store, "b", 1.0, charge()), SpendReserved)


def test_cleaning_forgets_what_counts_no_more(store: Store, clock: Clock) -> None:
    settle(store, "a", 0.5, charge())
    clock.advance(20 * DAY_S)
    store.clean_ledger()
    assert [use.account for use in store.budget_use()] == ["monthly"]
    clock.advance(20 * DAY_S)
    store.clean_ledger()
    assert store.budget_use() == ()
