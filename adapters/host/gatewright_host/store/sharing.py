"""What a keeper's thread shares with all others, and its pace."""

import threading
import time
from collections.abc import Callable

from attrs import frozen

from gatewright_host.store.backlog import Backlog
from gatewright_host.store.outage import Outage


@frozen(kw_only=True)
class Pace:
    """How often a keeper does what.

    Attributes:
        batch_s: Records are collected for so long before they are written.
        money_s: The same where budgets wait for them.
        look_s: Between two looks at what others have written.
        budgets_s: Between two looks at the budgets.
        heartbeat_s: Between two signs of life.
        reserve_s: Longest wait for a reservation.
        retry_s: After a failure.
        clean_s: Between two cleanings of the ledger.
        retention_s: Between two beginnings of deleting what is old.
    """

    batch_s: float = 0.2
    money_s: float = 0.02
    look_s: float = 1.0
    budgets_s: float = 2.0
    heartbeat_s: float = 4.0
    reserve_s: float = 2.0
    retry_s: float = 1.0
    clean_s: float = 30.0
    retention_s: float = 3600.0


class Shared:
    """What a keeper's thread and all others share.

    Args:
        is_shut: Whether clients are turned away while the store cannot be asked.

    Attributes:
        backlog: Records to be written.
        outage: Whether the store can be asked.
        wake: There is something to do.
        closing: The thread is to come to its end.
        opened: The store is open.
        ready: The past has been read.
        written: Notified whenever records have been written.
        has_money: Budgets wait for one of the records.
        hurry: Somebody waits for what the thread does: nothing is to be collected first.
        must_look: Somebody wants what was written elsewhere at once.
    """

    def __init__(self, is_shut: Callable[[], bool]) -> None:
        self.backlog = Backlog()
        self.outage = Outage(time.monotonic, is_shut)
        self.wake = threading.Event()
        self.closing = threading.Event()
        self.opened = threading.Event()
        self.ready = threading.Event()
        self.written = threading.Condition()
        self.has_money = False
        self.hurry = threading.Event()
        self.must_look = False
