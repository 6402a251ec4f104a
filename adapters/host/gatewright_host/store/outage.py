"""Whether the store can be asked, said once each time that it changes."""

import logging
import threading
from collections.abc import Callable
from typing import Final

logger: Final = logging.getLogger("gatewright.store")

_SILENCE_S: Final = 5.0
"""A store that nobody has heard of for so long, by those who ask every second, hangs."""
_OPEN: Final = "Requests go on; budgets follow store.when_unavailable, and records wait in memory"
_SHUT: Final = (
    "It has the API keys, and nobody knows whether there are any: until it can be read, requests are refused with 503 "
    "keys_unknown, but for those with one of server.api_keys. It is tried again every second"
)


class Outage:
    """What is known of a store's being there. May be used from any thread.

    Args:
        monotonic: Clock, in seconds.
        is_shut: Whether clients are turned away until it is back.
    """

    def __init__(self, monotonic: Callable[[], float], is_shut: Callable[[], bool] = lambda: False) -> None:
        self._monotonic = monotonic
        self._is_shut = is_shut
        self._lock = threading.Lock()
        self._reason: str | None = None
        self._since = 0.0
        self._heard_at: float | None = None

    def failed(self, reason: str) -> None:
        """It could not be asked.

        Args:
            reason: One line for people.
        """
        with self._lock:
            is_news = self._reason is None
            self._reason = reason
            if is_news:
                self._since = self._monotonic()
        if is_news:
            logger.error("%s. %s", reason, _SHUT if self._is_shut() else _OPEN)

    def worked(self) -> None:
        """It has answered."""
        with self._lock:
            self._heard_at = self._monotonic()
            was_down, self._reason = self._reason is not None, None
            lasted_s = self._heard_at - self._since
        if was_down:
            logger.warning("the store can be used again, after %.0f s", lasted_s)

    @property
    def reason(self) -> str | None:
        """Why it cannot be asked; None if it can, as far as is known."""
        with self._lock:
            if self._reason is not None:
                return self._reason
            if self._heard_at is not None and self._monotonic() - self._heard_at > _SILENCE_S:
                return "the store does not answer"
            return None
