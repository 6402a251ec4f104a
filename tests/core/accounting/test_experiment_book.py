from itertools import permutations
from typing import Any

import pytest

from gatewright.accounting.experiments import ExperimentBook
from gatewright.accounting.outcomes import ModelOutcome
from tests.core.accounting.build import feedback, outcome


def told(number: int, model: str = "m", *, success: bool = True, arm: str = "a", **more: Any) -> ModelOutcome:
    return outcome(number, model, success=success, experiment="prompts", arm=arm, **more)


def figures(book: ExperimentBook, arm: str = "a") -> tuple[float, ...]:
    sums = book.arm("prompts", arm)
    return (sums.requests, sums.units, sums.success, sums.timed, sums.latency_ms, sums.cost_usd)


def test_requests_without_an_experiment_are_none_of_its_business() -> None:
    book = ExperimentBook()
    book.learn(outcome(0))
    assert figures(book) == (0, 0, 0, 0, 0, 0)


def test_an_upstream_that_does_not_answer_is_a_failure_of_the_arm() -> None:
    book = ExperimentBook()
    book.learn(told(0, success=True, is_available=False))
    assert figures(book)[:3] == (1, 1, 0)


def test_the_choice_counts_and_time_and_cost_of_all_calls() -> None:
    calls = (
        told(0, "first", success=False, sequence=0, latency_ms=100.0, cost_usd=1.0, at=1.0),
        told(0, "second", success=True, sequence=1, latency_ms=200.0, cost_usd=2.0, at=2.0),
    )
    for order in permutations((*calls, *calls)):
        book = ExperimentBook()
        for call in order:
            book.learn(call)
        assert figures(book) == (1, 1, 0, 1, 300, 3)


def test_a_retry_of_the_same_model_makes_good_what_failed() -> None:
    book = ExperimentBook()
    book.learn(told(0, success=False, is_available=False, sequence=0))
    assert figures(book)[2] == 0
    book.learn(told(0, success=True, sequence=1))
    assert figures(book)[:3] == (1, 1, 1)


def test_feedback_takes_the_place_of_success() -> None:
    book = ExperimentBook()
    book.take_feedback(feedback(1, 0.25))
    book.learn(told(0, success=True))
    book.learn(told(1, success=True))
    book.take_feedback(feedback(0, 0.5))
    assert figures(book)[:3] == (2, 2, 0.75)


def test_requests_of_one_user_count_as_one() -> None:
    book = ExperimentBook()
    for number in range(10):
        book.learn(told(number, unit="jo", success=number < 5))
    book.learn(told(10, unit="al"))
    requests, units, success, *_ = figures(book)
    assert (requests, units, success) == (11, 2, pytest.approx(1.5))


def test_a_user_whose_turn_is_long_past_counts_as_a_new_one() -> None:
    book = ExperimentBook(most_units=1)
    book.learn(told(0, unit="jo", success=True))
    book.learn(told(1, unit="al", success=True))
    book.learn(told(2, unit="jo", success=False))
    assert figures(book)[:3] == (3, 3, 2)
    book.take_feedback(feedback(0, 0.0))
    assert figures(book)[:3] == (3, 3, 1)


def test_scores_count_as_parts_of_a_success() -> None:
    book = ExperimentBook()
    book.learn(told(0, score=0.25))
    assert figures(book)[2] == 0.25


def test_an_experiment_can_begin_anew() -> None:
    book = ExperimentBook()
    book.learn(told(0))
    book.forget("prompts")
    book.take_feedback(feedback(0, 0.0))
    book.learn(told(1))
    assert figures(book)[:3] == (1, 1, 1)
