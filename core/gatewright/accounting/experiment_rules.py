"""The rules of experiments: which arms get no traffic any more, and which one gets all of it.

Everything follows from the outcomes, the configuration and what was done by hand; nothing is remembered besides. So all
processes that know the same outcomes do the same, and feedback that changes an outcome changes what follows from it.
"""

from itertools import combinations
from math import log

from gatewright.accounting.experiment_book import ExperimentBook
from gatewright.accounting.sequential import Sums, log_difference_evidence, log_evidence
from gatewright.route_config import ArmConfig, ExperimentConfig, ExperimentState


def live_arms(experiment: ExperimentConfig, derived: ExperimentState) -> tuple[ArmConfig, ...]:
    """The arms that get traffic; the first one if all were stopped.

    Args:
        experiment: The experiment.
        derived: From `derived_state`.
    """
    if derived.promoted is not None:
        return tuple([arm for arm in experiment.arms if arm.name == derived.promoted])
    live = [arm for arm in experiment.arms if arm.share > 0 and arm.name not in derived.stopped]
    return tuple(live) or experiment.arms[:1]


def derived_state(
    experiment: ExperimentConfig, book: ExperimentBook, state: ExperimentState | None
) -> ExperimentState:
    """What holds of an experiment: what was done by hand, and besides what its rules make of the outcomes.

    An arm is stopped by `min_success` once the e-value against "its success is that or more" has reached the number of
    arms divided by alpha, and promoted by `auto_promote` once it is surely better than each other arm that gets traffic;
    neither before `min_requests`. What was done by hand goes before: an arm that was promoted by hand stays so. Arms that
    the configuration does not know are left out.

    Args:
        experiment: The experiment.
        book: What came of it.
        state: What was done to it by hand.
    """
    found = book.find_derived(experiment, state)
    if found is None:
        found = _derive(experiment, book, state or ExperimentState(experiment=experiment.name))
        book.note_derived(experiment, state, found)
    return found


def find_best(experiment: ExperimentConfig, book: ExperimentBook, arms: tuple[ArmConfig, ...]) -> str | None:
    """The arm that is surely better than each other of these; None if there is none, or none to be better than.

    Wrong with a chance of alpha at most, over the whole course of the experiment and whichever arms are in it still:
    each pair of arms has its part of alpha.
    """
    if len(arms) < 2:  # noqa: PLR2004  # it takes two to be better than one
        return None
    sums = {arm.name: book.arm(experiment.name, arm.name).sums for arm in arms}
    best = max(arms, key=lambda arm: sums[arm.name].mean).name
    level = pair_level(experiment)
    for name, other in sums.items():
        if name != best and not is_surely_better(sums[best], other, level):
            return None
    return best


def is_surely_better(one: Sums, other: Sums, level: float) -> bool:
    """Whether the evidence against "both are the same" is at that level, and in favour of the one."""
    return one.mean > other.mean and log_difference_evidence(other, one) >= level


def pair_level(experiment: ExperimentConfig) -> float:
    """Logarithm of the e-value from which on a difference between two arms is shown (union bound over all pairs)."""
    return log(count_pairs(experiment) / experiment.alpha)


def count_pairs(experiment: ExperimentConfig) -> int:
    """Pairs of arms."""
    return max(1, sum(1 for _ in combinations(experiment.arms, 2)))


def is_surely_below(sums: Sums, bound: float, level: float) -> bool:
    """Whether the mean is below a bound, by evidence at that level."""
    return sums.mean < bound and log_evidence(sums, min(1.0, bound)) >= level


def _derive(experiment: ExperimentConfig, book: ExperimentBook, state: ExperimentState) -> ExperimentState:
    names = [arm.name for arm in experiment.arms]
    promoted = state.promoted if state.promoted in names else None
    failing = _failing(experiment, book)
    stopped = tuple(
        [name for name in names if name != promoted and (name in state.stopped or name in failing)]
    )
    derived = ExperimentState(
        experiment=experiment.name, promoted=promoted, stopped=stopped, is_ended=state.is_ended
    )
    if promoted is not None or not experiment.auto_promote:
        return derived
    live = live_arms(experiment, derived)
    if any(book.arm(experiment.name, arm.name).requests < experiment.min_requests for arm in live):
        return derived
    best = find_best(experiment, book, live)
    return ExperimentState(
        experiment=experiment.name, promoted=best, stopped=stopped, is_ended=state.is_ended
    )


def _failing(experiment: ExperimentConfig, book: ExperimentBook) -> frozenset[str]:
    bound = experiment.min_success
    if bound is None:
        return frozenset()
    level = log(len(experiment.arms) / experiment.alpha)
    sums = {arm.name: book.arm(experiment.name, arm.name) for arm in experiment.arms}
    return frozenset(
        name
        for name, each in sums.items()
        if each.requests >= experiment.min_requests and is_surely_below(each.sums, bound, level)
    )
