"""The Gateway: requests, from arrival to their one outcome.

The states of one request and their graph are in `requests.py`; `Gateway._advance` is the table of all
transitions that the outside brings about. Leases come from the Fleet, which may live in another process; token
counts, calls and relays are carried out by the adapter. Whatever comes back and matches no request in its
present state is stale: counted and ignored.
"""

from collections.abc import Callable
from typing import Final, assert_never

from attrs import evolve

from gatewright import orders, replies
from gatewright.api.facts import FIRST_ERROR_STATUS, UpstreamError
from gatewright.commands import (
    BeginStream,
    CancelUpstream,
    DiscardAnswer,
    Drained,
    GatewayCommand,
    Log,
    Outcome,
    SendComment,
    SendProblem,
    Severity,
)
from gatewright.config import Config, ModelConfig
from gatewright.errors import EngineHostLost, EngineStopped, ModelNotFound, Problem, ShuttingDown
from gatewright.events import (
    CallFailure,
    ClientGone,
    ConfigReplaced,
    GatewayEvent,
    RelayEnded,
    RelayFailure,
    RequestReceived,
    ShutdownRequested,
    TokenCountFailed,
    TokensCounted,
    UpstreamAnswered,
    UpstreamFailed,
    Woke,
)
from gatewright.ids import CommandId, LeaseId, RequestId
from gatewright.leases import (
    LeaseGranted,
    LeaseLost,
    LeaseNews,
    LeaseProgress,
    LeaseRefused,
    ReleaseLease,
)
from gatewright.requests import (
    AwaitingCountLease,
    AwaitingLease,
    Calling,
    Canceling,
    Counting,
    Held,
    Received,
    Relaying,
    Request,
)
from gatewright.selection.tokens import TokenEstimator, exactly
from gatewright.selection.variants import Fits, TooLarge, Unsure, choose_variant, larger_variants
from gatewright.timers import Deadline
from gatewright.waiting import PATIENCE_S, WaitingClients

ENGINE_RETRIES: Final = 1
"""Repetitions of a request whose engine broke before the first byte."""
SHUTDOWN_RETRY_S: Final = 5.0

Jitter = Callable[[], float]

Completion = UpstreamAnswered | UpstreamFailed | RelayEnded | TokensCounted | TokenCountFailed


class Gateway:
    """Machine over `GatewayEvent` and `GatewayCommand`.

    Args:
        config: Models and limits.
        jitter: Gives a number from 0 to 1, excluded, each time: spreads repetitions of failed calls over time.

    Attributes:
        stale: Completions and news that matched nothing in state and were ignored.
    """

    def __init__(self, config: Config, jitter: Jitter = lambda: 0.0) -> None:
        self.stale = 0
        self._jitter = jitter
        self._config = config
        self._estimator = TokenEstimator()
        self._requests: dict[RequestId, Request] = {}
        self._by_lease: dict[LeaseId, Request] = {}
        self._by_command: dict[CommandId, Request] = {}
        self._waiting = WaitingClients()
        self._last_id = 0
        self._closing = False
        self._drained = False
        self._now = 0.0  # of the event that is being handled
        self._out: list[GatewayCommand] = []

    def handle(self, event: GatewayEvent, now: float) -> list[GatewayCommand]:
        """Take in one fact.

        Args:
            event: What happened.
            now: Seconds, monotonic, never less than before.

        Returns:
            What to do, in this order.
        """
        self._now, self._out = now, []
        match event:
            case RequestReceived():
                self._receive(event)
            case LeaseGranted() | LeaseRefused() | LeaseLost() | LeaseProgress():
                self._advance(self._by_lease.get(event.lease_id), event)
            case UpstreamAnswered() | UpstreamFailed() | RelayEnded() | TokensCounted() | TokenCountFailed():
                self._advance(self._by_command.pop(event.command_id, None), event)
            case ClientGone(request_id=request_id):
                self._give_up(self._requests.get(request_id))
            case Woke():
                self._comment()
            case ConfigReplaced(config=config):
                self._config = config
            case ShutdownRequested(force=force):
                self._close(force=force)
            case _ as unreachable:
                assert_never(unreachable)
        if self._closing and not self._requests and not self._drained:
            self._drained = True
            self._out.append(Drained())
        return self._out

    def _advance(  # noqa: C901  # one table of all transitions reads better than two
        self, request: Request | None, event: LeaseNews | Completion
    ) -> None:
        """Every transition that an answer to one of our commands brings about."""
        if request is None:
            self.stale += 1
            return
        match event, request.state:
            case LeaseGranted(), AwaitingLease() as state:
                self._call(request, state, event)
            case UpstreamAnswered(), Calling() as state:
                self._answered(request, state, event)
            case RelayEnded(), Relaying() as state:
                self._relayed(request, state, event)
            case UpstreamFailed(), Calling() as state:
                self._call_failed(request, state, event)

            case LeaseGranted(), AwaitingCountLease(best_guess=guess):
                held = Held(event.lease_id, event.context_tokens)
                self._count(request, held, event.base_url, guess)
            case LeaseRefused() | LeaseLost(), AwaitingCountLease(lease_id=lease_id, best_guess=guess):
                del self._by_lease[lease_id]
                self._count_without_engine(request, guess, event.problem.message)
            case TokensCounted(), Counting() as state:
                self._counted(request, state, event)
            case TokenCountFailed(), Counting() as state:
                self._give_back(state.held)
                self._count_without_engine(request, state.best_guess, event.reason)

            case LeaseProgress(), AwaitingLease() as state:
                request.become(evolve(state, progress=event))
            case LeaseRefused() | LeaseLost(), AwaitingLease() as state:
                self._refused(request, state, event.problem)
            case LeaseRefused() | LeaseLost(), (
                Counting(held=Held() as held)
                | Calling(held=held)
                | Relaying(held=held)
                | Canceling(held=Held() as held)
            ) as state:
                # Its user hears of it by the connection; the reason is kept for the client.
                del self._by_lease[held.lease_id]
                request.become(evolve(state, held=evolve(held, lost=event.problem)))
            case LeaseGranted() | LeaseRefused() | LeaseLost() | LeaseProgress(), _:
                self.stale += 1

            case (
                UpstreamAnswered() | UpstreamFailed() | RelayEnded() | TokensCounted() | TokenCountFailed()
            ) as completion, Canceling() as state:
                self._canceled(request, state, completion)
            case _:
                raise AssertionError(f"{type(event).__name__} completes nothing in {request.state}")

    @property
    def wake_at(self) -> Deadline | None:
        """When `Woke` is due, or None while nothing is timed."""
        return self._waiting.wake_at

    @property
    def active(self) -> int:
        """Requests under way."""
        return len(self._requests)

    def _new_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _expect(self, request: Request) -> CommandId:
        command_id = CommandId(self._new_id())
        self._by_command[command_id] = request
        return command_id

    # --- arrival and choice

    def _receive(self, event: RequestReceived) -> None:
        assert event.request_id not in self._requests, f"{event.request_id} is under way already"
        model = self._model_for(event)
        if isinstance(model, Problem):
            headers = (("x-request-id", event.request_id),)
            self._out.append(SendProblem(request_id=event.request_id, problem=model, headers=headers))
            self._out.append(replies.record_of_refusal(event.request_id, event.facts, model))
            return
        now = self._now
        request = Request(event.request_id, event.facts, model, now, now, comment_at=now + PATIENCE_S)
        self._requests[event.request_id] = request
        estimate = self._estimator.estimate(model.name, event.facts)
        match choose_variant(model, event.facts, estimate):
            case Fits() as fits:
                self._lease(request, fits)
            case TooLarge(problem=problem):
                self._fail(request, problem)
            case Unsure(best_guess=guess) if model.variants[0].is_remote:
                self._lease(request, guess)
            case Unsure(best_guess=guess):
                lease_id = LeaseId(self._new_id())
                request.become(AwaitingCountLease(lease_id, guess))
                self._by_lease[lease_id] = request
                self._out.append(orders.lease_to_count(lease_id, model))
            case _ as unreachable:
                assert_never(unreachable)

    def _model_for(self, event: RequestReceived) -> ModelConfig | Problem:
        if self._closing:
            return ShuttingDown("the server shuts down", retry_after_s=SHUTDOWN_RETRY_S).problem
        if event.facts.model is None:
            return self._config.default_model or replies.model_missing(self._config)
        try:
            return self._config.find_model(event.facts.model)
        except ModelNotFound as error:
            return error.problem

    def _lease(self, request: Request, fits: Fits) -> None:
        lease_id = LeaseId(self._new_id())
        request.become(AwaitingLease(lease_id, fits))
        self._by_lease[lease_id] = request
        if request.waits_since is None:
            request.waits_since = self._now
        if request.facts.stream:
            self._waiting.add(request)
        self._out.append(orders.lease_to_answer(lease_id, request, fits, self._config.server))

    def _refused(self, request: Request, state: AwaitingLease, problem: Problem) -> None:
        del self._by_lease[state.lease_id]
        if problem.kind == EngineHostLost.__name__ and request.retries < ENGINE_RETRIES:
            request.retries += 1
            self._lease(request, state.fits)
        else:
            self._fail(request, problem)

    def _give_back(self, held: Held | None, *, suspect: bool = False) -> None:
        if held is not None and held.lost is None:
            self._release(held.lease_id, suspect=suspect)

    def _release(self, lease_id: LeaseId, *, suspect: bool = False) -> None:
        del self._by_lease[lease_id]
        self._out.append(ReleaseLease(lease_id=lease_id, suspect=suspect))

    # --- counting

    def _count(self, request: Request, held: Held | None, base_url: str | None, guess: Fits) -> None:
        command_id = self._expect(request)
        request.become(Counting(command_id, held, guess))
        self._out.append(orders.count(command_id, request, base_url))

    def _count_without_engine(self, request: Request, guess: Fits, reason: str) -> None:
        """Second choice a tokenizer program, third the best guess."""
        program_failed = isinstance(request.state, Counting) and request.state.held is None
        if request.model.tokenization is not None and not program_failed:
            self._count(request, None, None, guess)
            return
        text = replies.not_counted(request, reason, guess)
        self._out.append(Log(severity=Severity.WARNING, text=text))
        self._lease(request, guess)

    def _counted(self, request: Request, state: Counting, event: TokensCounted) -> None:
        self._give_back(state.held)
        self._estimator.learn(request.model.name, request.facts, event.prompt_tokens)
        match choose_variant(request.model, request.facts, exactly(event.prompt_tokens)):
            case Fits() as fits:
                self._lease(request, fits)
            case TooLarge(problem=problem):
                self._fail(request, problem)
            case Unsure():
                raise AssertionError("an exact count leaves no doubt")
            case _ as unreachable:
                assert_never(unreachable)

    # --- calling and relaying

    def _call(self, request: Request, state: AwaitingLease, granted: LeaseGranted) -> None:
        held = Held(granted.lease_id, granted.context_tokens)
        spec = state.fits.variant(granted.context_tokens)
        if spec is None:
            self._give_back(held)
            text = f"the engine host granted a variant of {granted.context_tokens} tokens, which does not fit"
            self._fail(request, EngineHostLost(text).problem)
            return
        request.waited_s, request.waits_since = request.wait_s(self._now), None
        request.attempts += 1
        if not request.stream_begun:
            self._waiting.discard(request)
        command_id = self._expect(request)
        request.become(Calling(command_id, held, state.fits))
        self._out.append(orders.call(command_id, request, granted, spec))

    def _answered(self, request: Request, state: Calling, event: UpstreamAnswered) -> None:
        error, is_remote = event.error, request.model.variants[0].is_remote
        if error is not None and error.overflow and not is_remote:
            self._out.append(DiscardAnswer(request_id=request.request_id))
            self._give_back(state.held)
            self._go_larger(request, state, error)
        elif error is not None and error.loading and request.retries < ENGINE_RETRIES:
            self._out.append(DiscardAnswer(request_id=request.request_id))
            self._retry(request, state)
        elif event.status >= FIRST_ERROR_STATUS and request.stream_begun:
            self._out.append(DiscardAnswer(request_id=request.request_id))
            self._give_back(state.held)
            self._fail(request, replies.refused_problem(event), held=state.held)
        else:
            self._relay(request, state, event.status)

    def _relay(self, request: Request, state: Calling, status: int) -> None:
        request.first_byte_s = self._now - request.received_at
        request.stream_begun = request.facts.stream and status < FIRST_ERROR_STATUS
        self._waiting.discard(request)
        command_id = self._expect(request)
        request.become(Relaying(command_id, state.held, status))
        self._out.append(orders.relay(command_id, request, state.held, self._config.server, self._now))

    def _go_larger(self, request: Request, state: Calling, error: UpstreamError) -> None:
        if error.prompt_tokens is not None:
            self._estimator.learn(request.model.name, request.facts, error.prompt_tokens)
        match larger_variants(request.model, request.facts, error.prompt_tokens, state.held.context_tokens):
            case Fits() as fits:
                self._lease(request, fits)
            case TooLarge(problem=problem):
                self._fail(request, problem, held=state.held)
            case _ as unreachable:
                assert_never(unreachable)

    def _retry(self, request: Request, state: Calling) -> None:
        request.retries += 1
        self._give_back(state.held, suspect=True)
        self._lease(request, state.fits)

    def _call_failed(self, request: Request, state: Calling, event: UpstreamFailed) -> None:
        lost = state.held.lost
        stopped = lost is not None and lost.kind in {EngineStopped.__name__, ShuttingDown.__name__}
        broke = event.failure in {CallFailure.UNREACHABLE, CallFailure.BROKEN}
        if broke and not stopped and request.retries < ENGINE_RETRIES:
            self._retry(request, state)
            return
        self._give_back(state.held, suspect=True)
        self._fail(request, replies.call_problem(request, state.held, event), held=state.held)

    def _relayed(self, request: Request, state: Relaying, event: RelayEnded) -> None:
        if event.usage is not None:
            self._estimator.learn(request.model.name, request.facts, event.usage.prompt_tokens)
        self._give_back(state.held, suspect=event.failure in {RelayFailure.BROKEN, RelayFailure.STALLED})
        match event.failure:
            case None:
                is_error = state.status >= FIRST_ERROR_STATUS
                outcome = Outcome.UPSTREAM_ERROR if is_error else Outcome.ANSWERED
                self._end(request, outcome, state.status, held=state.held, relay=event)
            case RelayFailure.CLIENT_GONE | RelayFailure.CANCELED:
                self._end(request, Outcome.CANCELED, state.status, held=state.held, relay=event)
            case RelayFailure.BROKEN | RelayFailure.INCOMPLETE | RelayFailure.STALLED:
                problem = replies.relay_problem(request, state.held, event)
                self._fail(request, problem, held=state.held, begun=state.status, relay=event)
            case _ as unreachable:
                assert_never(unreachable)

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
        for request in list(self._requests.values()):
            if not isinstance(request.state, Canceling):
                self._abandon(request, problem)

    def _abandon(self, request: Request, problem: Problem | None) -> None:
        """End a request in whatever state it is; without a problem where its client is gone."""
        self._waiting.discard(request)
        match request.state:
            case AwaitingLease(lease_id=lease_id) | AwaitingCountLease(lease_id=lease_id):
                self._release(lease_id)
                if problem is None:
                    self._end(request, Outcome.CANCELED)
                else:
                    self._fail(request, problem)
            case Counting(command_id=command_id, held=held) | Calling(command_id=command_id, held=held):
                self._out.append(CancelUpstream(request_id=request.request_id))
                request.become(Canceling(command_id, held, problem))
            case Relaying(command_id=command_id, held=held, status=status):
                self._out.append(CancelUpstream(request_id=request.request_id))
                request.become(Canceling(command_id, held, problem, status))
            case Canceling() as state:
                request.become(evolve(state, problem=problem))
            case Received():
                raise AssertionError("nothing stays in Received")
            case _ as unreachable:
                assert_never(unreachable)

    def _canceled(self, request: Request, state: Canceling, event: Completion) -> None:
        """What was canceled has come to its end, which may be another than that."""
        relay = event if isinstance(event, RelayEnded) else None
        if relay is not None and relay.failure is None and state.held is not None:
            self._relayed(request, Relaying(state.command_id, state.held, state.status), relay)
            return
        if isinstance(event, UpstreamAnswered):
            self._out.append(DiscardAnswer(request_id=request.request_id))
        self._give_back(state.held)
        if state.problem is None or (relay is not None and relay.failure is RelayFailure.CLIENT_GONE):
            self._end(request, Outcome.CANCELED, state.status, held=state.held, relay=relay)
        else:
            self._fail(request, state.problem, held=state.held, begun=state.status, relay=relay)

    def _fail(
        self,
        request: Request,
        problem: Problem,
        *,
        held: Held | None = None,
        begun: int = 0,
        relay: RelayEnded | None = None,
    ) -> None:
        """Tell the client in the way that is left, and end; `begun` is the status of an answer that has begun."""
        self._out.append(replies.failure(request, problem, held, self._now, has_begun=begun > 0))
        outcome = Outcome.BROKE_OFF if begun else Outcome.FAILED
        status = begun or (0 if request.stream_begun else problem.status)
        self._end(request, outcome, status, held=held, relay=relay, problem=problem)

    def _end(
        self,
        request: Request,
        outcome: Outcome,
        status: int = 0,
        *,
        held: Held | None = None,
        relay: RelayEnded | None = None,
        problem: Problem | None = None,
    ) -> None:
        del self._requests[request.request_id]
        self._waiting.discard(request)
        record = replies.record(
            request, outcome, self._now, status=status, held=held, relay=relay, problem=problem
        )
        self._out.append(record)

    # --- clients that wait

    def _comment(self) -> None:
        for request in self._waiting.take_due(self._now):
            if not request.stream_begun:
                request.stream_begun = True
                headers = replies.headers(request, None, self._now)
                self._out.append(BeginStream(request_id=request.request_id, headers=headers))
            text = replies.waiting_comment(request, self._now)
            self._out.append(SendComment(request_id=request.request_id, text=text))
