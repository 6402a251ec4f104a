"""Whether the estimators of hardness are worth anything: do requests that were thought to be hard fail more often."""

from collections import defaultdict
from math import sqrt
from typing import Any, Final

from attrs import frozen
from sqlalchemy import ColumnElement, Row, Select, case, func, select

from gatewright.selection.complexity import TaskComplexity
from gatewright_host.store import tables
from gatewright_host.store.analytics import narrowed
from gatewright_host.store.analytics_sql import (
    EVERYTHING,
    Z_95,
    Readable,
    Slice,
    patient,
    quality,
    wilson_interval,
)

GOOD: Final = 0.5
"""From here on what was said of an answer is a success."""


@frozen(kw_only=True)
class EstimatorRow:
    """How well one estimator's scores tell failures from successes.

    Requests are compared with others of the same model only: otherwise an estimator looks bad just because hard requests
    went to good models.

    Attributes:
        estimator: Its name.
        requests: Requests with a score and an outcome.
        failures: Of these, those that failed.
        pairs: Pairs of a failure and a success of the same model: what the figures below rest on.
        auroc: Chance that the failure of such a pair has the higher score; 0.5 is worth nothing. None without pairs.
        low: Lower bound of its 95 % interval.
        high: Upper bound.
        length_auroc: The same for the number of prompt tokens, which costs nothing to know.
    """

    estimator: str
    requests: int
    failures: int
    pairs: int = 0
    auroc: float | None = None
    low: float | None = None
    high: float | None = None
    length_auroc: float | None = None


@frozen(kw_only=True)
class CalibrationRow:
    """What came of the requests that an estimator thought equally hard.

    Attributes:
        estimator: Its name.
        complexity: On the scale.
        requests: Requests with an outcome.
        mean_score: Of these.
        success_rate: Mean of what came of them.
        low: Lower bound of its 95 % interval.
        high: Upper bound.
    """

    estimator: str
    complexity: str
    requests: int
    mean_score: float
    success_rate: float
    low: float
    high: float


def estimator_rows(
    store: Readable,
    since_s: float | None = None,
    until_s: float | None = None,
    *,
    within: Slice = EVERYTHING,
) -> tuple[EstimatorRow, ...]:
    """One row for each estimator, by name."""
    part = narrowed(within, since_s, until_s)
    by_model: defaultdict[str, list[Row[Any]]] = defaultdict(list)
    with patient(store) as connection:
        for row in connection.execute(_accuracy_query(part)):
            by_model[row.estimator].append(row)
    return tuple(_estimator_row(name, by_model[name]) for name in sorted(by_model))


def calibration_rows(
    store: Readable,
    since_s: float | None = None,
    until_s: float | None = None,
    *,
    within: Slice = EVERYTHING,
) -> tuple[CalibrationRow, ...]:
    """One row for each estimator and level, by name and from the easiest to the hardest."""
    part = narrowed(within, since_s, until_s)
    requests = tables.requests.c
    query = (
        select(
            requests.estimator,
            requests.complexity,
            func.count().label("requests"),
            func.avg(requests.complexity_score).label("mean_score"),
            func.sum(quality()).label("successes"),
        )
        .join_from(tables.requests, tables.outcomes, _is_first_call())
        .where(*_is_scored(), requests.complexity.is_not(None), *part.of_requests())
        .group_by(requests.estimator, requests.complexity)
    )
    with patient(store) as connection:
        rows = [_calibration_row(row) for row in connection.execute(query)]
    levels = {complexity.value: complexity.level for complexity in TaskComplexity}
    rows.sort(key=lambda row: (row.estimator, levels.get(row.complexity, len(levels))))
    return tuple(rows)


def _is_first_call() -> ColumnElement[bool]:
    """What came of the model that the score had a part in choosing; later ones were called because it failed."""
    outcomes = tables.outcomes.c
    is_its = outcomes.request_id == tables.requests.c.request_id
    return is_its & (outcomes.sequence == 0) & outcomes.is_available


def _is_scored() -> tuple[ColumnElement[bool], ...]:
    requests = tables.requests.c
    return requests.complexity_score.is_not(None), requests.estimator.is_not(None), requests.estimator != ""


def _accuracy_query(within: Slice) -> Select[Any]:
    """By estimator and model: the numbers, and the sums of the failures' ranks."""
    outcomes, requests = tables.outcomes.c, tables.requests.c
    scored = (
        select(
            requests.estimator,
            outcomes.model,
            requests.complexity_score.label("score"),
            func.coalesce(requests.prompt_tokens, 0).label("length"),
            case((quality() < GOOD, 1), else_=0).label("failed"),
        )
        .join_from(tables.requests, tables.outcomes, _is_first_call())
        .where(*_is_scored(), *within.of_requests())
        .subquery()
    )
    columns = scored.c
    group = (columns.estimator, columns.model)
    with_ranks = select(
        *group,
        columns.failed,
        _middle_rank(columns.score, group).label("score_rank"),
        _middle_rank(columns.length, group).label("length_rank"),
    ).subquery()
    columns = with_ranks.c
    return select(
        columns.estimator,
        columns.model,
        func.count().label("requests"),
        func.sum(columns.failed).label("failures"),
        func.sum(case((columns.failed == 1, columns.score_rank), else_=0.0)).label("score_ranks"),
        func.sum(case((columns.failed == 1, columns.length_rank), else_=0.0)).label("length_ranks"),
    ).group_by(columns.estimator, columns.model)


def _middle_rank(column: ColumnElement[Any], group: tuple[ColumnElement[Any], ...]) -> ColumnElement[Any]:
    """The rank of a value in its group; equal values share the middle of theirs."""
    rank = func.rank().over(partition_by=group, order_by=column)
    equals = func.count().over(partition_by=(*group, column))
    return rank + (equals - 1) / 2.0


def _estimator_row(estimator: str, rows: list[Row[Any]]) -> EstimatorRow:
    requests, failures = sum(int(row.requests) for row in rows), sum(int(row.failures) for row in rows)
    pairs, wins, length_wins, variance = 0, 0.0, 0.0, 0.0
    for row in rows:
        failed, good = int(row.failures), int(row.requests) - int(row.failures)
        if not failed * good:
            continue
        # Mann and Whitney: the ranks' sum, less what it is at least, counts the pairs in the right order.
        least = failed * (failed + 1) / 2
        won = float(row.score_ranks) - least
        pairs += failed * good
        wins += won
        length_wins += float(row.length_ranks) - least
        variance += (failed * good) ** 2 * _auroc_variance(won / (failed * good), failed, good)
    if not pairs:
        return EstimatorRow(estimator=estimator, requests=requests, failures=failures)
    auroc, width = wins / pairs, Z_95 * sqrt(variance) / pairs
    return EstimatorRow(
        estimator=estimator,
        requests=requests,
        failures=failures,
        pairs=pairs,
        auroc=auroc,
        low=max(0.0, auroc - width),
        high=min(1.0, auroc + width),
        length_auroc=length_wins / pairs,
    )


def _auroc_variance(auroc: float, failed: int, good: int) -> float:
    """By Hanley and McNeil (1982); kept from vanishing where all pairs are in the same order."""
    # Half a pair in the wrong order: with few pairs a perfect order proves little.
    kept = min(max(auroc, 0.5 / (failed * good)), 1 - 0.5 / (failed * good))
    one, two = kept / (2 - kept), 2 * kept * kept / (1 + kept)
    return (kept * (1 - kept) + (failed - 1) * (one - kept * kept) + (good - 1) * (two - kept * kept)) / (
        failed * good
    )


def _calibration_row(row: Row[Any]) -> CalibrationRow:
    requests, successes = int(row.requests), float(row.successes)
    low, high = wilson_interval(successes, requests)
    return CalibrationRow(
        estimator=row.estimator,
        complexity=row.complexity,
        requests=requests,
        mean_score=float(row.mean_score),
        success_rate=successes / requests,
        low=low,
        high=high,
    )
