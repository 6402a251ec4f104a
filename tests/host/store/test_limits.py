"""What a key may use in a minute."""

from attrs import evolve

from gatewright.accounting.spending import KeyFacts
from gatewright.api.facts import Usage
from gatewright.events import SpendRefused, SpendReserved
from gatewright_host.store import Store
from tests.host.store.stored import Clock, charge, ended, reserve, use_of, written

KEY = KeyFacts(key_id="key_1", name="ci", requests_per_minute=3)
TOKENS = KeyFacts(key_id="key_2", name="batch", tokens_per_minute=1000)


def refused(store: Store, request_id: str, key: KeyFacts, tokens: int = 0) -> SpendRefused:
    answer = reserve(store, request_id, 0.0, key=key, tokens=tokens)
    assert isinstance(answer, SpendRefused)
    assert answer.is_rate
    return answer


def allowed(store: Store, request_id: str, key: KeyFacts, tokens: int = 0) -> None:
    assert isinstance(reserve(store, request_id, 0.0, key=key, tokens=tokens), SpendReserved)


def test_requests_of_every_minute_are_limited(store: Store, clock: Clock) -> None:
    for number in range(3):
        allowed(store, f"r{number}", KEY)
        clock.advance(10.0)
    problem = refused(store, "late", KEY).problem
    assert (problem.status, problem.code, problem.retry_after_s) == (429, "rate_limit_exceeded", 30.0)
    assert problem.message == "API key 'ci' has made its 3 requests of this minute; try again later"
    clock.advance(29.9)
    assert refused(store, "late", KEY).problem.retry_after_s == 0.1
    clock.advance(0.1)
    allowed(store, "late", KEY)
    assert refused(store, "later", KEY).problem.retry_after_s == 10.0


def test_a_request_counts_once_however_often_it_is_looked_at(store: Store) -> None:
    for _ in range(5):
        allowed(store, "a", KEY)
    allowed(store, "b", KEY)
    allowed(store, "c", KEY)
    refused(store, "d", KEY)


def test_what_is_refused_does_not_count(store: Store, clock: Clock) -> None:
    for number in range(3):
        allowed(store, f"r{number}", KEY)
    for number in range(20):
        refused(store, f"x{number}", KEY)
    clock.advance(60.0)
    allowed(store, "a", KEY)


def test_a_request_counts_though_a_budget_refuses_it(store: Store) -> None:
    key = evolve(KEY, requests_per_minute=1)
    answer = reserve(store, "a", 5.0, charge(1.0), key=key)
    assert isinstance(answer, SpendRefused)
    assert not answer.is_rate
    # A cheaper model is tried for the same request, without its key.
    assert isinstance(reserve(store, "a", 0.5, charge(1.0)), SpendReserved)
    refused(store, "b", key)


def test_a_rate_limit_comes_before_the_money(store: Store) -> None:
    allowed(store, "a", evolve(KEY, requests_per_minute=1))
    answer = reserve(store, "b", 0.5, charge(1.0), key=evolve(KEY, requests_per_minute=1))
    assert isinstance(answer, SpendRefused)
    assert answer.is_rate
    assert store.budget_use() == ()


def test_keys_do_not_share_their_limits(store: Store) -> None:
    for number in range(3):
        allowed(store, f"r{number}", KEY)
    allowed(store, "a", evolve(KEY, key_id="key_9"))


def test_tokens_of_every_minute_are_limited(store: Store, clock: Clock) -> None:
    allowed(store, "a", TOKENS, 600)
    clock.advance(20.0)
    allowed(store, "b", TOKENS, 300)
    problem = refused(store, "c", TOKENS, 200).problem
    assert problem.retry_after_s == 40.0
    assert (
        "has used 900 of its 1000 tokens of this minute, and the request takes about 200" in problem.message
    )
    assert refused(store, "c", TOKENS, 800).problem.retry_after_s == 60.0
    allowed(store, "c", TOKENS, 100)


def test_actual_tokens_take_the_place_of_the_estimate(store: Store) -> None:
    allowed(store, "a", TOKENS, 900)
    record = ended("a", key_id="key_2", attempts=1, usage=Usage(prompt_tokens=50, completion_tokens=50))
    store.write([written(record)])
    allowed(store, "b", TOKENS, 900)
    refused(store, "c", TOKENS, 1)


def test_a_request_that_called_nobody_took_no_tokens(store: Store) -> None:
    allowed(store, "a", TOKENS, 900)
    store.write([written(ended("a", key_id="key_2", attempts=0))])
    allowed(store, "b", TOKENS, 1000)


def test_another_model_s_estimate_takes_the_place_of_the_first(store: Store) -> None:
    assert isinstance(reserve(store, "a", 0.1, charge(), key=TOKENS, tokens=900), SpendReserved)
    assert isinstance(reserve(store, "a", 0.1, charge(), tokens=100), SpendReserved)
    allowed(store, "b", TOKENS, 900)
    assert use_of(store).reserved_usd == 0.1


def test_a_request_larger_than_a_minute_allows_is_told_not_to_come_again(store: Store) -> None:
    problem = refused(store, "a", TOKENS, 1001).problem
    assert (problem.should_retry, problem.retry_after_s) == (False, None)
    assert "more than the 1000 that API key 'batch' may use in a minute" in problem.message
    allowed(store, "b", TOKENS, 1000)


def test_more_tokens_than_a_number_of_the_database_holds_are_counted_and_refused(store: Store) -> None:
    key = evolve(KEY, requests_per_minute=2)
    allowed(store, "a", key, 10**30)
    reserve(store, "a", 0.5, charge(), tokens=10**30)
    allowed(store, "b", key, 10**30)
    assert "has made its 2 requests" in refused(store, "c", key).problem.message
