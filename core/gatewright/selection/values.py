"""What a figure is worth: quality, cost, time and readiness as numbers from 0 to 1, more is better."""

from math import ldexp, log10, pow  # noqa: A004  # of floats, which ** says less clearly
from typing import Final

from gatewright.leases import EngineLoad, LoadState
from gatewright.selection.complexity import TaskComplexity

SHORT_ANSWER_TOKENS: Final = 200
"""Answer that a profile's `latency_ms` is about."""
UNSEEN_COST_USD: Final = 0.0001
"""Costs far below this are all as good as nothing."""
COST_DECADES: Final = 5.0
"""A cost of 10 to this power times `UNSEEN_COST_USD` (10 dollars) is worth 0; each factor of 10 below it adds a fifth."""
HALF_LATENCY_MS: Final = 4000.0
"""An answer that takes this long is worth a half."""
SECONDS_PER_HOUR: Final = 3600.0
LOAD_GUESS_S: Final = 20.0
"""For an engine that was never started."""
HALF_LOAD_S: Final = 30.0
"""An engine that takes this long to load is half as ready."""


def exponent_of(complexity: TaskComplexity | None) -> float:
    """How many tasks of middling difficulty a task is worth: a quarter for the easiest, four for the hardest."""
    return 1.0 if complexity is None else ldexp(1.0, complexity.level - 2)


def adjusted_quality(quality: float, complexity: TaskComplexity | None) -> float:
    """The chance to do a task of this complexity.

    It is `quality ** exponent`: an expert task is as if four tasks of middling difficulty all had to succeed. So a
    model of 0.9 falls to 0.66 and one of 0.6 to 0.13, while a trivial task is done by them in 97 and 88 of 100 cases.

    Args:
        quality: Chance at middling difficulty, 0 to 1.
        complexity: How hard the task is; None where nobody knows, which counts as middling.
    """
    return pow(quality, exponent_of(complexity))


def cost_value(usd: float) -> float:
    """What a cost is worth: 1 for nothing, and a fifth less for each further factor of 10."""
    return max(0.0, 1.0 - log10(1.0 + usd / UNSEEN_COST_USD) / COST_DECADES)


def latency_value(ms: float) -> float:
    """What a time is worth: 1 for none, a half for 4 seconds, never quite 0."""
    return HALF_LATENCY_MS / (HALF_LATENCY_MS + ms)


def waiting_ahead(load: EngineLoad) -> int:
    """Requests that must end before a new one may begin."""
    if load.free_slots is None:
        return load.waiting
    return max(0, load.waiting + 1 - load.free_slots)


def loading_s(load: EngineLoad) -> float:
    """Time until the engine is loaded; half of it is over, as far as is known, where it is being loaded already."""
    match load.state:
        case LoadState.STOPPED:
            return LOAD_GUESS_S if load.load_s is None else load.load_s
        case LoadState.LOADING:
            return (LOAD_GUESS_S if load.load_s is None else load.load_s) / 2
        case _:
            return 0.0


def readiness_value(load: EngineLoad | None) -> float:
    """What it is worth that a model can begin now: 1 where nothing stands before it, or nothing is known.

    A queue of N divides it by N + 1, loading by up to any factor (2 at half a minute), and each engine that has to go
    halves it.
    """
    if load is None:
        return 1.0
    ready = HALF_LOAD_S / (HALF_LOAD_S + loading_s(load)) / (1 + waiting_ahead(load))
    return ready * 0.5 ** len(load.evicts)


def is_plain(load: EngineLoad) -> bool:
    """Whether a load changes nothing: the engine is ready, and a slot of it is free."""
    return (
        load.state is LoadState.READY
        and not load.evicts
        and load.waiting == 0
        and (load.free_slots is None or load.free_slots > 0)
    )
