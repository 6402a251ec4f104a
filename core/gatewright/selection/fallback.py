"""What follows from a failed attempt: the same upstream again, the next model, or the end."""

from collections.abc import Callable
from typing import Final

from attrs import define, field, frozen

from gatewright.config import ModelConfig
from gatewright.selection.failures import Failure, Remedy

FIRST_BACKOFF_S: Final = 0.5
LONGEST_BACKOFF_S: Final = 8.0
"""Doubled with each retry up to here, as the official clients do; the jitter takes away up to half of it."""
LONGEST_RETRY_AFTER_S: Final = 60.0
"""An upstream that asks to be left alone for longer is not asked again."""
MOST_RETRIES: Final = 2
"""Of one upstream in one request, whatever is configured."""
ATTEMPTS_IN_PERIOD: Final = 4
PERIOD_S: Final = 3.0
"""No more than so many calls of one request within any such time, whatever is configured."""

Jitter = Callable[[], float]
"""Gives a number from 0 to 1, excluded, each time."""


@define
class Attempts:
    """What was tried for one request, and what is left to try.

    Attributes:
        chain: The model that was asked for and its fallbacks, in order.
        index: The present one's place in the chain.
        calls: Calls to upstreams.
        retries: Repetitions of calls to the present one.
        failures: What went wrong, in order.
    """

    chain: tuple[ModelConfig, ...]
    index: int = 0
    calls: int = 0
    retries: int = 0
    failures: tuple[Failure, ...] = ()
    _called_at: tuple[float, ...] = field(default=(), init=False)

    @property
    def model(self) -> ModelConfig:
        """The present model."""
        return self.chain[self.index]

    @property
    def is_last(self) -> bool:
        """Whether no other model is left to ask."""
        return self.index + 1 == len(self.chain)

    def called(self, now: float) -> None:
        """A call begins."""
        self.calls += 1
        self._called_at = (*self._called_at, now)[-ATTEMPTS_IN_PERIOD:]

    def earliest_call(self, at: float) -> float:
        """When the next call may begin that is wanted at this time."""
        if len(self._called_at) < ATTEMPTS_IN_PERIOD:
            return at
        return max(at, self._called_at[0] + PERIOD_S)

    def move_to(self, index: int) -> None:
        """Go on with another model of the chain."""
        self.index, self.retries = index, 0


@frozen
class Again:
    """The same upstream, at this time."""

    at: float


@frozen
class NextModel:
    """Another model of the chain, at this time."""

    index: int
    at: float


@frozen
class Exhausted:
    """Nothing is left to try."""


Step = Again | NextModel | Exhausted


def next_step(
    attempts: Attempts, failure: Failure, now: float, jitter: Jitter, give_up_at: float | None = None
) -> Step:
    """What to try next.

    Args:
        attempts: What was tried so far, without this failure.
        failure: The failure.
        now: Seconds, on the Gateway's clock.
        jitter: Asked only where a call is to be repeated after a while.
        give_up_at: When the client or the configuration ends the request; nothing is begun after that.
    """
    limit = attempts.chain[0].max_attempts
    if failure.remedy is Remedy.NONE or (limit is not None and attempts.calls >= limit):
        return Exhausted()
    index = _next_index(attempts, failure)
    retries_left = attempts.retries < min(attempts.model.retries, MOST_RETRIES)
    may_repeat = failure.remedy is Remedy.RETRY or (failure.remedy is Remedy.NEXT_OR_RETRY and index is None)
    if may_repeat and retries_left and _has_patience(failure, has_next=index is not None):
        at = attempts.earliest_call(now if failure.at_once else now + _delay_s(attempts, failure, jitter))
        if give_up_at is None or at < give_up_at:
            return Again(at)
    if index is not None:
        at = attempts.earliest_call(now)
        if give_up_at is None or at < give_up_at:
            return NextModel(index, at)
    return Exhausted()


def _next_index(attempts: Attempts, failure: Failure) -> int | None:
    for index in range(attempts.index + 1, len(attempts.chain)):
        is_larger = attempts.chain[index].largest_context_tokens > failure.context_tokens
        if failure.remedy is not Remedy.LARGER or is_larger:
            return index
    return None


def _has_patience(failure: Failure, *, has_next: bool) -> bool:
    """Whether to wait as long as the upstream wants: not where another model could answer meanwhile."""
    longest_s = LONGEST_BACKOFF_S if has_next else LONGEST_RETRY_AFTER_S
    return failure.retry_after_s is None or failure.retry_after_s <= longest_s


def _delay_s(attempts: Attempts, failure: Failure, jitter: Jitter) -> float:
    backoff_s = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0**attempts.retries) * (1.0 - 0.5 * jitter())
    return max(backoff_s, failure.retry_after_s or 0.0)
