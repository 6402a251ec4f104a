"""Connections and transactions: what SQLite and PostgreSQL need to be told, and what their errors mean."""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from gatewright_host.extras import how_to_install
from gatewright_host.store.migrating import migrate
from gatewright_host.store.vocabulary import StoreBusy, StoreError

_WAIT_S: Final = 5.0
"""Longest wait for others that write."""
_POSTGRES_CONNECT_S: Final = 2
_POSTGRES_SILENCE_MS: Final = 3000
_POSTGRES_OVERLAP_S: Final = 10.0
"""So long after others a row may become visible that has a lower id: longer than any statement of ours may take."""
_STATEMENT_MS: Final = 5000
_PRIVATE: Final = 0o600

_IMMEDIATE: Final = "gatewright_wait_ms"
"""Option of a connection: its transaction is going to write, and waits so long for its turn."""
# What SQLite's errors begin with, in the words of its library.
_BUSY: Final = (
    "database is locked",
    "database table is locked",
    "database schema is locked",
    "locking protocol",
)
_DAMAGED: Final = ("file is not a database", "database disk image is malformed", "malformed database schema")
# SQLSTATE classes and codes of PostgreSQL after which another try may help: deadlock, serialisation, locks, cancelled
# statements, too few connections, shutting down, connection lost.
_POSTGRES_BUSY: Final = ("40", "55P03", "57", "53", "08")


class Database:
    """One database.

    Args:
        engine: SQLAlchemy's.
        shown: Its URL without the password.
    """

    def __init__(self, engine: Engine, shown: str) -> None:
        self._engine = engine
        self._shown = shown
        self._pid = os.getpid()
        self._is_closed = False
        self._is_sqlite = engine.dialect.name == "sqlite"
        # SQLite lets one write at a time and has others ask again and again: within a process it is better to queue.
        self._turn = threading.Lock()
        self._watch: Any = None
        self._watch_lock = threading.Lock()
        self._version: int | None = None

    @classmethod
    def open(cls, url: str | URL) -> Self:
        """Open and migrate it; see `Store.open`."""
        parsed = _parse(url)
        shown = parsed.render_as_string(hide_password=True)
        try:
            engine = (
                _sqlite_engine(parsed) if parsed.get_backend_name() == "sqlite" else _postgres_engine(parsed)
            )
        except ImportError as error:
            raise StoreError(
                f"store {shown}: {error}; for PostgreSQL: {how_to_install('postgres')}"
            ) from error
        except (ArgumentError, TypeError) as error:
            raise StoreError(f"store {shown}: {_one_line(error)}; correct `store.url`") from error
        except OSError as error:
            raise _told_of_file(error, shown) from error
        database = cls(engine, shown)
        try:
            with database._translated():
                migrate(engine, shown)
        except OSError as error:  # of the file beside it that locks it meanwhile
            engine.dispose()
            raise _told_of_file(error, shown) from error
        except BaseException:
            engine.dispose()
            raise
        return database

    @property
    def overlap_s(self) -> float:
        """So long after others a row may become visible that has a lower id."""
        return 0.0 if self._is_sqlite else _POSTGRES_OVERLAP_S

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads, and sees one state of the database."""
        with self._translated(), self._engine.connect() as connection:
            if not self._is_sqlite:
                connection = connection.execution_options(  # noqa: PLW2901  # the same one, told what it is for
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
            with connection.begin():
                yield connection

    @contextmanager
    def writing(self, timeout_s: float | None = None) -> Iterator[Connection]:
        """A transaction that writes. On SQLite it is the only one at its time.

        Args:
            timeout_s: Longest wait for its turn.
        """
        wait_s = _WAIT_S if timeout_s is None else timeout_s
        with self._translated():
            if not self._is_sqlite:
                with self._engine.begin() as connection:
                    yield connection
                return
            if not self._turn.acquire(timeout=wait_s):
                raise StoreBusy(f"store {self._shown}: others keep it busy")
            try:
                with self._engine.connect() as connection:
                    wait_ms = max(int(wait_s * 1000), 1)
                    connection = connection.execution_options(**{_IMMEDIATE: wait_ms})  # noqa: PLW2901  # as above
                    with connection.begin():
                        yield connection
            finally:
                self._turn.release()

    def has_changed(self) -> bool:
        """Whether anybody may have committed since the last call."""
        if not self._is_sqlite:
            return True
        with self._translated(), self._watch_lock:
            if self._watch is None:
                self._watch = self._engine.raw_connection()
            version = self._watch.cursor().execute("PRAGMA data_version").fetchone()[0]
            before, self._version = self._version, int(version)
            return before != self._version

    def close(self, farewell: Callable[[Connection], None]) -> None:
        """Close all connections.

        Args:
            farewell: What to write before, if that is possible at once.
        """
        if self._is_closed:
            return
        if os.getpid() != self._pid:
            # The connections are the parent's; a child may not even close them.
            self._is_closed = True
            self._engine.dispose(close=False)
            return
        with suppress(StoreError), self.writing(1.0) as connection:
            farewell(connection)
        self._is_closed = True
        with self._watch_lock:
            if self._watch is not None:
                with suppress(SQLAlchemyError):
                    self._watch.close()
                self._watch = None
        with suppress(SQLAlchemyError):
            self._engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Errors of the database as errors of the store."""
        if self._is_closed:
            raise StoreError(f"store {self._shown}: it is closed")
        if os.getpid() != self._pid:
            raise StoreError(f"store {self._shown}: it was opened before a fork; each process opens its own")
        try:
            yield
        except PoolTimeout as error:
            raise StoreBusy(f"store {self._shown}: all connections are in use") from error
        except DBAPIError as error:
            is_lost = error.connection_invalidated
            raise _told(error.orig or error, self._shown, is_lost=is_lost) from error
        except sqlite3.Error as error:  # of what was asked without SQLAlchemy
            raise _told(error, self._shown) from error
        except SQLAlchemyError as error:
            raise StoreError(f"store {self._shown}: {_one_line(error)}") from error


def _parse(url: str | URL) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        # The text may hold a password, so it is not shown.
        raise StoreError(
            "`store.url` cannot be read; expected sqlite:////path/to/file.db or postgresql+psycopg://user@host/name"
        ) from error
    match parsed.get_backend_name():
        case "sqlite":
            if parsed.database in {None, "", ":memory:"}:
                raise StoreError("`store.url` names no file; expected sqlite:////path/to/file.db")
            return parsed.set(drivername="sqlite+pysqlite")
        case "postgresql" | "postgres":
            return parsed.set(drivername="postgresql+psycopg")
        case other:
            raise StoreError(
                f"`store.url` names {other}; expected sqlite:////path/to/file.db or postgresql+psycopg://user@host/name"
            )


def _sqlite_engine(url: URL) -> Engine:
    assert url.database is not None
    # SQLite would create the file for everybody to read; its companions take over the file's mode.
    os.close(os.open(Path(url.database), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, _PRIVATE))
    engine = create_engine(
        url, connect_args={"timeout": _WAIT_S, "check_same_thread": False}, pool_timeout=_WAIT_S
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: Any) -> None:
        # Otherwise Python's driver begins transactions by rules of its own.
        connection.isolation_level = None
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        wait_ms = connection.get_execution_options().get(_IMMEDIATE)
        if wait_ms is None:
            connection.exec_driver_sql("BEGIN")
            return
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {wait_ms}")
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _postgres_engine(url: URL) -> Engine:
    settings: dict[str, object] = {
        "connect_timeout": _POSTGRES_CONNECT_S,
        "tcp_user_timeout": _POSTGRES_SILENCE_MS,
        "application_name": "gatewright",
        "options": f"-c statement_timeout={_STATEMENT_MS} -c lock_timeout={_STATEMENT_MS} "
        f"-c idle_in_transaction_session_timeout={2 * _STATEMENT_MS}",
    }
    given = {name: value for name, value in settings.items() if name not in url.query}
    return create_engine(
        url,
        connect_args=given,
        pool_pre_ping=True,
        pool_size=5,
        max_overflow=5,
        pool_timeout=_POSTGRES_CONNECT_S,
        pool_recycle=1800,
    )


def _told_of_file(error: OSError, shown: str) -> StoreError:
    """What an error with a file means, and what to do."""
    return StoreError(
        f"store {shown}: {error.strerror or error}; its directory must exist and be writable; "
        "it is that of `store.url`, or `server.state_dir` where there is none"
    )


def _told(error: BaseException, shown: str, *, is_lost: bool = False) -> StoreError:
    """What an error of the database's driver means, and what to do."""
    text = _one_line(error)
    code = getattr(error, "sqlstate", None)
    if text.startswith(_BUSY):
        return StoreBusy(f"store {shown}: others keep it busy")
    if text.startswith(_DAMAGED):
        return StoreError(
            f"store {shown}: {text}; restore the file from a backup, or move it away and a new one is made"
        )
    if text.startswith("attempt to write a readonly database"):
        return StoreError(f"store {shown}: it cannot be written; give its file and directory to this user")
    if isinstance(code, str) and code.startswith(_POSTGRES_BUSY):
        return StoreBusy(f"store {shown}: {text}")
    if is_lost or (code is None and shown.startswith("postgresql")):
        return StoreBusy(f"store {shown}: {text}; see whether the server runs and `store.url` is right")
    return StoreError(f"store {shown}: {text}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500]
