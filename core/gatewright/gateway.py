"""The Gateway: requests, from arrival to their one outcome.

The states of one request and their graph are in `requests.py`. Leases come from the Fleet, which may live in
another process; token counts, calls and relays are carried out by the adapter. Whatever comes back and
matches no request in its present state is stale: counted and ignored.
"""

from collections.abc import Callable
from typing import Final, assert_never

from attrs import evolve

from gatewright.api.facts import UpstreamError
from gatewright.commands import (
    BeginRelay,
    BeginStream,
    CallUpstream,
    CancelUpstream,
    CountTokens,
    CutConnection,
    DiscardAnswer,
    Drained,
    FailStream,
    GatewayCommand,
    Log,
    Outcome,
    RecordRequest,
    SendComment,
    SendProblem,
    Severity,
)
from gatewright.config import Config, ModelConfig
from gatewright.errors import (
    EngineHostLost,
    EngineStopped,
    InvalidRequest,
    ModelNotFound,
    Problem,
    ShuttingDown,
    UpstreamBroke,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
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
    LeaseEngine,
    LeaseGranted,
    LeaseLost,
    LeaseProgress,
    LeasePurpose,
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

PATIENCE_S: Final = 10.0
"""A streaming client that waits longer gets its response head and comments: proxies give up on silence."""
COMMENT_PERIOD_S: Final = 5.0
ENGINE_RETRIES: Final = 1
"""Repetitions of a request whose engine broke before the first byte."""
REMOTE_FIRST_BYTE_S: Final = 300.0
"""A remote upstream has no health probes that would tell a long prompt from a dead connection."""
SHUTDOWN_RETRY_S: Final = 5.0
FIRST_ERROR_STATUS: Final = 400

_NOBODY: Final = LeaseId(0)


class Gateway:
    """Machine over `GatewayEvent` and `GatewayCommand`.

    Args:
        config: Models and limits.

    Attributes:
        stale: Completions and news that matched nothing in state and were ignored.
    """

    def __init__(self, config: Config) -> None:
        self.stale = 0
        self._config = config
        self._estimator = TokenEstimator()
        self._requests: dict[RequestId, Request] = {}
        self._by_lease: dict[LeaseId, Request] = {}
        self._by_command: dict[CommandId, Request] = {}
        self._waiting: dict[RequestId, Request] = {}
        self._last_id = 0
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
        out: list[GatewayCommand] = []
        match event:
            case RequestReceived():
                self._receive(event, now, out)
            case LeaseGranted() | LeaseRefused() | LeaseLost() | LeaseProgress():
                self._hear_of_lease(event, now, out)
            case UpstreamAnswered() | UpstreamFailed() | RelayEnded() | TokensCounted() | TokenCountFailed():
                self._complete(event, now, out)
            case ClientGone(request_id=request_id):
                self._give_up(request_id, now, out)
            case ConfigReplaced(config=config):
                self._config = config
            case ShutdownRequested(force=force):
                self._close(now, out, force=force)
            case Woke():
                self._comment(now, out)
            case _ as unreachable:
                assert_never(unreachable)
        if self._closing and not self._requests and not self._drained:
            self._drained = True
            out.append(Drained())
        return out

    @property
    def wake_at(self) -> Deadline | None:
        """When `Woke` is due, or None while nothing is timed."""
        due = [request.comment_at for request in self._waiting.values() if request.comment_at is not None]
        return Deadline(min(due), "comment for a waiting client") if due else None

    @property
    def active(self) -> int:
        """Requests under way."""
        return len(self._requests)

    def _new_id(self) -> int:
        self._last_id += 1
        return self._last_id

    # --- arrival and choice

    def _receive(self, event: RequestReceived, now: float, out: list[GatewayCommand]) -> None:
        model = self._model_for(event)
        if isinstance(model, Problem):
            self._refuse(event, model, out)
            return
        request = Request(event.request_id, event.facts, model, now)
        self._requests[event.request_id] = request
        estimate = self._estimator.estimate(model.name, event.facts)
        match choose_variant(model, event.facts, estimate):
            case Fits() as fits:
                self._lease(request, fits, out)
            case TooLarge(problem=problem):
                self._fail(request, problem, now, out)
            case Unsure(best_guess=guess) if model.variants[0].is_remote:
                self._lease(request, guess, out)
            case Unsure(best_guess=guess):
                lease_id = LeaseId(self._new_id())
                request.become(AwaitingCountLease(lease_id, guess))
                self._by_lease[lease_id] = request
                out.append(
                    LeaseEngine(lease_id=lease_id, variants=model.variants, purpose=LeasePurpose.COUNT)
                )
            case _ as unreachable:
                assert_never(unreachable)

    def _model_for(self, event: RequestReceived) -> ModelConfig | Problem:
        if self._closing:
            return ShuttingDown("the server shuts down", retry_after_s=SHUTDOWN_RETRY_S).problem
        if event.facts.model is not None:
            try:
                return self._config.find_model(event.facts.model)
            except ModelNotFound as error:
                return error.problem
        if (model := self._config.default_model) is not None:
            return model
        names = ", ".join(model.name for model in self._config.models[:10])
        return InvalidRequest(f"'model' is missing; it names one of: {names}", param="model").problem

    def _refuse(self, event: RequestReceived, problem: Problem, out: list[GatewayCommand]) -> None:
        headers = (("x-request-id", event.request_id),)
        out.append(SendProblem(request_id=event.request_id, problem=problem, headers=headers))
        out.append(
            RecordRequest(
                request_id=event.request_id,
                outcome=Outcome.FAILED,
                path=event.facts.path,
                model=event.facts.model,
                status=problem.status,
                problem=problem,
            )
        )

    def _lease(self, request: Request, fits: Fits, out: list[GatewayCommand]) -> None:
        server = self._config.server
        lease_id = LeaseId(self._new_id())
        request.become(AwaitingLease(lease_id, fits))
        self._by_lease[lease_id] = request
        if request.facts.stream:
            self._waiting[request.request_id] = request
            if request.comment_at is None:
                request.comment_at = request.received_at + PATIENCE_S
        out.append(
            LeaseEngine(
                lease_id=lease_id,
                variants=fits.variants,
                need_tokens=fits.need_tokens,
                max_waiting=server.max_waiting,
                max_wait_s=server.max_wait_s,
                queue_timeout_s=server.queue_timeout_s,
            )
        )

    # --- counting

    def _count_without_engine(
        self, request: Request, guess: Fits, reason: str, out: list[GatewayCommand]
    ) -> None:
        """Second choice a tokenizer program, third the best guess."""
        program_failed = isinstance(request.state, Counting) and request.state.held is None
        if request.model.tokenization is not None and not program_failed:
            self._count(request, None, None, guess, out)
            return
        text = (
            f"{request.request_id}: prompt of {request.facts.prompt_bytes} bytes for {request.model.name} "
            f"was not counted ({reason}); going by its length: variant {guess.variants[0].context_tokens}"
        )
        out.append(Log(severity=Severity.WARNING, text=text))
        self._lease(request, guess, out)

    def _count(
        self,
        request: Request,
        held: Held | None,
        base_url: str | None,
        guess: Fits,
        out: list[GatewayCommand],
    ) -> None:
        command_id = self._expect(request)
        request.become(Counting(command_id, held, guess))
        out.append(
            CountTokens(
                command_id=command_id,
                request_id=request.request_id,
                base_url=base_url,
                tokenization=request.model.tokenization if base_url is None else None,
            )
        )

    def _counted(
        self, request: Request, state: Counting, tokens: int, now: float, out: list[GatewayCommand]
    ) -> None:
        self._give_back(state.held, out)
        self._estimator.learn(request.model.name, request.facts, tokens)
        match choose_variant(request.model, request.facts, exactly(tokens)):
            case Fits() as fits:
                self._lease(request, fits, out)
            case TooLarge(problem=problem):
                self._fail(request, problem, now, out)
            case Unsure():
                raise AssertionError("an exact count leaves no doubt")
            case _ as unreachable:
                assert_never(unreachable)

    # --- leases

    def _hear_of_lease(
        self,
        event: LeaseGranted | LeaseRefused | LeaseLost | LeaseProgress,
        now: float,
        out: list[GatewayCommand],
    ) -> None:
        request = self._by_lease.get(event.lease_id)
        if request is None:
            self.stale += 1
            return
        match event, request.state:
            case LeaseGranted(), AwaitingLease(fits=fits):
                self._call(request, event, fits, now, out)
            case LeaseGranted(), AwaitingCountLease(best_guess=guess):
                held = Held(event.lease_id, event.context_tokens)
                self._count(request, held, event.base_url, guess, out)
            case LeaseRefused(problem=problem), AwaitingCountLease(best_guess=guess):
                del self._by_lease[event.lease_id]
                self._count_without_engine(request, guess, problem.message, out)
            case LeaseRefused(problem=problem), AwaitingLease(fits=fits):
                del self._by_lease[event.lease_id]
                if problem.kind == EngineHostLost.__name__ and request.retries < ENGINE_RETRIES:
                    request.retries += 1
                    self._lease(request, fits, out)
                else:
                    self._fail(request, problem, now, out)
            case LeaseLost(problem=problem), (
                Counting(held=Held() as held)
                | Calling(held=held)
                | Relaying(held=held)
                | Canceling(held=Held() as held)
            ) if held.lease_id == event.lease_id:
                del self._by_lease[event.lease_id]
                assert not isinstance(request.state, Received | AwaitingLease | AwaitingCountLease)
                request.become(evolve(request.state, held=evolve(held, lost=problem)))
            case LeaseProgress(), AwaitingLease() as state:
                request.become(evolve(state, progress=event))
            case _:
                self.stale += 1

    def _give_back(self, held: Held | None, out: list[GatewayCommand], *, suspect: bool = False) -> None:
        if held is None or held.lost is not None:
            return
        del self._by_lease[held.lease_id]
        out.append(ReleaseLease(lease_id=held.lease_id, suspect=suspect))

    # --- calling and relaying

    def _expect(self, request: Request) -> CommandId:
        command_id = CommandId(self._new_id())
        self._by_command[command_id] = request
        return command_id

    def _call(
        self, request: Request, granted: LeaseGranted, fits: Fits, now: float, out: list[GatewayCommand]
    ) -> None:
        spec = next(spec for spec in fits.variants if spec.context_tokens == granted.context_tokens)
        self._waiting.pop(request.request_id, None)
        if request.attempts == 0:
            request.wait_s = now - request.received_at
        request.attempts += 1
        command_id = self._expect(request)
        request.become(Calling(command_id, Held(granted.lease_id, granted.context_tokens), fits))
        out.append(
            CallUpstream(
                command_id=command_id,
                request_id=request.request_id,
                base_url=granted.base_url,
                upstream_model=spec.upstream_model,
                api_key_env=spec.api_key_env,
                first_byte_timeout_s=REMOTE_FIRST_BYTE_S if spec.is_remote else None,
            )
        )

    def _complete(
        self,
        event: UpstreamAnswered | UpstreamFailed | RelayEnded | TokensCounted | TokenCountFailed,
        now: float,
        out: list[GatewayCommand],
    ) -> None:
        request = self._by_command.pop(event.command_id, None)
        if request is None:
            self.stale += 1
            return
        match event, request.state:
            case _, Canceling() as state:
                self._canceled(request, state, event, now, out)
            case UpstreamAnswered(), Calling() as state:
                self._answered(request, state, event, now, out)
            case UpstreamFailed(), Calling() as state:
                self._call_failed(request, state, event, now, out)
            case RelayEnded(), Relaying() as state:
                self._relayed(request, state, event, now, out)
            case TokensCounted(prompt_tokens=tokens), Counting() as state:
                self._counted(request, state, tokens, now, out)
            case TokenCountFailed(reason=reason), Counting(held=held, best_guess=guess):
                self._give_back(held, out)
                self._count_without_engine(request, guess, reason, out)
            case _:
                raise AssertionError(f"{type(event).__name__} completes nothing in {request.state}")

    def _answered(
        self, request: Request, state: Calling, event: UpstreamAnswered, now: float, out: list[GatewayCommand]
    ) -> None:
        error = event.error
        if error is not None and error.overflow:
            out.append(DiscardAnswer(request_id=request.request_id))
            self._give_back(state.held, out)
            self._go_larger(request, state, error, now, out)
        elif error is not None and error.loading and request.retries < ENGINE_RETRIES:
            out.append(DiscardAnswer(request_id=request.request_id))
            self._retry(request, state, out)
        elif error is not None and request.stream_begun:
            out.append(DiscardAnswer(request_id=request.request_id))
            self._give_back(state.held, out)
            problem = UpstreamRefused(error.message, event.status, error.type, error.code).problem
            self._fail(request, problem, now, out, held=state.held)
        else:
            request.first_byte_s = now - request.received_at
            command_id = self._expect(request)
            request.become(Relaying(command_id, state.held, event.status))
            out.append(
                BeginRelay(
                    command_id=command_id,
                    request_id=request.request_id,
                    headers=self._headers(request, state.held),
                    stall_timeout_s=self._config.server.stall_timeout_s,
                )
            )

    def _go_larger(
        self, request: Request, state: Calling, error: UpstreamError, now: float, out: list[GatewayCommand]
    ) -> None:
        if error.prompt_tokens is not None:
            self._estimator.learn(request.model.name, request.facts, error.prompt_tokens)
        match larger_variants(
            request.model, request.facts, error.prompt_tokens or 0, state.held.context_tokens
        ):
            case Fits() as fits:
                self._lease(request, fits, out)
            case TooLarge(problem=problem):
                self._fail(request, problem, now, out, held=state.held)
            case _ as unreachable:
                assert_never(unreachable)

    def _retry(self, request: Request, state: Calling, out: list[GatewayCommand]) -> None:
        request.retries += 1
        self._give_back(state.held, out, suspect=True)
        self._lease(request, state.fits, out)

    def _call_failed(
        self, request: Request, state: Calling, event: UpstreamFailed, now: float, out: list[GatewayCommand]
    ) -> None:
        lost = state.held.lost
        stopped = lost is not None and lost.kind in {EngineStopped.__name__, ShuttingDown.__name__}
        broke = event.failure in {CallFailure.UNREACHABLE, CallFailure.BROKEN}
        if broke and not stopped and request.retries < ENGINE_RETRIES:
            self._retry(request, state, out)
            return
        self._give_back(state.held, out, suspect=True)
        make: Callable[[str], UpstreamTimeout | UpstreamUnreachable] = (
            UpstreamTimeout if event.failure is CallFailure.TIMEOUT else UpstreamUnreachable
        )
        problem = lost or make(f"upstream of {request.model.name}: {event.reason}").problem
        self._fail(request, problem, now, out, held=state.held)

    def _relayed(
        self, request: Request, state: Relaying, event: RelayEnded, now: float, out: list[GatewayCommand]
    ) -> None:
        if event.usage is not None:
            self._estimator.learn(request.model.name, request.facts, event.usage.prompt_tokens)
        failure = event.failure
        self._give_back(state.held, out, suspect=failure in {RelayFailure.BROKEN, RelayFailure.STALLED})
        if failure is None:
            outcome = Outcome.ANSWERED if state.status < FIRST_ERROR_STATUS else Outcome.UPSTREAM_ERROR
            self._end(request, outcome, now, out, status=state.status, held=state.held, relay=event)
        elif failure in {RelayFailure.CLIENT_GONE, RelayFailure.CANCELED}:
            self._end(request, Outcome.CANCELED, now, out, status=state.status, held=state.held, relay=event)
        else:
            lost = state.held.lost
            problem = (
                lost or UpstreamBroke(f"the answer of {request.model.name} broke off: {event.reason}").problem
            )
            self._break_off(request, problem, out)
            self._end(
                request,
                Outcome.BROKE_OFF,
                now,
                out,
                status=state.status,
                held=state.held,
                relay=event,
                problem=problem,
            )

    def _break_off(self, request: Request, problem: Problem, out: list[GatewayCommand]) -> None:
        if request.facts.stream:
            out.append(FailStream(request_id=request.request_id, problem=problem))
        else:
            out.append(CutConnection(request_id=request.request_id))

    # --- ends

    def _give_up(self, request_id: RequestId, now: float, out: list[GatewayCommand]) -> None:
        request = self._requests.get(request_id)
        if request is None or isinstance(request.state, Canceling):
            self.stale += 1
            return
        self._abandon(request, None, now, out)

    def _abandon(
        self, request: Request, problem: Problem | None, now: float, out: list[GatewayCommand]
    ) -> None:
        match request.state:
            case AwaitingLease(lease_id=lease_id) | AwaitingCountLease(lease_id=lease_id):
                self._give_back(Held(lease_id, 0), out)
                if problem is None:
                    self._end(request, Outcome.CANCELED, now, out)
                else:
                    self._fail(request, problem, now, out)
            case Counting(command_id=command_id, held=held) | Calling(command_id=command_id, held=held):
                out.append(CancelUpstream(request_id=request.request_id))
                request.become(Canceling(command_id, held, problem, relaying=False))
            case Relaying(command_id=command_id, held=held):
                out.append(CancelUpstream(request_id=request.request_id))
                request.become(Canceling(command_id, held, problem, relaying=True))
            case Canceling() as state:
                request.become(evolve(state, problem=problem))
            case Received():
                raise AssertionError("nothing stays in Received")
            case _ as unreachable:
                assert_never(unreachable)

    def _canceled(
        self,
        request: Request,
        state: Canceling,
        event: UpstreamAnswered | UpstreamFailed | RelayEnded | TokensCounted | TokenCountFailed,
        now: float,
        out: list[GatewayCommand],
    ) -> None:
        if isinstance(event, UpstreamAnswered):
            out.append(DiscardAnswer(request_id=request.request_id))
        self._give_back(state.held, out)
        relay = event if isinstance(event, RelayEnded) else None
        if relay is not None and relay.failure is None:
            self._end(request, Outcome.ANSWERED, now, out, status=200, held=state.held, relay=relay)
        elif state.problem is None:
            self._end(request, Outcome.CANCELED, now, out, held=state.held, relay=relay)
        elif state.relaying:
            self._break_off(request, state.problem, out)
            self._end(
                request, Outcome.BROKE_OFF, now, out, held=state.held, relay=relay, problem=state.problem
            )
        else:
            self._fail(request, state.problem, now, out, held=state.held)

    def _fail(
        self,
        request: Request,
        problem: Problem,
        now: float,
        out: list[GatewayCommand],
        *,
        held: Held | None = None,
    ) -> None:
        if request.stream_begun:
            out.append(FailStream(request_id=request.request_id, problem=problem))
        else:
            headers = self._headers(request, held)
            out.append(SendProblem(request_id=request.request_id, problem=problem, headers=headers))
        status = 200 if request.stream_begun else problem.status
        self._end(request, Outcome.FAILED, now, out, status=status, held=held, problem=problem)

    def _end(
        self,
        request: Request,
        outcome: Outcome,
        now: float,
        out: list[GatewayCommand],
        *,
        status: int = 0,
        held: Held | None = None,
        relay: RelayEnded | None = None,
        problem: Problem | None = None,
    ) -> None:
        del self._requests[request.request_id]
        self._waiting.pop(request.request_id, None)
        out.append(
            RecordRequest(
                request_id=request.request_id,
                outcome=outcome,
                path=request.facts.path,
                model=request.model.name,
                context_tokens=held.context_tokens if held is not None else None,
                status=status,
                attempts=request.attempts,
                wait_s=request.wait_s,
                first_byte_s=request.first_byte_s,
                total_s=now - request.received_at,
                usage=relay.usage if relay is not None else None,
                finish_reason=relay.finish_reason if relay is not None else None,
                problem=problem,
            )
        )

    def _headers(self, request: Request, held: Held | None) -> tuple[tuple[str, str], ...]:
        headers = [("x-request-id", str(request.request_id)), ("x-gw-model", request.model.name)]
        if held is not None:
            headers.append(("x-gw-variant", str(held.context_tokens)))
        headers.append(("x-gw-attempts", str(request.attempts)))
        headers.append(("x-gw-wait-ms", str(int(request.wait_s * 1000))))
        return tuple(headers)

    def _close(self, now: float, out: list[GatewayCommand], *, force: bool) -> None:
        self._closing = True
        if not force:
            return
        problem = ShuttingDown("the server shut down before the answer was complete").problem
        for request in list(self._requests.values()):
            if not (isinstance(request.state, Canceling) and request.state.problem is None):
                self._abandon(request, problem, now, out)

    # --- clients that wait

    def _comment(self, now: float, out: list[GatewayCommand]) -> None:
        for request in self._waiting.values():
            if request.comment_at is None or now < request.comment_at:
                continue
            request.comment_at = now + COMMENT_PERIOD_S
            if not request.stream_begun:
                request.stream_begun = True
                out.append(BeginStream(request_id=request.request_id, headers=self._headers(request, None)))
            waited_s = int(now - request.received_at)
            text = f"gatewright: waiting for {request.model.name}, {waited_s} s"
            state = request.state
            if isinstance(state, AwaitingLease) and (progress := state.progress) is not None:
                expected = f" of about {progress.expected_s:.0f} s" if progress.expected_s else ""
                text = (
                    f"gatewright: {progress.engine} {progress.phase}, position {progress.position} in the queue, "
                    f"waited {waited_s} s{expected}"
                )
            out.append(SendComment(request_id=request.request_id, text=text))
