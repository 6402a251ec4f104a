"""What came of the arms of experiments: sums that do not depend on the order in which outcomes and feedback come.

What counts of a request is what its client saw of the arm's choice:

- Success is that of the model that the arm chose first, after retries of the same model. If its upstream did not answer,
  that is a failure: unlike `Experience`, which asks how good a model is, an experiment asks how well its clients fare, and
  an arm that picks models that are not there is worse for them. If a fallback then saved the request, the choice was still
  a bad one.
- Feedback takes the place of all that: whoever says how good the answer was has seen the answer.
- Latency and cost are those of all calls of the request together, since its client waits for all and somebody pays for all.

Where an arm stays the same for a user or a session, all requests of one count as one, by their mean: they are alike, and
counted one by one they would make a difference between people look like a difference between arms.
"""

from collections import OrderedDict
from typing import Final, NamedTuple

from attrs import define, field

from gatewright.accounting.outcomes import Feedback, ModelOutcome
from gatewright.accounting.recent import MOST_REQUESTS, HeardRequest, RecentRequests, clamp, success_of
from gatewright.accounting.sequential import Sums
from gatewright.route_config import ExperimentConfig, ExperimentState

MOST_UNITS: Final = 50_000
"""Users or sessions of an arm that are told apart; one that comes again after so many others counts as a new one."""


class RequestFigures(NamedTuple):
    """What one request counts as.

    Attributes:
        success: 0 to 1.
        latency_ms: Of all its calls; None where none tells it.
        cost_usd: Of all its calls.
    """

    success: float
    latency_ms: float | None
    cost_usd: float


@define(eq=False)
class UnitSums:
    """Requests of one user or session.

    Attributes:
        requests: How many.
        success: Sum.
    """

    requests: int = 0
    success: float = 0.0

    @property
    def mean(self) -> float:
        """Mean success."""
        return clamp(self.success / self.requests) if self.requests else 0.0


@define(eq=False)
class ArmSums:
    """Of one arm.

    Attributes:
        requests: Requests.
        units: What they count as: users, sessions, or requests where each is drawn anew.
        success: Sum of the units' mean success.
        timed: Requests that tell a latency.
        latency_ms: Sum over those.
        cost_usd: Sum over all requests.
    """

    requests: int = 0
    units: int = 0
    success: float = 0.0
    timed: int = 0
    latency_ms: float = 0.0
    cost_usd: float = 0.0
    _by_unit: OrderedDict[str, UnitSums] = field(factory=OrderedDict)

    @property
    def sums(self) -> Sums:
        """What the statistics go by."""
        return Sums(self.units, self.success)

    def find_unit(self, name: str | None, most: int) -> UnitSums:
        """The sums of a user or session; of a request alone if it has no name."""
        if name is None:
            return UnitSums()
        unit = self._by_unit.get(name)
        if unit is None:
            unit = self._by_unit[name] = UnitSums()
            if len(self._by_unit) > most:
                self._by_unit.popitem(last=False)
        else:
            self._by_unit.move_to_end(name)
        return unit

    def add(self, unit: UnitSums, figures: RequestFigures) -> None:
        """One more request of a unit."""
        self.requests += 1
        if unit.requests == 0:
            self.units += 1
        self._change_unit(unit, 1, figures.success)
        self._add_figures(figures, 1)

    def replace(self, unit: UnitSums, old: RequestFigures, new: RequestFigures) -> None:
        """A request that is in the sums counts as something else."""
        self._change_unit(unit, 0, new.success - old.success)
        self._add_figures(old, -1)
        self._add_figures(new, 1)

    def _change_unit(self, unit: UnitSums, requests: int, success: float) -> None:
        before = unit.mean
        unit.requests += requests
        unit.success += success
        self.success += unit.mean - before

    def _add_figures(self, figures: RequestFigures, sign: int) -> None:
        self.cost_usd += sign * figures.cost_usd
        if figures.latency_ms is not None:
            self.timed += sign
            self.latency_ms += sign * figures.latency_ms


@define(eq=False)
class _Counted:
    """As what a request is in the sums, and where."""

    arm: ArmSums
    unit: UnitSums
    figures: RequestFigures


@define(eq=False)
class _Entry:
    """Of one experiment; `derived` is what was made of it last, and of what."""

    arms: dict[str, ArmSums] = field(factory=dict)
    changes: int = 0
    derived: tuple[int, ExperimentConfig, ExperimentState | None, ExperimentState] | None = None


class ExperimentBook:
    """The outcomes of all experiments.

    Args:
        most_requests: Requests that are remembered for feedback, and in order not to count an outcome twice.
        most_units: Users or sessions of an arm that are told apart.
    """

    def __init__(self, *, most_requests: int = MOST_REQUESTS, most_units: int = MOST_UNITS) -> None:
        self._most_units = most_units
        self._entries: dict[str, _Entry] = {}
        self._recent: RecentRequests[_Counted] = RecentRequests(most_requests)

    def learn(self, outcome: ModelOutcome) -> None:
        """An outcome; one of a request that takes part in no experiment, or that was heard before, changes nothing."""
        if outcome.experiment is None or outcome.arm is None:
            return
        request = self._recent.hear_outcome(outcome)
        if request is None:
            return
        entry = self._entries.get(outcome.experiment)
        if entry is None:
            entry = self._entries[outcome.experiment] = _Entry()
        figures = figures_of(request)
        if request.note is None:
            arm = entry.arms.get(outcome.arm)
            if arm is None:
                arm = entry.arms[outcome.arm] = ArmSums()
            request.note = _Counted(arm, arm.find_unit(outcome.unit, self._most_units), figures)
            arm.add(request.note.unit, figures)
            entry.changes += 1
        else:
            _recount(entry, request.note, figures)

    def take_feedback(self, feedback: Feedback) -> None:
        """What somebody says of an answer; before its outcome it is kept for a while."""
        request = self._recent.hear_feedback(feedback)
        if request is None or request.note is None:
            return
        name = next(iter(request.calls.values())).experiment
        entry = self._entries.get(name) if name is not None else None
        if entry is not None:
            _recount(entry, request.note, figures_of(request))

    def forget(self, experiment: str) -> None:
        """Begin an experiment anew: what was learnt in it counts no longer."""
        self._entries.pop(experiment, None)

    def arm(self, experiment: str, arm: str) -> ArmSums:
        """Sums of an arm; empty ones if nothing was heard of it."""
        entry = self._entries.get(experiment)
        found = entry.arms.get(arm) if entry is not None else None
        return ArmSums() if found is None else found

    # --- so that the same outcomes are not judged again for each request

    def find_derived(
        self, experiment: ExperimentConfig, state: ExperimentState | None
    ) -> ExperimentState | None:
        """What was noted by `note_derived`, if nothing has changed since."""
        entry = self._entries.get(experiment.name)
        if entry is None or entry.derived is None:
            return None
        changes, of_experiment, of_state, derived = entry.derived
        is_same = changes == entry.changes and of_experiment is experiment and of_state == state
        return derived if is_same else None

    def note_derived(
        self, experiment: ExperimentConfig, state: ExperimentState | None, derived: ExperimentState
    ) -> None:
        """What follows from the present outcomes."""
        entry = self._entries.get(experiment.name)
        if entry is not None:
            entry.derived = (entry.changes, experiment, state, derived)


def _recount(entry: _Entry, counted: _Counted, figures: RequestFigures) -> None:
    if figures != counted.figures:
        counted.arm.replace(counted.unit, counted.figures, figures)
        counted.figures = figures
        entry.changes += 1


def figures_of(request: HeardRequest[_Counted]) -> RequestFigures:
    """What a request counts as, by all that was heard of it; see the module."""
    calls = sorted(request.calls.values(), key=_order)
    if request.feedback is not None:
        success = clamp(request.feedback.score)
    else:
        last = [outcome for outcome in calls if outcome.model == calls[0].model][-1]
        success = success_of(last) if last.is_available else 0.0
    latencies = [outcome.latency_ms for outcome in calls if outcome.latency_ms is not None]
    return RequestFigures(
        success=success,
        latency_ms=sum(latencies) if latencies else None,
        cost_usd=sum([outcome.cost_usd for outcome in calls]),
    )


def _order(outcome: ModelOutcome) -> tuple[int, float, str]:
    return outcome.sequence, outcome.at, outcome.model
