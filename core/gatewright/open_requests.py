"""The requests under way, with all that is open for them: leases, commands, timers. And what was commanded for them.

Nothing is decided here: `gateway.py` has the transitions, and does with these methods what several of them share.
"""

from gatewright import orders, replies
from gatewright.alarms import Alarms
from gatewright.commands import BeginStream, GatewayCommand, Outcome, RecordRequest, SendComment
from gatewright.config import ServerConfig
from gatewright.engines.spec import EngineSpec
from gatewright.errors import Problem
from gatewright.events import RelayEnded
from gatewright.ids import CommandId, LeaseId, RequestId
from gatewright.leases import AskLoads, CallResult, ReleaseLease
from gatewright.requests import (
    AwaitingCountLease,
    AwaitingLease,
    AwaitingLoads,
    BackingOff,
    BrokenCall,
    Held,
    Request,
)
from gatewright.selection.failures import Failure
from gatewright.selection.variants import Fits
from gatewright.timers import Deadline, earliest
from gatewright.waiting import COMMENT_PERIOD_S, WaitingClients


class OpenRequests:
    """Books of one Gateway.

    Attributes:
        now: Seconds: time of the event that is being handled.
        out: Commands that it has led to so far.
        by_id: Every request under way.
        by_lease: Whom a lease was asked for that is not given back.
        by_broken_lease: Whose call broke off on a lease that was given back for it; until the next one is granted.
        by_command: Whom the completion of a command is awaited for.
        ended: Records of the requests that the present event has ended.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.out: list[GatewayCommand] = []
        self.by_id: dict[RequestId, Request] = {}
        self.by_lease: dict[LeaseId, Request] = {}
        self.by_broken_lease: dict[LeaseId, Request] = {}
        self.by_command: dict[CommandId, Request] = {}
        self.ended: list[RecordRequest] = []
        self._waiting = WaitingClients()
        self._alarms = Alarms("backoff or end of a request's time")
        self._last_id = 0

    def start_event(self, now: float) -> list[GatewayCommand]:
        """An event is being handled from now on; the list takes its commands."""
        self.now, self.out, self.ended = now, [], []
        return self.out

    def add(self, request: Request) -> None:
        """A request has come."""
        self.by_id[request.request_id] = request
        self.set_alarm(request)

    def expect(self, request: Request) -> CommandId:
        """A new command id, whose completion concerns this request."""
        command_id = CommandId(self._new_id())
        self.by_command[command_id] = request
        return command_id

    def _new_id(self) -> int:
        self._last_id += 1
        return self._last_id

    # --- leases

    def ask_lease(self, request: Request, fits: Fits, server: ServerConfig) -> None:
        """Ask for an engine that answers."""
        lease_id = LeaseId(self._new_id())
        request.become(AwaitingLease(lease_id, fits))
        self.by_lease[lease_id] = request
        if request.waits_since is None:
            request.waits_since = self.now
        self.await_something(request)
        self.out.append(orders.lease_to_answer(lease_id, request, fits, server))

    def ask_lease_to_count(self, request: Request, best_guess: Fits) -> None:
        """Ask for an engine that counts."""
        lease_id = LeaseId(self._new_id())
        request.become(AwaitingCountLease(lease_id, best_guess))
        self.by_lease[lease_id] = request
        self.out.append(orders.lease_to_count(lease_id, request.model))

    def ask_loads(self, request: Request, engines: tuple[EngineSpec, ...]) -> None:
        """Ask what it would cost now to run these engines."""
        lease_id = LeaseId(self._new_id())
        request.become(AwaitingLoads(lease_id))
        self.by_lease[lease_id] = request
        self.out.append(AskLoads(lease_id=lease_id, variants=engines))

    def give_back(
        self,
        held: Held | None,
        failure: Failure | None = None,
        *,
        well: bool = False,
        suspect: bool = False,
        relay: RelayEnded | None = None,
    ) -> None:
        """Release a lease that was granted and is not lost, with what was learnt about the upstream.

        Args:
            held: The lease; nothing is done where there is none.
            failure: How the call failed.
            well: It did not.
            suspect: The connection broke.
            relay: How the relay of the answer ended, if that had begun.
        """
        if held is None or held.lost is not None:
            return
        result = CallResult.WELL if well else None
        retry_after_s = None
        if failure is not None:
            result, retry_after_s = failure.result, failure.retry_after_s
        if suspect:
            request = self.by_broken_lease[held.lease_id] = self.by_lease[held.lease_id]
            request.broken_call = BrokenCall(held, relay)
        self.release(held.lease_id, suspect=suspect, result=result, retry_after_s=retry_after_s)

    def release(
        self,
        lease_id: LeaseId,
        *,
        suspect: bool = False,
        result: CallResult | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """Release a lease, granted or not."""
        del self.by_lease[lease_id]
        self.out.append(
            ReleaseLease(lease_id=lease_id, suspect=suspect, result=result, retry_after_s=retry_after_s)
        )

    def forget_broken_call(self, request: Request) -> None:
        """Why its connection broke is known, or does not matter any more."""
        if request.broken_call is not None:
            del self.by_broken_lease[request.broken_call.held.lease_id]
        request.broken_call = request.taken_back = None

    # --- time

    def back_off(self, request: Request, until: float) -> None:
        """Let time pass before the next attempt."""
        request.become(BackingOff(until))
        self.await_something(request)
        self.set_alarm(request)

    def set_alarm(self, request: Request) -> None:
        """See that the request is looked at when its state or its time ends."""
        if request.alarm_at is None:
            self._alarms.discard(request)
        else:
            self._alarms.set(request, request.alarm_at)

    def take_due(self) -> list[Request]:
        """Requests whose alarm went off."""
        return self._alarms.take_due(self.now)

    @property
    def wake_at(self) -> Deadline | None:
        """When there is something due, or a comment to be sent."""
        return earliest(self._waiting.wake_at, self._alarms.wake_at)

    # --- clients that wait

    def await_something(self, request: Request) -> None:
        """See that a streaming client hears something while it waits."""
        if request.facts.stream:
            if request.begun_status:
                request.comment_at = self.now + COMMENT_PERIOD_S
            self._waiting.add(request)

    def end_wait(self, request: Request) -> None:
        """The client of this request hears something else now, or nothing any more."""
        self._waiting.discard(request)

    def comment(self) -> None:
        """Tell streaming clients that have waited for long what they wait for."""
        for request in self._waiting.take_due(self.now):
            if not request.stream_begun:
                request.stream_begun = True
                headers = replies.headers(request, None, self.now)
                self.out.append(BeginStream(request_id=request.request_id, headers=headers))
                self.set_alarm(request)
            text = replies.waiting_comment(request, self.now)
            self.out.append(SendComment(request_id=request.request_id, text=text))

    # --- ends

    def fail(
        self,
        request: Request,
        problem: Problem,
        *,
        held: Held | None = None,
        relay: RelayEnded | None = None,
    ) -> None:
        """Tell the client in the way that is left, and end."""
        self.out.append(replies.failure(request, problem, held, self.now))
        outcome = Outcome.BROKE_OFF if request.begun_status else Outcome.FAILED
        status = 0 if request.stream_begun else problem.status
        self.end(request, outcome, status, held=held, relay=relay, problem=problem)

    def end(
        self,
        request: Request,
        outcome: Outcome,
        status: int = 0,
        *,
        held: Held | None = None,
        relay: RelayEnded | None = None,
        problem: Problem | None = None,
    ) -> None:
        """Close the books on a request whose leases and commands are settled, and record it."""
        del self.by_id[request.request_id]
        self.forget_broken_call(request)
        self._waiting.discard(request)
        self._alarms.discard(request)
        record = replies.record(
            request,
            outcome,
            self.now,
            status=request.begun_status or status,
            held=held,
            relay=relay,
            problem=problem,
        )
        self.out.append(record)
        self.ended.append(record)
