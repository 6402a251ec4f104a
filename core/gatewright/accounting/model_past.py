"""The sums over the outcomes of one model, in which older ones count less.

An outcome loses half of its weight with each half-life. Nothing is multiplied again as time passes: a new outcome is
added with a weight that has grown instead, and a reader divides by what an outcome of the present would weigh
("forward decay": Cormode, Shkapenyuk, Srivastava, Xu, ICDE 2009). So the order in which outcomes come does not matter,
and an old one that comes late gets the weight of its age.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from attrs import define, field

from gatewright.accounting.outcomes import ModelOutcome
from gatewright.accounting.tallies import Tally, TimedTally
from gatewright.selection.complexity import TaskComplexity

MOST_HALVINGS: Final = 64.0
"""So far may weights grow before all of a model are scaled down; 2 to this power is far from where numbers end."""


@define(eq=False)
class TaskPast:
    """One model at one task.

    Attributes:
        all: All outcomes.
        by_complexity: The same by complexity; None where nobody knew it.
    """

    all: Tally
    by_complexity: dict[TaskComplexity | None, Tally] = field(factory=dict)


@define(eq=False)
class ModelPast:
    """One model: everything, and parts of it.

    Attributes:
        landmark: When an outcome had to be to weigh 1 in all these sums.
        newest: Time of the newest outcome.
        all: All outcomes; None while there are none but of upstreams that did not answer.
        by_complexity: The same by complexity; None where nobody knew it.
        by_task: By task, the one that was heard of last at the end.
        unavailable: Outcomes of upstreams that did not answer; they are nowhere else.
    """

    landmark: float
    newest: float
    all: TimedTally | None = None
    by_complexity: dict[TaskComplexity | None, TimedTally] = field(factory=dict)
    by_task: OrderedDict[str, TaskPast] = field(factory=OrderedDict)
    unavailable: int = 0

    def weight_at(self, at: float, half_life_s: float) -> float:
        """What an outcome of that time weighs."""
        halvings = (at - self.landmark) / half_life_s
        if halvings <= MOST_HALVINGS:
            return float(2.0**halvings)
        factor = float(2.0**-halvings)
        for tally in self._tallies():
            tally.scale(factor)
        self.landmark = at
        return 1.0

    def share_at(self, now: float, half_life_s: float) -> float:
        """What makes weights into numbers of outcomes, as they count now; no clock makes one count for more than one."""
        return float(2.0 ** ((self.landmark - max(now, self.newest)) / half_life_s))

    def tallies_of(self, outcome: ModelOutcome, most_tasks: int) -> tuple[Tally, ...]:
        """The sums in which an outcome counts; those of the task that was not heard of for longest make way for a new one."""
        at, complexity = outcome.at, outcome.complexity
        if self.all is None:
            self.all = TimedTally(at)
        timed = self.by_complexity.get(complexity)
        if timed is None:
            timed = self.by_complexity[complexity] = TimedTally(at)
        if not outcome.task:
            return self.all, timed
        of_task = self.by_task.get(outcome.task)
        if of_task is None:
            of_task = self.by_task[outcome.task] = TaskPast(Tally(at))
            if len(self.by_task) > most_tasks:
                self.by_task.popitem(last=False)
        else:
            self.by_task.move_to_end(outcome.task)
        tally = of_task.by_complexity.get(complexity)
        if tally is None:
            tally = of_task.by_complexity[complexity] = Tally(at)
        return self.all, timed, of_task.all, tally

    def _tallies(self) -> Iterator[Tally]:
        if self.all is not None:
            yield self.all
        yield from self.by_complexity.values()
        for task in self.by_task.values():
            yield task.all
            yield from task.by_complexity.values()
