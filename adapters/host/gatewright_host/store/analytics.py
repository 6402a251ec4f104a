"""What was used: requests, tokens, money and time by model, key, route, task, user and time.

The other figures are in `analytics_ranking` (who does a task best), `analytics_comparison` (one model against another)
and `analytics_estimators` (whether the scores of hardness are worth anything).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import evolve, frozen
from sqlalchemy import ColumnElement, Row, Select, Subquery, case, exists, func, select

from gatewright.commands import Outcome
from gatewright_host.store import tables
from gatewright_host.store.analytics_sql import (
    EVERYTHING,
    By,
    Readable,
    Slice,
    dollars,
    milliseconds,
    patient,
    percentile,
    ranked,
)

MOST_ROWS: Final = 10_000
"""Clients name users and tasks, so that there may be as many groups as requests."""

_ERRORS: Final = (Outcome.FAILED.value, Outcome.UPSTREAM_ERROR.value, Outcome.BROKE_OFF.value)


@frozen(kw_only=True)
class UsageRow:
    """Figures over the requests of one group. Times are those of answered requests; None where there are none.

    Attributes:
        group: Labels, one for each thing that is told apart; empty where a request has none.
        requests: Requests that have ended.
        errors: Of these, those that failed or broke off.
        canceled: Of these, those whose client went away.
        prompt_tokens: Tokens in.
        completion_tokens: Tokens out.
        cached_tokens: Tokens in that came out of a cache.
        estimated_cost_usd: What they were thought to cost.
        cost_usd: What they cost.
        fallbacks: Requests that another model than the first choice ended with, or that asked several.
        fallback_successes: Of these, those that got an answer.
        decided: Requests for which a model was chosen.
        select_mean_ms: Time of the choice, waiting for an estimator included.
        select_p95_ms: The same, 95th percentile.
        latency_p50_ms: From arrival to end.
        latency_p95_ms: The same, 95th percentile.
        first_byte_p50_ms: From arrival to the first byte of the answer, which of a stream is its first token.
        first_byte_p95_ms: The same, 95th percentile.
    """

    group: tuple[str, ...]
    requests: int
    errors: int = 0
    canceled: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    estimated_cost_usd: float = 0.0
    cost_usd: float = 0.0
    fallbacks: int = 0
    fallback_successes: int = 0
    decided: int = 0
    select_mean_ms: float | None = None
    select_p95_ms: float | None = None
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    first_byte_p50_ms: float | None = None
    first_byte_p95_ms: float | None = None

    @property
    def error_rate(self) -> float:
        """Share of the requests that failed."""
        return self.errors / self.requests if self.requests else 0.0

    @property
    def fallback_rate(self) -> float:
        """Share of the requests that fell back."""
        return self.fallbacks / self.requests if self.requests else 0.0


def usage_rows(
    store: Readable,
    by: By | Sequence[By] = (),
    since_s: float | None = None,
    until_s: float | None = None,
    *,
    within: Slice = EVERYTHING,
    limit: int | None = None,
) -> tuple[UsageRow, ...]:
    """Figures by group, in the order of time, or else the most expensive first.

    Args:
        store: Where they are.
        by: What is told apart; nothing gives one row, or none where there are no requests.
        since_s: Unix time of the earliest request; None for that of `within`.
        until_s: Unix time before which the latest has ended; the same.
        within: Further conditions.
        limit: Most rows; never more than `MOST_ROWS`.
    """
    told_apart = (by,) if isinstance(by, By) else tuple(by)
    most = MOST_ROWS if limit is None else min(limit, MOST_ROWS)
    times = [place for place, each in enumerate(told_apart) if each.is_time]
    part = narrowed(within, since_s, until_s)
    with patient(store) as connection:
        labels = [each.label(connection.dialect.name) for each in told_apart]
        sums = connection.execute(_sums_query(labels, part, times, most)).all()
        # One query for each time: ranks are sorted for, and what is sorted is best narrow.
        times_by_group: dict[tuple[str, ...], dict[str, Any]] = {
            tuple(row)[: len(labels)]: {} for row in sums
        }
        for query in _times_queries(labels, part):
            for row in connection.execute(query):
                found = times_by_group.get(tuple(row)[: len(labels)])
                if found is not None:
                    found.update(dict(row._mapping))  # noqa: SLF001  # public, as SQLAlchemy has it
    rows = [
        _usage_row(row, times_by_group[tuple(row)[: len(labels)]], len(labels))
        for row in sums
        if row.requests
    ]
    rows.sort(
        key=lambda row: (
            tuple(row.group[place] for place in times),
            -row.cost_usd,
            -row.requests,
            row.group,
        )
    )
    return tuple(rows)


def narrowed(within: Slice, since_s: float | None, until_s: float | None, task: str | None = None) -> Slice:
    """The slice, with other bounds and another task where these are given."""
    return evolve(
        within,
        since_s=within.since_s if since_s is None else since_s,
        until_s=within.until_s if until_s is None else until_s,
        task=within.task if task is None else task,
    )


def _sums_query(
    labels: Sequence[ColumnElement[str]], within: Slice, times: Sequence[int], most: int
) -> Select[Any]:
    requests = tables.requests.c
    source = (
        select(
            *_named(labels),
            requests.outcome,
            requests.prompt_tokens,
            requests.completion_tokens,
            requests.cached_tokens,
            requests.estimated_cost_nano,
            requests.cost_nano,
            case((_fell_back(), 1), else_=0).label("fell_back"),
        )
        .where(*within.of_requests())
        .subquery()
    )
    columns, groups = source.c, _groups(source, labels)
    saved = (columns.fell_back == 1) & (columns.outcome == Outcome.ANSWERED.value)
    # As the rows are sorted in the end, so that those that are left out are the last.
    order = (
        *(groups[place] for place in times),
        func.sum(columns.cost_nano).desc(),
        func.count().desc(),
        *groups,
    )
    query = select(
        *groups,
        func.count().label("requests"),
        _number_of(columns.outcome.in_(_ERRORS)).label("errors"),
        _number_of(columns.outcome == Outcome.CANCELED.value).label("canceled"),
        func.sum(columns.prompt_tokens).label("prompt_tokens"),
        func.sum(columns.completion_tokens).label("completion_tokens"),
        func.sum(columns.cached_tokens).label("cached_tokens"),
        func.sum(columns.estimated_cost_nano).label("estimated_cost_nano"),
        func.sum(columns.cost_nano).label("cost_nano"),
        func.sum(columns.fell_back).label("fallbacks"),
        _number_of(saved).label("fallback_successes"),
    )
    return query.group_by(*groups).order_by(*order).limit(most)


def _times_queries(labels: Sequence[ColumnElement[str]], within: Slice) -> list[Select[Any]]:
    requests = tables.requests.c
    answered = requests.outcome == Outcome.ANSWERED.value
    values = {
        "select_s": case((requests.decision_json.is_not(None), requests.select_s)),
        "latency_s": case((answered, requests.total_s)),
        "first_byte_s": case((answered, requests.first_byte_s)),
    }
    queries = []
    for name, value in values.items():
        source = select(*_named(labels), *ranked(name, value, labels)).where(*within.of_requests()).subquery()
        groups = _groups(source, labels)
        queries.append(
            select(
                *groups,
                func.count(source.c[name]).label(f"{name}_number"),
                func.avg(source.c[name]).label(f"{name}_mean"),
                percentile(source, name, 50).label(f"{name}_p50"),
                percentile(source, name, 95).label(f"{name}_p95"),
            ).group_by(*groups)
        )
    return queries


def _named(labels: Sequence[ColumnElement[str]]) -> list[ColumnElement[str]]:
    return [label.label(f"group_{place}") for place, label in enumerate(labels)]


def _groups(source: Subquery, labels: Sequence[ColumnElement[str]]) -> list[ColumnElement[Any]]:
    return [source.c[f"group_{place}"] for place in range(len(labels))]


def _fell_back() -> ColumnElement[bool]:
    requests, outcomes = tables.requests.c, tables.outcomes.c
    another = exists().where(outcomes.request_id == requests.request_id, outcomes.model != requests.model)
    # Who never failed has asked nobody else: most rows need no look at their outcomes.
    return (requests.chosen != requests.model) | ((requests.failed > 0) & another)


def _number_of(condition: ColumnElement[bool]) -> ColumnElement[Any]:
    return func.sum(case((condition, 1), else_=0))


def _usage_row(row: Row[Any], times: Mapping[str, Any], groups: int) -> UsageRow:
    return UsageRow(
        group=tuple(row)[:groups],
        requests=int(row.requests),
        errors=int(row.errors or 0),
        canceled=int(row.canceled or 0),
        prompt_tokens=int(row.prompt_tokens or 0),
        completion_tokens=int(row.completion_tokens or 0),
        cached_tokens=int(row.cached_tokens or 0),
        estimated_cost_usd=dollars(row.estimated_cost_nano),
        cost_usd=dollars(row.cost_nano),
        fallbacks=int(row.fallbacks or 0),
        fallback_successes=int(row.fallback_successes or 0),
        decided=int(times["select_s_number"]),
        select_mean_ms=milliseconds(times["select_s_mean"]),
        select_p95_ms=milliseconds(times["select_s_p95"]),
        latency_p50_ms=milliseconds(times["latency_s_p50"]),
        latency_p95_ms=milliseconds(times["latency_s_p95"]),
        first_byte_p50_ms=milliseconds(times["first_byte_s_p50"]),
        first_byte_p95_ms=milliseconds(times["first_byte_s_p95"]),
    )
