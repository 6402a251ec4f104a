"""What the queries for reports have in common: who is asked, which part of the rows, percentiles, intervals."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from enum import StrEnum
from math import sqrt
from typing import Any, Final, Protocol

from attrs import frozen
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    Table,
    case,
    cast,
    func,
    literal_column,
    text,
)

from gatewright_host.store import tables

_PATIENCE_MS: Final = 120_000
Z_95: Final = 1.959963984540054
"""Standard deviations on each side of the mean that hold 95 % of a normal distribution."""


class Readable(Protocol):
    """A store, as far as reports need it."""

    def reading(self) -> AbstractContextManager[Connection]:
        """A transaction that sees one state of the database."""
        ...


@contextmanager
def patient(store: Readable) -> Iterator[Connection]:
    """A transaction whose queries may take as long as reports over much take; others are cut off after seconds."""
    with store.reading() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SET LOCAL statement_timeout = {_PATIENCE_MS}"))
        yield connection


@frozen(kw_only=True)
class Slice:
    """The rows that a report is made of; None where there is no condition.

    Attributes:
        since_s: Unix time of the earliest request.
        until_s: Unix time before which the latest has ended.
        key_id: Requests of one API key.
        model: Requests that one model answered.
        route: Requests for one route.
        task: Requests of one task.
        user: Requests of one user.
    """

    since_s: float | None = None
    until_s: float | None = None
    key_id: str | None = None
    model: str | None = None
    route: str | None = None
    task: str | None = None
    user: str | None = None

    def of_requests(self) -> list[ColumnElement[bool]]:
        """The conditions, for rows of `requests`."""
        return self._conditions(tables.requests)

    def of_outcomes(self) -> list[ColumnElement[bool]]:
        """The conditions, for rows of `outcomes` joined with `requests`; a model is the one that was asked."""
        return self._conditions(tables.outcomes)

    def _conditions(self, table: Table) -> list[ColumnElement[bool]]:
        columns, found = table.c, list[ColumnElement[bool]]()
        if self.since_s is not None:
            found.append(columns.at_s >= self.since_s)
        if self.until_s is not None:
            found.append(columns.at_s < self.until_s)
        for name in ("key_id", "model", "route", "task"):
            wanted = getattr(self, name)
            if wanted is not None:
                found.append(columns[name] == wanted)
        if self.user is not None:
            found.append(tables.requests.c.user == self.user)
        return found


EVERYTHING: Final = Slice()


class By(StrEnum):
    """What figures are told apart by."""

    MODEL = "model"
    KEY = "key"
    ROUTE = "route"
    TASK = "task"
    USER = "user"
    COMPLEXITY = "complexity"
    ESTIMATOR = "estimator"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"

    @property
    def is_time(self) -> bool:
        """Whether it is a stretch of time."""
        return self in _TIME_FORMATS

    def label(self, dialect: str) -> ColumnElement[str]:
        """The request's label; times are UTC and sort as text."""
        column = tables.requests.c
        match self:
            case By.HOUR | By.DAY | By.MONTH:
                return _time_label(dialect, *_TIME_FORMATS[self])
            case By.KEY:
                return func.coalesce(column.key_id, "")
            case _:
                return func.coalesce(column[self.value], "")


_TIME_FORMATS: Final = {
    By.HOUR: ("%Y-%m-%dT%H:00", 'YYYY-MM-DD"T"HH24:00'),
    By.DAY: ("%Y-%m-%d", "YYYY-MM-DD"),
    By.MONTH: ("%Y-%m", "YYYY-MM"),
}
"""For SQLite and PostgreSQL."""


def _time_label(dialect: str, sqlite_format: str, postgres_format: str) -> ColumnElement[str]:
    at_s = tables.requests.c.at_s
    if dialect == "sqlite":
        # Cut to whole seconds: it rounds to milliseconds, and could round into the next day.
        return func.strftime(sqlite_format, cast(at_s, BigInteger), "unixepoch")
    return func.to_char(func.timezone("UTC", func.to_timestamp(func.floor(at_s))), postgres_format)


def percentile(source: FromClause, value: str, percent: int) -> ColumnElement[Any]:
    """An aggregate over `source`: the value at that percentile, by nearest rank; NULL where there are no values.

    Args:
        source: Has the value and, by `ranked`, its rank and the number of values in its group.
        value: Name of the column.
        percent: Which percentile.
    """
    columns = source.c
    ranks, numbers = columns[f"{value}_rank"], columns[f"{value}_number"]
    return func.max(case((ranks == (numbers * percent + 99) // 100, columns[value])))


def ranked(
    name: str, value: ColumnElement[Any], groups: Sequence[ColumnElement[Any]]
) -> tuple[ColumnElement[Any], ColumnElement[Any], ColumnElement[Any]]:
    """A value, its rank in its group and the number of values there, as columns for `percentile`."""
    within = list(groups) or [literal_column("1")]
    return (
        value.label(name),
        func.row_number().over(partition_by=within, order_by=value.asc().nulls_last()).label(f"{name}_rank"),
        func.count(value).over(partition_by=within).label(f"{name}_number"),
    )


def is_rated() -> ColumnElement[bool]:
    """Whether somebody said how good an outcome's answer was, for `outcomes` joined with `requests`.

    Feedback is about the answer that the client got: that of the call that gave it, not of those in vain before.
    """
    outcomes, requests = tables.outcomes.c, tables.requests.c
    return requests.feedback_score.is_not(None) & (requests.model == outcomes.model) & outcomes.success


def quality() -> ColumnElement[float]:
    """How good an outcome was, 0 to 1: what was said of the answer, else whether there was one."""
    outcomes = tables.outcomes.c
    return case(
        (is_rated(), tables.requests.c.feedback_score),
        (outcomes.score.is_not(None), outcomes.score),
        (outcomes.success, 1.0),
        else_=0.0,
    )


def wilson_interval(successes: float, number: float, z: float = Z_95) -> tuple[float, float]:
    """Bounds of a chance by Wilson's score, which stay within 0 and 1 and make sense for small numbers.

    Args:
        successes: How often it happened; a sum of scores will do.
        number: How often it could have; 0 gives the whole range.
        z: Standard deviations on each side.
    """
    if number <= 0:
        return 0.0, 1.0
    share = min(1.0, max(0.0, successes / number))
    middle = share + z * z / (2 * number)
    width = z * sqrt(share * (1 - share) / number + z * z / (4 * number * number))
    scale = 1 + z * z / number
    return max(0.0, (middle - width) / scale), min(1.0, (middle + width) / scale)


def dollars(nano: Any) -> float:
    """US dollars of nano-dollars; of nothing, nothing."""
    return int(nano or 0) / tables.NANO


def milliseconds(seconds: Any) -> float | None:
    """The same time in milliseconds."""
    return None if seconds is None else float(seconds) * 1000


def number_or_none(value: Any) -> float | None:
    """A number as Python has it; databases have others."""
    return None if value is None else float(value)
