"""Requests that are to be looked at again at some time."""

from math import inf

from gatewright.ids import RequestId
from gatewright.requests import Request
from gatewright.timers import Deadline


class Alarms:
    """One time for each request.

    Args:
        reason: Of the wake-ups, for logs and tests.
    """

    def __init__(self, reason: str) -> None:
        self._reason = reason
        self._entries: dict[RequestId, tuple[float, Request]] = {}
        self._earliest_at = inf  # nothing is due before; may be too early, as `Woke` may

    def set(self, request: Request, at: float) -> None:
        """Look at this request at this time, and not at the one that was set before."""
        if not self._entries:
            self._earliest_at = inf
        self._entries[request.request_id] = (at, request)
        self._earliest_at = min(self._earliest_at, at)

    def discard(self, request: Request) -> None:
        """There is nothing to look at any more, if there was."""
        self._entries.pop(request.request_id, None)

    def take_due(self, now: float) -> list[Request]:
        """Those whose time has come, in the order in which they were first set; nothing is set for them any more."""
        if now < self._earliest_at:
            return []
        due = [request for at, request in self._entries.values() if now >= at]
        for request in due:
            del self._entries[request.request_id]
        self._earliest_at = min((at for at, _ in self._entries.values()), default=inf)
        return due

    @property
    def wake_at(self) -> Deadline | None:
        """When `take_due` may have something to give."""
        return Deadline(self._earliest_at, self._reason) if self._entries else None
