"""How hard a task is: the scale, and an estimate on it with its reasons."""

from enum import StrEnum
from typing import Final

from attrs import frozen


class TaskComplexity(StrEnum):
    """How hard a task is, from the easiest to the hardest."""

    TRIVIAL = "trivial"
    SIMPLE = "simple"
    MODERATE = "moderate"
    COMPLEX = "complex"
    EXPERT = "expert"

    @property
    def level(self) -> int:
        """0 for the easiest to 4 for the hardest."""
        return _LEVELS[self]


_LEVELS: Final = {complexity: level for level, complexity in enumerate(TaskComplexity)}


@frozen(kw_only=True)
class DimensionScore:
    """One dimension's part in an estimate.

    Attributes:
        name: Of the dimension.
        score: 0 to 1.
        weight: Its share in the whole, 0 to 1.
        reason: What was seen, one line for people.
    """

    name: str
    score: float
    weight: float
    reason: str = ""


@frozen(kw_only=True)
class ComplexityEstimate:
    """How hard one request is.

    Attributes:
        complexity: On the scale.
        score: The same as a number, 0 to 1.
        confidence: 0 to 1; how far the score is from the nearest threshold, or what the estimator says.
        estimator: Who estimated: "heuristic", "model", "learned", or a custom one's name.
        dimensions: What the score is made of, where the estimator tells.
        reason: One line for people, where there is more to say.
    """

    complexity: TaskComplexity
    score: float
    confidence: float = 0.5
    estimator: str = "heuristic"
    dimensions: tuple[DimensionScore, ...] = ()
    reason: str = ""
