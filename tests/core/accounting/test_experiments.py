import subprocess
import sys
from collections import Counter

import pytest
from attrs import evolve

from gatewright.accounting.experiments import ExperimentBook, assign, derived_state, live_arms
from gatewright.route_config import ArmConfig, ExperimentConfig, ExperimentState, Sticky
from tests.core.accounting.build import book_of, experiment, outcome, state

UNITS = [f"user{number}" for number in range(4000)]


def arms_of(
    config: ExperimentConfig, by_hand: ExperimentState | None = None, book: ExperimentBook | None = None
):
    book = book or ExperimentBook()
    return {unit: assign(config, by_hand, book, unit).arm.name for unit in UNITS}


# --- assignment


def test_a_unit_stays_in_its_arm() -> None:
    config = experiment(0.5, 0.5)
    assert arms_of(config) == arms_of(evolve(config, alpha=0.01))


def test_another_process_finds_the_same_arms() -> None:
    program = (
        "from tests.core.accounting.build import experiment\n"
        "from gatewright.accounting.experiments import ExperimentBook, assign\n"
        "for number in range(50):\n"
        "    print(assign(experiment(0.2, 0.3, 0.5), None, ExperimentBook(), f'user{number}').arm.name)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    here = arms_of(experiment(0.2, 0.3, 0.5))
    assert found.stdout.split() == [here[f"user{number}"] for number in range(50)]


def test_arms_stay_the_same_over_releases() -> None:
    """An upgrade must not deal everybody anew; change this only with a very good reason."""
    assert [
        assign(experiment(0.5, 0.5), None, ExperimentBook(), unit).arm.name for unit in UNITS[:12]
    ] == list("baaabbbbbbab")


def test_shares_are_what_they_are_said_to_be() -> None:
    found = Counter(arms_of(experiment(0.6, 0.3, 0.1)).values())
    for arm, share in (("a", 0.6), ("b", 0.3), ("c", 0.1)):
        assert found[arm] / len(UNITS) == pytest.approx(share, abs=0.03)


def test_experiments_deal_independently_of_each_other() -> None:
    one = arms_of(experiment(0.5, 0.5))
    other = arms_of(evolve(experiment(0.5, 0.5), name="weights"))
    same = sum(one[unit] == other[unit] for unit in UNITS)
    assert same / len(UNITS) == pytest.approx(0.5, abs=0.04)


def test_a_stopped_arm_leaves_its_units_to_the_others_in_proportion() -> None:
    config = experiment(0.5, 0.3, 0.2)
    before, after = arms_of(config), arms_of(config, state(stopped=("a",)))
    assert {unit: arm for unit, arm in before.items() if arm != "a"}.items() <= after.items()
    inherited = Counter(after[unit] for unit, arm in before.items() if arm == "a")
    assert set(inherited) == {"b", "c"}
    assert inherited["b"] / inherited.total() == pytest.approx(0.6, abs=0.05)


def test_stopping_a_second_arm_moves_only_its_own_units() -> None:
    config = experiment(0.25, 0.25, 0.25, 0.25)
    before, after = arms_of(config, state(stopped=("a",))), arms_of(config, state(stopped=("a", "c")))
    moved = {unit for unit in UNITS if before[unit] != after[unit]}
    assert moved == {unit for unit in UNITS if before[unit] == "c"}


def test_another_arm_takes_units_but_moves_none_between_the_others() -> None:
    before = arms_of(experiment(0.5, 0.5))
    after = arms_of(experiment(0.4, 0.4, 0.2))
    assert {after[unit] for unit in UNITS if after[unit] != before[unit]} == {"c"}


def test_propensities_are_shares_of_the_arms_that_get_traffic() -> None:
    config = experiment(0.5, 0.3, 0.2)
    for unit in UNITS[:20]:
        found = assign(config, None, ExperimentBook(), unit)
        assert found.propensity == pytest.approx(found.arm.share)
        found = assign(config, state(stopped=("a",)), ExperimentBook(), unit)
        assert found.propensity == pytest.approx(found.arm.share / 0.5)
        assert assign(config, state(promoted="b"), ExperimentBook(), unit).propensity == 1


def test_outcomes_are_told_whose_they_are_but_not_by_name() -> None:
    config = experiment(0.5, 0.5)
    found = assign(config, None, ExperimentBook(), "jo@example.com")
    assert found.unit is not None
    assert "jo" not in found.unit
    assert assign(config, None, ExperimentBook(), "jo@example.com").unit == found.unit
    assert assign(config, None, ExperimentBook(), "al@example.com").unit != found.unit
    assert assign(evolve(config, sticky=Sticky.REQUEST), None, ExperimentBook(), "r1").unit is None


def test_a_promoted_arm_gets_everybody() -> None:
    assert set(arms_of(experiment(0.5, 0.5), state(promoted="b")).values()) == {"b"}


def test_an_arm_without_a_share_gets_nobody() -> None:
    assert set(arms_of(experiment(0.0, 1.0)).values()) == {"b"}


def test_somebody_must_answer_even_if_all_arms_were_stopped() -> None:
    assert set(arms_of(experiment(0.5, 0.5), state(stopped=("a", "b"))).values()) == {"a"}


def test_strange_units_are_units() -> None:
    config = experiment(0.5, 0.5)
    for unit in ("", "\ud800", "\x00", "x" * 100_000):
        assert assign(config, None, ExperimentBook(), unit).arm.name in "ab"


# --- rules


def derive(config: ExperimentConfig, book: ExperimentBook, by_hand: ExperimentState | None = None):
    found = derived_state(config, book, by_hand)
    return found.promoted, found.stopped


def test_without_rules_only_the_hand_counts() -> None:
    book = book_of(a=(900, 900), b=(900, 0))
    assert derive(experiment(0.5, 0.5), book) == (None, ())
    assert derive(experiment(0.5, 0.5), book, state(stopped=("a",))) == (None, ("a",))


def test_an_arm_that_fails_is_stopped() -> None:
    config = experiment(0.5, 0.5, min_success=0.6)
    assert derive(config, book_of(a=(100, 80), b=(100, 30))) == (None, ("b",))
    # Not as long as it may be bad luck, nor before it had its chance.
    assert derive(config, book_of(a=(100, 80), b=(100, 55))) == (None, ())
    assert derive(config, book_of(a=(100, 80), b=(49, 0))) == (None, ())


def test_the_best_arm_is_promoted_by_rule() -> None:
    config = experiment(0.5, 0.5, auto_promote=True)
    assert derive(config, book_of(a=(400, 200), b=(400, 300))) == ("b", ())
    assert derive(config, book_of(a=(400, 300), b=(400, 200))) == ("a", ())
    assert derive(config, book_of(a=(400, 300), b=(400, 310))) == (None, ())
    assert derive(config, book_of(a=(400, 0), b=(49, 49))) == (None, ())


def test_the_best_of_three_must_be_better_than_both() -> None:
    config = experiment(0.4, 0.3, 0.3, auto_promote=True)
    assert derive(config, book_of(a=(900, 300), b=(900, 700), c=(900, 690))) == (None, ())
    assert derive(config, book_of(a=(900, 300), b=(900, 700), c=(900, 500))) == ("b", ())


def test_an_arm_that_was_stopped_is_neither_promoted_nor_waited_for() -> None:
    config = experiment(0.4, 0.3, 0.3, auto_promote=True, min_success=0.2)
    book = book_of(a=(900, 300), b=(900, 700), c=(100, 2))
    assert derive(config, book) == ("b", ("c",))
    assert derive(config, book, state(stopped=("b",))) == (None, ("b", "c"))


def test_what_was_done_by_hand_goes_before_the_rules() -> None:
    config = experiment(0.5, 0.5, auto_promote=True, min_success=0.6)
    book = book_of(a=(900, 300), b=(900, 800))
    assert derive(config, book) == (None, ("a",))
    assert derive(config, book, state(promoted="a")) == ("a", ())
    assert derive(config, book, state(promoted="gone", stopped=("gone",))) == (None, ("a",))


def test_if_all_fail_the_first_one_goes_on() -> None:
    config = experiment(0.5, 0.5, min_success=0.6)
    derived = derived_state(config, book_of(a=(100, 3), b=(100, 3)), None)
    assert [arm.name for arm in live_arms(config, derived)] == ["a"]


def test_what_follows_is_found_anew_when_anything_changes() -> None:
    config = experiment(0.5, 0.5, min_success=0.6)
    book = book_of(a=(100, 80), b=(60, 0))
    assert derive(config, book) == (None, ("b",))
    for number in range(900):
        book.learn(outcome(number, experiment="prompts", arm="b"))
    assert derive(config, book) == (None, ())
    assert derive(evolve(config, min_success=0.99), book) == (None, ("a", "b"))
    assert derive(config, book, state(promoted="b")) == ("b", ())
    book.forget("prompts")
    assert derive(config, book) == (None, ())


def test_an_end_by_hand_is_passed_on() -> None:
    assert derived_state(experiment(0.5, 0.5), ExperimentBook(), state(is_ended=True)).is_ended


def test_arms_bring_their_own_settings() -> None:
    config = ExperimentConfig(
        name="models",
        arms=(ArmConfig(name="a", share=0.5), ArmConfig(name="b", share=0.5, candidates=("qwen",))),
    )
    found = {assign(config, None, ExperimentBook(), unit).arm for unit in UNITS[:20]}
    assert found == set(config.arms)
