"""What a choice wants to know of the past, and of chance: interfaces, so that selection needs neither records nor a generator."""

from collections.abc import Collection
from typing import Protocol

from attrs import frozen

from gatewright.selection.complexity import TaskComplexity


@frozen
class Belief:
    """What is believed of a chance: a Beta distribution.

    Attributes:
        alpha: Successes, those of the prior included; above 0.
        beta: Failures, those of the prior included; above 0.
        evidence: Outcomes behind it, decayed; 0 if it is the prior alone.
    """

    alpha: float
    beta: float
    evidence: float = 0.0

    @property
    def mean(self) -> float:
        """Expected chance."""
        return self.alpha / (self.alpha + self.beta)


@frozen(kw_only=True)
class LatencyBelief:
    """What is believed of the time that a model takes.

    Attributes:
        mean_ms: Mean of whole answers.
        p50_ms: Median.
        p95_ms: 95th percentile.
        evidence: Outcomes behind it, decayed.
    """

    mean_ms: float
    p50_ms: float
    p95_ms: float
    evidence: float


class PastOutcomes(Protocol):
    """What was learnt from outcomes."""

    def success(
        self, model: str, task: str, complexity: TaskComplexity | None, prior: float, now: float
    ) -> Belief:
        """What is believed of a model's chance to do a task.

        Args:
            model: Its name.
            task: Name of the task; empty where there is none.
            complexity: How hard it is; None where nobody knows.
            prior: Chance that is believed in before anything was learnt.
            now: Seconds, on the clock of the outcomes.
        """
        ...

    def latency(self, model: str, complexity: TaskComplexity | None, now: float) -> LatencyBelief | None:
        """What is believed of the time that it takes; None if it never answered."""
        ...

    def has_any(self, model: str) -> bool:
        """Whether anything was learnt of the model."""
        ...

    def models(self) -> Collection[str]:
        """All models of which anything was learnt; for choices among so many that not each can be asked about."""
        ...


class Chance(Protocol):
    """A generator of random numbers; `random.Random` is one."""

    def random(self) -> float:
        """From 0 to 1, excluded."""
        ...

    def betavariate(self, alpha: float, beta: float, /) -> float:
        """A draw from a Beta distribution."""
        ...


class Certain:
    """No chance at all: the smallest number, and the mean of every distribution."""

    def random(self) -> float:
        """0."""
        return 0.0

    def betavariate(self, alpha: float, beta: float, /) -> float:
        """The mean."""
        return alpha / (alpha + beta)
