"""One request on its way through the Gateway: its states, and what is known of it.

::

    (received) --> Estimating --> AwaitingLoads --+     a model has to be chosen first
        |                                         |
        +--> AwaitingCountLease --> Counting --+  |     its prompt has to be counted
        |                                      v  v
        +------------------------------> Reserving      its cost has to be kept for it
        |                                      v
        +------------------------------> AwaitingLease --> Calling --> Relaying --> (ended)
        |                                      |             |  |       |  |
        +--------- BackingOff <----------------+-- failed ---+--|-------+  |
                                                                +----------+--> Canceling --> (ended)

Each of the steps before the call is left out where it is not needed.

After a failure the request takes the way from the left again, with the same model or the next of its chain, and at once
where it need not back off. A request ends from every state; ended requests are not kept.
"""

from types import MappingProxyType
from typing import Final, assert_never

from attrs import define, field, frozen

from gatewright.api.facts import ApiFormat, Continuation, RequestFacts, Resumable
from gatewright.api.transforms import Transform, transform_facts
from gatewright.call_log import CallLog
from gatewright.choice import Choice
from gatewright.config import ModelConfig
from gatewright.errors import Problem
from gatewright.events import RelayEnded
from gatewright.ids import CommandId, LeaseId, RequestId
from gatewright.leases import LeaseProgress
from gatewright.selection.decision import Decision
from gatewright.selection.failures import Failure
from gatewright.selection.fallback import Attempts
from gatewright.selection.variants import Fits


@frozen
class Held:
    """A granted lease.

    Attributes:
        lease_id: Which.
        context_tokens: Context of the variant.
        is_probe: The Fleet waits to hear how the call goes.
        lost: Why its engine is gone, if it is: such a lease is not released.
    """

    lease_id: LeaseId
    context_tokens: int
    is_probe: bool = False
    lost: Problem | None = None


@frozen
class Received:
    """Nothing was decided yet; never seen between two events."""


@frozen
class Estimating:
    """Somebody is asked how hard the request is.

    Attributes:
        command_id: Of the estimate.
    """

    command_id: CommandId


@frozen
class AwaitingLoads:
    """The Fleet was asked what it would cost to run the candidates; answered at once.

    Attributes:
        lease_id: Of the question.
    """

    lease_id: LeaseId


@frozen
class Reserving:
    """The store is asked to keep what the call may cost.

    Attributes:
        command_id: Of the reservation.
        fits: Variants to be asked for then.
        cost_usd: What is to be kept.
    """

    command_id: CommandId
    fits: Fits
    cost_usd: float


@frozen
class AwaitingCountLease:
    """Asked for a ready engine to count tokens on; answered at once.

    Attributes:
        lease_id: Asked for.
        best_guess: What to do if nobody can count.
    """

    lease_id: LeaseId
    best_guess: Fits


@frozen
class Counting:
    """An exact token count is under way.

    Attributes:
        command_id: Of the count.
        held: Lease of the engine that counts; None where a program does.
        best_guess: What to do if the count fails.
    """

    command_id: CommandId
    held: Held | None
    best_guess: Fits


@frozen
class AwaitingLease:
    """Waiting for an engine.

    Attributes:
        lease_id: Asked for.
        fits: Variants that would do.
        progress: Last news of the queue.
    """

    lease_id: LeaseId
    fits: Fits
    progress: LeaseProgress | None = None


@frozen
class BackingOff:
    """Nothing is under way: the next attempt begins later.

    Attributes:
        until: When.
    """

    until: float


@frozen
class Calling:
    """The upstream has the request, and its answer has not begun.

    Attributes:
        command_id: Of the call.
        held: Lease of the engine.
        continuation: How it was asked for the rest of an answer; None if it was asked for all of it.
    """

    command_id: CommandId
    held: Held
    continuation: Continuation | None = None


@frozen
class Relaying:
    """The answer is on its way to the client.

    Attributes:
        command_id: Of the relay.
        held: Lease of the engine.
        failure: What the answer means, where it is an error that is passed on as it came.
    """

    command_id: CommandId
    held: Held
    failure: Failure | None = None


@frozen
class Canceling:
    """Ended for everybody but the adapter, whose completion is awaited before the engine is given back.

    Attributes:
        command_id: Of what was under way.
        held: Lease to give back.
        problem: What to tell the client; None if it is gone.
        failure: What the answer means, where it is an error that was being passed on.
    """

    command_id: CommandId
    held: Held | None
    problem: Problem | None
    failure: Failure | None = None


@frozen
class BrokenCall:
    """A call whose connection broke, and whose lease was given back for it.

    Attributes:
        held: That lease.
        relay: How the relay of its answer ended, if that had begun.
    """

    held: Held
    relay: RelayEnded | None = None


RequestState = (
    Received
    | Estimating
    | AwaitingLoads
    | AwaitingCountLease
    | Counting
    | Reserving
    | AwaitingLease
    | BackingOff
    | Calling
    | Relaying
    | Canceling
)

_ATTEMPT: Final = frozenset({AwaitingCountLease, Reserving, AwaitingLease, BackingOff})
"""Where an attempt begins."""

TRANSITIONS: Final = MappingProxyType(
    {
        Received: _ATTEMPT | {Estimating, AwaitingLoads},
        Estimating: _ATTEMPT | {AwaitingLoads, Canceling},
        AwaitingLoads: _ATTEMPT,
        AwaitingCountLease: frozenset({Counting, Reserving, AwaitingLease}),
        Counting: _ATTEMPT | {Counting, Canceling},
        Reserving: _ATTEMPT | {Canceling},
        AwaitingLease: _ATTEMPT | {Calling},
        BackingOff: _ATTEMPT,
        Calling: _ATTEMPT | {Calling, Relaying, Canceling},
        Relaying: _ATTEMPT | {Relaying, Canceling},
        Canceling: frozenset({Canceling}),
    }
)


@define(eq=False)
class Request:
    """A request under way.

    Attributes:
        request_id: Its id.
        facts: What it asks.
        attempts: What was tried, and the models that are left to try.
        received_at: Seconds, on the Gateway's clock.
        waits_since: When it began to wait for an engine; None while it has one.
        comment_at: When the next comment is due, should it wait then.
        state: Present state; changed only by `become`.
        prompt_tokens: Exact size of the prompt for the present model, where it is known.
        waited_s: Waits for engines that are over.
        first_byte_s: From arrival to the first byte of the answer.
        stream_begun: The client has a 200 and the head of an event stream already.
        begun_status: HTTP status of the answer of which the client has a part; 0 if it has none.
        broke_at: Number of failures before the one that broke off an answer; None if none did.
        resumable: What can be done with that part.
        prefill_refused: The present model does not continue answers.
        broken_call: The last call, if its connection broke and the Fleet may still say why that was.
        taken_back: Why the Fleet had taken its lease back, heard of while the next attempt was on its way.
        choice: How its model was or is being chosen; None where it named one.
        decision: What came of it.
        reserved_for: Model for which its cost is kept in the store, and what earlier calls had cost by then; None where
            nothing is.
        is_rated: Its API key's rate limits were looked at.
        log: What its calls came to.
    """

    request_id: RequestId
    facts: RequestFacts
    attempts: Attempts
    received_at: float
    waits_since: float | None
    comment_at: float
    state: RequestState = Received()
    prompt_tokens: int | None = None
    waited_s: float = 0.0
    first_byte_s: float | None = None
    stream_begun: bool = False
    begun_status: int = 0
    broke_at: int | None = None
    resumable: Resumable = Resumable.NO
    prefill_refused: bool = False
    broken_call: BrokenCall | None = None
    taken_back: Problem | None = None
    choice: Choice | None = None
    decision: Decision | None = None
    reserved_for: tuple[str, float] | None = None
    is_rated: bool = False
    log: CallLog = field()

    @log.default
    def _empty_log(self) -> CallLog:
        return CallLog(self.request_id)

    @property
    def is_chosen(self) -> bool:
        """Whether it has a model."""
        return bool(self.attempts.chain)

    @property
    def route_name(self) -> str | None:
        """Route that it named."""
        return self.choice.route.name if self.choice is not None else None

    @property
    def transformed_facts(self) -> RequestFacts:
        """What it asks of the present model, after the changes for that one."""
        transforms = self.transforms
        return transform_facts(self.facts, transforms) if transforms else self.facts

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """Changes that its body undergoes for the present model."""
        of_model = (self.model.transform,) if self.model.transform is not None else ()
        return of_model if self.choice is None else of_model + self.choice.transforms

    @property
    def model(self) -> ModelConfig:
        """Model that it goes to now."""
        return self.attempts.model

    @property
    def give_up_at(self) -> float | None:
        """When it has to have ended: by the configuration, or because its client does not wait for longer."""
        total_s = self.attempts.chain[0].timeouts.total_s if self.is_chosen else None
        silence_s = self.facts.client_timeout_s
        if silence_s is None or self.stream_begun or self.begun_status:
            return None if total_s is None else self.received_at + total_s
        # A little before the client gives up, so that it hears why.
        patience_s = silence_s - min(1.0, 0.05 * silence_s)
        return self.received_at + (patience_s if total_s is None else min(patience_s, total_s))

    @property
    def alarm_at(self) -> float | None:
        """When it is to be looked at whatever happens: the end of its backoff, or its own."""
        if isinstance(self.state, BackingOff):
            return min(self.state.until, self.give_up_at or self.state.until)
        return self.give_up_at

    @property
    def continuation(self) -> Continuation | None:
        """How to ask the present model for the rest of the answer; None where the client has no part of it."""
        match self.resumable:
            case Resumable.NO:
                return None
            case Resumable.REPEAT:
                return Continuation.REPEAT
            case Resumable.CONTINUE if not self.facts.continuable or self.prefill_refused:
                return Continuation.REPEAT
            case Resumable.CONTINUE if self.facts.format is ApiFormat.COMPLETION:
                return Continuation.PROMPT
            case Resumable.CONTINUE:
                return self.model.prefill or Continuation.REPEAT
            case _ as unreachable:
                assert_never(unreachable)

    def become(self, state: RequestState) -> None:
        """Go to a state.

        Raises:
            AssertionError: A programming error: no such transition exists.
        """
        if type(state) not in TRANSITIONS[type(self.state)]:
            raise AssertionError(f"no transition from {type(self.state).__name__} to {type(state).__name__}")
        self.state = state

    def wait_s(self, now: float) -> float:
        """Time that it waited for engines, counting included, over all attempts."""
        return self.waited_s + (now - self.waits_since if self.waits_since is not None else 0.0)
