"""Sums over weighted outcomes, and how long answers took, each in bounded memory."""

from math import exp, log
from typing import Final

from attrs import define, field

from gatewright.accounting.outcomes import ModelOutcome

BIN_RATIO: Final = 1.1
"""Each bin of latencies ends at so many times its beginning, so a quantile is off by 5 % at most."""
LONGEST_MS: Final = 24 * 3600 * 1000.0
"""Longer times go into the last bin."""

_LOG_RATIO: Final = log(BIN_RATIO)
_MEDIAN, _TAIL = 0.5, 0.95


@define(eq=False)
class Tally:
    """Sums over outcomes, with weights that whoever owns it gives.

    Attributes:
        newest: Time of the newest outcome.
        weight: Sum of the weights.
        success: The same, times success.
        timed: Weights of those that tell a latency.
        latency_ms: The same, times latency.
        cost_usd: Weights times cost.
        calls: Outcomes, not decayed.
        successes: Their success, not decayed.
    """

    newest: float
    weight: float = 0.0
    success: float = 0.0
    timed: float = 0.0
    latency_ms: float = 0.0
    cost_usd: float = 0.0
    calls: int = 0
    successes: float = 0.0

    def add(self, outcome: ModelOutcome, weight: float, success: float, latency_ms: float | None) -> None:
        """One more outcome.

        Args:
            outcome: The outcome.
            weight: What it weighs.
            success: How well it did, 0 to 1.
            latency_ms: Its latency, if it tells one that can be.
        """
        self.newest = max(self.newest, outcome.at)
        self.weight += weight
        self.success += weight * success
        self.cost_usd += weight * outcome.cost_usd
        self.calls += 1
        self.successes += success
        if latency_ms is not None:
            self.timed += weight
            self.latency_ms += weight * latency_ms
            self._add_latency(latency_ms, weight)

    def correct(self, weight: float, change: float) -> None:
        """An outcome of that weight that is in the sums did better by `change` than was thought."""
        self.success += weight * change
        self.successes += change

    def scale(self, factor: float) -> None:
        """Weights are given in another unit from now on."""
        self.weight *= factor
        self.success *= factor
        self.timed *= factor
        self.latency_ms *= factor
        self.cost_usd *= factor

    @property
    def rate(self) -> float:
        """Mean success, 0 to 1; 0 where nothing counts any more."""
        return min(1.0, max(0.0, self.success / self.weight)) if self.weight > 0 else 0.0

    def _add_latency(self, latency_ms: float, weight: float) -> None:
        """Nothing more is kept of it."""


@define(eq=False)
class TimedTally(Tally):
    """Sums that also know quantiles of the latency, from a histogram with bins that grow with the time."""

    _bins: dict[int, float] = field(factory=dict)
    _quantiles: tuple[float, float] | None = None

    @property
    def quantiles_ms(self) -> tuple[float, float]:
        """Median and 95th percentile; both 0 where no outcome told a latency."""
        if self._quantiles is None:
            self._quantiles = self._find_quantiles()
        return self._quantiles

    def _find_quantiles(self) -> tuple[float, float]:
        bins = sorted(self._bins.items())
        total = sum([weight for _, weight in bins])
        if total <= 0:
            return (0.0, 0.0)
        found = []
        wanted = [_MEDIAN * total, _TAIL * total]
        reached = 0.0
        for number, weight in bins:
            while wanted and reached + weight >= wanted[0]:
                part = (wanted.pop(0) - reached) / weight
                found.append(exp((number + part) * _LOG_RATIO))
            reached += weight
        # The bins may add up to a little less than their sum in another order.
        found += [exp((bins[-1][0] + 1) * _LOG_RATIO)] * len(wanted)
        return (found[0], found[1])

    def _add_latency(self, latency_ms: float, weight: float) -> None:
        number = int(log(latency_ms) / _LOG_RATIO) if latency_ms > 1.0 else 0
        self._bins[number] = self._bins.get(number, 0.0) + weight
        self._quantiles = None

    def scale(self, factor: float) -> None:
        """See `Tally`."""
        super().scale(factor)
        # A bin that has decayed to nothing is no longer kept.
        self._bins = {number: weight * factor for number, weight in self._bins.items() if weight * factor > 0}
