"""What passes between the store and those who use it. Nothing here needs SQLAlchemy, which takes its time to load."""

from attrs import field, frozen

from gatewright.accounting.outcomes import Feedback, ModelOutcome
from gatewright.accounting.spending import Charge, Window
from gatewright.commands import RecordRequest


class StoreError(Exception):
    """The store cannot be used; the message says why and what to do, in one line."""


class StoreBusy(StoreError):
    """Others keep the store busy, or it does not answer at the moment; another try may help."""


class Conflict(Exception):
    """There is one of this name already."""


class Missing(Exception):
    """There is none of this name."""


@frozen(kw_only=True)
class Written:
    """A request that has ended, on its way into the store.

    Attributes:
        record: What came of it.
        at_s: Unix time of its end.
        gateway_epoch_s: Unix time at which the clock of the Gateway that handled it stood at 0.
        prompt: Text of its prompt, where it is to be kept.
    """

    record: RecordRequest
    at_s: float
    gateway_epoch_s: float
    prompt: str | None = None


@frozen(kw_only=True)
class BudgetUse:
    """How much of a budget is used.

    Attributes:
        account: The budget's account.
        limit_usd: Its limit.
        window: Time over which it counts.
        hard: Whether requests beyond it are refused.
        warn_at: Share of the limit from which on it warns.
        spent_usd: What requests of this window have cost.
        reserved_usd: What is kept for requests under way.
        requests: Requests of this window that have ended.
        tokens: Prompt and completion tokens of these.
        starts_s: Unix time at which the window began.
        ends_s: Unix time at which it ends; for a rolling window, at which the first of it has expired.
        configured: Whether there still is such a budget, as far as the reader has looked.
        key_name: Name of the key whose account it is, as far as the reader has looked; empty where it is no key's.
    """

    account: str
    limit_usd: float
    window: Window
    hard: bool = True
    warn_at: float = 0.8
    spent_usd: float = 0.0
    reserved_usd: float = 0.0
    requests: int = 0
    tokens: int = 0
    starts_s: float = 0.0
    ends_s: float = 0.0
    configured: bool = True
    key_name: str = ""

    @classmethod
    def untouched(cls, charge: Charge) -> "BudgetUse":
        """Of an account on which nothing was charged yet.

        Args:
            charge: What a request would be charged to.
        """
        return cls(
            account=charge.account,
            limit_usd=charge.limit_usd,
            window=charge.window,
            hard=charge.hard,
            warn_at=charge.warn_at,
        )

    @property
    def left_usd(self) -> float:
        """What may still be spent; less than 0 once more was spent."""
        return self.limit_usd - self.spent_usd - self.reserved_usd


@frozen(kw_only=True)
class StoredRequest:
    """A request as it was written down.

    Attributes:
        record: What came of it; each outcome's `at` is a Unix time here. `charges`, `charged_usd` and `judge` are
            not kept.
        at_s: Unix time of its end.
        prompt: Text of its prompt, where that was kept.
        feedback: What was said of its answer, the latest last.
    """

    record: RecordRequest
    at_s: float
    prompt: str | None = None
    feedback: tuple[Feedback, ...] = ()


@frozen(kw_only=True)
class Stream:
    """How far a table that only grows was read.

    Attributes:
        floor: Rows up to this id are never looked at again.
        seen: Ids above it that were read; ids may become visible out of their order.
        marks: Pairs of a Unix time and the last id that was there at that time, oldest first.
    """

    floor: int = 0
    seen: frozenset[int] = frozenset()
    marks: tuple[tuple[float, int], ...] = ()


@frozen(kw_only=True)
class Cursor:
    """How far somebody has followed the news.

    Attributes:
        outcomes: In the outcomes.
        feedback: In the feedback.
        revisions: Of the models, keys and experiments, as they were then.
    """

    outcomes: Stream = field(factory=Stream)
    feedback: Stream = field(factory=Stream)
    revisions: dict[str, int] = field(factory=dict, hash=False)


@frozen(kw_only=True)
class News:
    """What has happened since a cursor.

    Attributes:
        outcomes: Of other processes; `at` is a Unix time.
        feedback: Of anybody; `at` is a Unix time.
        models_changed: Registered models were created, changed or deleted.
        keys_changed: The same for API keys.
        experiments_changed: The same for what was done to experiments.
        cursor: Where to go on.
    """

    outcomes: tuple[ModelOutcome, ...] = ()
    feedback: tuple[Feedback, ...] = ()
    models_changed: bool = False
    keys_changed: bool = False
    experiments_changed: bool = False
    cursor: Cursor = field(factory=Cursor)
