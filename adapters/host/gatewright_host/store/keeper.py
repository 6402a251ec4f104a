"""What a serving process has of the store: it writes behind, looks ahead, and never lets a request wait for long."""

import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from gatewright.accounting.keys import KeyBook
from gatewright.commands import RecordRequest, ReserveSpend
from gatewright.config import Config
from gatewright.events import GatewayEvent, SpendRefused, SpendReserved, SpendUnknown
from gatewright.registry import RegisteredModel, credential_problem, with_registered
from gatewright_host.state_dir import StateDir
from gatewright_host.store.key_memory import nobody_had_a_key, remember_keys
from gatewright_host.store.sharing import Pace, Shared
from gatewright_host.store.spool import Spool
from gatewright_host.store.vocabulary import StoreBusy, StoreError, Written
from gatewright_host.store.workers import Workers

if TYPE_CHECKING:
    from gatewright_host.store.store import Store

logger: Final = logging.getLogger("gatewright.store")

_RESERVE_WORKERS: Final = 4
_OPEN_S: Final = 10.0
"""Longest wait of whoever needs the store itself while it is being opened."""
_AGAIN_S: Final = 0.02
_SETTLED_S: Final = 0.5
"""Longest wait for what has ended to be settled, before money counts as reserved by what has not."""


class Keeper:
    """The store of one process, behind a queue and a thread of its own.

    It belongs to the process that started it: in a child that was forked off it keeps nothing until it is started there.

    Args:
        config: Configuration as its file says it; models of the store are added by the keeper.
        state: Where the database is, if the configuration names no other.
        submit: Told of what others have done; called by the keeper's thread.
        on_config: Called by the keeper's thread with the configuration and the registered models in it, when these
            have changed.
        pace: How often it does what.
    """

    def __init__(
        self,
        config: Config,
        state: StateDir,
        submit: Callable[[GatewayEvent], None],
        *,
        on_config: Callable[[Config], None] | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._config = config
        self._is_enabled = config.store.enabled
        self._config_url = config.store.url
        self._state = state
        self._url = config.store.url or f"sqlite:///{state.store_file}"
        self._submit = submit
        self._on_config = on_config
        self._pace = pace or Pace()
        self._pid: int | None = None
        self._reset()

    def _reset(self) -> None:
        """As it is before it was started: also in a child, where locks may be held by threads that are not there."""
        self._shared = Shared(lambda: not self._key_book.is_read)
        self._workers = Workers("gatewright-reserve", _RESERVE_WORKERS)
        self._config_lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._store: Store | None = None
        self._models: tuple[RegisteredModel, ...] = ()
        self._reserved: set[str] = set()
        # Without a store nobody has a key; with one, who has is not known yet.
        self._key_book = KeyBook(is_read=not self._is_enabled)

    @property
    def _is_running(self) -> bool:
        return self._thread is not None and self._pid == os.getpid()

    # --- of requests

    def start(self) -> None:
        """Begin; the store is opened by the keeper's thread. Where it runs already, nothing happens."""
        if self._is_running:
            return
        if self._pid is not None:
            self._reset()
        self._pid = os.getpid()
        if not self._is_enabled:
            self._shared.ready.set()
            return
        self._thread = threading.Thread(target=self._run, name="gatewright-store", daemon=True)
        self._thread.start()

    def record(self, record: RecordRequest, prompt: str | None = None) -> None:
        """Have a request written down; never blocks and never raises.

        Args:
            record: What came of it.
            prompt: Text of its prompt, which is kept only if `store.prompts` is on.
        """
        if self._thread is None or self._pid != os.getpid():
            return
        shared, at_s = self._shared, time.time()
        self._reserved.discard(record.request_id)
        shared.backlog.add(
            Written(
                record=record,
                at_s=at_s,
                gateway_epoch_s=at_s - time.monotonic(),
                prompt=prompt if self._config.store.prompts else None,
            )
        )
        if record.charges:
            shared.has_money = True
        if not shared.wake.is_set():
            shared.wake.set()

    def reserve(self, command: ReserveSpend) -> SpendReserved | SpendRefused | SpendUnknown:
        """Reserve money and look at rate limits; blocks, but no longer than `Pace.reserve_s`."""
        key = command.key
        has_limits = key is not None and (key.requests_per_minute, key.tokens_per_minute) != (None, None)
        if not command.charges and (
            not self._is_enabled or (not has_limits and command.request_id not in self._reserved)
        ):
            return SpendReserved(command_id=command.command_id)
        try:
            return self._reserve(command)
        except StoreError as error:
            return SpendUnknown(command_id=command.command_id, reason=str(error))

    def _reserve(self, command: ReserveSpend) -> SpendReserved | SpendRefused:
        wait_s = self._pace.reserve_s
        give_up_at = time.monotonic() + wait_s
        settled_at, pause_s = time.monotonic() + _SETTLED_S, _AGAIN_S
        store = self._opened_store(wait_s)
        if command.charges:
            self._reserved.add(command.request_id)
        while True:
            left_s = max(give_up_at - time.monotonic(), 0.0)
            try:
                told = self._workers.call(partial(store.reserve, command, left_s), left_s)
                if isinstance(told, SpendReserved) or not told.is_reserved or time.monotonic() >= settled_at:
                    return told
                # An answer is there before it is settled, here or by another process: whoever asks one thing after the
                # other is not to be refused for what the one before did not cost.
                if self.waiting:
                    self.flush(_SETTLED_S)
                else:
                    self._shared.closing.wait(pause_s)
                    pause_s *= 2  # whoever is to settle it needs the database, too
            except TimeoutError:
                raise StoreBusy("the store did not answer in time") from None
            except StoreBusy:
                # Two waited for each other and one was sent away, or a connection was lost: the next may be well.
                if time.monotonic() > give_up_at - wait_s / 2 or self._shared.outage.reason is not None:
                    raise
                self._shared.closing.wait(_AGAIN_S)

    # --- of management

    @property
    def store(self) -> "Store":
        """The store itself; waits while it is being opened.

        Raises:
            StoreError: It is switched off, or cannot be used at present.
        """
        return self._opened_store(_OPEN_S)

    def _opened_store(self, wait_s: float) -> "Store":
        shared = self._shared
        if not self._is_enabled:
            raise StoreError("the store is switched off; this needs `store.enabled = true`")
        if not self._is_running:
            raise StoreError("the store was not started in this process")
        if shared.closing.is_set():
            raise StoreError("the store is being closed")
        reason = shared.outage.reason
        if reason is not None:
            raise StoreBusy(reason)
        if not shared.opened.wait(wait_s) or self._store is None:
            raise StoreBusy(shared.outage.reason or "the store is still being opened")
        return self._store

    @property
    def key_book(self) -> KeyBook:
        """The API keys as they were a moment ago."""
        return self._key_book

    @property
    def dropped(self) -> int:
        """Records that were lost: there was no room for them, or the database never takes them."""
        return self._shared.backlog.dropped

    @property
    def waiting(self) -> int:
        """Records that are not written yet."""
        return len(self._shared.backlog)

    @property
    def unavailable(self) -> str | None:
        """Why the store cannot be asked at present; None if it can, as far as is known."""
        return self._shared.outage.reason

    @property
    def is_ready(self) -> bool:
        """Whether the past has been read: keys, models, outcomes."""
        return self._shared.ready.is_set()

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until it is, or for so long; tells whether it is."""
        return self._shared.ready.wait(timeout_s)

    def look_soon(self) -> None:
        """Look at what was written, by this process's management too, now rather than within a second."""
        self._shared.must_look = True
        self._shared.wake.set()
        self._shared.hurry.set()

    def replace_config(self, config: Config) -> Config:
        """Take another configuration; whether there is a store, and which, stays as it was at the start.

        Args:
            config: As its file says it.

        Returns:
            The same with the registered models in it.
        """
        with self._config_lock:
            self._config = config
            return self._joined(config, self._models)

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything recorded so far is written, or for so long; tells whether it is."""
        shared = self._shared
        give_up_at = time.monotonic() + timeout_s
        with shared.written:
            while self._is_running and len(shared.backlog):
                shared.wake.set()
                shared.hurry.set()
                left_s = give_up_at - time.monotonic()
                if left_s <= 0 or not shared.written.wait(left_s):
                    break
        return not len(shared.backlog)

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what is waiting, give up what is reserved, and end; a second time does nothing.

        Args:
            timeout_s: After so long, what is not written is lost.
        """
        thread, shared = self._thread, self._shared
        if thread is None or not self._is_running or shared.closing.is_set():
            return
        shared.closing.set()
        shared.wake.set()
        shared.hurry.set()
        thread.join(timeout_s)
        self._workers.stop()
        if len(shared.backlog):
            logger.error("%d records could not be written any more", len(shared.backlog))

    # --- of the keeper's own thread

    def _run(self) -> None:
        # These load SQLAlchemy, for which nobody waits here.
        from sqlalchemy import URL  # noqa: PLC0415

        from gatewright_host.store.follower import Follower  # noqa: PLC0415
        from gatewright_host.store.rounds import Rounds  # noqa: PLC0415
        from gatewright_host.store.store import Store  # noqa: PLC0415

        shared = self._shared
        # A path may have characters in it that mean something in a URL.
        where = self._config_url or URL.create("sqlite", database=str(self._state.store_file))
        while not shared.closing.is_set():
            try:
                store = Store.open(where)
            except Exception as error:
                if not isinstance(error, StoreError) and str(error) != shared.outage.reason:
                    # It must be tried again whatever it is, or this process would never have a store.
                    logger.exception("the store cannot be opened: a defect of this program")
                if not self._key_book.is_read and nobody_had_a_key(self._state, self._url):
                    self._key_book = KeyBook()
                shared.outage.failed(str(error))
                shared.closing.wait(self._pace.retry_s)
                continue
            self._store = store
            shared.opened.set()
            follower = Follower(self._submit, self._take_keys, self._take_models, self._pace.budgets_s)
            try:
                spool = Spool(self._state.path)
                Rounds(store, shared, follower, lambda: self._config, self._pace, spool).run()
            finally:
                store.close()

    def _take_keys(self, book: KeyBook) -> None:
        self._key_book = book
        remember_keys(self._state, self._url, book)

    def _take_models(self, models: tuple[RegisteredModel, ...]) -> None:
        """Tell of the configuration with these models, unless nothing has changed."""
        with self._config_lock:
            if models == self._models:
                return
            self._models = models
        told: Config | None = None
        while told is not self._config and self._on_config is not None:
            # Replaced while somebody was told of the one before: that one must not be the last that they hear of.
            told = self._config
            self._on_config(self._joined(told, models))

    def _joined(self, config: Config, models: tuple[RegisteredModel, ...]) -> Config:
        refused = {model.name: credential_problem(model, config) for model in models}
        for name, problem in refused.items():
            if problem is not None:
                logger.warning("registered model %r is left out: api_key_env: %s", name, problem)
        return with_registered(config, models)
