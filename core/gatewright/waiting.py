"""Streaming clients that wait, and when each of them has to hear something: proxies give up on silence."""

from typing import Final

from gatewright.alarms import Alarms
from gatewright.requests import Request
from gatewright.timers import Deadline

PATIENCE_S: Final = 10.0
"""Wait after which a client gets its response head and a first comment."""
COMMENT_PERIOD_S: Final = 5.0


class WaitingClients:
    """The requests of those clients."""

    def __init__(self) -> None:
        self._alarms = Alarms("comment for a waiting client")

    def add(self, request: Request) -> None:
        """The client of this request waits."""
        self._alarms.set(request, request.comment_at)

    def discard(self, request: Request) -> None:
        """The client waits no longer, if it did."""
        self._alarms.discard(request)

    def take_due(self, now: float) -> list[Request]:
        """Those to be sent a comment now; their next one is due after `COMMENT_PERIOD_S`."""
        due = self._alarms.take_due(now)
        for request in due:
            request.comment_at = now + COMMENT_PERIOD_S
            self._alarms.set(request, request.comment_at)
        return due

    @property
    def wake_at(self) -> Deadline | None:
        """When `take_due` may have something to give."""
        return self._alarms.wake_at
