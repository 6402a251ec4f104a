"""A month in which some models are not what their profiles say, and change in its middle: learning must pay."""

from functools import cache
from pathlib import Path

import pytest

from gatewright.accounting.offpolicy import model_values
from tests.simulation.month import (
    BY_NAME,
    Chooser,
    Month,
    Request,
    always,
    greedy,
    live,
    static,
    thompson,
    traffic,
)

SEEDS = range(3)
REQUESTS = 3000
LEARNING = (greedy, thompson)


@cache
def requests(seed: int) -> list[Request]:
    return traffic(seed, REQUESTS)


@cache
def month(chooser: Chooser, seed: int) -> Month:
    return live(chooser, requests(seed), seed)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("chooser", LEARNING)
def test_learning_beats_what_the_profiles_say(chooser: Chooser, seed: int) -> None:
    assert sum(month(chooser, seed).regret) < 0.6 * sum(month(static, seed).regret)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("chooser", LEARNING)
def test_learning_beats_any_single_model_but_perhaps_the_best(chooser: Chooser, seed: int) -> None:
    """Which one that is, nobody knew before; and it is as good as its profile says."""
    best, *others = sorted(sum(live(always(name), requests(seed), seed).regret) for name in BY_NAME)
    learnt = sum(month(chooser, seed).regret)
    assert learnt < 0.8 * min(others)
    assert learnt < 1.8 * best


@pytest.mark.parametrize("chooser", LEARNING)
def test_choices_get_better_with_use_and_again_after_models_have_changed(chooser: Chooser) -> None:
    def regret(first_day: float, last_day: float) -> float:
        return sum(month(chooser, seed).regret_between(first_day, last_day) for seed in SEEDS)

    assert regret(10, 15) < regret(0, 5)
    assert regret(25, 30) < regret(15, 20)


def test_a_model_that_has_become_good_is_noticed() -> None:
    def share(first_day: float, last_day: float) -> float:
        outcomes = [each for seed in SEEDS for each in month(thompson, seed).outcomes if each.task == "write"]
        within = [each for each in outcomes if first_day <= each.at / 86_400 < last_day]
        return sum(each.model == "riser" for each in within) / len(within)

    assert share(0, 15) < 0.2
    assert share(22, 30) > 0.4


def test_a_model_that_is_not_always_there_is_believed_no_worse_for_it() -> None:
    past = live(always("boaster"), requests(0), 0)
    found = past.experience.summary("boaster", None, 0.0)
    answered = [each.success for each in past.outcomes if each.is_available]
    assert found.unavailable == REQUESTS - len(answered) > 50
    assert found.calls == len(answered)
    assert found.success_rate is not None
    # Half of the failures look like successes at first, and are corrected.
    assert found.success_rate < sum(answered) / len(answered)


def test_the_documentation_says_what_a_month_comes_to() -> None:
    words = " ".join(
        (Path(__file__).parents[2] / "docs" / "experience.md").read_text(encoding="utf-8").split()
    )
    said = "by profiles alone scores {} less in the mean than the best choice for its request would, a greedy one {} less, and Thompson's {}"
    means = [
        sum(sum(month(chooser, seed).regret) for seed in SEEDS) / REQUESTS / len(SEEDS)
        for chooser in (static, greedy, thompson)
    ]
    assert said.format(*[f"{mean:.2f}" for mean in means]) in words


def test_a_month_is_the_same_again() -> None:
    again = live(thompson, requests(0), 0)
    assert again.regret == month(thompson, 0).regret
    assert again.outcomes == month(thompson, 0).outcomes


def test_propensities_tell_what_each_model_would_have_done_with_all_requests() -> None:
    missed = 0
    errors = plain_errors = 0.0
    for seed in SEEDS:
        for value in model_values(month(thompson, seed).outcomes):
            true = BY_NAME[value.model]
            chances = [true.chance(each.task, each.complexity, each.at) for each in requests(seed)]
            # What is told at once: half of the failures look like successes.
            expected = 1 - 0.5 * (1 - sum(chances) / REQUESTS)
            missed += not value.low <= expected <= value.high
            errors += abs(value.success - expected)
            plain_errors += abs(value.observed - expected)
    assert missed <= 4  # of 18, of which 1 is expected to
    assert errors < 0.8 * plain_errors
