"""The blocking driver: carries events into the Gateway and its commands to where they are carried out.

Any thread may submit events; `handle` is entered by one at a time. Under the lock the clock is read, the event
handled and its commands put in order: into the mailboxes of their requests, and into one box for the engine host.
They are carried out outside of it, so that no effect holds up anybody else, and none ever finds itself in `handle`.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final, Protocol, assert_never

from gatewright.commands import (
    BeginRelay,
    BeginStream,
    CallUpstream,
    CancelUpstream,
    CountTokens,
    CutConnection,
    DiscardAnswer,
    Drained,
    EstimateComplexity,
    FailStream,
    GatewayCommand,
    Log,
    RecordRequest,
    ReserveSpend,
    SendComment,
    SendProblem,
)
from gatewright.events import GatewayEvent, Woke
from gatewright.gateway import Gateway
from gatewright.ids import RequestId
from gatewright.leases import AskLoads, LeaseEngine, LeaseNews, LeaseRequest, ReleaseLease, ReportCall
from gatewright.tracing.trace import Trace, handle_traced
from gatewright_host.driving import MACHINE, RequestCommand
from gatewright_host.log_setup import log_level_of

logger: Final = logging.getLogger("gatewright.gateway")


class Mailbox(Protocol):
    """The thread of one request, as the driver sees it. Both methods return at once, and may be called by any thread."""

    def put(self, command: RequestCommand) -> None:
        """Take a command to be carried out in turn."""

    def cancel(self) -> None:
        """Stop the call, count or relay under way. It may have ended by now."""


class FleetLink(Protocol):
    """The way to the Fleet, wherever it lives."""

    def send(self, request: LeaseRequest) -> None:
        """Pass a message on, and deliver no news before this returns; called by one thread at a time."""

    def deliver_at_once(self) -> None:
        """Deliver the news that needed nobody else; called after `send`, by any number of threads."""

    def wake_at(self, at: float) -> None:
        """Call `Driver.wake` at this time of `monotonic` or earlier; whoever listens for news has time for it."""


class Driver:
    """Owns the Gateway of one process.

    Args:
        gateway: The machine.
        trace: Told of every event and its commands.

    Attributes:
        link: Way to the Fleet; set before the first request.
        drained: Set once the Gateway has said so.
    """

    link: FleetLink

    def __init__(self, gateway: Gateway, trace: Trace | None = None) -> None:
        self._gateway = gateway
        self._trace = trace
        self._lock = threading.Lock()
        self._mailboxes: dict[RequestId, Mailbox] = {}
        self._for_fleet: deque[LeaseRequest] = deque()
        self._sending = threading.Lock()
        self.drained = threading.Event()

    @property
    def active(self) -> int:
        """Requests under way."""
        return self._gateway.active

    def open_mailbox(self, request_id: RequestId, mailbox: Mailbox) -> None:
        """Send this request's commands there, until its `RecordRequest`."""
        with self._lock:
            self._mailboxes[request_id] = mailbox

    def deliver(self, news: LeaseNews) -> None:
        """News of the Fleet."""
        self.submit(news)

    def wake(self) -> None:
        """The time that `FleetLink.wake_at` was told has come."""
        self.submit(Woke())

    def submit(self, event: GatewayEvent) -> None:
        """Feed one event and carry out what follows for others than its request, whose own thread does the rest."""
        outside: list[Callable[[], None]] = []
        with self._lock:
            now = monotonic()
            commands = handle_traced(self._gateway, MACHINE, event, now, self._trace)
            for command in commands:
                self._put_in_order(command, outside)
            deadline = self._gateway.wake_at
        for effect in outside:
            effect()
        self._send_to_fleet()
        if deadline is not None:
            self.link.wake_at(deadline.at)

    def _put_in_order(self, command: GatewayCommand, outside: list[Callable[[], None]]) -> None:
        match command:
            case LeaseEngine() | ReportCall() | ReleaseLease() | AskLoads():
                self._for_fleet.append(command)
            case (
                CallUpstream()
                | BeginRelay()
                | CountTokens()
                | EstimateComplexity()
                | ReserveSpend()
                | DiscardAnswer()
                | BeginStream()
                | SendComment()
                | SendProblem()
                | FailStream()
                | CutConnection()
            ):
                self._mailboxes[command.request_id].put(command)
            case RecordRequest():
                self._mailboxes.pop(command.request_id).put(command)
            case CancelUpstream(request_id=request_id):
                outside.append(self._mailboxes[request_id].cancel)
            case Drained():
                outside.append(self.drained.set)
            case Log(severity=severity, text=text):
                level = log_level_of(severity)
                outside.append(lambda: logger.log(level, "%s", text))
            case _ as unreachable:
                assert_never(unreachable)

    def _send_to_fleet(self) -> None:
        """Whoever comes first sends for all: what was said first must arrive first."""
        if not self._for_fleet:
            return
        with self._sending:
            while self._for_fleet:
                self.link.send(self._for_fleet.popleft())
        self.link.deliver_at_once()
