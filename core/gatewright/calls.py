"""The calls of a request: from its lease to the end of its answer, and what follows where one comes to nothing.

Its methods are the steps, as those of `admission.py` are the steps before; `gateway.py` has the transitions.
"""

from typing import Final, assert_never

from attrs import evolve

from gatewright import orders, replies
from gatewright.admission import Admission
from gatewright.api.facts import FIRST_ERROR_STATUS, Continuation, Resumable, UpstreamError, Usage
from gatewright.commands import DiscardAnswer, Outcome
from gatewright.config import Config
from gatewright.errors import EngineHostLost, Problem
from gatewright.events import (
    CallFailure,
    GatewayEvent,
    RelayEnded,
    RelayFailure,
    UpstreamAnswered,
    UpstreamFailed,
)
from gatewright.leases import (
    CallResult,
    LeaseGranted,
    ReportCall,
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
from gatewright.selection import failures
from gatewright.selection.beliefs import Chance
from gatewright.selection.failures import Failure, Remedy
from gatewright.selection.fallback import Again, Exhausted, NextModel, Step, next_step
from gatewright.selection.tokens import TokenEstimator
from gatewright.selection.variants import Fits, TooLarge, larger_variants

_UNSUCCESSFUL: Final = frozenset({"content_filter", "refusal", "error"})
"""Reasons for an answer's end that say that it is none."""


class Calls:
    """The steps from the lease on.

    Args:
        config: Configuration.
        books: The Gateway's.
        admission: The steps before: where the next attempt begins.
        estimator: Of tokens.
        chance: Random numbers, which spread repetitions of failed calls over time.
    """

    def __init__(
        self,
        config: Config,
        books: OpenRequests,
        admission: Admission,
        estimator: TokenEstimator,
        chance: Chance,
    ) -> None:
        self._config = config
        self._open = books
        self._admission = admission
        self._estimator = estimator
        self._chance = chance

    def replace_config(self, config: Config) -> None:
        """Another configuration holds."""
        self._config = config

    def go_on(self, request: Request) -> None:
        """Begin an attempt, if its model is chosen and it has not ended."""
        if not request.is_chosen or request.request_id not in self._open.by_id:
            return
        failure = self._admission.begin_attempt(request)
        if failure is not None:
            self.try_next(request, failure)

    # --- calling and relaying

    def taken_back(self, request: Request, problem: Problem) -> None:
        """The Fleet had taken back the lease on which a call broke off. Where it was told to, that was no crash.

        Nobody can say which of the two is heard of first: the break comes from the engine, this from its host. But a
        host says this before it grants another lease, so the next attempt has not begun.
        """
        broken = request.broken_call
        assert broken is not None, "it is kept by this lease"
        self._open.forget_broken_call(request)
        if not failures.is_stop(problem):
            return
        request.attempts.failures = request.attempts.failures[:-1]  # it was this one
        match request.state:
            case AwaitingLease(lease_id=lease_id) | AwaitingCountLease(lease_id=lease_id):
                self._open.release(lease_id)
            case BackingOff():
                pass
            case Reserving() | Counting():
                request.taken_back = problem
                return
            case Canceling():
                return
            case Received() | Estimating() | AwaitingLoads() | Calling() | Relaying():
                raise AssertionError(f"no attempt that follows a broken call is {request.state}")
            case _ as unreachable:
                assert_never(unreachable)
        failure = failures.of_lease(request.model, problem)
        self.try_next(request, failure, held=broken.held, relay=broken.relay)

    def refused(self, request: Request, state: AwaitingLease, problem: Problem) -> None:
        """The Fleet has no engine for it, or no more."""
        del self._open.by_lease[state.lease_id]
        self.try_next(request, failures.of_lease(request.model, problem))

    def call(self, request: Request, state: AwaitingLease, granted: LeaseGranted) -> None:
        """It has its engine."""
        held = Held(granted.lease_id, granted.context_tokens, granted.is_probe)
        spec = state.fits.variant(granted.context_tokens)
        if spec is None:
            self._open.give_back(held)
            text = f"the engine host granted a variant of {granted.context_tokens} tokens, which does not fit"
            self._open.fail(request, EngineHostLost(text).problem)
            return
        self._open.forget_broken_call(request)
        request.waited_s, request.waits_since = request.wait_s(self._open.now), None
        request.attempts.called(self._open.now)
        request.log.called(self._open.now)
        if not request.stream_begun:
            self._open.end_wait(request)
        command_id = self._open.expect(request)
        request.become(Calling(command_id, held, request.continuation))
        self._open.out.append(orders.call(command_id, request, granted, spec, self._open.now))

    def answered(self, request: Request, state: Calling, event: UpstreamAnswered) -> None:
        """Its answer has begun: pass it on, or try again if it is an error."""
        error, model = failures.error_of(event), request.model
        if error is None:
            request.log.answered(self._open.now)
            if state.held.is_probe and state.held.lost is None:
                self._open.out.append(ReportCall(lease_id=state.held.lease_id, result=CallResult.WELL))
            self._relay(request, state, event.status, usage=event.usage)
            return
        if error.overflow and not model.is_remote:
            request.log.end(model, self._open.now, success=None)
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
        step = self._next(request, failure)
        is_first = not request.attempts.failures or failure.is_refusal
        is_status = event.status >= FIRST_ERROR_STATUS
        if isinstance(step, Exhausted) and is_first and not request.stream_begun and is_status:
            self._relay(request, state, event.status, failure)
            return
        request.log.count_failure(request.model, failure, self._open.now)
        self._open.out.append(DiscardAnswer(request_id=request.request_id))
        self._open.give_back(state.held, failure, suspect=error.loading and not model.is_remote)
        self._follow(request, failure, step, held=state.held)

    def _relay(
        self,
        request: Request,
        state: Calling,
        status: int,
        failure: Failure | None = None,
        *,
        usage: Usage | None = None,
    ) -> None:
        if request.first_byte_s is None:
            request.first_byte_s = self._open.now - request.received_at
        request.stream_begun = request.stream_begun or (request.facts.stream and failure is None)
        request.begun_status = request.begun_status or status
        self._open.set_alarm(request)
        self._open.end_wait(request)
        command_id = self._open.expect(request)
        request.become(Relaying(command_id, state.held, failure))
        self._open.out.append(
            orders.relay(command_id, request, state.held, self._config.server, self._open.now, usage=usage)
        )

    def _go_larger(self, request: Request, state: Calling, error: UpstreamError) -> None:
        if error.prompt_tokens is not None:
            if request.resumable is Resumable.NO:  # otherwise a part of the answer is counted, too
                self._estimator.learn(request.model.name, request.transformed_facts, error.prompt_tokens)
            request.prompt_tokens = error.prompt_tokens
        match larger_variants(
            request.model, request.transformed_facts, error.prompt_tokens, state.held.context_tokens
        ):
            case Fits() as fits:
                self._open.ask_lease(request, fits, self._config.server)
            case TooLarge(problem=problem):
                self.try_next(request, failures.of_size(request.model, problem), held=state.held)
            case _ as unreachable:
                assert_never(unreachable)

    def call_failed(self, request: Request, state: Calling, event: UpstreamFailed) -> None:
        """There is no answer."""
        failure = failures.of_call(request.model, event, state.held.lost)
        success = None if event.failure in {CallFailure.DIFFERENT, CallFailure.CANCELED} else False
        request.log.end(request.model, self._open.now, success=success, is_available=False)
        self._open.give_back(state.held, failure, suspect=event.failure is not CallFailure.DIFFERENT)
        self.try_next(request, failure, held=state.held)

    def relayed(self, request: Request, state: Relaying, event: RelayEnded) -> None:
        """The answer has come to its end, or has broken off."""
        if event.usage is not None and request.resumable is Resumable.NO:
            self._estimator.learn(request.model.name, request.transformed_facts, event.usage.prompt_tokens)
        is_well = request.model.is_remote and state.failure is None
        match event.failure:
            case None:
                if state.failure is None:
                    success = event.finish_reason not in _UNSUCCESSFUL
                    self._end_call(request, event, success=success)
                else:
                    request.log.count_failure(request.model, state.failure, self._open.now)
                self._open.give_back(state.held, state.failure, well=is_well)
                outcome = Outcome.ANSWERED if state.failure is None else Outcome.UPSTREAM_ERROR
                self._open.end(request, outcome, held=state.held, relay=event)
            case RelayFailure.CLIENT_GONE | RelayFailure.CANCELED:
                self._end_call(request, event, success=None)
                self._open.give_back(state.held, state.failure, well=is_well)
                self._open.end(request, Outcome.CANCELED, held=state.held, relay=event)
            case _:
                self._broke_off(request, state, event)

    def _broke_off(self, request: Request, state: Relaying, event: RelayEnded) -> None:
        """The client has a part of the answer: go on from there if that can be done."""
        failure = failures.of_relay(request.model, event, state.held.lost)
        self._end_call(request, event, success=False, is_available=False)
        suspect = event.failure in {RelayFailure.BROKEN, RelayFailure.STALLED}
        self._open.give_back(state.held, failure, suspect=suspect, relay=event)
        if request.broke_at is None:
            request.broke_at = len(request.attempts.failures)
        request.resumable = event.resumable if state.failure is None else Resumable.NO
        if request.resumable is Resumable.NO:
            failure = evolve(failure, remedy=Remedy.NONE)
        self.try_next(request, failure, held=state.held, relay=event)

    def _end_call(
        self, request: Request, event: RelayEnded, *, success: bool | None, is_available: bool = True
    ) -> None:
        """The answer is over; what nobody counted is billed by estimate, but for errors, which cost nothing."""
        usage, state = event.usage, request.state
        is_error = isinstance(state, Relaying | Canceling) and state.failure is not None
        if usage is None and not is_error:
            usage = self._likely_usage(request, event.relayed_tokens)
        request.log.end(
            request.model, self._open.now, success=success, is_available=is_available, usage=usage
        )

    def _likely_usage(self, request: Request, answer_tokens: int) -> Usage:
        likely = self._estimator.estimate(request.model.name, request.transformed_facts).likely
        return Usage(
            prompt_tokens=likely, completion_tokens=orders.no_more_than_asked(request, answer_tokens)
        )

    # --- after a failure

    def try_next(
        self,
        request: Request,
        failure: Failure,
        *,
        held: Held | None = None,
        relay: RelayEnded | None = None,
    ) -> None:
        """Take the step that follows from a failure.

        Args:
            request: The request.
            failure: How its present attempt failed.
            held: Lease that it had, for the record.
            relay: How the relay of its answer ended, the same.
        """
        self._follow(request, failure, self._next(request, failure), held=held, relay=relay)

    def _next(self, request: Request, failure: Failure) -> Step:
        """What to try next: of the chain, or another candidate of the route that helps against this failure."""
        attempts, now, give_up_at = request.attempts, self._open.now, request.give_up_at
        step = next_step(attempts, failure, now, self._chance.random, give_up_at)
        if not isinstance(step, Exhausted):
            return step
        at = attempts.earliest_call(now)
        if give_up_at is not None and at >= give_up_at:
            return step
        model = self._admission.another_model(request, failure)
        return step if model is None else NextModel(attempts.append(model), at)

    def _follow(
        self,
        request: Request,
        failure: Failure,
        step: Step,
        *,
        held: Held | None = None,
        relay: RelayEnded | None = None,
    ) -> None:
        attempts = request.attempts
        attempts.failures = (*attempts.failures, failure)
        match step:
            case Exhausted():
                self._open.fail(request, replies.exhausted(request), held=held, relay=relay)
                return
            case Again(at=at):
                attempts.retries += 1
            case NextModel(index=index, at=at):
                attempts.move_to(index, keeps_others=failure.is_offline)
                request.prompt_tokens, request.prefill_refused = None, False
                self._open.forget_broken_call(request)
            case _ as unreachable:
                assert_never(unreachable)
        if at <= self._open.now:
            self.go_on(request)
        else:
            self._open.back_off(request, at)

    def canceled(self, request: Request, state: Canceling, event: GatewayEvent) -> None:
        """What was canceled has come to its end, which may be another than that."""
        relay = event if isinstance(event, RelayEnded) else None
        if relay is not None and relay.failure is None and state.held is not None:
            self.relayed(request, Relaying(state.command_id, state.held, state.failure), relay)
            return
        if isinstance(event, UpstreamAnswered):
            self._open.out.append(DiscardAnswer(request_id=request.request_id))
        if relay is not None:
            self._end_call(request, relay, success=None)
        elif isinstance(event, UpstreamAnswered) and failures.error_of(event) is None:
            usage = event.usage or self._likely_usage(request, answer_tokens=0)
            request.log.end(request.model, self._open.now, success=None, usage=usage)
        elif isinstance(event, UpstreamAnswered | UpstreamFailed):
            request.log.end(request.model, self._open.now, success=None)
        self._open.give_back(state.held, state.failure)
        if state.problem is None or (relay is not None and relay.failure is RelayFailure.CLIENT_GONE):
            self._open.end(request, Outcome.CANCELED, held=state.held, relay=relay)
        else:
            self._open.fail(request, state.problem, held=state.held, relay=relay)
