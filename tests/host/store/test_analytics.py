"""What reports are made of, over rows whose figures were worked out by hand."""

from typing import Any

import pytest
from sqlalchemy import insert

from gatewright.accounting.experiments import report
from gatewright.route_config import ArmConfig, ExperimentConfig
from gatewright_host.store import Store, analytics, analytics_ranking, tables
from gatewright_host.store.analytics import By, UsageRow, usage_rows
from gatewright_host.store.analytics_comparison import comparison_rows, value_rows
from gatewright_host.store.analytics_estimators import calibration_rows, estimator_rows
from gatewright_host.store.analytics_experiments import experiment_book
from gatewright_host.store.analytics_ranking import ranking_rows
from gatewright_host.store.analytics_sql import Slice, wilson_interval

DAY_S = 86_400.0
FIRST_DAY_S = 1_767_225_600.0
"""2026-01-01, 00:00 UTC."""


class Rows:
    """A store that is filled by hand."""

    def __init__(self, store: Store) -> None:
        self.reading = store.reading
        self._writing = store._database.writing
        self._number = 0

    def request(self, **fields: Any) -> str:
        self._number += 1
        row: dict[str, Any] = {
            "request_id": f"req_{self._number}",
            "at_s": FIRST_DAY_S,
            "writer": "w",
            "path": "/v1/chat/completions",
            "outcome": "answered",
            "status": 200,
            "model": "small",
            "task": "",
            "attempts": 1,
            "failed": 0,
            "wait_s": 0.0,
            "total_s": 1.0,
            "select_s": 0.0,
            "estimated_cost_nano": 0,
            "cost_nano": 0,
        }
        with self._writing() as connection:
            connection.execute(insert(tables.requests).values(row | fields))
        return str((row | fields)["request_id"])

    def outcome(self, request_id: str, **fields: Any) -> None:
        row: dict[str, Any] = {
            "request_id": request_id,
            "writer": "w",
            "at_s": FIRST_DAY_S,
            "model": "small",
            "success": True,
            "task": "",
            "completion_tokens": 0,
            "cost_nano": 0,
            "is_available": True,
            "propensity": 1.0,
            "sequence": 0,
        }
        with self._writing() as connection:
            connection.execute(insert(tables.outcomes).values(row | fields))

    def feedback(self, request_id: str, *, score: float, at_s: float) -> None:
        row = {"request_id": request_id, "score": score, "at_s": at_s, "by": "user", "comment": ""}
        with self._writing() as connection:
            connection.execute(insert(tables.feedback).values(row))

    def asked(self, *, quality: bool, model: str = "small", **fields: Any) -> None:
        """A request with the outcome of one model."""
        of_both = {name: fields[name] for name in ("task", "complexity", "at_s") if name in fields}
        scored = {
            name: fields.pop(name)
            for name in list(fields)
            if name not in {*of_both, "propensity", "cost_nano"}
        }
        request_id = self.request(model=model, chosen=model, **of_both, **scored)
        self.outcome(request_id, model=model, success=quality, **fields)


@pytest.fixture
def rows(store: Store) -> Rows:
    return Rows(store)


def test_an_empty_store_has_no_rows(rows: Rows) -> None:
    assert usage_rows(rows) == ()
    assert usage_rows(rows, By.MODEL) == ()
    assert ranking_rows(rows) == ()
    assert comparison_rows(rows) == ()
    assert value_rows(rows) == ()
    assert estimator_rows(rows) == ()
    assert calibration_rows(rows) == ()


def test_sums_over_all_requests(rows: Rows) -> None:
    rows.request(
        prompt_tokens=100,
        completion_tokens=20,
        cached_tokens=60,
        cost_nano=3_000_000,
        estimated_cost_nano=2_000_000,
    )
    rows.request(
        prompt_tokens=50, completion_tokens=5, cached_tokens=0, cost_nano=1_000_000, outcome="broke_off"
    )
    rows.request(outcome="failed", status=503)
    rows.request(outcome="upstream_error", status=400)
    rows.request(outcome="canceled", status=0)
    (row,) = usage_rows(rows)
    assert (row.group, row.requests, row.errors, row.canceled) == ((), 5, 3, 1)
    assert (row.prompt_tokens, row.completion_tokens, row.cached_tokens) == (150, 25, 60)
    assert (row.cost_usd, row.estimated_cost_usd) == (0.004, 0.002)
    assert row.error_rate == pytest.approx(0.6)


def test_percentiles_are_those_of_answered_requests_by_nearest_rank(rows: Rows) -> None:
    for number in range(1, 41):
        rows.request(total_s=float(number), first_byte_s=number / 10)
    rows.request(total_s=1000.0, first_byte_s=None, outcome="failed")
    (row,) = usage_rows(rows)
    assert (row.latency_p50_ms, row.latency_p95_ms) == (20_000.0, 38_000.0)
    assert (row.first_byte_p50_ms, row.first_byte_p95_ms) == (2000.0, 3800.0)


def test_times_of_a_group_without_answers_are_unknown(rows: Rows) -> None:
    rows.request(outcome="failed", first_byte_s=None)
    (row,) = usage_rows(rows)
    assert (row.latency_p50_ms, row.latency_p95_ms, row.first_byte_p50_ms, row.select_mean_ms) == (None,) * 4


def test_selection_time_counts_where_a_model_was_chosen(rows: Rows) -> None:
    rows.request(decision_json="{}", select_s=0.002)
    rows.request(decision_json="{}", select_s=0.004)
    rows.request(select_s=0.0)
    (row,) = usage_rows(rows)
    assert row.decided == 2
    assert row.select_mean_ms == pytest.approx(3.0)
    assert row.select_p95_ms == pytest.approx(4.0)


def test_a_fallback_is_another_model_than_the_choice_or_several_that_were_asked(rows: Rows) -> None:
    rows.request(chosen="small", model="large", failed=1)
    rows.request(chosen="small", model="large", failed=2, outcome="failed")
    rows.request(chosen="small", model="small", failed=1)  # a retry
    named = rows.request(chosen=None, model="large", failed=1)  # named, with fallbacks of its own
    rows.outcome(named, model="small", success=False)
    rows.outcome(named, model="large")
    rows.request(chosen=None, model=None, outcome="failed")
    (row,) = usage_rows(rows)
    assert (row.requests, row.fallbacks, row.fallback_successes) == (5, 3, 2)
    assert row.fallback_rate == pytest.approx(0.6)


def test_groups_are_told_apart_and_the_most_expensive_comes_first(rows: Rows) -> None:
    rows.request(model="small", key_id="k1", cost_nano=5)
    rows.request(model="large", key_id="k1", cost_nano=10)
    rows.request(model="large", key_id=None, cost_nano=1)
    rows.request(model=None, outcome="failed")
    assert [row.group for row in usage_rows(rows, By.MODEL)] == [("large",), ("small",), ("",)]
    by_both = usage_rows(rows, (By.KEY, By.MODEL))
    assert [row.group for row in by_both] == [("k1", "large"), ("k1", "small"), ("", "large"), ("", "")]
    assert [row.group for row in usage_rows(rows, By.MODEL, limit=1)] == [("large",)]


def test_time_is_cut_in_utc_and_in_its_order(rows: Rows) -> None:
    rows.request(at_s=FIRST_DAY_S + DAY_S - 0.0001, cost_nano=1)  # rounds up to the next day
    rows.request(at_s=FIRST_DAY_S + DAY_S, cost_nano=9)
    rows.request(at_s=FIRST_DAY_S - 1)
    labels = {by: [row.group[0] for row in usage_rows(rows, by)] for by in (By.HOUR, By.DAY, By.MONTH)}
    assert labels == {
        By.HOUR: ["2025-12-31T23:00", "2026-01-01T23:00", "2026-01-02T00:00"],
        By.DAY: ["2025-12-31", "2026-01-01", "2026-01-02"],
        By.MONTH: ["2025-12", "2026-01"],
    }


def test_a_slice_holds_what_it_says(rows: Rows) -> None:
    rows.request(at_s=FIRST_DAY_S, route="auto", key_id="k1", task="sum", user="u")
    rows.request(at_s=FIRST_DAY_S + 10, route="cheap", key_id="k2", task="code", user="v")

    def number(since_s: float | None = None, until_s: float | None = None, **conditions: Any) -> int:
        return sum(row.requests for row in usage_rows(rows, (), since_s, until_s, within=Slice(**conditions)))

    assert number(FIRST_DAY_S) == 2
    assert number(FIRST_DAY_S + 1) == 1
    assert number(None, FIRST_DAY_S + 10) == 1, "its end is not part of it"
    assert number(route="auto") == number(key_id="k1") == number(task="sum") == number(user="u") == 1
    assert number(route="auto", key_id="k2") == 0
    assert number(model="small") == 2


# --- ranking


def test_ranking_counts_what_came_of_the_calls(rows: Rows) -> None:
    for success in (True, True, True, False):
        rows.outcome(
            "none", task="code", model="large", success=success, latency_ms=200.0, cost_nano=1_000_000_000
        )
    rows.outcome("none", task="code", model="large", success=False, is_available=False, cost_nano=0)
    rows.outcome("none", task="code", model="small", success=True, latency_ms=50.0, first_token_ms=10.0)
    large, small = sorted(ranking_rows(rows), key=lambda row: row.model)
    assert (large.task, large.calls, large.success_rate, large.unavailable) == ("code", 4, 0.75, 1)
    assert large.cost_usd == 4.0
    assert large.cost_per_call_usd == pytest.approx(0.8)
    assert (large.latency_mean_ms, large.latency_p50_ms, large.first_token_p50_ms) == (200.0, 200.0, None)
    assert (large.low, large.high) == pytest.approx((0.3006, 0.9544), abs=1e-4)
    assert (small.calls, small.success_rate, small.latency_p95_ms, small.first_token_p50_ms) == (
        1,
        1.0,
        50.0,
        10.0,
    )


def test_the_surest_comes_first_and_a_single_success_does_not(rows: Rows) -> None:
    for number in range(20):
        rows.outcome("none", model="proven", success=number > 0)
    rows.outcome("none", model="lucky")
    assert [row.model for row in ranking_rows(rows)] == ["proven", "lucky"]
    assert [row.model for row in ranking_rows(rows, min_calls=2)] == ["proven"]


def test_tasks_are_told_apart_or_taken_together(rows: Rows) -> None:
    rows.outcome("none", task="code", success=False)
    rows.outcome("none", task="sum")
    assert [(row.task, row.success_rate) for row in ranking_rows(rows)] == [("code", 0.0), ("sum", 1.0)]
    assert [row.task for row in ranking_rows(rows, "sum")] == ["sum"]
    (row,) = ranking_rows(rows, together=True)
    assert (row.task, row.calls, row.success_rate) == ("", 2, 0.5)


def test_feedback_says_how_good_the_answer_was_and_not_those_who_failed_before(rows: Rows) -> None:
    request_id = rows.request(model="large", feedback_score=0.25)
    rows.outcome(request_id, model="small", success=True)
    rows.outcome(request_id, model="large", success=True)
    rates = {row.model: (row.success_rate, row.rated) for row in ranking_rows(rows)}
    assert rates == {"large": (0.25, 1), "small": (1.0, 0)}


def test_feedback_is_about_the_call_that_gave_the_answer(rows: Rows) -> None:
    request_id = rows.request(model="small", feedback_score=1.0, failed=1)
    rows.outcome(request_id, success=False)
    rows.outcome(request_id, success=True, sequence=1)
    (row,) = ranking_rows(rows)
    assert (row.calls, row.success_rate, row.rated) == (2, 0.5, 1)


def test_wilson_interval_of_known_figures() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(9, 10) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    low, high = wilson_interval(0, 10)
    assert (low, high) == pytest.approx((0.0, 0.2775), abs=1e-4)


# --- comparison


def test_models_are_compared_on_work_of_the_same_kind(rows: Rows) -> None:
    # The large one gets the hard work and looks worse altogether: 11 of 20 against 17 of 20.
    for number in range(16):
        rows.outcome("none", model="large", complexity="expert", success=number < 8)
        rows.outcome("none", model="small", complexity="trivial", success=number < 16)
    for number in range(4):
        rows.outcome("none", model="large", complexity="trivial", success=number < 3)
        rows.outcome("none", model="small", complexity="expert", success=number < 1)
    (row,) = comparison_rows(rows)
    assert (row.first, row.second, row.kinds, row.first_calls, row.second_calls) == (
        "large",
        "small",
        2,
        20,
        20,
    )
    # Both kinds weigh 16 * 4 / 20: the mean of 1/2 and 3/4, and of 1/4 and 1.
    assert row.first_success == pytest.approx(0.625)
    assert row.second_success == pytest.approx(0.625)
    assert row.difference == pytest.approx(0.0)
    assert row.low < 0.0 < row.high
    assert not row.is_weighed


def test_outcomes_weigh_by_how_unlikely_their_choice_was(rows: Rows) -> None:
    for success, propensity in ((True, 0.5), (False, 1.0), (False, 1.0)):
        rows.outcome("none", model="a", success=success, propensity=propensity)
    rows.outcome("none", model="b", success=True, propensity=0.001)
    (row,) = comparison_rows(rows, min_calls=1)
    assert row.first_success == pytest.approx(2 / 4)
    assert row.is_weighed
    assert row.difference == pytest.approx(-0.5)
    assert -1.0 <= row.low < -0.5 < row.high <= 1.0


def test_models_without_work_in_common_are_not_compared(rows: Rows) -> None:
    rows.outcome("none", model="a", task="code")
    rows.outcome("none", model="b", task="sum")
    assert comparison_rows(rows, min_calls=1) == ()
    rows.outcome("none", model="b", task="code", is_available=False)
    assert comparison_rows(rows, min_calls=1) == (), "one that cannot be reached did no work"


def test_calls_that_followed_a_failure_were_not_chosen(rows: Rows) -> None:
    rows.outcome("none", model="a")
    rows.outcome("none", model="b")
    rows.outcome("none", model="b", success=False, sequence=1)
    (row,) = comparison_rows(rows, min_calls=1)
    assert (row.second_calls, row.second_success) == (1, 1.0)


def test_a_clear_difference_is_seen_and_comes_with_costs(rows: Rows) -> None:
    for number in range(100):
        rows.outcome("none", model="a", success=number % 10 > 0, cost_nano=2_000_000, latency_ms=100.0)
        rows.outcome("none", model="b", success=number % 10 > 4, cost_nano=1_000_000, latency_ms=40.0)
    (row,) = comparison_rows(rows)
    assert row.difference == pytest.approx(0.4)
    assert row.low > 0.25
    assert (row.first_cost_usd, row.second_cost_usd) == pytest.approx((0.002, 0.001))
    assert (row.first_latency_ms, row.second_latency_ms) == pytest.approx((100.0, 40.0))
    assert comparison_rows(rows, models=["a"]) == ()


def test_a_models_value_is_that_with_all_requests(rows: Rows) -> None:
    # Of ten hard and ten easy requests the large one had eight and two; it does 3/4 of the hard ones, all easy ones.
    for number in range(8):
        rows.outcome("none", model="large", propensity=0.8, success=number < 6, cost_nano=1_000_000)
    for _ in range(2):
        rows.outcome("none", model="large", propensity=0.2, cost_nano=1_000_000)
    for propensity in (0.2, 0.2, *[0.8] * 8):
        rows.outcome("none", model="small", propensity=propensity, success=propensity > 0.5)
    large, small = value_rows(rows)
    assert (large.model, large.requests, large.observed) == ("large", 10, 0.8)
    assert large.success == pytest.approx((6 / 0.8 + 2 / 0.2) / 20)
    assert large.coverage == pytest.approx(1.0)
    assert (small.observed, small.success) == pytest.approx((0.8, 0.5))
    assert large.cost_usd == pytest.approx(0.001)


# --- estimators


def test_auroc_counts_pairs_in_the_right_order(rows: Rows) -> None:
    for score, success in ((0.9, False), (0.4, False), (0.4, True), (0.2, True), (0.6, True)):
        rows.asked(quality=success, estimator="heuristic", complexity_score=score, prompt_tokens=7)
    (row,) = estimator_rows(rows)
    assert (row.estimator, row.requests, row.failures, row.pairs) == ("heuristic", 5, 2, 6)
    # 0.9 wins three pairs; 0.4 wins one, ties one, loses one.
    assert row.auroc == pytest.approx(4.5 / 6)
    assert row.length_auroc == pytest.approx(0.5), "all are of one length"
    assert row.low is not None
    assert row.high is not None
    assert 0.0 <= row.low < row.auroc < row.high <= 1.0


def test_requests_of_different_models_are_no_pair(rows: Rows) -> None:
    # The hard ones went to a model that does them, the easy ones to one that fails: over all it looks upside down.
    for score, success in ((0.9, False), (0.8, True)):
        rows.asked(
            quality=success, model="large", estimator="heuristic", complexity_score=score, prompt_tokens=1
        )
    for score, success in ((0.3, False), (0.1, True)):
        rows.asked(
            quality=success, model="small", estimator="heuristic", complexity_score=score, prompt_tokens=1
        )
    (row,) = estimator_rows(rows)
    assert (row.pairs, row.auroc) == (2, 1.0)


def test_without_failures_nothing_can_be_said(rows: Rows) -> None:
    rows.asked(quality=True, estimator="model", complexity_score=0.5)
    (row,) = estimator_rows(rows)
    assert (row.requests, row.failures, row.auroc, row.low, row.length_auroc) == (1, 0, None, None, None)


def test_what_the_first_choice_did_counts_and_not_the_fallback(rows: Rows) -> None:
    request_id = rows.request(
        chosen="small", model="large", estimator="heuristic", complexity_score=0.5, failed=1
    )
    rows.outcome(request_id, model="small", success=False)
    rows.outcome(request_id, model="large", success=True, sequence=1)
    (row,) = estimator_rows(rows)
    assert (row.requests, row.failures) == (1, 1)


def test_calibration_is_by_level_from_the_easiest(rows: Rows) -> None:
    for complexity, score, success in (
        ("expert", 0.9, False),
        ("expert", 0.7, True),
        ("trivial", 0.1, True),
        ("moderate", 0.5, True),
    ):
        rows.asked(quality=success, estimator="heuristic", complexity=complexity, complexity_score=score)
    found = calibration_rows(rows)
    assert [(row.complexity, row.requests, row.success_rate) for row in found] == [
        ("trivial", 1, 1.0),
        ("moderate", 1, 1.0),
        ("expert", 2, 0.5),
    ]
    assert found[-1].mean_score == pytest.approx(0.8)
    assert found[-1].low < 0.5 < found[-1].high


def test_rows_of_nothing_have_rates() -> None:
    row = UsageRow(group=(), requests=0)
    assert (row.error_rate, row.fallback_rate) == (0.0, 0.0)


# --- experiments


def test_an_experiments_book_holds_its_outcomes_and_what_was_said_of_them(rows: Rows) -> None:
    arms = (ArmConfig(name="control", share=0.5), ArmConfig(name="terse", share=0.5))
    experiment = ExperimentConfig(name="words", arms=arms)
    for number in range(12):
        arm = "terse" if number % 3 == 0 else "control"
        request_id = rows.request(model="small", experiment="words", arm=arm)
        rows.outcome(request_id, experiment="words", arm=arm, at_s=FIRST_DAY_S + number, cost_nano=2_000_000)
    rows.outcome("other", experiment="others", arm="control")
    rows.feedback("req_1", score=0.0, at_s=FIRST_DAY_S + 30 * DAY_S)  # of terse, and late
    found = report(experiment, experiment_book(rows, "words"), None)
    control, terse = found.arms
    assert (control.requests, control.success) == (8, 1.0)
    assert (terse.requests, terse.success) == (4, 0.75)
    assert terse.mean_cost_usd == pytest.approx(0.002)


def test_an_experiment_without_outcomes_has_an_empty_book(rows: Rows) -> None:
    assert experiment_book(rows, "words").arm("words", "control").requests == 0


def test_however_many_users_and_tasks_clients_make_up_there_is_a_bound(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analytics, "MOST_ROWS", 3)
    monkeypatch.setattr(analytics_ranking, "MOST_TASKS", 2)
    for number in range(6):
        request = rows.request(user=f"u{number}", task=f"t{number}", cost_nano=number * 1_000_000_000)
        for _ in range(number + 1):
            rows.outcome(request, task=f"t{number}")
    assert [row.group for row in usage_rows(rows, By.USER)] == [("u5",), ("u4",), ("u3",)]
    assert [row.group for row in usage_rows(rows, By.USER, limit=2)] == [("u5",), ("u4",)]
    assert usage_rows(rows, By.USER)[0].latency_p50_ms == 1000.0
    assert len(usage_rows(rows, (By.DAY, By.USER), limit=5)) == 3
    assert [row.task for row in ranking_rows(rows)] == ["t4", "t5"]
    assert [row.task for row in ranking_rows(rows, task="t1")] == ["t1"]
    assert [row.task for row in ranking_rows(rows, within=Slice(user="u2"))] == ["t2"]
    (together,) = ranking_rows(rows, together=True)
    assert together.calls == 21
