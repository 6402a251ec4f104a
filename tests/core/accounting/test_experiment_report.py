import json
from math import isfinite

import pytest
from attrs import asdict

from gatewright.accounting.experiments import ExperimentBook, ExperimentReport, report
from gatewright.route_config import ExperimentConfig, ExperimentState
from tests.core.accounting.build import book_of, experiment, outcome, state

CONFIG = experiment(0.5, 0.5)


def words(
    book: ExperimentBook, config: ExperimentConfig = CONFIG, by_hand: ExperimentState | None = None
) -> tuple[str, ...]:
    found = report(config, book, by_hand)
    return (found.verdict, *[arm.verdict for arm in found.arms])


def test_before_anything_happened() -> None:
    found = report(CONFIG, ExperimentBook(), None)
    assert found.effect is None
    assert found.verdict == "no difference shown yet"
    for arm in found.arms:
        assert (arm.requests, arm.success, arm.mean_cost_usd, arm.mean_latency_ms) == (0, None, None, None)
        assert (arm.success_low, arm.success_high, arm.verdict) == (0, 1, "no requests yet")


def test_a_difference_that_may_be_luck_is_none() -> None:
    assert words(book_of(a=(50, 30), b=(50, 35))) == (
        "no difference shown yet",
        "the others are compared with it",
        "no difference from a shown yet",
    )


def test_a_difference_that_is_none_of_luck() -> None:
    found = report(CONFIG, book_of(a=(400, 200), b=(400, 300)), None)
    effect = found.effect
    assert effect is not None
    assert found.best == "b"
    assert found.verdict == "b is better than a"
    assert effect.is_shown
    assert effect.difference == pytest.approx(0.25)
    assert 0 < effect.low < 0.25 < effect.high
    assert (effect.e_value > effect.needed == 20, effect.p_value < 0.05) == (True, True)
    assert found.arms[1].verdict == f"better than a, by {effect.low:.2f} to {effect.high:.2f}"
    assert [arm.share for arm in found.arms] == [0.5, 0.5]


def test_the_first_arm_may_be_the_better_one() -> None:
    verdict, _, second = words(book_of(a=(400, 300), b=(400, 200)))
    assert verdict == "a is better than b"
    assert second.startswith("worse than a, by 0.")


def test_only_one_side_has_had_requests() -> None:
    assert words(book_of(b=(10, 5)))[1:] == ("no requests yet", "a has no requests yet")


def test_rules_tell_what_they_did() -> None:
    config = experiment(0.5, 0.5, min_success=0.6)
    found = report(config, book_of(a=(100, 80), b=(100, 20)), None)
    assert found.verdict == "only a gets requests; b was stopped: it fails too often"
    assert found.arms[1].verdict.startswith("stopped: its success is surely below 0.6 (it is at most 0.")
    assert [arm.share for arm in found.arms] == [1.0, 0.0]
    config = experiment(0.5, 0.5, auto_promote=True)
    found = report(config, book_of(a=(400, 200), b=(400, 300)), None)
    assert found.verdict == "b is better than a; b was promoted by rule"
    assert found.arms[1].verdict == "promoted: it is surely the best"
    assert [(arm.share, arm.is_promoted) for arm in found.arms] == [(0.0, False), (1.0, True)]


def test_so_does_the_hand() -> None:
    book = book_of(a=(50, 30), b=(50, 35))
    assert words(book, by_hand=state(promoted="b"))[::2] == (
        "no difference shown yet; b was promoted by hand",
        "promoted by hand",
    )
    assert words(book, by_hand=state(stopped=("b",)))[::2] == (
        "only a gets requests; b was stopped by hand",
        "stopped by hand",
    )
    found = report(CONFIG, book, state(is_ended=True))
    assert (found.is_ended, found.verdict) == (True, "ended by hand; no difference shown yet")
    assert [arm.share for arm in found.arms] == [0, 0]


def test_three_arms_share_the_chance_of_error() -> None:
    config = experiment(0.4, 0.3, 0.3)
    found = report(config, book_of(a=(900, 300), b=(900, 500), c=(900, 700)), None)
    assert found.verdict == "c is better than a and b"
    assert found.effect == found.arms[2].effect
    assert found.effect is not None
    assert found.effect.needed == pytest.approx(60)


def test_means_are_those_of_requests_and_success_that_of_users() -> None:
    book = ExperimentBook()
    for number in range(4):
        book.learn(
            outcome(
                number,
                success=number == 0,
                experiment="prompts",
                arm="a",
                unit="jo" if number else "al",
                latency_ms=100.0 * number,
                cost_usd=0.5,
            )
        )
    arm = report(CONFIG, book, None).arms[0]
    assert (arm.requests, arm.units, arm.success) == (4, 2, pytest.approx(0.5))
    assert (arm.mean_latency_ms, arm.mean_cost_usd) == (pytest.approx(150), pytest.approx(0.5))


def test_a_report_can_be_written_as_json() -> None:
    found: ExperimentReport = report(CONFIG, book_of(a=(5000, 0), b=(5000, 5000)), None)
    assert found.effect is not None
    assert isfinite(found.effect.e_value)
    assert json.loads(json.dumps(asdict(found), allow_nan=False))["best"] == "b"
