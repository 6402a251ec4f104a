"""When windows begin and end."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright.accounting.spending import Window, WindowKind
from gatewright_host.store import windows

MOMENTS = st.floats(0, 4e9)
WINDOWS = st.builds(Window, kind=st.sampled_from(WindowKind), period=st.sampled_from(list(windows.PERIODS_S)))


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("period", "now", "start", "end"),
    [
        ("hour", "2026-03-01 10:59:59", "2026-03-01 10:00:00", "2026-03-01 11:00:00"),
        ("day", "2026-12-31 23:00:00", "2026-12-31 00:00:00", "2027-01-01 00:00:00"),
        ("week", "2026-03-01 12:00:00", "2026-02-23 00:00:00", "2026-03-02 00:00:00"),
        ("week", "2026-03-02 00:00:00", "2026-03-02 00:00:00", "2026-03-09 00:00:00"),
        ("month", "2028-02-29 23:59:59", "2028-02-01 00:00:00", "2028-03-01 00:00:00"),
        ("month", "2026-12-01 00:00:00", "2026-12-01 00:00:00", "2027-01-01 00:00:00"),
    ],
)
def test_calendar_windows_are_those_of_utc(period: str, now: str, start: str, end: str) -> None:
    window = Window(kind=WindowKind.CALENDAR, period=period)
    assert windows.starts_s(window, at(now)) == at(start)
    assert windows.first_bucket(window, at(now)) == at(start)
    assert windows.expires_s(window, 0, at(now)) == at(end)


@given(WINDOWS, MOMENTS)
def test_a_moment_is_in_its_bucket_and_in_its_window(window: Window, now_s: float) -> None:
    bucket = windows.bucket_of(window, now_s)
    assert bucket <= now_s < bucket + windows.bucket_s(window)
    assert windows.first_bucket(window, now_s) <= bucket
    assert windows.starts_s(window, now_s) <= now_s < windows.expires_s(window, bucket, now_s)


@given(WINDOWS, MOMENTS)
def test_windows_begin_where_a_bucket_does(window: Window, now_s: float) -> None:
    first = windows.first_bucket(window, now_s)
    assert windows.bucket_of(window, first) == first
    # All that is in the window counts, and of what is before it at most one bucket.
    assert 0 <= windows.starts_s(window, now_s) - first < windows.bucket_s(window)


@given(WINDOWS, MOMENTS, st.floats(0, 3e6))
def test_a_bucket_counts_until_it_has_expired(window: Window, at_s: float, later_s: float) -> None:
    bucket = windows.bucket_of(window, at_s)
    counts = bucket >= windows.first_bucket(window, at_s + later_s)
    assert counts == (at_s + later_s < windows.expires_s(window, bucket, at_s))


@given(WINDOWS, MOMENTS)
def test_nothing_is_forgotten_that_counts(window: Window, now_s: float) -> None:
    assert windows.first_bucket(window, now_s) >= now_s - windows.LONGEST_S
