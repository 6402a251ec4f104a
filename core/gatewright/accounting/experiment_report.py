"""What an experiment has shown so far, in figures and in words."""

from math import exp
from typing import Final

from attrs import frozen

from gatewright.accounting.experiment_book import ExperimentBook
from gatewright.accounting.experiment_rules import (
    count_pairs,
    derived_state,
    find_best,
    live_arms,
)
from gatewright.accounting.sequential import difference_bounds, log_difference_evidence, mean_bounds
from gatewright.route_config import ArmConfig, ExperimentConfig, ExperimentState

_LARGEST_LOG: Final = 690.0
"""E-values are shown as at most this power of e, since there is no infinity in JSON."""


@frozen(kw_only=True)
class Effect:
    """How much more successful an arm is than the first one.

    Attributes:
        difference: Mean success less that of the first arm, -1 to 1.
        low: Lower end of its interval.
        high: Upper end.
        e_value: Evidence against "both are the same": the interval excludes 0 from `needed` on.
        needed: E-value from which on a difference counts as shown: pairs of arms divided by alpha.
    """

    difference: float
    low: float
    high: float
    e_value: float
    needed: float

    @property
    def is_shown(self) -> bool:
        """Whether there is a difference, as far as anybody can be sure."""
        return self.e_value >= self.needed

    @property
    def p_value(self) -> float:
        """For those who prefer it; valid at any time, as the e-value is."""
        return min(1.0, 1.0 / self.e_value)


@frozen(kw_only=True)
class ArmReport:
    """One arm.

    Attributes:
        name: Its name.
        share: Part of the traffic that it gets at present.
        requests: Requests that it had.
        units: What they count as: users, sessions, or requests where each is drawn anew.
        success: Mean success; None without requests.
        success_low: Lower end of its interval; the intervals of all arms hold together.
        success_high: Upper end.
        mean_latency_ms: Of whole requests; None where none told it.
        mean_cost_usd: Of whole requests; None without requests.
        effect: Against the first arm; None for that one itself, and while one of both had no request.
        is_stopped: It gets no traffic since it was stopped.
        is_promoted: It gets all traffic.
        verdict: One line for people.
    """

    name: str
    share: float
    requests: int
    units: int
    success: float | None
    success_low: float
    success_high: float
    mean_latency_ms: float | None
    mean_cost_usd: float | None
    effect: Effect | None
    is_stopped: bool
    is_promoted: bool
    verdict: str


@frozen(kw_only=True)
class ExperimentReport:
    """One experiment.

    Attributes:
        experiment: Its name.
        alpha: Chance of naming a winner where there is none, over its whole course.
        arms: In the configuration's order.
        best: Arm that is surely better than all others that get traffic, or got it before one was promoted; None: none
            yet.
        is_ended: It was ended by hand.
        verdict: One line for people.
    """

    experiment: str
    alpha: float
    arms: tuple[ArmReport, ...]
    best: str | None
    is_ended: bool
    verdict: str

    @property
    def effect(self) -> Effect | None:
        """That of the most successful arm besides the first one."""
        effects = [arm.effect for arm in self.arms if arm.effect is not None]
        return max(effects, key=lambda effect: effect.difference, default=None)


def report(
    experiment: ExperimentConfig, book: ExperimentBook, state: ExperimentState | None
) -> ExperimentReport:
    """What an experiment has shown so far; it may be looked at as often as one likes.

    Args:
        experiment: The experiment.
        book: What came of it.
        state: What was done to it by hand.
    """
    derived = derived_state(experiment, book, state)
    compared = tuple([arm for arm in experiment.arms if arm.name not in derived.stopped])
    look = _Look(
        experiment=experiment,
        book=book,
        by_hand=state or ExperimentState(experiment=experiment.name),
        derived=derived,
        live=live_arms(experiment, derived),
        best=find_best(experiment, book, compared),
    )
    return ExperimentReport(
        experiment=experiment.name,
        alpha=experiment.alpha,
        arms=tuple([look.arm_report(arm) for arm in experiment.arms]),
        best=look.best,
        is_ended=derived.is_ended,
        verdict=look.verdict(),
    )


@frozen(kw_only=True)
class _Look:
    """All that a report is made of."""

    experiment: ExperimentConfig
    book: ExperimentBook
    by_hand: ExperimentState
    derived: ExperimentState
    live: tuple[ArmConfig, ...]
    best: str | None

    def arm_report(self, arm: ArmConfig) -> ArmReport:
        sums = self.book.arm(self.experiment.name, arm.name)
        low, high = mean_bounds(sums.sums, self.experiment.alpha / len(self.experiment.arms))
        effect = self.effect(arm)
        return ArmReport(
            name=arm.name,
            share=self.share(arm),
            requests=sums.requests,
            units=sums.units,
            success=sums.sums.mean if sums.requests else None,
            success_low=low,
            success_high=high,
            mean_latency_ms=sums.latency_ms / sums.timed if sums.timed else None,
            mean_cost_usd=sums.cost_usd / sums.requests if sums.requests else None,
            effect=effect,
            is_stopped=arm.name in self.derived.stopped,
            is_promoted=arm.name == self.derived.promoted,
            verdict=self.arm_verdict(arm, effect, sums.requests, high),
        )

    def share(self, arm: ArmConfig) -> float:
        if self.derived.is_ended or arm not in self.live:
            return 0.0
        return arm.share / sum([each.share for each in self.live]) if len(self.live) > 1 else 1.0

    def effect(self, arm: ArmConfig) -> Effect | None:
        name, first = self.experiment.name, self.experiment.arms[0]
        base, sums = self.book.arm(name, first.name).sums, self.book.arm(name, arm.name).sums
        if arm is first or not (base.count and sums.count):
            return None
        alpha = self.experiment.alpha / count_pairs(self.experiment)
        low, high = difference_bounds(base, sums, alpha)
        return Effect(
            difference=sums.mean - base.mean,
            low=low,
            high=high,
            e_value=exp(min(_LARGEST_LOG, log_difference_evidence(base, sums))),
            needed=1.0 / alpha,
        )

    def arm_verdict(self, arm: ArmConfig, effect: Effect | None, requests: int, high: float) -> str:
        first = self.experiment.arms[0]
        if arm.name == self.derived.promoted:
            by_hand = arm.name == self.by_hand.promoted
            return "promoted by hand" if by_hand else "promoted: it is surely the best"
        if arm.name in self.derived.stopped:
            if arm.name in self.by_hand.stopped:
                return "stopped by hand"
            bound = self.experiment.min_success
            return f"stopped: its success is surely below {bound:g} (it is at most {high:.2f})"
        if not requests:
            return "no requests yet"
        if arm is first:
            return "the others are compared with it"
        if effect is None:
            return f"{first.name} has no requests yet"
        if not effect.is_shown:
            return f"no difference from {first.name} shown yet"
        if effect.difference > 0:
            return f"better than {first.name}, by {effect.low:.2f} to {effect.high:.2f}"
        return f"worse than {first.name}, by {-effect.high:.2f} to {-effect.low:.2f}"

    def verdict(self) -> str:
        derived = self.derived
        shown = self.shown()
        for name in derived.stopped:
            by_hand = name in self.by_hand.stopped
            shown += f"; {name} was stopped" + (" by hand" if by_hand else ": it fails too often")
        if derived.promoted is not None:
            how = "by hand" if derived.promoted == self.by_hand.promoted else "by rule"
            shown += f"; {derived.promoted} was promoted {how}"
        return f"ended by hand; {shown}" if derived.is_ended else shown

    def shown(self) -> str:
        if self.best is not None:
            others = [arm.name for arm in self.experiment.arms if arm.name != self.best]
            compared = [name for name in others if name not in self.derived.stopped]
            return f"{self.best} is better than {' and '.join(compared)}"
        if len(self.live) == 1 and self.derived.promoted is None:
            return f"only {self.live[0].name} gets requests"
        return "no difference shown yet"
