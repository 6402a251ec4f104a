"""What is written down of requests, and read again."""

import pytest
from attrs import evolve
from sqlalchemy import func, select

from gatewright.accounting.outcomes import Feedback, ModelOutcome
from gatewright.api.facts import Usage
from gatewright.commands import Outcome
from gatewright.errors import FailedAttempt, UpstreamBroke
from gatewright.selection.complexity import TaskComplexity
from gatewright.selection.decision import Decision
from gatewright_host.store import Missing, Store, tables
from tests.host.store.stored import NOON_S, Clock, charge, ended, settle, use_of, written

DAY_S = 86_400.0
OUTCOME = ModelOutcome(
    request_id="req_1",
    model="large",
    success=True,
    at=500.0,
    task="review",
    complexity=TaskComplexity.COMPLEX,
    latency_ms=812.5,
    first_token_ms=90.0,
    completion_tokens=210,
    cost_usd=0.004,
    score=0.75,
    propensity=0.5,
    experiment="prompts",
    arm="short",
    sequence=1,
    unit="u1",
)
FULL = ended(
    "req_1",
    0.005,
    model="large",
    context_tokens=8192,
    status=200,
    attempts=2,
    wait_s=0.5,
    first_byte_s=0.7,
    total_s=2.25,
    usage=Usage(prompt_tokens=100, completion_tokens=210, cached_tokens=64),
    finish_reason="stop",
    problem=UpstreamBroke("it broke").problem,
    failed_attempts=(
        FailedAttempt(model="small", kind="UpstreamTimeout", message="silent", upstream_status=504),
    ),
    route="auto",
    decision=Decision(
        chain=("small", "large"),
        route="auto",
        complexity=TaskComplexity.COMPLEX,
        complexity_score=0.7,
        estimator="heuristic",
        score=0.9,
        confidence=0.4,
        reason="best",
        relaxed=("latency",),
        experiment="prompts",
        arm="short",
        considered=2,
    ),
    task="review",
    complexity=TaskComplexity.COMPLEX,
    key_id="key_1",
    user="ann",
    estimated_cost_usd=0.006,
    outcomes=(evolve(OUTCOME, model="small", success=False, is_available=False, sequence=0), OUTCOME),
    select_s=0.001,
)


def count(store: Store, table: str) -> int:
    with store.reading() as connection:
        return connection.execute(
            select(func.count()).select_from(tables.metadata.tables[table])
        ).scalar_one()


def test_everything_that_was_written_is_read_again(store: Store) -> None:
    store.write([written(FULL, NOON_S, epoch_s=NOON_S - 600, prompt="Look at this.")])
    found = store.find_request("req_1")
    assert found is not None
    expected = evolve(
        FULL, outcomes=tuple(evolve(each, at=NOON_S - 100) for each in FULL.outcomes), charged_usd={}
    )
    assert found.record == expected
    assert (found.at_s, found.prompt, found.feedback) == (NOON_S, "Look at this.", ())


def test_the_least_that_a_record_says_is_enough(store: Store) -> None:
    record = ended("req_1", outcome=Outcome.CANCELED)
    store.write([written(record)])
    found = store.find_request("req_1")
    assert found is not None
    assert (found.record, found.prompt) == (record, None)
    assert store.find_request("req_2") is None


def test_a_batch_that_is_written_twice_is_there_once(store: Store) -> None:
    batch = [written(evolve(FULL, request_id=f"req_{number}")) for number in range(300)]
    store.write(batch[:200])
    store.write(batch)
    store.write([])
    assert count(store, "requests") == 300
    assert count(store, "outcomes") == 600


def test_texts_that_databases_refuse_are_mended(store: Store) -> None:
    record = evolve(
        FULL,
        user="a\0b",
        finish_reason="\ud800",
        failed_attempts=(FailedAttempt(model="m", kind="k", message="\udfff\0"),),
        usage=Usage(prompt_tokens=2**90, completion_tokens=-(2**90), cached_tokens=0),
    )
    store.write([written(record, prompt="x\0y\ud83d")])
    found = store.find_request("req_1")
    assert found is not None
    assert (found.record.user, found.record.finish_reason, found.prompt) == (
        "a\N{REPLACEMENT CHARACTER}b",
        "?",
        "x\N{REPLACEMENT CHARACTER}y?",
    )
    assert found.record.usage == Usage(prompt_tokens=2**62, completion_tokens=-(2**62))


def test_feedback_is_kept_in_its_order_and_the_latest_counts(store: Store) -> None:
    store.write([written(FULL)])
    first = Feedback(request_id="req_1", score=0.0, at=NOON_S + 1, by="judge", comment="wrong\0")
    second = Feedback(request_id="req_1", score=1.0, at=NOON_S + 2)
    store.add_feedback(first)
    store.add_feedback(second)
    found = store.find_request("req_1")
    assert found is not None
    assert found.feedback == (evolve(first, comment="wrong\N{REPLACEMENT CHARACTER}"), second)
    with store.reading() as connection:
        assert connection.execute(select(tables.requests.c.feedback_score)).scalar_one() == 1.0


def test_a_judges_word_does_not_take_the_place_of_a_persons(store: Store) -> None:
    store.write([written(FULL)])
    for said, counts in (
        (("judge", 0.2), 0.2),
        (("user", 0.9), 0.9),
        (("judge", 0.1), 0.9),
        (("user", 0.4), 0.4),
    ):
        store.add_feedback(Feedback(request_id="req_1", score=said[1], at=NOON_S, by=said[0]))
        with store.reading() as connection:
            assert connection.execute(select(tables.requests.c.feedback_score)).scalar_one() == counts


def test_feedback_on_a_request_that_nobody_knows_is_refused(store: Store) -> None:
    with pytest.raises(Missing, match="no request 'req_9' was written down"):
        store.add_feedback(Feedback(request_id="req_9", score=1.0, at=NOON_S))
    assert count(store, "feedback") == 0


def test_old_records_are_deleted_a_few_at_a_time_and_money_stays(store: Store, clock: Clock) -> None:
    budget = charge()
    for number in range(5):
        record = evolve(FULL, request_id=f"old_{number}", outcomes=(evolve(OUTCOME, at=0.0),))
        store.write([written(record, NOON_S - 3 * DAY_S, epoch_s=NOON_S - 3 * DAY_S)])
    store.add_feedback(Feedback(request_id="old_1", score=1.0, at=NOON_S - 2.5 * DAY_S))
    settle(store, "old_paid", 0.5, budget, at_s=NOON_S - 2.5 * DAY_S)
    settle(store, "new", 0.1, budget)
    before_s = NOON_S - 2 * DAY_S
    assert store.delete_before(before_s, limit=4) == 4 + 4 + 1
    assert store.delete_before(before_s, limit=4) == 2 + 1
    assert store.delete_before(before_s, limit=4) == 0
    assert [count(store, table) for table in ("requests", "outcomes", "feedback")] == [1, 0, 0]
    assert use_of(store).spent_usd == pytest.approx(0.6)
