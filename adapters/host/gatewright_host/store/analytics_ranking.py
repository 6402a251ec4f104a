"""Who does a task best, by what came of it."""

from typing import Any, Final

from attrs import frozen
from sqlalchemy import Row, Select, case, func, select

from gatewright_host.store import tables
from gatewright_host.store.analytics import narrowed
from gatewright_host.store.analytics_sql import (
    EVERYTHING,
    Readable,
    Slice,
    dollars,
    is_rated,
    number_or_none,
    patient,
    percentile,
    quality,
    ranked,
    wilson_interval,
)

MOST_TASKS: Final = 1000
"""Clients name tasks, so that there may be as many as requests."""


@frozen(kw_only=True)
class RankingRow:
    """How one model did a task. Providers that did not answer at all say nothing about quality and are counted apart.

    Attributes:
        task: Name of the task; empty for requests that name none, or for all tasks together.
        model: Its name.
        calls: Times that it was asked and could be reached.
        success_rate: Mean of what came of that: feedback where there is some, else whether there was an answer.
        low: Lower bound of the 95 % interval of the success rate, by Wilson's score.
        high: Upper bound.
        rated: Calls with feedback.
        unavailable: Times that it could not be reached.
        latency_mean_ms: From the call to the end of the answer, of successes.
        latency_p50_ms: The same, median.
        latency_p95_ms: The same, 95th percentile.
        first_token_p50_ms: From the call to the first token, median.
        cost_usd: Of all calls.
    """

    task: str
    model: str
    calls: int
    success_rate: float
    low: float
    high: float
    rated: int = 0
    unavailable: int = 0
    latency_mean_ms: float | None = None
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    first_token_p50_ms: float | None = None
    cost_usd: float = 0.0

    @property
    def cost_per_call_usd(self) -> float:
        """Mean over all calls, those in vain included."""
        return self.cost_usd / max(1, self.calls + self.unavailable)


def ranking_rows(
    store: Readable,
    task: str | None = None,
    min_calls: int = 1,
    since_s: float | None = None,
    until_s: float | None = None,
    *,
    within: Slice = EVERYTHING,
    together: bool = False,
) -> tuple[RankingRow, ...]:
    """Models by task, the best first: the one whose success is the surest, by the lower bound of its interval.

    Args:
        store: Where the outcomes are.
        task: Only this task; None for that of `within`.
        min_calls: Models with fewer calls are left out.
        since_s: Unix time of the earliest outcome; None for that of `within`.
        until_s: Unix time before which the latest was; the same.
        within: Further conditions.
        together: Do not tell tasks apart; otherwise the `MOST_TASKS` with the most calls are told of.
    """
    part = narrowed(within, since_s, until_s, task)
    with patient(store) as connection:
        rows = [_ranking_row(row) for row in connection.execute(_query(part, together=together))]
    rows = [row for row in rows if row.calls >= min_calls]
    rows.sort(key=lambda row: (row.task, -row.low, -row.success_rate, row.cost_per_call_usd, row.model))
    return tuple(rows)


def _query(within: Slice, *, together: bool) -> Select[Any]:
    outcomes, requests = tables.outcomes.c, tables.requests.c
    groups = [outcomes.model] if together else [outcomes.task, outcomes.model]
    joined = tables.outcomes.outerjoin(tables.requests, requests.request_id == outcomes.request_id)
    conditions = list(within.of_outcomes())
    if not together:
        counted = select(outcomes.task).select_from(joined).where(*conditions).group_by(outcomes.task)
        most = counted.order_by(func.count().desc(), outcomes.task).limit(MOST_TASKS)
        conditions.append(outcomes.task.in_(most))
    succeeded = outcomes.is_available & outcomes.success
    source = (
        select(
            *groups,
            outcomes.is_available,
            outcomes.cost_nano,
            case((outcomes.is_available, quality())).label("quality"),
            case((outcomes.is_available & (is_rated() | outcomes.score.is_not(None)), 1), else_=0).label(
                "rated"
            ),
            *ranked("latency_ms", case((succeeded, outcomes.latency_ms)), groups),
            *ranked("first_token_ms", case((succeeded, outcomes.first_token_ms)), groups),
        )
        .select_from(joined)
        .where(*conditions)
        .subquery()
    )
    columns = source.c
    names = [columns[group.name] for group in groups]
    return select(
        *names,
        func.count(columns.quality).label("calls"),
        func.count().label("all_calls"),
        func.sum(columns.quality).label("successes"),
        func.sum(columns.rated).label("rated"),
        func.sum(columns.cost_nano).label("cost_nano"),
        func.avg(columns.latency_ms).label("latency_mean_ms"),
        percentile(source, "latency_ms", 50).label("latency_p50_ms"),
        percentile(source, "latency_ms", 95).label("latency_p95_ms"),
        percentile(source, "first_token_ms", 50).label("first_token_p50_ms"),
    ).group_by(*names)


def _ranking_row(row: Row[Any]) -> RankingRow:
    calls, successes = int(row.calls), float(row.successes or 0.0)
    low, high = wilson_interval(successes, calls)
    return RankingRow(
        task=getattr(row, "task", ""),
        model=row.model,
        calls=calls,
        success_rate=successes / calls if calls else 0.0,
        low=low,
        high=high,
        rated=int(row.rated),
        unavailable=int(row.all_calls) - calls,
        latency_mean_ms=number_or_none(row.latency_mean_ms),
        latency_p50_ms=number_or_none(row.latency_p50_ms),
        latency_p95_ms=number_or_none(row.latency_p95_ms),
        first_token_p50_ms=number_or_none(row.first_token_p50_ms),
        cost_usd=dollars(row.cost_nano),
    )
