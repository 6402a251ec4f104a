"""The store: one database, as all who use it see it."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Self

from sqlalchemy import URL, Connection

from gatewright.accounting.keys import KeyRequest, StoredKey
from gatewright.accounting.outcomes import Feedback
from gatewright.commands import ReserveSpend
from gatewright.events import SpendRefused, SpendReserved
from gatewright.ids import RequestId
from gatewright.registry import RegisteredModel
from gatewright.route_config import ExperimentState
from gatewright_host.store import ledger, news, owners, reading, records, registry, retention
from gatewright_host.store.database import Database
from gatewright_host.store.vocabulary import BudgetUse, Cursor, News, StoredRequest, Written

SPOOLED: Final = "spool"
"""Stands as the writer of records that a program without a store has left."""


class Store:
    """A database that is open. All methods may be called from any thread, and block.

    All of them raise `StoreBusy` while others keep the database busy or it does not answer, and `StoreError` where it
    cannot be used; the message says what to do.

    Args:
        database: The database, migrated.
        now: Unix time.

    Attributes:
        owner: Id of this store's user: its reservations are given up once it is gone.
    """

    def __init__(self, database: Database, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now = now
        self._me = owners.Owner.here()
        self.owner = self._me.owner

    @classmethod
    def open(cls, url: str | URL, *, now: Callable[[], float] = time.time) -> Self:
        """Open a database, and bring its tables up to date; others may do so at the same time.

        Args:
            url: SQLAlchemy URL: "sqlite:////path/to/file.db" or "postgresql+psycopg://user@host/name".
            now: Unix time.

        Raises:
            StoreError: It cannot be reached, is not ours, is newer than this program, or is damaged.
        """
        return cls(Database.open(url), now)

    def close(self) -> None:
        """Give up all reservations that are left, and close all connections; a second time does nothing."""
        self._database.close(lambda connection: owners.leave(connection, self.owner))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction for queries over `tables`, which sees one state of the database."""
        with self._database.reading() as connection:
            yield connection

    # --- requests

    def write(self, written: Sequence[Written], *, of_others: bool = False) -> None:
        """Write requests down and settle what was reserved for them, in one transaction.

        Whatever was written before is left as it is, so that a batch of which nobody knows whether it arrived can be
        written again.

        Args:
            written: The requests.
            of_others: Other programs had them: they are news to whoever follows this store.
        """
        rows = records.rows_of(written, SPOOLED if of_others else self.owner)
        with self._database.writing() as connection:
            records.write(connection, rows)

    def find_request(self, request_id: str) -> StoredRequest | None:
        """A request that was written down."""
        with self._database.reading() as connection:
            return reading.find_request(connection, request_id)

    def add_feedback(self, feedback: Feedback) -> None:
        """Keep what somebody says of an answer.

        Args:
            feedback: `at` is a Unix time.

        Raises:
            Missing: No such request was written down.
        """
        with self._database.writing() as connection:
            reading.add_feedback(connection, feedback)

    def delete_before(self, before_s: float, limit: int = 500) -> int:
        """Delete requests that ended before a Unix time, with what came of them; what was spent still counts.

        Args:
            before_s: The time.
            limit: Most requests, and most of all else, that are deleted at a time.

        Returns:
            Rows that were deleted; 0 once nothing is left to delete.
        """
        with self._database.writing() as connection:
            return retention.delete_before(connection, before_s, limit)

    # --- money

    def reserve(self, command: ReserveSpend, timeout_s: float | None = None) -> SpendReserved | SpendRefused:
        """Keep an amount on all of a request's accounts, or on none; see `ledger`.

        Args:
            command: What to reserve.
            timeout_s: Longest wait for the database; None for the usual one.
        """
        with self._database.writing(timeout_s) as connection:
            return ledger.reserve(connection, command, self._me, self._now())

    def release(self, request_id: RequestId) -> None:
        """Give up what is reserved for a request."""
        with self._database.writing() as connection:
            ledger.release(connection, request_id)

    def heartbeat(self) -> None:
        """Say that this store's user lives: at least every few seconds, since its reservations hang on it."""
        with self._database.writing() as connection:
            owners.heartbeat(connection, self._me, self._now())

    def clean_ledger(self) -> None:
        """Delete spending that counts no more, and what processes that are gone had reserved."""
        with self._database.writing() as connection:
            retention.clean_ledger(connection, self._me, self._now())

    def budget_use(self, accounts: Sequence[str] | None = None) -> tuple[BudgetUse, ...]:
        """How much of each budget is used, by account, with the limits that they had when they were last charged.

        Args:
            accounts: These accounts; None for all.
        """
        with self._database.reading() as connection:
            return ledger.budget_use(connection, self._now(), accounts)

    # --- models, keys, experiments

    def models(self) -> tuple[RegisteredModel, ...]:
        """The registered models, by name."""
        with self._database.reading() as connection:
            return registry.models(connection)

    def create_model(self, model: RegisteredModel) -> None:
        """Register a model.

        Raises:
            Conflict: One of this name is registered.
        """
        with self._database.writing() as connection:
            registry.create_model(connection, model, self._now())

    def update_model(self, model: RegisteredModel) -> None:
        """Put a model in the place of the registered one of its name.

        Raises:
            Missing: None of this name is registered.
        """
        with self._database.writing() as connection:
            registry.update_model(connection, model, self._now())

    def delete_model(self, name: str) -> None:
        """Forget a registered model.

        Raises:
            Missing: None of this name is registered.
        """
        with self._database.writing() as connection:
            registry.delete_model(connection, name)

    def keys(self) -> tuple[StoredKey, ...]:
        """All API keys, the oldest first."""
        with self._database.reading() as connection:
            return registry.keys(connection)

    def create_key(self, request: KeyRequest) -> tuple[str, StoredKey]:
        """Make an API key.

        Returns:
            Its secret, which is not kept and cannot be found out again, and the key.
        """
        with self._database.writing() as connection:
            return registry.create_key(connection, request, self._now())

    def update_key(self, key_id: str, request: KeyRequest) -> StoredKey:
        """Change what a key may do; its secret stays.

        Raises:
            Missing: There is no such key.
        """
        with self._database.writing() as connection:
            return registry.update_key(connection, key_id, request)

    def delete_key(self, key_id: str) -> None:
        """Forget a key, whose secret is worth nothing from then on.

        Raises:
            Missing: There is no such key.
        """
        with self._database.writing() as connection:
            registry.delete_key(connection, key_id)

    def experiment_states(self) -> tuple[ExperimentState, ...]:
        """What was done to experiments by hand."""
        with self._database.reading() as connection:
            return registry.experiment_states(connection)

    def set_experiment_state(self, state: ExperimentState) -> None:
        """Do something to an experiment by hand; it takes the place of what was done before."""
        with self._database.writing() as connection:
            registry.set_experiment_state(connection, state, self._now())

    # --- what others do

    def first_news(self, most_outcomes: int) -> News:
        """The latest outcomes of all processes, this one's included, with the feedback on them, and where to go on.

        Args:
            most_outcomes: Outcomes at most, but for earlier ones of experiments, which come before them.
        """
        with self._database.reading() as connection:
            return news.first(connection, most_outcomes, self._now())

    def news(self, cursor: Cursor) -> News:
        """What has happened since a cursor, in portions; the next cursor goes on where this one ends."""
        with self._database.reading() as connection:
            return news.since(connection, cursor, self.owner, self._now(), self._database.overlap_s)

    def has_changed(self) -> bool:
        """Whether others may have written since the last call; True where that cannot be told cheaply."""
        return self._database.has_changed()
