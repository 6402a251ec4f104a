"""Who reserves: processes, and how others find out that one of them is gone."""

import os
import secrets
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from attrs import frozen
from sqlalchemy import Connection, delete, exists, select

from gatewright_host.process_group import is_alive, start_mark
from gatewright_host.store.tables import owners, reservations
from gatewright_host.store.upserts import insertion

EXPIRY_S: Final = 15.0
"""So long after its last heartbeat an owner's reservations no longer count."""
_PID_SPACE: Final = Path("/proc/self/ns/pid")
_FORGET_S: Final = 10 * EXPIRY_S
"""So long after it they are deleted: a process that was only suspended may come back before that."""


@frozen(kw_only=True)
class Owner:
    """One process's use of the store.

    Attributes:
        owner: Its id, never used again.
        machine: Where its process id means something: other machines and other containers cannot look.
        pid: Its process id.
        started: `process_group.start_mark`, which a later process of the same id does not share.
    """

    owner: str
    machine: str
    pid: int
    started: str

    @classmethod
    def here(cls) -> Self:
        """A new one, of this process."""
        pid = os.getpid()
        started = start_mark(pid) or ""
        return cls(owner=secrets.token_hex(8), machine=_machine(started), pid=pid, started=started)


def heartbeat(connection: Connection, me: Owner, now_s: float) -> None:
    """Say that an owner lives; the first time this makes it known."""
    values = {
        "owner": me.owner,
        "machine": me.machine,
        "pid": me.pid,
        "started": me.started,
        "seen_s": now_s,
    }
    row = insertion(connection, owners)
    connection.execute(
        row.values(values).on_conflict_do_update(index_elements=["owner"], set_={"seen_s": now_s})
    )


def is_known(connection: Connection, owner: str, now_s: float) -> bool:
    """Whether an owner's reservations count at present."""
    found = select(owners.c.owner).where(owners.c.owner == owner, owners.c.seen_s > now_s - EXPIRY_S / 2)
    return connection.execute(found).first() is not None


def leave(connection: Connection, owner: str) -> None:
    """An owner has come to its end, and has nothing reserved any more."""
    connection.execute(delete(reservations).where(reservations.c.owner == owner))
    connection.execute(delete(owners).where(owners.c.owner == owner))


def sweep(connection: Connection, me: Owner, now_s: float) -> int:
    """Delete what the dead have reserved: those of this machine whose process is gone, others by their heartbeat.

    Returns:
        Owners that were found dead.
    """
    known = connection.execute(select(owners)).all()
    dead = [row.owner for row in known if row.owner != me.owner and _is_dead(row, me, now_s)]
    if not dead:
        return 0
    # What is locked is being deleted by somebody else at this moment.
    free = select(owners.c.owner).where(owners.c.owner.in_(dead)).with_for_update(skip_locked=True)
    dead = list(connection.execute(free).scalars())
    for owner in dead:
        leave(connection, owner)
    return len(dead)


def clear_orphans(connection: Connection) -> None:
    """Delete reservations whose owner nobody knows any more."""
    orphaned = ~exists(select(owners.c.owner).where(owners.c.owner == reservations.c.owner))
    connection.execute(delete(reservations).where(orphaned))


def _is_dead(row: Any, me: Owner, now_s: float) -> bool:
    if row.seen_s <= now_s - _FORGET_S:
        return True
    if row.machine != me.machine or not row.started:
        return False
    return start_mark(row.pid) != row.started or not is_alive(row.pid)


def _machine(started: str) -> str:
    """Name of the space of process ids that this process is in: a boot of a machine, and a container on it."""
    if sys.platform == "linux":
        boot = started.rpartition("/")[0]
        with suppress(OSError):
            return f"{boot}/{_PID_SPACE.readlink()}"
    return socket.gethostname()
