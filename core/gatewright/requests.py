"""One request on its way through the Gateway: its states, and what is known of it.

::

    (received) --> AwaitingCountLease --> Counting --+
        |                                            v
        +--------------------------------> AwaitingLease --> Calling --> Relaying --> (ended)
                                                 ^             |  |         |
                                                 +-- retry ----+  +---------+--> Canceling --> (ended)

A request ends from every state; ended requests are not kept.
"""

from types import MappingProxyType
from typing import Final

from attrs import define, frozen

from gatewright.api.facts import RequestFacts
from gatewright.config import ModelConfig
from gatewright.errors import Problem
from gatewright.ids import CommandId, LeaseId, RequestId
from gatewright.leases import LeaseProgress
from gatewright.selection.variants import Fits


@frozen
class Held:
    """A granted lease.

    Attributes:
        lease_id: Which.
        context_tokens: Context of the variant.
        lost: Why its engine is gone, if it is: such a lease is not released.
    """

    lease_id: LeaseId
    context_tokens: int
    lost: Problem | None = None


@frozen
class Received:
    """Nothing was decided yet; never seen between two events."""


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
class Calling:
    """The upstream has the request, and nothing of its answer is here.

    Attributes:
        command_id: Of the call.
        held: Lease of the engine.
        fits: Variants that would do, for a retry.
    """

    command_id: CommandId
    held: Held
    fits: Fits


@frozen
class Relaying:
    """The answer is on its way to the client.

    Attributes:
        command_id: Of the relay.
        held: Lease of the engine.
        status: HTTP status of the answer.
    """

    command_id: CommandId
    held: Held
    status: int


@frozen
class Canceling:
    """Ended for everybody but the adapter, whose completion is awaited before the engine is given back.

    Attributes:
        command_id: Of the call, count or relay that was canceled.
        held: Lease to give back.
        problem: What to tell the client; None if it is gone.
        status: Of the answer of which part went out; 0 if nothing did.
    """

    command_id: CommandId
    held: Held | None
    problem: Problem | None
    status: int = 0


RequestState = Received | AwaitingCountLease | Counting | AwaitingLease | Calling | Relaying | Canceling

TRANSITIONS: Final = MappingProxyType(
    {
        Received: frozenset({AwaitingCountLease, AwaitingLease}),
        AwaitingCountLease: frozenset({Counting, AwaitingLease}),
        Counting: frozenset({Counting, AwaitingLease, Canceling}),
        AwaitingLease: frozenset({AwaitingLease, Calling}),
        Calling: frozenset({Calling, AwaitingLease, Relaying, Canceling}),
        Relaying: frozenset({Relaying, Canceling}),
        Canceling: frozenset({Canceling}),
    }
)


@define(eq=False)
class Request:
    """A request under way.

    Attributes:
        request_id: Its id.
        facts: What it asks.
        model: Model that it goes to.
        received_at: Seconds, on the Gateway's clock.
        waits_since: When it began to wait for an engine; None while it has one.
        comment_at: When the next comment is due, should it wait then.
        state: Present state; changed only by `become`.
        attempts: Calls to upstreams so far.
        retries: Attempts that were repeated because an engine broke.
        waited_s: Waits for engines that are over.
        first_byte_s: From arrival to the first byte of the answer.
        stream_begun: The client has a 200 and the head of an event stream already.
    """

    request_id: RequestId
    facts: RequestFacts
    model: ModelConfig
    received_at: float
    waits_since: float | None
    comment_at: float
    state: RequestState = Received()
    attempts: int = 0
    retries: int = 0
    waited_s: float = 0.0
    first_byte_s: float | None = None
    stream_begun: bool = False

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
