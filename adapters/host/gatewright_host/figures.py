"""The figures that `/metrics` shows: their names, labels and buckets. docs/operations.md has the same list."""

from enum import StrEnum
from typing import Final

from attrs import frozen


class FigureKind(StrEnum):
    """How a figure behaves."""

    COUNTER = "counter"
    """Only ever grows, over restarts too."""
    GAUGE = "gauge"
    """Goes up and down."""
    HISTOGRAM = "histogram"
    """Counts by size."""


@frozen(kw_only=True)
class Figure:
    """One figure.

    Attributes:
        name: As Prometheus shows it; of a histogram, without `_bucket`, `_sum` and `_count`.
        kind: How it behaves.
        text: What it counts, for people.
        labels: Names of its labels.
        bounds: Upper bounds of a histogram's buckets, but for the last one, which takes the rest.
        is_asked: It is no sum over the processes, but asked for when somebody looks.
    """

    name: str
    kind: FigureKind
    text: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    is_asked: bool = False

    @property
    def cells(self) -> int:
        """Numbers that are kept of it: a histogram's buckets, and its sum."""
        return len(self.bounds) + 2 if self.kind is FigureKind.HISTOGRAM else 1


_TOKEN_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_TOTAL_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
_WAIT_S: Final = (0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
_SELECT_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
_SCORES: Final = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def _counter(name: str, text: str, *labels: str) -> Figure:
    return Figure(name=name, kind=FigureKind.COUNTER, text=text, labels=labels)


def _histogram(name: str, text: str, bounds: tuple[float, ...], *labels: str) -> Figure:
    return Figure(name=name, kind=FigureKind.HISTOGRAM, text=text, labels=labels, bounds=bounds)


def _asked(name: str, text: str, *labels: str) -> Figure:
    return Figure(name=name, kind=FigureKind.GAUGE, text=text, labels=labels, is_asked=True)


REQUESTS: Final = _counter(
    "gatewright_requests_total", "Requests that have ended.", "model", "route", "status", "outcome"
)
ERRORS: Final = _counter("gatewright_errors_total", "Requests that failed.", "model", "kind")
FAILED_ATTEMPTS: Final = _counter(
    "gatewright_failed_attempts_total",
    "Calls to engines and providers that came to nothing.",
    "model",
    "kind",
)
TOKENS: Final = _counter(
    "gatewright_tokens_total",
    "Tokens as upstreams counted them; the cached ones are part of the prompts.",
    "model",
    "route",
    "kind",
)
COST: Final = _counter("gatewright_cost_usd_total", "US dollars spent.", "model", "route")
FALLBACKS: Final = _counter(
    "gatewright_fallbacks_total",
    "Requests that went on to another model, by how they ended.",
    "route",
    "outcome",
)
COMPLEXITY: Final = _counter(
    "gatewright_complexity_total", "Requests by how hard they were thought to be.", "route", "complexity"
)
DROPPED: Final = _counter(
    "gatewright_dropped_records_total", "Requests that the store was too slow to write down."
)
FIRST_TOKEN: Final = _histogram(
    "gatewright_first_token_seconds",
    "From a request's arrival to the first byte of its answer.",
    _TOKEN_S,
    "model",
)
TOTAL: Final = _histogram(
    "gatewright_request_seconds", "From a request's arrival to its end.", _TOTAL_S, "model"
)
WAIT: Final = _histogram("gatewright_queue_wait_seconds", "Wait for engines.", _WAIT_S, "model")
SELECTION: Final = _histogram(
    "gatewright_selection_seconds",
    "Time that the choice of the model took, waiting for the estimator included.",
    _SELECT_S,
    "route",
)
FEEDBACK: Final = _histogram(
    "gatewright_feedback_score",
    "What was said of answers, from 0 to 1.",
    _SCORES,
    "model",
)
IN_FLIGHT: Final = Figure(
    name="gatewright_requests_in_flight", kind=FigureKind.GAUGE, text="Requests under way."
)
BUDGET_LIMIT: Final = _asked("gatewright_budget_limit_usd", "Limit of a budget.", "account")
BUDGET_SPENT: Final = _asked("gatewright_budget_spent_usd", "Spent in the present window.", "account")
BUDGET_RESERVED: Final = _asked("gatewright_budget_reserved_usd", "Kept for requests under way.", "account")
ENGINE_STATE: Final = _asked(
    "gatewright_engine_state", "1 for the state that an engine is in.", "model", "context", "state"
)
ENGINE_SLOTS: Final = _asked(
    "gatewright_engine_slots", "Requests that an engine takes at a time.", "model", "context"
)
ENGINE_BUSY: Final = _asked("gatewright_engine_slots_busy", "Slots taken.", "model", "context")
QUEUE: Final = _asked("gatewright_queue_length", "Requests that wait for an engine of the model.", "model")

FIGURES: Final = {
    figure.name: figure
    for figure in (
        REQUESTS,
        ERRORS,
        FAILED_ATTEMPTS,
        TOKENS,
        COST,
        FALLBACKS,
        COMPLEXITY,
        DROPPED,
        FIRST_TOKEN,
        TOTAL,
        WAIT,
        SELECTION,
        FEEDBACK,
        IN_FLIGHT,
        BUDGET_LIMIT,
        BUDGET_SPENT,
        BUDGET_RESERVED,
        ENGINE_STATE,
        ENGINE_SLOTS,
        ENGINE_BUSY,
        QUEUE,
    )
}
"""By name."""
