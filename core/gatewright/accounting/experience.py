"""What was learnt of the models from their outcomes: how likely each is to do a task, and how long it takes.

Success is believed in as a Beta distribution at three levels, each of which begins with what the one before it says:

::

    prior (the model's profile) -> model -> (complexity, model) -> (task, complexity, model)

At each level the mean of the level before counts like `STRENGTH` outcomes, and the outcomes of that level that do not
belong to the next one are added. So each outcome counts once; little data moves little, and what is known of a model
elsewhere is worth something for a task that it never did, but soon less than what it does there. This is partial pooling
with a fixed strength (Gelman et al., Bayesian Data Analysis, 3rd ed., chapter 5), which needs no fitting.

Outcomes at another complexity than the one in question are made comparable first (`pooling`). Where nobody knows the
complexity, it is taken for middling.
"""

from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Final

from attrs import define, frozen

from gatewright.accounting.model_past import ModelPast
from gatewright.accounting.outcomes import Feedback, ModelOutcome
from gatewright.accounting.pooling import Cell, as_prior, update
from gatewright.accounting.recent import (
    MOST_REQUESTS,
    CallKey,
    HeardRequest,
    RecentRequests,
    clamp,
    success_of,
)
from gatewright.accounting.tallies import LONGEST_MS, Tally, TimedTally
from gatewright.route_config import ExperienceConfig
from gatewright.selection.beliefs import Belief, LatencyBelief
from gatewright.selection.complexity import TaskComplexity
from gatewright.selection.values import exponent_of

HALF_LIFE_S: Final = ExperienceConfig().half_life_s
"""Age at which an outcome counts half, unless the configuration says otherwise."""
STRENGTH: Final = 6.0
"""So many outcomes is the mean of a coarser level worth at the next finer one."""
MOST_TASKS: Final = 256
"""Tasks of one model that are told apart; clients name tasks, so their number has no other bound."""
MOST_MODELS: Final = 20_000
"""Models of which something is remembered; those of deleted ones are among them."""


@frozen(kw_only=True)
class Performance:
    """What a report says of one model.

    Attributes:
        model: Its name.
        task: Of this task; None for all.
        calls: Outcomes that were heard of, whatever their age.
        successes: Their success, scores counted as such.
        success_rate: Decayed mean of success, without a prior; None without outcomes.
        evidence: Outcomes, decayed.
        mean_latency_ms: Decayed mean; None where no outcome told it.
        p50_latency_ms: Median; None as well for a single task.
        p95_latency_ms: 95th percentile; the same.
        mean_cost_usd: Decayed mean over the outcomes.
        unavailable: Calls to which the model's upstream did not answer; they are in none of the other figures. Of all
            tasks.
        last_at: When the last outcome was; None without outcomes.
    """

    model: str
    task: str | None = None
    calls: int = 0
    successes: float = 0.0
    success_rate: float | None = None
    evidence: float = 0.0
    mean_latency_ms: float | None = None
    p50_latency_ms: float | None = None
    p95_latency_ms: float | None = None
    mean_cost_usd: float = 0.0
    unavailable: int = 0
    last_at: float | None = None


@define(eq=False)
class _Counted:
    """What an outcome counts as at present, and where."""

    success: float
    past: ModelPast
    tallies: tuple[Tally, ...]


class Experience:
    """Everything that was learnt; the same whatever the order in which outcomes and feedback come.

    Outcomes of upstreams that did not answer touch nothing but a counter: whether a model is there is the circuit
    breaker's business.

    Args:
        half_life_s: Age at which an outcome counts half.
        strength: See `STRENGTH`.
        most_requests: Requests that are remembered for feedback, and in order not to count an outcome twice.
        most_tasks: Tasks of one model that are told apart; the one that was not heard of for longest makes way.
        most_models: The same for models.
    """

    def __init__(
        self,
        *,
        half_life_s: float = HALF_LIFE_S,
        strength: float = STRENGTH,
        most_requests: int = MOST_REQUESTS,
        most_tasks: int = MOST_TASKS,
        most_models: int = MOST_MODELS,
    ) -> None:
        if not (half_life_s > 0 and strength > 0):
            raise ValueError("half_life_s and strength must be above 0")
        self._half_life_s = half_life_s
        self._strength = strength
        self._most_tasks = most_tasks
        self._most_models = most_models
        self._models: OrderedDict[str, ModelPast] = OrderedDict()
        self._recent: RecentRequests[dict[CallKey, _Counted]] = RecentRequests(most_requests)

    # --- what comes in

    def learn(self, outcome: ModelOutcome) -> None:
        """An outcome; one that was heard before changes nothing."""
        request = self._recent.hear_outcome(outcome)
        if request is None:
            return
        past = self._models.get(outcome.model)
        if past is None:
            past = self._models[outcome.model] = ModelPast(outcome.at, outcome.at)
            if len(self._models) > self._most_models:
                self._models.popitem(last=False)
        else:
            self._models.move_to_end(outcome.model)
            past.newest = max(past.newest, outcome.at)
        if not outcome.is_available:
            past.unavailable += 1
            return
        success = success_of(outcome)
        latency_ms = outcome.latency_ms
        if latency_ms is not None and not 0 <= latency_ms <= LONGEST_MS:
            latency_ms = LONGEST_MS if latency_ms > LONGEST_MS else None
        weight = past.weight_at(outcome.at, self._half_life_s)
        tallies = past.tallies_of(outcome, self._most_tasks)
        for tally in tallies:
            tally.add(outcome, weight, success, latency_ms)
        if request.note is None:
            request.note = {}
        request.note[outcome.model, outcome.sequence] = _Counted(success, past, tallies)
        if request.feedback is not None:
            self._apply_feedback(request)

    def take_feedback(self, feedback: Feedback) -> None:
        """What somebody says of an answer takes the place of what was believed of it.

        It is about the last model of the request that answered. Feedback that comes before its request is kept for a
        while.
        """
        request = self._recent.hear_feedback(feedback)
        if request is not None:
            self._apply_feedback(request)

    def forget_before(self, at: float) -> None:
        """Forget models and tasks of which nothing was heard since then, and feedback that waits for its request since then."""
        self._recent.forget_before(at)
        for name in [name for name, past in self._models.items() if past.newest < at]:
            del self._models[name]
        for past in self._models.values():
            for task in [task for task, of_task in past.by_task.items() if of_task.all.newest < at]:
                del past.by_task[task]

    # --- what is believed

    def success(
        self, model: str, task: str, complexity: TaskComplexity | None, prior: float, now: float
    ) -> Belief:
        """See `PastOutcomes`. A task without a name, or a complexity that nobody knows, is a level less."""
        mean, strength = as_prior(prior), self._strength
        belief = (strength * mean, strength * (1.0 - mean), 0.0)
        past = self._models.get(model)
        if past is None or past.all is None:
            return Belief(*belief)
        share, difficulty = past.share_at(now, self._half_life_s), _DIFFICULTY[complexity]
        of_task = past.by_task.get(task) if task else None
        fine: Mapping[TaskComplexity | None, Tally] = {} if of_task is None else of_task.by_complexity
        levels = (
            _by_model(past, share, fine)
            if complexity is None
            else _by_complexity(past, share, fine, complexity)
        )
        for cells in levels if task else levels[:-1]:
            belief = update(belief, strength, difficulty, cells)
        return Belief(*belief)

    def latency(self, model: str, complexity: TaskComplexity | None, now: float) -> LatencyBelief | None:
        """See `PastOutcomes`. Figures of the whole model count like `STRENGTH` outcomes of the complexity."""
        past = self._models.get(model)
        if past is None or past.all is None or past.all.timed <= 0:
            return None
        everything = past.all
        share = past.share_at(now, self._half_life_s)
        mean_ms = everything.latency_ms / everything.timed
        p50_ms, p95_ms = everything.quantiles_ms
        evidence = everything.timed * share
        part = past.by_complexity.get(complexity) if complexity is not None else None
        if part is not None and part.timed > 0:
            own = part.timed * share
            trust = own / (own + self._strength)
            own_p50_ms, own_p95_ms = part.quantiles_ms
            mean_ms += trust * (part.latency_ms / part.timed - mean_ms)
            p50_ms += trust * (own_p50_ms - p50_ms)
            p95_ms += trust * (own_p95_ms - p95_ms)
            others = max(0.0, evidence - own)
            evidence = own + self._strength * others / (self._strength + others)
        return LatencyBelief(mean_ms=mean_ms, p50_ms=p50_ms, p95_ms=p95_ms, evidence=evidence)

    def has_any(self, model: str) -> bool:
        """See `PastOutcomes`."""
        past = self._models.get(model)
        return past is not None and past.all is not None

    # --- for reports

    def models(self) -> Collection[str]:
        """All models of which something was heard."""
        return self._models.keys()

    def tasks(self, model: str) -> tuple[str, ...]:
        """The tasks of a model that are told apart, in alphabetical order."""
        past = self._models.get(model)
        return () if past is None else tuple(sorted(past.by_task))

    @property
    def ignored_feedback(self) -> int:
        """Feedback on requests that nobody heard of, or that are too long ago."""
        return self._recent.ignored

    def summary(self, model: str, task: str | None, now: float) -> Performance:
        """What is known of a model.

        Args:
            model: Its name.
            task: Of this task; None for all.
            now: Seconds, on the clock of the outcomes.
        """
        past = self._models.get(model)
        if past is None:
            return Performance(model=model, task=task)
        tally: Tally | None = past.all
        if task is not None:
            of_task = past.by_task.get(task)
            tally = None if of_task is None else of_task.all
        if tally is None:
            return Performance(model=model, task=task, unavailable=past.unavailable)
        p50_ms = p95_ms = None
        if isinstance(tally, TimedTally) and tally.timed > 0:
            p50_ms, p95_ms = tally.quantiles_ms
        counts = tally.weight > 0
        return Performance(
            model=model,
            task=task,
            calls=tally.calls,
            successes=tally.successes,
            success_rate=tally.rate if counts else None,
            evidence=tally.weight * past.share_at(now, self._half_life_s),
            mean_latency_ms=tally.latency_ms / tally.timed if tally.timed > 0 else None,
            p50_latency_ms=p50_ms,
            p95_latency_ms=p95_ms,
            mean_cost_usd=tally.cost_usd / tally.weight if counts else 0.0,
            unavailable=past.unavailable,
            last_at=tally.newest,
        )

    # --- within

    def _apply_feedback(self, request: HeardRequest[dict[CallKey, _Counted]]) -> None:
        """Feedback stands for the success of the call that it is about, and of no other."""
        feedback = request.feedback
        if feedback is None or request.note is None:
            return
        answered = request.answered
        for key, counted in request.note.items():
            outcome = request.calls[key]
            success = clamp(feedback.score) if key == answered else success_of(outcome)
            if success != counted.success:
                weight = counted.past.weight_at(outcome.at, self._half_life_s)
                for tally in counted.tallies:
                    tally.correct(weight, success - counted.success)
                counted.success = success


_DIFFICULTY: Final[Mapping[TaskComplexity | None, float]] = {
    each: exponent_of(each) for each in (None, *TaskComplexity)
}


def _by_model(
    past: ModelPast, share: float, fine: Mapping[TaskComplexity | None, Tally]
) -> tuple[list[Cell], ...]:
    """The levels where nobody knows the complexity: the model without the task, and the task."""
    return (
        [_less(each, share, tally, fine.get(each)) for each, tally in past.by_complexity.items()],
        [(_DIFFICULTY[each], tally.weight * share, tally.success * share) for each, tally in fine.items()],
    )


def _by_complexity(
    past: ModelPast,
    share: float,
    fine: Mapping[TaskComplexity | None, Tally],
    complexity: TaskComplexity,
) -> tuple[list[Cell], ...]:
    """The levels where somebody does: the model at others, the model at this one without the task, and the task."""
    part, finest = past.by_complexity.get(complexity), fine.get(complexity)
    return (
        [
            (_DIFFICULTY[each], tally.weight * share, tally.success * share)
            for each, tally in past.by_complexity.items()
            if each is not complexity
        ],
        [] if part is None else [_less(complexity, share, part, finest)],
        [] if finest is None else [_less(complexity, share, finest)],
    )


def _less(complexity: TaskComplexity | None, share: float, tally: Tally, less: Tally | None = None) -> Cell:
    """Outcomes as they count now, without those that belong to a finer level."""
    weight, success = tally.weight, tally.success
    if less is not None:
        weight -= less.weight
        success -= less.success
    # What was forgotten of the finer level, and rounding, must not make anything negative.
    count = max(0.0, weight) * share
    return _DIFFICULTY[complexity], count, min(count, max(0.0, success) * share)
