"""Streaming clients that wait, and when each of them has to hear something: proxies give up on silence."""

from math import inf
from typing import Final

from gatewright.ids import RequestId
from gatewright.requests import Request
from gatewright.timers import Deadline

PATIENCE_S: Final = 10.0
"""Wait after which a client gets its response head and a first comment."""
COMMENT_PERIOD_S: Final = 5.0


class WaitingClients:
    """The requests of those clients."""

    def __init__(self) -> None:
        self._requests: dict[RequestId, Request] = {}
        self._earliest_at = inf  # no comment is due before; may be too early, as `Woke` may

    def add(self, request: Request) -> None:
        """The client of this request waits."""
        if not self._requests:
            self._earliest_at = inf
        self._requests[request.request_id] = request
        self._earliest_at = min(self._earliest_at, request.comment_at)

    def discard(self, request: Request) -> None:
        """The client waits no longer, if it did."""
        self._requests.pop(request.request_id, None)

    def take_due(self, now: float) -> list[Request]:
        """Those to be sent a comment now; their next one is due after `COMMENT_PERIOD_S`."""
        if now < self._earliest_at:
            return []
        due = [request for request in self._requests.values() if now >= request.comment_at]
        for request in due:
            request.comment_at = now + COMMENT_PERIOD_S
        self._earliest_at = min((request.comment_at for request in self._requests.values()), default=inf)
        return due

    @property
    def wake_at(self) -> Deadline | None:
        """When `take_due` may have something to give."""
        return Deadline(self._earliest_at, "comment for a waiting client") if self._requests else None
