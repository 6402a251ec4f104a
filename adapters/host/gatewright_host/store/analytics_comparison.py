"""One model against another, on work of the same kind.

Models that are chosen for easy work look good in a plain average. So two models are compared only within tasks of the
same name and hardness, each outcome there weighs the more the less likely its model was to be chosen (inverse
propensity), and the differences are put together by how much both have done (Mantel-Haenszel). Where every choice was
certain there is nothing to weigh: then only task and hardness are held equal, and what else moved the choice is not.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations
from math import sqrt
from typing import Any, Final

from attrs import frozen
from sqlalchemy import Row, Select, case, func, select

from gatewright.accounting.offpolicy import ModelValue, model_values
from gatewright.accounting.outcomes import ModelOutcome
from gatewright_host.store import tables
from gatewright_host.store.analytics import narrowed
from gatewright_host.store.analytics_sql import EVERYTHING, Z_95, Readable, Slice, dollars, patient, quality

LEAST_PROPENSITY: Final = 0.05
"""No outcome weighs more than twenty others: a few unlikely choices would drown all else."""

MOST_OUTCOMES: Final = 200_000
"""Outcomes that `value_rows` reads one by one."""
_PORTION: Final = 5000


@frozen(kw_only=True)
class ComparisonRow:
    """One model against another, over the kinds of work that both have done.

    Attributes:
        first: One model.
        second: The other.
        kinds: Pairs of task and hardness in which both have outcomes.
        first_calls: Calls of the first in these.
        second_calls: Calls of the second in these.
        first_success: Success of the first, on the common mix of work.
        second_success: Success of the second, on the same mix.
        difference: First less second.
        low: Lower bound of the difference's 95 % interval.
        high: Upper bound.
        first_cost_usd: Mean cost of a call of the first, on the common mix.
        second_cost_usd: The same of the second.
        first_latency_ms: Mean latency of the first, on the common mix; None where it never answered.
        second_latency_ms: The same of the second.
        is_weighed: Some choices were not certain, so that propensities say something.
    """

    first: str
    second: str
    kinds: int
    first_calls: int
    second_calls: int
    first_success: float
    second_success: float
    difference: float
    low: float
    high: float
    first_cost_usd: float = 0.0
    second_cost_usd: float = 0.0
    first_latency_ms: float | None = None
    second_latency_ms: float | None = None
    is_weighed: bool = False


@frozen(kw_only=True)
class _Cell:
    """How one model did work of one kind; sums are weighed by inverse propensity."""

    calls: int
    weight: float
    squares: float
    success: float
    cost_usd: float
    latency_ms: float | None
    is_weighed: bool

    @property
    def variance(self) -> float:
        """Of the estimated success; one success and one failure more keep it above 0 where all went the same way."""
        effective = self.weight * self.weight / self.squares
        share = (self.success * effective + 1) / (effective + 2)
        return share * (1 - share) / (effective + 2)


def comparison_rows(
    store: Readable,
    min_calls: int = 5,
    since_s: float | None = None,
    until_s: float | None = None,
    *,
    within: Slice = EVERYTHING,
    models: Sequence[str] | None = None,
) -> tuple[ComparisonRow, ...]:
    """Each model against each other, those with the most calls in common first.

    Args:
        store: Where the outcomes are.
        min_calls: Calls of each model, over the kinds of work that both have done, below which they are not compared.
        since_s: Unix time of the earliest outcome; None for that of `within`.
        until_s: Unix time before which the latest was; the same.
        within: Further conditions.
        models: Only these; None for all.
    """
    part = narrowed(within, since_s, until_s)
    kinds: defaultdict[str, dict[tuple[str, str], _Cell]] = defaultdict(dict)
    with patient(store) as connection:
        for row in connection.execute(_query(part)):
            if models is None or row.model in models:
                kinds[row.model][row.task, row.complexity] = _cell(row)
    found = [
        compared
        for first, second in combinations(sorted(kinds), 2)
        if (compared := _compare(first, kinds[first], second, kinds[second], min_calls)) is not None
    ]
    found.sort(key=lambda row: (-min(row.first_calls, row.second_calls), row.first, row.second))
    return tuple(found)


def value_rows(
    store: Readable,
    since_s: float | None = None,
    until_s: float | None = None,
    *,
    within: Slice = EVERYTHING,
) -> tuple[ModelValue, ...]:
    """Each model as if it had had all requests, by `accounting.offpolicy`; the best first.

    Args:
        store: Where the outcomes are; of more than `MOST_OUTCOMES` the latest count.
        since_s: Unix time of the earliest outcome; None for that of `within`.
        until_s: Unix time before which the latest was; the same.
        within: Further conditions.
    """
    outcomes, requests = tables.outcomes.c, tables.requests.c
    query = (
        select(
            outcomes.model,
            outcomes.propensity,
            outcomes.latency_ms,
            outcomes.cost_nano,
            quality().label("quality"),
        )
        .select_from(tables.outcomes.outerjoin(tables.requests, requests.request_id == outcomes.request_id))
        .where(
            outcomes.is_available,
            outcomes.sequence == 0,
            *narrowed(within, since_s, until_s).of_outcomes(),
        )
        .order_by(outcomes.at_s.desc(), outcomes.id.desc())
        .limit(MOST_OUTCOMES)
    )
    with patient(store) as connection:
        rows = connection.execution_options(yield_per=_PORTION).execute(query)
        return model_values(_outcome(row) for row in rows)


def _outcome(row: Row[Any]) -> ModelOutcome:
    """As much of an outcome as counts, with whatever was said of it as its score."""
    return ModelOutcome(
        request_id="",
        model=row.model,
        success=row.quality > 0,
        at=0.0,
        score=row.quality,
        latency_ms=row.latency_ms,
        cost_usd=dollars(row.cost_nano),
        propensity=row.propensity,
    )


def _query(within: Slice) -> Select[Any]:
    outcomes, requests = tables.outcomes.c, tables.requests.c
    propensity = case(
        (outcomes.propensity < LEAST_PROPENSITY, LEAST_PROPENSITY),
        (outcomes.propensity > 1, 1.0),
        else_=outcomes.propensity,
    )
    source = (
        select(
            outcomes.task,
            func.coalesce(outcomes.complexity, "").label("complexity"),
            outcomes.model,
            (1.0 / propensity).label("weight"),
            quality().label("quality"),
            outcomes.cost_nano,
            case((outcomes.success, outcomes.latency_ms)).label("latency_ms"),
        )
        .select_from(tables.outcomes.outerjoin(tables.requests, requests.request_id == outcomes.request_id))
        # Later calls were not chosen, but followed from a failure.
        .where(outcomes.is_available, outcomes.sequence == 0, *within.of_outcomes())
        .subquery()
    )
    columns = source.c
    groups = (columns.task, columns.complexity, columns.model)
    return select(
        *groups,
        func.count().label("calls"),
        func.sum(columns.weight).label("weight"),
        func.sum(columns.weight * columns.weight).label("squares"),
        func.sum(columns.weight * columns.quality).label("successes"),
        func.max(columns.weight).label("largest_weight"),
        func.sum(columns.cost_nano).label("cost_nano"),
        func.avg(columns.latency_ms).label("latency_ms"),
    ).group_by(*groups)


def _cell(row: Row[Any]) -> _Cell:
    return _Cell(
        calls=int(row.calls),
        weight=float(row.weight),
        squares=float(row.squares),
        success=float(row.successes) / float(row.weight),
        cost_usd=dollars(row.cost_nano) / int(row.calls),
        latency_ms=None if row.latency_ms is None else float(row.latency_ms),
        is_weighed=float(row.largest_weight) > 1,
    )


def _compare(
    first: str,
    of_first: dict[tuple[str, str], _Cell],
    second: str,
    of_second: dict[tuple[str, str], _Cell],
    min_calls: int,
) -> ComparisonRow | None:
    pairs = [(of_first[kind], of_second[kind]) for kind in sorted(of_first.keys() & of_second.keys())]
    first_calls, second_calls = sum(one.calls for one, _ in pairs), sum(two.calls for _, two in pairs)
    if not pairs or min(first_calls, second_calls) < min_calls:
        return None
    shares = [one.calls * two.calls / (one.calls + two.calls) for one, two in pairs]
    whole = sum(shares)
    shares = [share / whole for share in shares]
    one_success = _mixed((share, one.success) for share, (one, _) in zip(shares, pairs, strict=True))
    two_success = _mixed((share, two.success) for share, (_, two) in zip(shares, pairs, strict=True))
    variance = sum(
        share * share * (one.variance + two.variance) for share, (one, two) in zip(shares, pairs, strict=True)
    )
    difference, width = one_success - two_success, Z_95 * sqrt(variance)
    return ComparisonRow(
        first=first,
        second=second,
        kinds=len(pairs),
        first_calls=first_calls,
        second_calls=second_calls,
        first_success=one_success,
        second_success=two_success,
        difference=difference,
        low=max(-1.0, difference - width),
        high=min(1.0, difference + width),
        first_cost_usd=_mixed((share, one.cost_usd) for share, (one, _) in zip(shares, pairs, strict=True)),
        second_cost_usd=_mixed((share, two.cost_usd) for share, (_, two) in zip(shares, pairs, strict=True)),
        first_latency_ms=_mixed_known(
            [(s, one.latency_ms) for s, (one, _) in zip(shares, pairs, strict=True)]
        ),
        second_latency_ms=_mixed_known(
            [(s, two.latency_ms) for s, (_, two) in zip(shares, pairs, strict=True)]
        ),
        is_weighed=any(one.is_weighed or two.is_weighed for one, two in pairs),
    )


def _mixed(parts: Iterable[tuple[float, float]]) -> float:
    return sum(share * value for share, value in parts)


def _mixed_known(parts: Sequence[tuple[float, float | None]]) -> float | None:
    known = [(share, value) for share, value in parts if value is not None]
    whole = sum(share for share, _ in known)
    return _mixed(known) / whole if whole else None
