"""When the windows of budgets begin and end, and the buckets into which their spending is counted."""

from datetime import UTC, datetime, timedelta
from typing import Final

from gatewright.accounting.spending import Window, WindowKind

_HOUR_S: Final = 3600
_DAY_S: Final = 86_400

PERIODS_S: Final = {"hour": _HOUR_S, "day": _DAY_S, "week": 7 * _DAY_S, "month": 30 * _DAY_S}
"""Lengths of rolling windows."""
_BUCKETS_S: Final = {"hour": 30, "day": 720, "week": _HOUR_S, "month": 6 * _HOUR_S}
# They divide a day (and an hour's divide an hour), so that calendar windows in UTC begin where a bucket does.

LONGEST_S: Final = 31 * _DAY_S + _BUCKETS_S["month"]
"""Spending older than this is in no window any more."""


def bucket_s(window: Window) -> int:
    """Length of the buckets of a window."""
    return _BUCKETS_S[window.period]


def bucket_of(window: Window, at_s: float) -> int:
    """Unix time at which the bucket of a moment begins."""
    size = bucket_s(window)
    return int(at_s // size) * size


def first_bucket(window: Window, now_s: float) -> int:
    """Unix time of the oldest bucket that counts.

    In a rolling window a bucket counts for as long as any part of it may be within, so that no stretch of the window's
    length ever sees more spent than is allowed; what was spent counts up to one bucket longer in return.
    """
    if window.kind is WindowKind.CALENDAR:
        return int(calendar_start(window.period, now_s).timestamp())
    return bucket_of(window, now_s - PERIODS_S[window.period])


def starts_s(window: Window, now_s: float) -> float:
    """Unix time at which the present window began."""
    if window.kind is WindowKind.CALENDAR:
        return calendar_start(window.period, now_s).timestamp()
    return now_s - PERIODS_S[window.period]


def expires_s(window: Window, bucket_start_s: int, now_s: float) -> float:
    """Unix time from which on a bucket that counts now no longer does."""
    if window.kind is WindowKind.CALENDAR:
        return calendar_end(window.period, now_s).timestamp()
    return float(bucket_start_s + bucket_s(window) + PERIODS_S[window.period])


def calendar_start(period: str, now_s: float) -> datetime:
    """The beginning of the present hour, day, week (a Monday) or month, in UTC."""
    hour = datetime.fromtimestamp(now_s, UTC).replace(minute=0, second=0, microsecond=0)
    if period == "hour":
        return hour
    day = hour.replace(hour=0)
    if period == "day":
        return day
    if period == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1)


def calendar_end(period: str, now_s: float) -> datetime:
    """The beginning of the next one."""
    start = calendar_start(period, now_s)
    if period == "month":
        # The 1st and 32 days are always in the next month.
        return (start + timedelta(days=32)).replace(day=1)
    return start + timedelta(seconds=PERIODS_S[period])
