"""Bringing a database's tables up to date."""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, inspect, text

from gatewright_host.store.vocabulary import StoreError

HEAD: Final = "0001"
"""The latest revision; kept here too, so that a database that has it is known without loading alembic."""
VERSION_TABLE: Final = "gatewright_version"
"""Not alembic's usual name: the database may hold other applications' tables."""

_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_LOCK_NUMBER: Final = 7_148_112_061
_PRIVATE: Final = 0o600
# alembic keeps what it works on in its module.
_alembic: Final = threading.Lock()


def migrate(engine: Engine, shown: str) -> None:
    """Make or change the tables until they are those of `tables`.

    Any number of processes may do so at once: one does it, and the others find it done.

    Args:
        engine: The database.
        shown: Its URL, for messages.

    Raises:
        StoreError: A newer program wrote it, or tables of these names are there that are not ours.
    """
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            if _is_at_head(connection):
                return
            connection.rollback()
            with _file_lock(Path(engine.url.database or "")):
                # Only outside of a transaction, and once for good.
                connection.connection.cursor().execute("PRAGMA journal_mode = WAL")
                with connection.begin():
                    _upgrade(connection, shown)
            return
        with connection.begin():
            if _is_at_head(connection):
                return
        with connection.begin():
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SET LOCAL lock_timeout = 0"))
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK_NUMBER})"))
            _upgrade(connection, shown)


def version_of(connection: Connection) -> str | None:
    """The revision of a database's tables; None where it has none of ours."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608  # a constant


def _is_at_head(connection: Connection) -> bool:
    return version_of(connection) == HEAD


def _upgrade(connection: Connection, shown: str) -> None:
    # alembic takes its time to load, and most databases are as they should be.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    from gatewright_host.store.tables import metadata  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    found = version_of(connection)
    if found == HEAD:
        return
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise StoreError(
            f"store {shown}: a newer Gatewright has changed its tables (to {found}); "
            "install that version, or name another `store.url`"
        )
    if found is None:
        strange = sorted(set(inspect(connection).get_table_names()) & set(metadata.tables))
        if strange:
            raise StoreError(
                f"store {shown}: it has tables of somebody else by the names {', '.join(strange)}; "
                "name a database of its own in `store.url`"
            )
    with _alembic:
        command.upgrade(config, "head")


@contextmanager
def _file_lock(database: Path) -> Iterator[None]:
    """One process at a time. Not a lock on the database's own file: closing that would drop SQLite's locks."""
    path = database.with_name(database.name + ".lock")
    handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, _PRIVATE)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
