"""The Gateway: requests, from arrival to their one outcome.

The states of one request and their graph are in `requests.py`; `Gateway._advance` is the table of all
transitions that the outside brings about. Leases come from the Fleet, which may live in another process; token
counts, calls and relays are carried out by the adapter. Whatever comes back and matches no request in its
present state is stale: counted and ignored.
"""

from typing import Final, assert_never

from attrs import evolve

from gatewright import orders, replies
from gatewright.api.facts import FIRST_ERROR_STATUS, Continuation, Resumable, UpstreamError
from gatewright.commands import (
    CancelUpstream,
    DiscardAnswer,
    Drained,
    GatewayCommand,
    Log,
    Outcome,
    SendProblem,
    Severity,
)
from gatewright.config import Config, ModelConfig
from gatewright.errors import EngineHostLost, ModelNotFound, Problem, ShuttingDown
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
from gatewright.leases import (
    CallResult,
    LeaseGranted,
    LeaseLost,
    LeaseNews,
    LeaseProgress,
    LeaseRefused,
    ReportCall,
)
from gatewright.open_requests import OpenRequests
from gatewright.requests import (
    AwaitingCountLease,
    AwaitingLease,
    BackingOff,
    Calling,
    Canceling,
    Counting,
    Held,
    Received,
    Relaying,
    Request,
)
from gatewright.selection import failures
from gatewright.selection.failures import Failure, Remedy
from gatewright.selection.fallback import Again, Attempts, Exhausted, Jitter, NextModel, Step, next_step
from gatewright.selection.tokens import TokenEstimator, exactly
from gatewright.selection.variants import Fits, TooLarge, Unsure, choose_variant, larger_variants
from gatewright.timers import Deadline
from gatewright.waiting import PATIENCE_S

SHUTDOWN_RETRY_S: Final = 5.0

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
        self._open = OpenRequests()
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
            case LeaseGranted() | LeaseRefused() | LeaseLost() | LeaseProgress():
                self._advance(self._open.by_lease.get(event.lease_id), event)
            case UpstreamAnswered() | UpstreamFailed() | RelayEnded() | TokensCounted() | TokenCountFailed():
                self._advance(self._open.by_command.pop(event.command_id, None), event)
            case ClientGone(request_id=request_id):
                self._give_up(self._open.by_id.get(request_id))
            case Woke():
                self._open.comment()
                for request in self._open.take_due():
                    self._look_at(request)
            case ConfigReplaced(config=config):
                self._config = config
            case ShutdownRequested(force=force):
                self._close(force=force)
            case _ as unreachable:
                assert_never(unreachable)
        if self._closing and not self._open.by_id and not self._drained:
            self._drained = True
            out.append(Drained())
        return out

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
                held = Held(event.lease_id, event.context_tokens, event.is_probe)
                self._count(request, held, event.base_url, guess)
            case LeaseRefused() | LeaseLost(), AwaitingCountLease(lease_id=lease_id, best_guess=guess):
                del self._open.by_lease[lease_id]
                self._count_without_engine(request, guess, event.problem.message)
            case TokensCounted(), Counting() as state:
                self._counted(request, state, event)
            case TokenCountFailed(), Counting() as state:
                self._open.give_back(state.held)
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
                del self._open.by_lease[held.lease_id]
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
        return self._open.wake_at

    @property
    def active(self) -> int:
        """Requests under way."""
        return len(self._open.by_id)

    # --- arrival and choice

    def _receive(self, event: RequestReceived) -> None:
        assert event.request_id not in self._open.by_id, f"{event.request_id} is under way already"
        model = self._model_for(event)
        if isinstance(model, Problem):
            headers = (("x-request-id", event.request_id),)
            self._open.out.append(SendProblem(request_id=event.request_id, problem=model, headers=headers))
            self._open.out.append(replies.record_of_refusal(event.request_id, event.facts, model))
            return
        now, attempts = self._open.now, Attempts(self._config.chain_of(model))
        request = Request(event.request_id, event.facts, attempts, now, now, comment_at=now + PATIENCE_S)
        self._open.add(request)
        self._choose(request)

    def _choose(self, request: Request) -> None:
        """Begin an attempt: find the variants of the present model that hold the request."""
        model = request.model
        known = request.prompt_tokens
        estimate = self._estimator.estimate(model.name, request.facts) if known is None else exactly(known)
        match choose_variant(model, request.facts, estimate):
            case Fits() as fits:
                self._open.ask_lease(request, fits, self._config.server)
            case TooLarge(problem=problem):
                self._try_next(request, failures.of_size(model, problem))
            case Unsure(best_guess=guess) if model.is_remote:
                self._open.ask_lease(request, guess, self._config.server)
            case Unsure(best_guess=guess):
                self._open.ask_lease_to_count(request, guess)
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

    def _refused(self, request: Request, state: AwaitingLease, problem: Problem) -> None:
        del self._open.by_lease[state.lease_id]
        self._try_next(request, failures.of_lease(request.model, problem))

    # --- counting

    def _count(self, request: Request, held: Held | None, base_url: str | None, guess: Fits) -> None:
        command_id = self._open.expect(request)
        request.become(Counting(command_id, held, guess))
        self._open.out.append(orders.count(command_id, request, base_url))

    def _count_without_engine(self, request: Request, guess: Fits, reason: str) -> None:
        """Second choice a tokenizer program, third the best guess."""
        program_failed = isinstance(request.state, Counting) and request.state.held is None
        if request.model.tokenization is not None and not program_failed:
            self._count(request, None, None, guess)
            return
        text = replies.not_counted(request, reason, guess)
        self._open.out.append(Log(severity=Severity.WARNING, text=text))
        self._open.ask_lease(request, guess, self._config.server)

    def _counted(self, request: Request, state: Counting, event: TokensCounted) -> None:
        self._open.give_back(state.held)
        self._estimator.learn(request.model.name, request.facts, event.prompt_tokens)
        request.prompt_tokens = event.prompt_tokens
        self._choose(request)

    # --- calling and relaying

    def _call(self, request: Request, state: AwaitingLease, granted: LeaseGranted) -> None:
        held = Held(granted.lease_id, granted.context_tokens, granted.is_probe)
        spec = state.fits.variant(granted.context_tokens)
        if spec is None:
            self._open.give_back(held)
            text = f"the engine host granted a variant of {granted.context_tokens} tokens, which does not fit"
            self._open.fail(request, EngineHostLost(text).problem)
            return
        request.waited_s, request.waits_since = request.wait_s(self._open.now), None
        request.attempts.called(self._open.now)
        if not request.stream_begun:
            self._open.end_wait(request)
        command_id = self._open.expect(request)
        request.become(Calling(command_id, held, request.continuation))
        self._open.out.append(orders.call(command_id, request, granted, spec, self._open.now))

    def _answered(self, request: Request, state: Calling, event: UpstreamAnswered) -> None:
        error, model = failures.error_of(event), request.model
        if error is None:
            if state.held.is_probe and state.held.lost is None:
                self._open.out.append(ReportCall(lease_id=state.held.lease_id, result=CallResult.WELL))
            self._relay(request, state, event.status)
            return
        if error.overflow and not model.is_remote:
            self._open.out.append(DiscardAnswer(request_id=request.request_id))
            self._open.give_back(state.held)
            self._go_larger(request, state, error)
            return
        failure = failures.of_answer(model, error, event.status)
        continues = state.continuation not in {None, Continuation.REPEAT}
        local_error = not model.is_remote and failure.remedy is Remedy.NEXT
        if continues and (failure.remedy is Remedy.NONE or local_error) and not failure.is_refusal:
            # It does not continue answers: it may still give the same one again.
            request.prefill_refused = True
            failure = evolve(failure, remedy=Remedy.RETRY, at_once=True)
        step = next_step(request.attempts, failure, self._open.now, self._jitter, request.give_up_at)
        is_first = not request.attempts.failures or failure.is_refusal
        is_status = event.status >= FIRST_ERROR_STATUS
        if isinstance(step, Exhausted) and is_first and not request.stream_begun and is_status:
            self._relay(request, state, event.status, failure)
            return
        self._open.out.append(DiscardAnswer(request_id=request.request_id))
        self._open.give_back(state.held, failure, suspect=error.loading and not model.is_remote)
        self._follow(request, failure, step, held=state.held)

    def _relay(self, request: Request, state: Calling, status: int, failure: Failure | None = None) -> None:
        if request.first_byte_s is None:
            request.first_byte_s = self._open.now - request.received_at
        request.stream_begun = request.stream_begun or (request.facts.stream and failure is None)
        request.begun_status = request.begun_status or status
        self._open.set_alarm(request)
        self._open.end_wait(request)
        command_id = self._open.expect(request)
        request.become(Relaying(command_id, state.held, failure))
        self._open.out.append(
            orders.relay(command_id, request, state.held, self._config.server, self._open.now)
        )

    def _go_larger(self, request: Request, state: Calling, error: UpstreamError) -> None:
        if error.prompt_tokens is not None:
            if request.resumable is Resumable.NO:  # otherwise a part of the answer is counted, too
                self._estimator.learn(request.model.name, request.facts, error.prompt_tokens)
            request.prompt_tokens = error.prompt_tokens
        match larger_variants(request.model, request.facts, error.prompt_tokens, state.held.context_tokens):
            case Fits() as fits:
                self._open.ask_lease(request, fits, self._config.server)
            case TooLarge(problem=problem):
                self._try_next(request, failures.of_size(request.model, problem), held=state.held)
            case _ as unreachable:
                assert_never(unreachable)

    def _call_failed(self, request: Request, state: Calling, event: UpstreamFailed) -> None:
        failure = failures.of_call(request.model, event, state.held.lost)
        self._open.give_back(state.held, failure, suspect=event.failure is not CallFailure.DIFFERENT)
        self._try_next(request, failure, held=state.held)

    def _relayed(self, request: Request, state: Relaying, event: RelayEnded) -> None:
        if event.usage is not None and request.resumable is Resumable.NO:
            self._estimator.learn(request.model.name, request.facts, event.usage.prompt_tokens)
        is_well = request.model.is_remote and state.failure is None
        match event.failure:
            case None:
                self._open.give_back(state.held, state.failure, well=is_well)
                outcome = Outcome.ANSWERED if state.failure is None else Outcome.UPSTREAM_ERROR
                self._open.end(request, outcome, held=state.held, relay=event)
            case RelayFailure.CLIENT_GONE | RelayFailure.CANCELED:
                self._open.give_back(state.held, state.failure, well=is_well)
                self._open.end(request, Outcome.CANCELED, held=state.held, relay=event)
            case _:
                self._broke_off(request, state, event)

    def _broke_off(self, request: Request, state: Relaying, event: RelayEnded) -> None:
        """The client has a part of the answer: go on from there if that can be done."""
        failure = failures.of_relay(request.model, event, state.held.lost)
        suspect = event.failure in {RelayFailure.BROKEN, RelayFailure.STALLED}
        self._open.give_back(state.held, failure, suspect=suspect)
        if request.broke_at is None:
            request.broke_at = len(request.attempts.failures)
        request.resumable = event.resumable if state.failure is None else Resumable.NO
        if request.resumable is Resumable.NO:
            failure = evolve(failure, remedy=Remedy.NONE)
        self._try_next(request, failure, held=state.held, relay=event)

    # --- after a failure

    def _try_next(
        self,
        request: Request,
        failure: Failure,
        *,
        held: Held | None = None,
        relay: RelayEnded | None = None,
    ) -> None:
        step = next_step(request.attempts, failure, self._open.now, self._jitter, request.give_up_at)
        self._follow(request, failure, step, held=held, relay=relay)

    def _follow(
        self,
        request: Request,
        failure: Failure,
        step: Step,
        *,
        held: Held | None = None,
        relay: RelayEnded | None = None,
    ) -> None:
        """Take the step that follows from a failure."""
        attempts = request.attempts
        attempts.failures = (*attempts.failures, failure)
        match step:
            case Exhausted():
                self._open.fail(request, replies.exhausted(request), held=held, relay=relay)
                return
            case Again(at=at):
                attempts.retries += 1
            case NextModel(index=index, at=at):
                attempts.move_to(index)
                request.prompt_tokens, request.prefill_refused = None, False
            case _ as unreachable:
                assert_never(unreachable)
        if at <= self._open.now:
            self._choose(request)
        else:
            self._open.back_off(request, at)

    def _look_at(self, request: Request) -> None:
        """The time has come for which the alarm was set."""
        give_up_at = request.give_up_at
        if give_up_at is not None and self._open.now >= give_up_at:
            if not isinstance(request.state, Canceling):
                self._abandon(request, replies.too_slow(request, self._open.now))
        elif isinstance(request.state, BackingOff) and self._open.now >= request.state.until:
            self._choose(request)
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

    def _canceled(self, request: Request, state: Canceling, event: Completion) -> None:
        """What was canceled has come to its end, which may be another than that."""
        relay = event if isinstance(event, RelayEnded) else None
        if relay is not None and relay.failure is None and state.held is not None:
            self._relayed(request, Relaying(state.command_id, state.held, state.failure), relay)
            return
        if isinstance(event, UpstreamAnswered):
            self._open.out.append(DiscardAnswer(request_id=request.request_id))
        self._open.give_back(state.held, state.failure)
        if state.problem is None or (relay is not None and relay.failure is RelayFailure.CLIENT_GONE):
            self._open.end(request, Outcome.CANCELED, held=state.held, relay=relay)
        else:
            self._open.fail(request, state.problem, held=state.held, relay=relay)
