"""One management request, as the parts that answer it see it."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from attrs import frozen

from gatewright.accounting.keys import KeyBook
from gatewright.accounting.spending import KeyFacts
from gatewright.commands import EstimateComplexity
from gatewright.config import Config
from gatewright.events import ComplexityEstimated, EstimationFailed
from gatewright_host.metrics import Metrics
from gatewright_host.upstream_calls import ClientRequest

if TYPE_CHECKING:
    from gatewright_host.store import Store

_WRITTEN_WITHIN_S: Final = 1.0
_SEEN_WITHIN_S: Final = 2.0
_LOOK_AGAIN_S: Final = 0.01


class StoreKeeper(Protocol):
    """What the management needs of a `Keeper`."""

    @property
    def store(self) -> "Store":
        """The store; raises `StoreError` where it cannot be used."""
        ...

    @property
    def key_book(self) -> KeyBook:
        """The keys that this process lets in."""
        ...

    def look_soon(self) -> None:
        """Look for what has changed now rather than within a second."""
        ...

    def flush(self, timeout_s: float) -> bool:
        """Wait until what was recorded is written."""
        ...


class Office(Protocol):
    """What the management needs of a `BackOffice`."""

    @property
    def keeper(self) -> StoreKeeper:
        """What this process has of the store."""
        ...

    @property
    def metrics(self) -> Metrics | None:
        """Told of feedback."""
        ...

    def estimate(
        self, command: EstimateComplexity, request: ClientRequest
    ) -> ComplexityEstimated | EstimationFailed:
        """Ask an estimator, and wait."""
        ...


@frozen(kw_only=True)
class Asking:
    """One request.

    Attributes:
        method: Its method; GET for HEAD.
        target: Path and query.
        item: Name or id in the path.
        body: All of it.
        key: Whose rights it has; None for all.
        find_config: The present configuration, registered models included.
        find_office: The process's office; raises `StoreUnavailable` where there is none.
    """

    method: str
    target: str
    item: str
    body: bytes
    key: KeyFacts | None
    find_config: Callable[[], Config]
    find_office: Callable[[], Office]

    @property
    def config(self) -> Config:
        """The present configuration, registered models included."""
        return self.find_config()

    @property
    def store(self) -> "Store":
        """The store.

        Raises:
            StoreUnavailable: There is none.
            StoreError: It cannot be used at present.
        """
        return self.find_office().keeper.store

    @property
    def written_store(self) -> "Store":
        """The same, once what this process has recorded is in it."""
        store = self.store
        self.find_office().keeper.flush(_WRITTEN_WITHIN_S)
        return store

    def see(self, is_seen: Callable[[], bool]) -> None:
        """Have this process look at what was just changed, so that whoever is answered finds it; others follow.

        Args:
            is_seen: Whether it has.
        """
        self.find_office().keeper.look_soon()
        end = time.monotonic() + _SEEN_WITHIN_S
        while not is_seen() and time.monotonic() < end:
            time.sleep(_LOOK_AGAIN_S)

    def see_keys(self, is_seen: Callable[[KeyBook], bool]) -> None:
        """The same for keys."""
        keeper = self.find_office().keeper
        self.see(lambda: is_seen(keeper.key_book))
