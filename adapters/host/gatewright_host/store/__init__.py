"""What outlives a process: requests and what came of them, money, models, keys, experiments; in SQLite or PostgreSQL."""

from typing import TYPE_CHECKING, Any

from gatewright_host.store.vocabulary import (
    BudgetUse,
    Conflict,
    Cursor,
    Missing,
    News,
    StoreBusy,
    StoredRequest,
    StoreError,
    Written,
)

if TYPE_CHECKING:
    from gatewright_host.store.keeper import Keeper
    from gatewright_host.store.store import Store

__all__ = [
    "BudgetUse",
    "Conflict",
    "Cursor",
    "Keeper",
    "Missing",
    "News",
    "Store",
    "StoreBusy",
    "StoreError",
    "StoredRequest",
    "Written",
]


def __getattr__(name: str) -> Any:
    # SQLAlchemy takes its time to load, and whoever only names an error needs none of it.
    if name == "Store":
        from gatewright_host.store.store import Store  # noqa: PLC0415

        return Store
    if name == "Keeper":
        from gatewright_host.store.keeper import Keeper  # noqa: PLC0415

        return Keeper
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
