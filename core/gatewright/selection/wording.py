"""Figures of a choice in words for people."""

from math import floor, log10
from typing import Final

from gatewright.selection.complexity import TaskComplexity

_CENTS_FROM_USD: Final = 0.1
_WHOLE_SECONDS_FROM: Final = 10.0
_LEAST_USD: Final = 1e-9


def dollars(usd: float) -> str:
    """An amount of money with two significant digits below 10 cents, such as $0.00042."""
    if usd <= 0.0:
        return "free"
    if usd >= _CENTS_FROM_USD:
        return f"${usd:.2f}"
    if usd < _LEAST_USD:
        return "next to nothing"
    digits = 1 - floor(log10(usd))
    return "$" + f"{usd:.{digits}f}".rstrip("0").rstrip(".")


def seconds(ms: float) -> str:
    """A time, such as 1.2 s."""
    s = ms / 1000
    return f"{s:.2g} s" if s < _WHOLE_SECONDS_FROM else f"{s:.0f} s"


def task_in_words(complexity: TaskComplexity) -> str:
    """A task of this complexity, with its article."""
    return f"{'an' if complexity is TaskComplexity.EXPERT else 'a'} {complexity.value} task"
