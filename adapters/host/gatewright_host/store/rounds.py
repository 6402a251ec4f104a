"""The keeper's thread: it writes, looks, gives signs of life and cleans up, each in its time, as long as the store lets it."""

import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Final

from gatewright.config import Config
from gatewright_host.store.follower import Follower
from gatewright_host.store.sharing import Pace, Shared
from gatewright_host.store.spool import Spool
from gatewright_host.store.store import Store
from gatewright_host.store.vocabulary import StoreBusy, StoreError, Written

logger: Final = logging.getLogger("gatewright.store")

_BATCH: Final = 200
_DAY_S: Final = 86_400.0


class Rounds:
    """One round after the other, until the keeper is closed.

    Args:
        store: The store, open.
        shared: What the other threads want.
        follower: Who reads what is new.
        config: The present configuration.
        pace: How often what is done.
        spool: Records of programs that had no store of their own.
    """

    def __init__(  # noqa: PLR0917  # each is another's
        self,
        store: Store,
        shared: Shared,
        follower: Follower,
        config: Callable[[], Config],
        pace: Pace,
        spool: Spool,
    ) -> None:
        self._store = store
        self._shared = shared
        self._follower = follower
        self._config = config
        self._pace = pace
        self._spool = spool
        self._spool_trouble = ""
        now = time.monotonic()
        self._look_at = now
        self._heartbeat_at = now
        # Processes that were started together need not do these together.
        self._clean_at = now + pace.clean_s * random.random()  # noqa: S311  # spreads work over time
        self._retention_at = now + pace.retention_s * random.random() / 10  # noqa: S311  # the same

    def run(self) -> None:
        """Go on until the keeper is closed; then write what is left, if that is possible at once."""
        shared = self._shared
        while not shared.closing.is_set():
            try:
                self._round()
            except StoreError as error:
                self._pause(str(error))
            except Exception as error:
                # Whatever it is, requests have no part in it, and records must go on being written.
                logger.exception("the store's thread stumbled")
                self._pause(f"the store's thread stumbled: {error}")
            else:
                self._rest()
        try:
            while shared.backlog.batch(_BATCH):
                self._write()
        except StoreError as error:
            shared.outage.failed(str(error))

    def _round(self) -> None:
        shared, now = self._shared, time.monotonic()
        if now >= self._heartbeat_at:
            # Also tells whether the store is there, before anything is tried that might have other reasons to fail.
            self._store.heartbeat()
            shared.outage.worked()
            self._heartbeat_at = now + self._pace.heartbeat_s
        self._write()
        if now >= self._look_at or shared.must_look:
            shared.must_look = False
            self._empty_spool()
            self._follower.look(self._store)
            shared.outage.worked()
            shared.ready.set()
            self._look_at = now + self._pace.look_s
        if now >= self._clean_at:
            self._store.clean_ledger()
            self._clean_at = now + self._pace.clean_s
        if now >= self._retention_at and not self._delete_old():
            self._retention_at = now + self._pace.retention_s

    def _empty_spool(self) -> None:
        try:
            self._spool.empty_into(self._take_over)
        except OSError as error:
            if str(error) != self._spool_trouble:
                logger.warning("records of gw-cli are not taken over: %s", error)
            self._spool_trouble = str(error)

    def _take_over(self, batch: Sequence[Written]) -> None:
        try:
            self._store.write(batch, of_others=True)
        except StoreBusy:
            raise
        except Exception:
            # As in `_write_singly`: one that cannot be written must not be in everybody's way at every look.
            self._store.heartbeat()
            if len(batch) > 1:
                for each in batch:
                    self._take_over([each])
                return
            self._shared.backlog.dropped += 1
            logger.exception("the record of %s cannot be written", batch[0].record.request_id)

    def _pause(self, reason: str) -> None:
        """After a failure: the store has to give a sign of life before anything else is tried."""
        self._shared.outage.failed(reason)
        self._heartbeat_at = 0.0
        self._notify()
        self._shared.closing.wait(self._pace.retry_s)

    def _rest(self) -> None:
        """Until there is something to do, and then a little, so that more can be done at once."""
        shared = self._shared
        due_at = min(self._look_at, self._heartbeat_at)
        shared.wake.wait(max(due_at - time.monotonic(), 0.0))
        if not shared.wake.is_set():
            return
        if len(shared.backlog) < _BATCH:
            shared.hurry.wait(self._pace.money_s if shared.has_money else self._pace.batch_s)
        shared.wake.clear()

    def _write(self) -> None:
        shared = self._shared
        shared.has_money = False
        shared.hurry.clear()
        while batch := shared.backlog.batch(_BATCH):
            try:
                self._store.write(batch)
            except StoreBusy:
                raise
            except Exception as error:  # noqa: BLE001  # a record that cannot be written must not stop all others
                self._write_singly(batch, error)
            else:
                shared.backlog.keep([])
            self._notify()
            if len(batch) < _BATCH:
                break

    def _write_singly(self, batch: list[Written], error: Exception) -> None:
        """After a batch was refused: find the record that is to blame, unless it is the store itself."""
        self._store.heartbeat()
        logger.warning("a batch of records could not be written, they are tried one by one: %s", error)
        remaining = list(batch)
        while remaining:
            try:
                self._store.write(remaining[:1])
            except StoreBusy:
                raise
            except Exception:
                self._shared.backlog.dropped += 1
                logger.exception("the record of %s cannot be written", remaining[0].record.request_id)
            del remaining[0]
            self._shared.backlog.keep(list(remaining))

    def _notify(self) -> None:
        with self._shared.written:
            self._shared.written.notify_all()

    def _delete_old(self) -> bool:
        """Whether there was anything to delete, so that more may be left."""
        days = self._config().store.retention_days
        return days is not None and self._store.delete_before(time.time() - days * _DAY_S) > 0
