"""The Gateway: requests, from arrival to their one outcome.

The states of one request and their graph are in `requests.py`; `Gateway._advance` is the table of all
transitions that the outside brings about. Leases come from the Fleet, which may live in another process; token
counts, calls and relays are carried out by the adapter. Whatever comes back and matches no request in its
present state is stale: counted and ignored.
"""

from typing import Final, assert_never

from attrs import evolve

from gatewright import replies
from gatewright.admission import Admission
from gatewright.calls import Calls
from gatewright.commands import CancelUpstream, Drained, GatewayCommand, Outcome, SendProblem
from gatewright.config import Config, ModelConfig
from gatewright.errors import Problem, ShuttingDown
from gatewright.events import (
    BudgetsSeen,
    ClientGone,
    ComplexityEstimated,
    ConfigReplaced,
    EstimationFailed,
    ExperimentsSet,
    GatewayEvent,
    OutcomesLearnt,
    RelayEnded,
    RequestReceived,
    ShutdownRequested,
    SpendRefused,
    SpendReserved,
    SpendUnknown,
    TokenCountFailed,
    TokensCounted,
    UpstreamAnswered,
    UpstreamFailed,
    Woke,
)
from gatewright.leases import (
    LeaseGranted,
    LeaseLost,
    LeaseNews,
    LeaseProgress,
    LeaseRefused,
    LoadsTold,
)
from gatewright.open_requests import OpenRequests
from gatewright.requests import (
    AwaitingCountLease,
    AwaitingLease,
    AwaitingLoads,
    BackingOff,
    Calling,
    Canceling,
    Counting,
    Estimating,
    Held,
    Received,
    Relaying,
    Request,
    Reserving,
)
from gatewright.route_config import RouteConfig
from gatewright.routing import Router
from gatewright.selection.beliefs import Certain, Chance
from gatewright.selection.failures import Failure
from gatewright.selection.tokens import TokenEstimator
from gatewright.timers import Deadline

SHUTDOWN_RETRY_S: Final = 5.0

_BEFORE_THE_LEASE: Final = (Estimating, AwaitingLoads, AwaitingCountLease, Counting, Reserving)

Completion = (
    UpstreamAnswered
    | UpstreamFailed
    | RelayEnded
    | TokensCounted
    | TokenCountFailed
    | ComplexityEstimated
    | EstimationFailed
    | SpendReserved
    | SpendRefused
    | SpendUnknown
)


class Gateway:
    """Machine over `GatewayEvent` and `GatewayCommand`.

    Args:
        config: Models and limits.
        chance: Random numbers: spread repetitions of failed calls over time, and let choices explore.

    Attributes:
        stale: Completions and news that matched nothing in state and were ignored.
    """

    def __init__(self, config: Config, chance: Chance | None = None) -> None:
        self.stale = 0
        chance = chance or Certain()
        self._router = Router(config, chance)
        self._estimator = TokenEstimator()
        self._open = OpenRequests()
        self._admission = Admission(config, self._open, self._router, self._estimator)
        self._calls = Calls(config, self._open, self._admission, self._estimator, chance)
        self._closing = False
        self._drained = False

    def handle(self, event: GatewayEvent, now: float) -> list[GatewayCommand]:
        """Take in one fact.

        Args:
            event: What happened.
            now: Seconds, monotonic, never less than before.

        Returns:
            What to do, in this order.
        """
        out = self._open.start_event(now)
        match event:
            case RequestReceived():
                self._receive(event)
            case LeaseLost(lease_id=lease_id) if lease_id in self._open.by_broken_lease:
                self._calls.taken_back(self._open.by_broken_lease[lease_id], event.problem)
            case LeaseGranted() | LeaseRefused() | LeaseLost() | LeaseProgress() | LoadsTold():
                self._advance(self._open.by_lease.get(event.lease_id), event)
            case (
                UpstreamAnswered()
                | UpstreamFailed()
                | RelayEnded()
                | TokensCounted()
                | TokenCountFailed()
                | ComplexityEstimated()
                | EstimationFailed()
                | SpendReserved()
                | SpendRefused()
                | SpendUnknown()
            ):
                self._advance(self._open.by_command.pop(event.command_id, None), event)
            case ClientGone(request_id=request_id):
                self._give_up(self._open.by_id.get(request_id))
            case Woke():
                self._open.comment()
                for request in self._open.take_due():
                    self._look_at(request)
            case OutcomesLearnt() | BudgetsSeen() | ExperimentsSet():
                self._router.hear(event)
            case ConfigReplaced(config=config):
                self._admission.replace_config(config)
                self._calls.replace_config(config)
            case ShutdownRequested(force=force):
                self._close(force=force)
            case _ as unreachable:
                assert_never(unreachable)
        for record in self._open.ended:
            for outcome in record.outcomes:
                self._router.learn(outcome)
        if self._closing and not self._open.by_id and not self._drained:
            self._drained = True
            out.append(Drained())
        return out

    def _advance(self, request: Request | None, event: LeaseNews | Completion) -> None:
        """Every transition that an answer to one of our commands brings about, from the lease on."""
        if request is None:
            self.stale += 1
            return
        if isinstance(request.state, _BEFORE_THE_LEASE):
            self._prepare(request, event)
            return
        match event, request.state:
            case LeaseGranted(), AwaitingLease() as state:
                self._calls.call(request, state, event)
            case UpstreamAnswered(), Calling() as state:
                self._calls.answered(request, state, event)
            case RelayEnded(), Relaying() as state:
                self._calls.relayed(request, state, event)
            case UpstreamFailed(), Calling() as state:
                self._calls.call_failed(request, state, event)

            case LeaseProgress(), AwaitingLease() as state:
                request.become(evolve(state, progress=event))
            case LeaseRefused() | LeaseLost(), AwaitingLease() as state:
                self._calls.refused(request, state, event.problem)
            case LeaseRefused() | LeaseLost(), (
                Calling(held=held) | Relaying(held=held) | Canceling(held=Held() as held)
            ) as state:
                # Its user hears of it by the connection; the reason is kept for the client.
                del self._open.by_lease[held.lease_id]
                request.become(evolve(state, held=evolve(held, lost=event.problem)))
            case LeaseGranted() | LeaseRefused() | LeaseLost() | LeaseProgress() | LoadsTold(), _:
                self.stale += 1

            case completion, Canceling() as state:
                self._calls.canceled(request, state, completion)
            case _:
                raise AssertionError(f"{type(event).__name__} completes nothing in {request.state}")

    def _prepare(self, request: Request, event: LeaseNews | Completion) -> None:
        """The same, from a request's arrival to the lease: its model, its size, its cost."""
        match event, request.state:
            case ComplexityEstimated(estimate=estimate, chances=chances), Estimating():
                self._admission.estimated(request, estimate, chances)
                self._calls.go_on(request)
            case EstimationFailed(reason=reason), Estimating():
                self._admission.estimation_failed(request, reason)
                self._calls.go_on(request)
            case LoadsTold(loads=loads), AwaitingLoads() as state:
                self._admission.loads_told(request, state, loads)
                self._calls.go_on(request)
            case LeaseRefused() | LeaseLost(), AwaitingLoads() as state:
                self._admission.loads_told(request, state, ())
                self._calls.go_on(request)
            case SpendReserved(), Reserving() as state:
                self._then(request, self._admission.reserved(request, state, event))
            case SpendUnknown(), Reserving() as state:
                self._then(request, self._admission.reservation_failed(request, state, event))
            case SpendRefused(), Reserving() as state:
                self._then(request, self._admission.refused_by_budget(request, state, event))

            case LeaseGranted(), AwaitingCountLease(best_guess=guess):
                held = Held(event.lease_id, event.context_tokens, event.is_probe)
                self._admission.count(request, held, event.base_url, guess)
            case LeaseRefused() | LeaseLost(), AwaitingCountLease(lease_id=lease_id, best_guess=guess):
                del self._open.by_lease[lease_id]
                failure = self._admission.count_without_engine(request, guess, event.problem.message)
                self._then(request, failure)
            case TokensCounted(), Counting() as state:
                self._open.give_back(state.held)
                self._admission.counted(request, event.prompt_tokens)
                self._calls.go_on(request)
            case TokenCountFailed(), Counting() as state:
                self._open.give_back(state.held)
                failure = self._admission.count_without_engine(request, state.best_guess, event.reason)
                self._then(request, failure)

            case LeaseRefused() | LeaseLost(), Counting(held=Held() as held) as state:
                del self._open.by_lease[held.lease_id]
                request.become(evolve(state, held=evolve(held, lost=event.problem)))
            case LeaseGranted() | LeaseRefused() | LeaseLost() | LeaseProgress() | LoadsTold(), _:
                self.stale += 1
            case _:
                raise AssertionError(f"{type(event).__name__} completes nothing in {request.state}")

    def _then(self, request: Request, failure: Failure | None) -> None:
        if failure is not None:
            self._calls.try_next(request, failure)

    @property
    def wake_at(self) -> Deadline | None:
        """When `Woke` is due, or None while nothing is timed."""
        return self._open.wake_at

    @property
    def active(self) -> int:
        """Requests under way."""
        return len(self._open.by_id)

    # --- before the call

    def _receive(self, event: RequestReceived) -> None:
        assert event.request_id not in self._open.by_id, f"{event.request_id} is under way already"
        found: ModelConfig | RouteConfig | Problem
        if self._closing:
            found = ShuttingDown("the server shuts down", retry_after_s=SHUTDOWN_RETRY_S).problem
        else:
            found = self._admission.find(event.facts)
        if isinstance(found, Problem):
            headers = (("x-request-id", event.request_id),)
            self._open.out.append(SendProblem(request_id=event.request_id, problem=found, headers=headers))
            self._open.out.append(self._admission.refuse(event, found))
            return
        request = self._admission.receive(event, found)
        if isinstance(found, RouteConfig):
            self._admission.begin_choice(request, found)
        self._calls.go_on(request)

    def _look_at(self, request: Request) -> None:
        """The time has come for which the alarm was set."""
        give_up_at = request.give_up_at
        if give_up_at is not None and self._open.now >= give_up_at:
            if not isinstance(request.state, Canceling):
                self._abandon(request, replies.too_slow(request, self._open.now))
        elif isinstance(request.state, BackingOff) and self._open.now >= request.state.until:
            self._calls.go_on(request)
            if request.request_id in self._open.by_id:
                self._open.set_alarm(request)
        else:
            self._open.set_alarm(request)

    # --- ends

    def _give_up(self, request: Request | None) -> None:
        """The client is gone."""
        if request is None or (isinstance(request.state, Canceling) and request.state.problem is None):
            self.stale += 1
        else:
            self._abandon(request, None)

    def _close(self, *, force: bool) -> None:
        self._closing = True
        if not force:
            return
        problem = ShuttingDown("the server shut down before the answer was complete").problem
        for request in list(self._open.by_id.values()):
            if not isinstance(request.state, Canceling):
                self._abandon(request, problem)

    def _abandon(self, request: Request, problem: Problem | None) -> None:
        """End a request in whatever state it is; without a problem where its client is gone."""
        self._open.end_wait(request)
        match request.state:
            case AwaitingLoads(lease_id=lease_id):
                del self._open.by_lease[lease_id]
                if problem is None:
                    self._open.end(request, Outcome.CANCELED)
                else:
                    self._open.fail(request, problem)
            case Reserving(command_id=command_id):
                request.become(Canceling(command_id, None, problem))
            case Estimating(command_id=command_id):
                self._open.out.append(CancelUpstream(request_id=request.request_id))
                request.become(Canceling(command_id, None, problem))
            case AwaitingLease(lease_id=lease_id) | AwaitingCountLease(lease_id=lease_id):
                self._open.release(lease_id)
                if problem is None:
                    self._open.end(request, Outcome.CANCELED)
                else:
                    self._open.fail(request, problem)
            case BackingOff():
                if problem is None:
                    self._open.end(request, Outcome.CANCELED)
                else:
                    self._open.fail(request, problem)
            case Counting(command_id=command_id, held=held) | Calling(command_id=command_id, held=held):
                self._open.out.append(CancelUpstream(request_id=request.request_id))
                request.become(Canceling(command_id, held, problem))
            case Relaying(command_id=command_id, held=held, failure=failure):
                self._open.out.append(CancelUpstream(request_id=request.request_id))
                request.become(Canceling(command_id, held, problem, failure))
            case Canceling() as state:
                request.become(evolve(state, problem=problem))
            case Received():
                raise AssertionError("nothing stays in Received")
            case _ as unreachable:
                assert_never(unreachable)
