"""Deleting what is old, a little at a time, so that nobody waits for it."""

from typing import Final

from sqlalchemy import Connection, delete, exists, select

from gatewright_host.store import limits, owners, windows
from gatewright_host.store.tables import (
    accounts,
    feedback,
    outcomes,
    requests,
    reservations,
    spending,
)

_DAY_S: Final = 86_400.0


def delete_before(connection: Connection, before_s: float, limit: int) -> int:
    """Delete records that ended before a Unix time; see `Store.delete_before`."""
    deleted = 0
    for table in (requests, outcomes, feedback):
        (key,) = table.primary_key.columns
        old = select(key).where(table.c.at_s < before_s).order_by(table.c.at_s).limit(limit)
        # What is locked is being deleted by somebody else at this moment.
        old = old.with_for_update(skip_locked=True)
        deleted += connection.execute(delete(table).where(key.in_(old))).rowcount
    return deleted


def clean_ledger(connection: Connection, me: owners.Owner, now_s: float) -> None:
    """Delete what is in no window any more, and what the dead have left; whatever the retention."""
    owners.sweep(connection, me, now_s)
    owners.clear_orphans(connection)
    limits.forget(connection, now_s)
    connection.execute(delete(spending).where(spending.c.start_s < now_s - windows.LONGEST_S))
    is_used = exists(select(spending.c.account).where(spending.c.account == accounts.c.account))
    is_reserved = exists(select(reservations.c.account).where(reservations.c.account == accounts.c.account))
    connection.execute(
        delete(accounts).where(accounts.c.seen_s < now_s - windows.LONGEST_S - _DAY_S, ~is_used, ~is_reserved)
    )
