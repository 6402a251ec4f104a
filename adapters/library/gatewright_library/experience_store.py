"""How models have done, kept in a directory: exact figures for people, decaying beliefs for the selection."""

import logging
import os
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from attrs import define

from gatewright.accounting.experience import Experience
from gatewright.accounting.outcomes import ModelOutcome
from gatewright.commands import Outcome, RecordRequest
from gatewright.ids import RequestId
from gatewright.selection.complexity import TaskComplexity
from gatewright_host.store.vocabulary import Cursor, StoreError, Written
from gatewright_library import forking
from gatewright_library.performance import ModelPerformance

if TYPE_CHECKING:
    from gatewright_host.store.store import Store

_logger: Final = logging.getLogger("gatewright.library")

DEFAULT_PATH: Final = "~/.gatewright/experience"
FILE_NAME: Final = "gatewright.db"
"""As in a gateway's state directory."""
_PRIVATE: Final = 0o700
_OLDEST_OUTCOMES: Final = 20_000
"""Outcomes from which beliefs are formed when a store is opened; what is older hardly counts any more."""
_LOOK_EVERY_S: Final = 0.25
"""So long after a look at what others have recorded, a selection does without another."""
_DAY_S: Final = 24 * 3600.0
_NANO: Final = 1_000_000_000
_API_PATH: Final = "library"


@define
class _Totals:
    """Sums over the calls of one model at one task."""

    calls: int = 0
    successes: int = 0
    timed_calls: int = 0
    latency_ms: float = 0.0
    cost_nano: int = 0
    last_at_s: float = 0.0


class ExperienceStore:
    """How models have done at tasks. All methods may be called from any thread, and block while they read or write.

    The directory and its database are made with the first call that is recorded. Several processes may have the
    same directory open: each sees what the others record.

    Args:
        path: Directory.
        clock: Unix time.

    Attributes:
        base_path: The directory.
    """

    def __init__(
        self, path: str | os.PathLike[str] = DEFAULT_PATH, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.base_path = Path(path).expanduser()
        self._file = self.base_path / FILE_NAME
        self._clock = clock
        self._writing = threading.Lock()  # before the other one, for whoever needs both
        self._lock = threading.RLock()  # over everything below
        self._store: Store | None = None
        self._closing: weakref.finalize[..., ExperienceStore] | None = None
        self._pid = os.getpid()
        self._is_closed = False
        self._look_at = 0.0
        self._forget()
        forking.take_part(self)

    # --- recording

    def record_execution(
        self,
        model_name: str,
        ptool_name: str,
        success: bool,
        latency_ms: float,
        cost: float = 0.0,
        *,
        complexity: TaskComplexity | None = None,
        is_available: bool = True,
    ) -> None:
        """Keep how a call went.

        Args:
            model_name: Who was called.
            ptool_name: The task.
            success: Whether it did the task.
            latency_ms: How long that took, in milliseconds.
            cost: US dollars.
            complexity: How hard the task was thought to be.
            is_available: False where the model could not be reached, which says nothing about its quality; such a call
                counts in no figure of this class.

        Raises:
            StoreError: It cannot be kept.
            ValueError: The time or the cost is less than 0, or no number.
        """
        for name, value in (("latency_ms", latency_ms), ("cost", cost)):
            if not isfinite(value) or value < 0:
                raise ValueError(f"{name} is {value}, not a number of at least 0")
        now = self._clock()
        outcome = ModelOutcome(
            request_id=uuid.uuid4().hex,
            model=model_name,
            success=bool(success),
            at=now,
            task=ptool_name,
            complexity=complexity,
            latency_ms=float(latency_ms),
            cost_usd=float(cost),
            is_available=is_available,
        )
        with self._writing:
            self._open().write([Written(record=_record(outcome), at_s=now, gateway_epoch_s=0.0)])
        with self._lock:
            self._experience.learn(outcome)

    # --- exact figures

    def get_performance(self, model: str, task: str) -> ModelPerformance | None:
        """How a model has done at a task; None if it never did it."""
        with self._lock:
            self._look()
            totals = self._totals.get((model, task))
            return None if totals is None else _performance(model, task, totals)

    def get_all_performance(self, model: str) -> dict[str, ModelPerformance]:
        """How a model has done, by task."""
        with self._lock:
            self._look()
            return {
                task: _performance(model, task, totals)
                for (name, task), totals in sorted(self._totals.items())
                if name == model
            }

    def get_model_ranking(self, task: str, min_calls: int = 3) -> list[tuple[str, float]]:
        """Models and their success rates at a task, the best first; of equal ones that with more calls, then the faster.

        Args:
            task: The task.
            min_calls: Models with fewer calls are left out.
        """
        with self._lock:
            self._look()
            found = [
                _performance(model, task, totals)
                for (model, name), totals in self._totals.items()
                if name == task and totals.calls >= min_calls
            ]
        found.sort(
            key=lambda each: (-each.success_rate, -each.total_calls, each.avg_latency_ms, each.model_name)
        )
        return [(each.model_name, each.success_rate) for each in found]

    def get_best_model_for_ptool(self, task: str, min_calls: int = 5) -> str | None:
        """The first of `get_model_ranking`; None if no model has that many calls."""
        ranking = self.get_model_ranking(task, min_calls)
        return ranking[0][0] if ranking else None

    # --- beliefs

    @contextmanager
    def beliefs(self) -> Iterator[Experience]:
        """What is believed of the models; nothing is learnt meanwhile.

        A store that cannot be read is logged, and what was known before counts.
        """
        with self._lock:
            now = time.monotonic()
            if now >= self._look_at:
                try:
                    self._look()
                except StoreError as error:
                    _logger.warning("Selection goes by what is known already: %s", error)
                self._look_at = now + _LOOK_EVERY_S
            yield self._experience

    # --- the database

    def delete_older_than(self, days: float) -> None:
        """Delete calls of more than so many days ago; they count in no figure any more.

        Raises:
            StoreError: They cannot be deleted.
        """
        before_s = self._clock() - days * _DAY_S
        with self._lock:
            if self._store is None and not self._is_closed and not self._file.exists():
                return
            store = self._open()
            while store.delete_before(before_s):
                pass
            self._totals.clear()
            self._last_id = 0
            self._add_up(store)

    def close(self) -> None:
        """Close the database; nothing can be recorded or read afterwards."""
        with self._lock:
            self._is_closed = True
            store, self._store = self._store, None
            if store is not None:
                store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # --- forks

    def before_fork(self) -> None:
        """See `Forking`; the database is opened again when it is needed."""
        self._writing.acquire()
        self._lock.acquire()
        if self._store is not None and self._closing is not None and self._pid == os.getpid():
            self._closing()
            self._store = None
            self._forget()

    def after_fork(self) -> None:
        """See `Forking`."""
        self._lock.release()
        self._writing.release()

    def _forget(self) -> None:
        self._totals: dict[tuple[str, str], _Totals] = {}
        self._last_id = 0
        self._experience = Experience()
        self._cursor: Cursor | None = None
        self._look_at = 0.0
        self._has_news = True

    def _open(self) -> "Store":
        """The database, made if need be."""
        with self._lock:
            if self._is_closed:
                raise StoreError(f"experience {self.base_path}: it is closed")
            if self._pid != os.getpid():
                # A fork: connections are the parent's.
                self._forget()
                self._pid, self._store = os.getpid(), None
            if self._store is None:
                from sqlalchemy import URL  # noqa: PLC0415  # takes its time to load

                from gatewright_host.store.store import Store  # noqa: PLC0415  # the same

                try:
                    self.base_path.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
                except OSError as error:
                    raise StoreError(f"experience {self.base_path}: {error.strerror or error}") from error
                # No text: a path may hold what means something in a URL.
                url = URL.create("sqlite", database=str(self._file))
                store = Store.open(url, now=self._clock)
                self._closing = weakref.finalize(self, store.close)
                self._store = store
                self._begin(store)
            return self._store

    def _begin(self, store: "Store") -> None:
        news = store.first_news(_OLDEST_OUTCOMES)
        for outcome in news.outcomes:
            self._experience.learn(outcome)
        for feedback in news.feedback:
            self._experience.take_feedback(feedback)
        self._cursor = news.cursor

    def _look(self) -> None:
        """Take in what has been recorded since the last look."""
        if self._store is None and not self._is_closed and not self._file.exists():
            return
        store = self._open()
        self._has_news = store.has_changed() or self._has_news
        if not self._has_news:
            return
        self._add_up(store)
        while self._cursor is not None:
            news = store.news(self._cursor)
            for outcome in news.outcomes:
                self._experience.learn(outcome)
            for feedback in news.feedback:
                self._experience.take_feedback(feedback)
            if news.cursor.outcomes.floor == self._cursor.outcomes.floor:
                break
            self._cursor = news.cursor
        self._has_news = False

    def _add_up(self, store: "Store") -> None:
        from sqlalchemy import func, select  # noqa: PLC0415  # takes its time to load

        from gatewright_host.store.tables import outcomes  # noqa: PLC0415  # the same

        columns = outcomes.c
        sums = (
            select(
                columns.model,
                columns.task,
                func.count().label("calls"),
                func.sum(columns.success.cast(columns.id.type)).label("successes"),
                func.count(columns.latency_ms).label("timed_calls"),
                func.sum(columns.latency_ms).label("latency_ms"),
                func.sum(columns.cost_nano).label("cost_nano"),
                func.max(columns.at_s).label("last_at_s"),
            )
            .where(columns.id > self._last_id, columns.is_available)
            .group_by(columns.model, columns.task)
        )
        with store.reading() as connection:
            # SQLite gives ids in the order of commits, so that none appears below the highest one later.
            last_id = connection.execute(select(func.max(columns.id))).scalar() or 0
            rows = connection.execute(sums).all()
        for row in rows:
            totals = self._totals.setdefault((row.model, row.task), _Totals())
            totals.calls += row.calls
            totals.successes += row.successes
            totals.timed_calls += row.timed_calls
            totals.latency_ms += row.latency_ms or 0.0
            totals.cost_nano += row.cost_nano
            totals.last_at_s = max(totals.last_at_s, row.last_at_s)
        self._last_id = max(last_id, self._last_id)


def _record(outcome: ModelOutcome) -> RecordRequest:
    """A call as a request of its own, so that the gateway's reports know it."""
    return RecordRequest(
        request_id=RequestId(outcome.request_id),
        outcome=Outcome.ANSWERED if outcome.success else Outcome.FAILED,
        path=_API_PATH,
        model=outcome.model,
        attempts=1,
        total_s=(outcome.latency_ms or 0.0) / 1000,
        task=outcome.task,
        cost_usd=outcome.cost_usd,
        outcomes=(outcome,),
    )


def _performance(model: str, task: str, totals: _Totals) -> ModelPerformance:
    return ModelPerformance(
        model_name=model,
        ptool_name=task,
        total_calls=totals.calls,
        successful_calls=totals.successes,
        avg_latency_ms=totals.latency_ms / totals.timed_calls if totals.timed_calls else 0.0,
        total_cost=totals.cost_nano / _NANO,
        last_updated=datetime.fromtimestamp(totals.last_at_s, UTC).isoformat(),
    )
