"""The vocabulary of money: budgets, what a request is charged to, what its key may do."""

from enum import StrEnum

from attrs import frozen


class BudgetScope(StrEnum):
    """Whose spending a budget limits."""

    EVERYONE = "everyone"
    KEY = "key"
    MODEL = "model"
    ROUTE = "route"
    TAG = "tag"


class WindowKind(StrEnum):
    """How a budget's window moves."""

    ROLLING = "rolling"
    """The last so many seconds."""
    CALENDAR = "calendar"
    """The present hour, day, week (from Monday) or month, in UTC."""


@frozen(kw_only=True)
class Window:
    """The time over which a budget counts.

    Attributes:
        kind: How it moves.
        period: "hour", "day", "week" or "month"; a rolling month has 30 days.
    """

    kind: WindowKind = WindowKind.CALENDAR
    period: str = "month"


@frozen(kw_only=True)
class BudgetConfig:
    """One budget.

    Attributes:
        name: Its name; unique.
        limit_usd: US dollars for each window.
        window: Time over which it counts.
        scope: Whose spending it limits.
        of: Which key, model, route or tag; None: each of them has this budget for itself.
        hard: Requests that would exceed it are refused; otherwise it only warns.
        warn_at: Share of the limit from which on it warns.
    """

    name: str
    limit_usd: float
    window: Window = Window()
    scope: BudgetScope = BudgetScope.EVERYONE
    of: str | None = None
    hard: bool = True
    warn_at: float = 0.8


@frozen(kw_only=True)
class Charge:
    """A part of a request's cost, on one budget's account.

    Attributes:
        account: Name of the account: the budget's, and whose it is where each has its own, such as "monthly/model=qwen".
        limit_usd: Of the budget.
        window: Of the budget.
        hard: Of the budget.
        warn_at: Of the budget.
    """

    account: str
    limit_usd: float
    window: Window = Window()
    hard: bool = True
    warn_at: float = 0.8


@frozen(kw_only=True)
class KeyFacts:
    """What a request's API key may do.

    Attributes:
        key_id: Public id of the key; not the secret.
        name: Its name.
        is_admin: It may manage models, keys and experiments, and see everybody's figures.
        models: Models that it may use; None for all.
        routes: Routes that it may use; None for all.
        requests_per_minute: Limit; None for none.
        tokens_per_minute: Limit on prompt and completion tokens together; None for none.
        budget_usd: Its own budget; None for none.
        budget_window: Of that budget.
    """

    key_id: str
    name: str
    is_admin: bool = False
    models: frozenset[str] | None = None
    routes: frozenset[str] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    budget_usd: float | None = None
    budget_window: Window = Window()
