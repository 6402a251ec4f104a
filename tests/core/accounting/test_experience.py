import math

import pytest

from gatewright.accounting.experience import HALF_LIFE_S, STRENGTH, Experience, Performance
from gatewright.accounting.pooling import CERTAIN
from gatewright.selection.complexity import TaskComplexity
from tests.core.accounting.build import DAY_S, feedback, outcome

EASY, HARD = TaskComplexity.SIMPLE, TaskComplexity.EXPERT


def mean(
    experience: Experience, task: str = "", complexity: TaskComplexity | None = None, now: float = 0.0
) -> float:
    return experience.success("m", task, complexity, 0.7, now).mean


def test_without_outcomes_the_prior_is_believed() -> None:
    belief = Experience().success("m", "sort", EASY, 0.7, 0.0)
    assert belief.mean == pytest.approx(0.7)
    assert belief.alpha + belief.beta == pytest.approx(STRENGTH)
    assert belief.evidence == 0


@pytest.mark.parametrize("prior", [0.0, 1.0, -3.0, 7.0])
def test_no_prior_is_so_certain_that_nothing_could_be_learnt(prior: float) -> None:
    belief = Experience().success("m", "", None, prior, 0.0)
    assert CERTAIN <= belief.mean <= 1 - CERTAIN


def test_each_outcome_counts_once_at_whichever_level_it_stands() -> None:
    experience = Experience()
    experience.learn(outcome(task="sort", complexity=EASY))
    for task, complexity in (("", EASY), ("sort", EASY)):
        assert mean(experience, task, complexity) == pytest.approx((6 * 0.7 + 1) / 7)
    experience = Experience()
    experience.learn(outcome(task="sort"))
    for task in ("", "sort"):
        assert mean(experience, task) == pytest.approx((6 * 0.7 + 1) / 7)


def test_what_was_learnt_elsewhere_is_where_a_finer_level_begins() -> None:
    experience = Experience()
    for number in range(1000):
        experience.learn(outcome(number, success=False, task="sort", complexity=EASY))
    known = mean(experience, "sort", EASY)
    other_task = mean(experience, "merge", EASY)
    assert known < 0.01
    assert other_task == pytest.approx(mean(experience, "", EASY))
    assert experience.success("n", "sort", EASY, 0.7, 0.0).mean == pytest.approx(0.7)
    # But it is soon overruled.
    for number in range(1000, 1020):
        experience.learn(outcome(number, task="merge", complexity=EASY))
    assert mean(experience, "merge", EASY) > 0.7
    assert mean(experience, "sort", EASY) < 0.05


def test_a_task_that_was_never_tried_is_as_uncertain_as_the_strength_says() -> None:
    experience = Experience()
    for number in range(1000):
        experience.learn(outcome(number, task="sort", complexity=EASY))
    belief = experience.success("m", "merge", EASY, 0.7, 0.0)
    assert belief.alpha + belief.beta == pytest.approx(STRENGTH)
    assert 0 < belief.evidence < STRENGTH
    assert experience.success("m", "sort", EASY, 0.7, 0.0).evidence == pytest.approx(1000)


def test_outcomes_without_a_complexity_count_for_task_and_model() -> None:
    experience = Experience()
    experience.learn(outcome(task="sort"))
    assert mean(experience, "sort") > 0.7
    # Middling difficulty is harder than easy, so a success says a little more.
    assert mean(experience, "sort", EASY) > mean(experience, "sort")


def test_easy_tasks_done_well_say_little_of_hard_ones() -> None:
    experience = Experience()
    for number in range(300):
        experience.learn(outcome(number, complexity=TaskComplexity.TRIVIAL, success=number % 20 != 0))
    assert experience.success("m", "", TaskComplexity.TRIVIAL, 0.9, 0.0).mean == pytest.approx(0.95, abs=0.01)
    assert experience.success("m", "", HARD, 0.13, 0.0).mean < 0.6


def test_hard_tasks_done_well_say_much_of_easy_ones() -> None:
    experience = Experience()
    for number in range(100):
        experience.learn(outcome(number, complexity=HARD, success=number % 2 == 0))
    assert experience.success("m", "", TaskComplexity.TRIVIAL, 0.8, 0.0).mean > 0.9


def test_an_outcome_counts_half_after_a_half_life() -> None:
    experience = Experience()
    for number in range(8):
        experience.learn(outcome(number, success=False))
    fresh = experience.success("m", "", None, 0.5, 0.0)
    later = experience.success("m", "", None, 0.5, HALF_LIFE_S)
    assert (fresh.evidence, later.evidence) == (pytest.approx(8), pytest.approx(4))
    assert later.mean == pytest.approx(3 / 10)
    assert experience.success("m", "", None, 0.5, 1000 * HALF_LIFE_S).mean == pytest.approx(0.5)


def test_a_clock_that_is_behind_the_outcomes_makes_none_of_them_more_than_one() -> None:
    experience = Experience()
    experience.learn(outcome(at=10 * HALF_LIFE_S))
    assert experience.success("m", "", None, 0.5, -1e9).evidence == pytest.approx(1)


def test_an_old_outcome_that_comes_late_has_the_weight_of_its_age() -> None:
    experience = Experience()
    experience.learn(outcome(0, at=HALF_LIFE_S))
    experience.learn(outcome(1, success=False, at=0.0))
    experience.learn(outcome(2, success=False, at=-1e15))
    belief = experience.success("m", "", None, 0.5, HALF_LIFE_S)
    assert belief.evidence == pytest.approx(1.5)
    assert belief.mean == pytest.approx((3 + 1) / 7.5)


def test_weights_do_not_run_out_of_numbers() -> None:
    experience = Experience(half_life_s=1.0)
    for number in range(300):
        experience.learn(outcome(number, success=number % 2 == 0, at=number * 37.0, latency_ms=100.0))
    belief = experience.success("m", "", None, 0.5, 299 * 37.0)
    assert belief.evidence == pytest.approx(1.0)
    latency = experience.latency("m", None, 299 * 37.0)
    assert latency is not None
    assert latency.mean_ms == pytest.approx(100)
    assert latency.p50_ms == pytest.approx(100, rel=0.06)


def test_an_upstream_that_does_not_answer_is_no_worse_for_it() -> None:
    experience = Experience()
    experience.learn(outcome(0, success=False, is_available=False, latency_ms=30_000.0))
    assert not experience.has_any("m")
    assert mean(experience) == pytest.approx(0.7)
    assert experience.latency("m", None, 0.0) is None
    assert experience.summary("m", None, 0.0) == Performance(model="m", unavailable=1)


@pytest.mark.parametrize(
    ("score", "counted"), [(0.25, 0.25), (1.7, 1.0), (-2.0, 0.0), (math.nan, 0.0), (math.inf, 1.0)]
)
def test_a_score_counts_as_a_part_of_a_success(score: float, counted: float) -> None:
    experience = Experience()
    experience.learn(outcome(score=score, success=True))
    assert mean(experience) == pytest.approx((6 * 0.7 + counted) / 7)


def test_an_outcome_that_is_heard_twice_counts_once() -> None:
    experience = Experience()
    for _ in range(3):
        experience.learn(outcome(0, sequence=1))
    assert experience.summary("m", None, 0.0).calls == 1
    experience.learn(outcome(0, sequence=2))
    assert experience.summary("m", None, 0.0).calls == 2


# --- feedback


def test_feedback_takes_the_place_of_what_was_believed() -> None:
    experience = Experience()
    experience.learn(outcome(0, task="sort", complexity=EASY, success=True, at=5.0))
    experience.take_feedback(feedback(0, 0.0, at=900.0))
    told = Experience()
    told.learn(outcome(0, task="sort", complexity=EASY, success=False, at=5.0))
    for task, complexity in (("", None), ("", EASY), ("sort", EASY), ("sort", None)):
        assert mean(experience, task, complexity) == pytest.approx(mean(told, task, complexity))
    assert experience.summary("m", "sort", 0.0).successes == 0


def test_later_feedback_takes_the_place_of_earlier() -> None:
    experience = Experience()
    experience.learn(outcome(0))
    experience.take_feedback(feedback(0, 0.0, at=2.0))
    experience.take_feedback(feedback(0, 1.0, at=1.0))
    assert experience.summary("m", None, 0.0).successes == 0
    experience.take_feedback(feedback(0, 0.5, at=3.0))
    assert experience.summary("m", None, 0.0).successes == pytest.approx(0.5)


def test_what_a_person_says_goes_before_what_a_judge_says_later() -> None:
    experience = Experience()
    experience.learn(outcome(0))
    experience.take_feedback(feedback(0, 0.5, at=1.0, by="judge"))
    experience.take_feedback(feedback(0, 0.25, at=2.0, by="user"))
    experience.take_feedback(feedback(0, 1.0, at=3.0, by="judge"))
    assert experience.summary("m", None, 0.0).successes == 0.25


def test_feedback_is_about_the_last_model_that_answered() -> None:
    experience = Experience()
    experience.learn(outcome(0, "first", success=False, sequence=0))
    experience.take_feedback(feedback(0, 1.0))
    assert experience.summary("first", None, 0.0).successes == 1
    experience.learn(outcome(0, "second", success=True, sequence=1))
    experience.learn(outcome(0, "third", success=False, is_available=False, sequence=2))
    experience.take_feedback(feedback(0, 0.25, at=1.0))
    assert experience.summary("first", None, 0.0).successes == 0
    assert experience.summary("second", None, 0.0).successes == pytest.approx(0.25)
    assert experience.summary("third", None, 0.0).unavailable == 1


def test_feedback_may_come_before_its_outcome() -> None:
    experience = Experience()
    experience.take_feedback(feedback(0, 0.0))
    experience.learn(outcome(0, success=True))
    assert experience.summary("m", None, 0.0).successes == 0
    assert experience.ignored_feedback == 0


def test_feedback_that_waits_for_its_request_for_too_long_is_counted() -> None:
    experience = Experience()
    for number in range(1003):
        experience.take_feedback(feedback(number, 0.0, at=float(number)))
    assert experience.ignored_feedback == 3
    experience.forget_before(10.0)
    assert experience.ignored_feedback == 10
    experience.learn(outcome(5, success=True))
    assert experience.summary("m", None, 0.0).successes == 1


def test_feedback_on_a_request_that_is_long_past_changes_nothing() -> None:
    experience = Experience(most_requests=2)
    for number in range(3):
        experience.learn(outcome(number))
    experience.take_feedback(feedback(0, 0.0))
    assert experience.summary("m", None, 0.0).successes == 3
    experience.take_feedback(feedback(1, 0.0))
    assert experience.summary("m", None, 0.0).successes == 2


# --- latency


def latencies(
    experience: Experience, *times_ms: float, first: int = 0, complexity: TaskComplexity | None = None
) -> None:
    for number, latency_ms in enumerate(times_ms, first):
        experience.learn(outcome(number, latency_ms=latency_ms, complexity=complexity))


def test_latency_has_a_mean_and_quantiles() -> None:
    experience = Experience()
    latencies(experience, *(float(number) for number in range(1, 1001)))
    found = experience.latency("m", None, 0.0)
    assert found is not None
    assert found.mean_ms == pytest.approx(500.5)
    assert found.p50_ms == pytest.approx(500, rel=0.05)
    assert found.p95_ms == pytest.approx(950, rel=0.05)
    assert found.evidence == pytest.approx(1000)


def test_latency_of_a_complexity_begins_with_that_of_the_model() -> None:
    experience = Experience()
    latencies(experience, *[100.0] * 60, complexity=EASY)
    unknown = experience.latency("m", HARD, 0.0)
    assert unknown is not None
    assert unknown.mean_ms == pytest.approx(100)
    latencies(experience, *[10_000.0] * 600, first=60, complexity=HARD)
    hard, easy = experience.latency("m", HARD, 0.0), experience.latency("m", EASY, 0.0)
    assert hard is not None
    assert easy is not None
    assert hard.mean_ms == pytest.approx(10_000, rel=0.02)
    assert easy.p50_ms < 1500
    assert easy.mean_ms < hard.mean_ms
    assert easy.p50_ms <= easy.p95_ms


def test_latency_of_late_counts_more() -> None:
    experience = Experience()
    experience.learn(outcome(0, latency_ms=100.0, at=0.0))
    experience.learn(outcome(1, latency_ms=1000.0, at=HALF_LIFE_S))
    found = experience.latency("m", None, HALF_LIFE_S)
    assert found is not None
    assert found.mean_ms == pytest.approx(700)


@pytest.mark.parametrize("latency_ms", [math.nan, -1.0, None])
def test_a_latency_that_cannot_be_is_none(latency_ms: float | None) -> None:
    experience = Experience()
    experience.learn(outcome(0, latency_ms=latency_ms))
    assert experience.latency("m", None, 0.0) is None
    assert experience.has_any("m")


def test_extreme_latencies_are_kept_within_bounds() -> None:
    experience = Experience()
    latencies(experience, 0.0, 0.0, 0.0, math.inf)
    found = experience.latency("m", None, 0.0)
    assert found is not None
    assert found.p50_ms < 2
    assert found.p95_ms <= 25 * 3600 * 1000
    assert math.isfinite(found.mean_ms)


# --- bounds


def test_the_task_that_was_not_heard_of_for_longest_makes_way() -> None:
    experience = Experience(most_tasks=2)
    for number, task in enumerate(("a", "b", "a", "c")):
        experience.learn(outcome(number, task=task, success=False))
    assert experience.tasks("m") == ("a", "c")
    # What it taught of the model is kept.
    assert experience.summary("m", None, 0.0).calls == 4
    experience.take_feedback(feedback(1, 1.0))
    assert experience.summary("m", None, 0.0).successes == 1


def test_the_model_that_was_not_heard_of_for_longest_makes_way() -> None:
    experience = Experience(most_models=2)
    for number, model in enumerate(("a", "b", "a", "c")):
        experience.learn(outcome(number, model))
    assert sorted(experience.models()) == ["a", "c"]


def test_models_and_tasks_of_long_ago_can_be_forgotten() -> None:
    experience = Experience()
    experience.learn(outcome(0, "old", at=0.0))
    experience.learn(outcome(1, "new", at=0.0, task="sort"))
    experience.learn(outcome(2, "new", at=5 * DAY_S, task="merge"))
    experience.forget_before(DAY_S)
    assert sorted(experience.models()) == ["new"]
    assert experience.tasks("new") == ("merge",)
    experience.take_feedback(feedback(0, 0.0))  # to an outcome that counts nowhere any more
    assert not experience.has_any("old")


def test_a_summary_has_what_a_report_shows() -> None:
    experience = Experience()
    for number in range(4):
        experience.learn(
            outcome(
                number, task="sort", success=number != 0, at=float(number), latency_ms=200.0, cost_usd=0.5
            )
        )
    experience.learn(outcome(9, task="merge", success=False, at=9.0))
    found = experience.summary("m", "sort", 9.0)
    assert (found.calls, found.successes, found.last_at) == (4, 3, 3.0)
    assert found.success_rate == pytest.approx(0.75, rel=1e-5)
    assert found.mean_latency_ms == pytest.approx(200)
    assert found.mean_cost_usd == pytest.approx(0.5)
    assert found.p95_latency_ms is None
    everything = experience.summary("m", None, 9.0)
    assert everything.p95_latency_ms == pytest.approx(200, rel=0.06)
    assert everything.calls == 5
    assert experience.summary("m", "none", 9.0) == Performance(model="m", task="none")
    assert experience.summary("none", None, 9.0) == Performance(model="none")


@pytest.mark.parametrize("wrong", [{"half_life_s": 0.0}, {"strength": -1.0}])
def test_nonsense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        Experience(**wrong)
