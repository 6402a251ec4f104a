"""Experiments that somebody looks at after each outcome: where arms are equal, hardly ever is a winner found."""

from collections.abc import Iterator
from math import log, sqrt
from random import Random

import pytest

from gatewright.accounting.experiment_rules import derived_state
from gatewright.accounting.experiments import ExperimentBook, assign, report
from gatewright.accounting.outcomes import ModelOutcome
from gatewright.accounting.sequential import Sums, log_difference_evidence
from gatewright.route_config import ArmConfig, ExperimentConfig, Sticky

ALPHA = 0.05
MANY = 3.0
"""Standard deviations by which a rate that is as it should be may be above."""


def most(runs: int, alpha: float = ALPHA) -> float:
    """Runs that may go wrong, with a little luck more than expected."""
    return runs * alpha + MANY * sqrt(runs * alpha * (1 - alpha))


def experiment(*shares: float, sticky: Sticky = Sticky.REQUEST, **rules: float | bool) -> ExperimentConfig:
    arms = tuple(ArmConfig(name="abc"[number], share=share) for number, share in enumerate(shares))
    return ExperimentConfig(name="peeking", arms=arms, sticky=sticky, alpha=ALPHA, min_requests=1, **rules)


def naive_is_shown(first: Sums, second: Sums) -> bool:
    """The test of a textbook, which is for one look."""
    pooled = (first.total + second.total) / (first.count + second.count)
    error = sqrt(pooled * (1 - pooled) * (1 / first.count + 1 / second.count))
    return error > 0 and abs(first.mean - second.mean) > 1.96 * error


@pytest.mark.parametrize("success", [0.5, 0.9])
def test_equal_arms_hardly_ever_have_a_winner(success: float) -> None:
    runs, length = 200, 800
    found = naively_found = 0
    for seed in range(runs):
        chance = Random(seed)
        counts, totals = [0, 0], [0, 0]
        is_found = is_naively_found = False
        for number in range(length):
            arm = chance.random() < 0.5
            counts[arm] += 1
            totals[arm] += chance.random() < success
            if number < 20 or is_found:
                continue
            first, second = Sums(counts[0], totals[0]), Sums(counts[1], totals[1])
            is_found = log_difference_evidence(first, second) >= log(1 / ALPHA)
            is_naively_found = is_naively_found or naive_is_shown(first, second)
        found += is_found
        naively_found += is_naively_found
    assert found <= most(runs)
    # So there was something to be found, for whoever looks in the wrong way.
    assert naively_found > 3 * runs * ALPHA


def visits(seed: int, length: int, people: int) -> Iterator[tuple[str, float]]:
    """Who comes, and how likely whatever they ask is done: some are easily served and some hardly, and some come often."""
    chance = Random(seed)
    success = {f"user{number}": chance.betavariate(0.7, 0.5) for number in range(people)}
    weights = [chance.paretovariate(1.2) for _ in success]
    for user in chance.choices(list(success), weights, k=length):
        yield user, success[user]


def play(config: ExperimentConfig, seed: int, length: int, *, by_user: bool) -> bool:
    """Whether a winner is found at any time."""
    chance, book = Random(-seed - 1), ExperimentBook()
    for number, (user, success) in enumerate(visits(seed, length, people=60)):
        drawn = assign(config, None, book, f"{seed} {user}")
        book.learn(
            ModelOutcome(
                request_id=f"r{number}",
                model="m",
                success=chance.random() < success,
                at=float(number),
                experiment=config.name,
                arm=drawn.arm.name,
                unit=drawn.unit if by_user else None,
            )
        )
        if derived_state(config, book, None).promoted is not None:
            return True
    return False


def test_people_who_differ_do_not_make_arms_differ() -> None:
    runs = 60
    config = experiment(0.5, 0.5, sticky=Sticky.USER, auto_promote=True)
    assert sum(play(config, seed, 400, by_user=True) for seed in range(runs)) <= most(runs)
    # Counted request by request, those who come often would.
    assert sum(play(config, seed, 400, by_user=False) for seed in range(runs)) > most(runs)


def test_more_arms_do_not_make_more_winners() -> None:
    runs = 60
    config = experiment(0.4, 0.3, 0.3, auto_promote=True)
    found = 0
    for seed in range(runs):
        chance, book = Random(seed), ExperimentBook()
        for number in range(300):
            drawn = assign(config, None, book, f"{seed} {number}")
            book.learn(told(number, drawn.arm.name, success=chance.random() < 0.7))
            if derived_state(config, book, None).promoted is not None:
                found += 1
                break
    assert found <= most(runs)


def told(number: int, arm: str, *, success: bool) -> ModelOutcome:
    return ModelOutcome(
        request_id=f"r{number}", model="m", success=success, at=float(number), experiment="peeking", arm=arm
    )


@pytest.mark.parametrize("seed", range(10))
def test_a_difference_that_is_there_is_found_and_is_the_right_one(seed: int) -> None:
    chance, book = Random(seed), ExperimentBook()
    config = experiment(0.5, 0.5, auto_promote=True)
    success = {"a": 0.6, "b": 0.75}
    for number in range(4000):
        arm = assign(config, None, book, f"{seed} {number}").arm.name
        book.learn(told(number, arm, success=chance.random() < success[arm]))
        if derived_state(config, book, None).promoted is not None:
            break
    found = report(config, book, None)
    assert found.best == "b"
    assert number < 3000
    assert found.effect is not None
    assert found.effect.low <= 0.15 <= found.effect.high


def test_an_arm_that_is_just_good_enough_is_hardly_ever_stopped_and_a_bad_one_is() -> None:
    runs, config = 60, experiment(0.5, 0.5, min_success=0.7)
    stopped = {"a": 0, "b": 0}
    for seed in range(runs):
        chance, book = Random(seed), ExperimentBook()
        for number in range(400):
            arm = assign(config, None, book, f"{seed} {number}").arm.name
            book.learn(told(number, arm, success=chance.random() < (0.7 if arm == "a" else 0.5)))
            if "a" in derived_state(config, book, None).stopped:
                break
        for arm in derived_state(config, book, None).stopped:
            stopped[arm] += 1
    assert stopped["a"] <= most(runs)
    assert stopped["b"] > 0.9 * runs
