"""The async driver: carries events into the Gateway and its commands to where they are carried out.

One event loop, so no lock. Events that arise while commands are being carried out wait in a queue: `handle` is
never entered from an effect, and all commands of one event are out before the next event goes in.
"""

import asyncio
import logging
from collections import deque
from time import monotonic
from typing import Protocol, assert_never

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

logger = logging.getLogger("gatewright.gateway")


class Mailbox(Protocol):
    """The task of one request, as the driver sees it."""

    def put(self, command: RequestCommand) -> None:
        """Take a command to be carried out in turn."""

    def cancel(self) -> None:
        """Stop the call, count or relay under way."""


class FleetLink(Protocol):
    """The way to the Fleet, wherever it lives."""

    def send(self, request: LeaseRequest) -> None:
        """Pass a message on; news may come back before this returns."""


class Driver:
    """Owns the Gateway of one server.

    Args:
        gateway: The machine.
        trace: Told of every event and its commands; None tells nobody.

    Attributes:
        link: Way to the Fleet; set before the first request.
        drained: Set once the Gateway has said so.
    """

    link: FleetLink

    def __init__(self, gateway: Gateway, trace: Trace | None = None) -> None:
        self._gateway = gateway
        self._trace = trace
        self._loop = asyncio.get_running_loop()
        self._mailboxes: dict[RequestId, Mailbox] = {}
        self._events: deque[GatewayEvent] = deque()
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self.drained = asyncio.Event()

    @property
    def active(self) -> int:
        """Requests under way."""
        return self._gateway.active

    def open_mailbox(self, request_id: RequestId, mailbox: Mailbox) -> None:
        """Send this request's commands there, until its `RecordRequest`."""
        self._mailboxes[request_id] = mailbox

    def deliver(self, news: LeaseNews) -> None:
        """News of the Fleet."""
        self.submit(news)

    def submit(self, event: GatewayEvent) -> None:
        """Feed one event and carry out what follows; events that arise meanwhile take their turn."""
        self._events.append(event)
        if self._busy:
            return
        self._busy = True
        try:
            while self._events:
                self._handle(self._events.popleft())
        finally:
            self._busy = False
        self._set_timer()

    def _handle(self, event: GatewayEvent) -> None:
        now = monotonic()
        commands = handle_traced(self._gateway, MACHINE, event, now, self._trace)
        for command in commands:
            self._carry_out(command)

    def _carry_out(self, command: GatewayCommand) -> None:
        match command:
            case LeaseEngine() | ReportCall() | ReleaseLease() | AskLoads():
                self.link.send(command)
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
                self._mailboxes[request_id].cancel()
            case Drained():
                self.drained.set()
            case Log(severity=severity, text=text):
                logger.log(log_level_of(severity), text)
            case _ as unreachable:
                assert_never(unreachable)

    def _set_timer(self) -> None:
        """See that `Woke` comes in time. One that comes early does no harm, so only an earlier deadline re-arms."""
        deadline = self._gateway.wake_at
        if deadline is None or (self._timer is not None and self._timer_at <= deadline.at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline.at
        # A distance, since the event loop has a clock of its own.
        self._timer = self._loop.call_later(max(0.0, deadline.at - monotonic()), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.submit(Woke())

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
