"""What follows from a failed attempt: the same upstream again, the next model, or the end.

A strategy (`FallbackStrategy`) is one thing that may be done; `can_handle` says against which failures it helps. Models
that are asked for by name have all of them, routes those of their policy.
"""

from collections.abc import Callable
from typing import Final, assert_never

from attrs import define, field, frozen

from gatewright.config import ModelConfig
from gatewright.route_config import FallbackStrategy
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
        chain: The model that was asked for or chosen and its fallbacks, in order; empty until one is chosen.
        index: The present one's place in the chain.
        calls: Calls to upstreams.
        retries: Repetitions of calls to the present one.
        failures: What went wrong, in order.
        limit: Calls over all models, instead of the first model's own `max_attempts`.
        strategies: What may be done about failures.
        costs_usd: Estimated cost by model, where it is known.
    """

    chain: tuple[ModelConfig, ...]
    index: int = 0
    calls: int = 0
    retries: int = 0
    failures: tuple[Failure, ...] = ()
    limit: int | None = None
    strategies: tuple[FallbackStrategy, ...] = tuple(FallbackStrategy)
    costs_usd: dict[str, float] = field(factory=dict)
    _called_at: tuple[float, ...] = field(default=(), init=False)

    @property
    def model(self) -> ModelConfig:
        """The present model."""
        return self.chain[self.index]

    @property
    def is_last(self) -> bool:
        """Whether no other model is left to ask."""
        return self.index + 1 == len(self.chain)

    @property
    def is_used_up(self) -> bool:
        """Whether no further call is allowed."""
        limit = self.chain[0].max_attempts if self.limit is None else self.limit
        return limit is not None and self.calls >= limit

    def called(self, now: float) -> None:
        """A call begins."""
        self.calls += 1
        self._called_at = (*self._called_at, now)[-ATTEMPTS_IN_PERIOD:]

    def earliest_call(self, at: float) -> float:
        """When the next call may begin that is wanted at this time."""
        if len(self._called_at) < ATTEMPTS_IN_PERIOD:
            return at
        return max(at, self._called_at[0] + PERIOD_S)

    def move_to(self, index: int, *, keeps_others: bool = False) -> None:
        """Go on with another model of the chain.

        Args:
            index: Its place.
            keeps_others: Those before it may be asked later; otherwise they are out of the question.
        """
        if keeps_others:
            between, next_index = self.chain[self.index + 1 : index], self.index + 1
            self.chain = (*self.chain[:next_index], self.chain[index], *between, *self.chain[index + 1 :])
            index = next_index
        self.index, self.retries = index, 0

    def append(self, model: ModelConfig) -> int:
        """One more model is to be had; its place in the chain."""
        self.chain = (*self.chain, model)
        return len(self.chain) - 1


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
    if failure.remedy is Remedy.NONE or attempts.is_used_up:
        return Exhausted()
    index = _next_index(attempts, failure)
    retries = attempts.model.retries if FallbackStrategy.RETRY in attempts.strategies else 0
    retries_left = attempts.retries < min(retries, MOST_RETRIES)
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


def can_handle(strategy: FallbackStrategy, failure: Failure) -> bool:
    """Whether a strategy is one against this failure."""
    match strategy:
        case FallbackStrategy.RETRY:
            return failure.remedy in {Remedy.RETRY, Remedy.NEXT_OR_RETRY}
        case FallbackStrategy.NEXT_IN_RANKING | FallbackStrategy.CONFIGURED:
            return failure.remedy in {Remedy.RETRY, Remedy.NEXT, Remedy.NEXT_OR_RETRY}
        case FallbackStrategy.LARGER_CONTEXT:
            return failure.remedy is Remedy.LARGER
        case FallbackStrategy.CHEAPER:
            return failure.remedy is Remedy.CHEAPER
        case FallbackStrategy.LOCAL_WHEN_OFFLINE:
            return failure.is_offline
        case _ as unreachable:
            assert_never(unreachable)


def _next_index(attempts: Attempts, failure: Failure) -> int | None:
    """The first model that the first strategy finds which can handle the failure."""
    left = range(attempts.index + 1, len(attempts.chain))
    for strategy in attempts.strategies:
        if strategy is FallbackStrategy.RETRY or not can_handle(strategy, failure):
            continue
        for index in left:
            if _suits(strategy, attempts, attempts.chain[index], failure):
                return index
    return None


def _suits(strategy: FallbackStrategy, attempts: Attempts, model: ModelConfig, failure: Failure) -> bool:
    match strategy:
        case FallbackStrategy.LARGER_CONTEXT:
            return model.largest_context_tokens > failure.context_tokens
        case FallbackStrategy.CHEAPER:
            return attempts.costs_usd.get(model.name, failure.cost_usd) < failure.cost_usd
        case FallbackStrategy.LOCAL_WHEN_OFFLINE:
            return not model.is_remote
        case FallbackStrategy.NEXT_IN_RANKING | FallbackStrategy.CONFIGURED | FallbackStrategy.RETRY:
            return True
        case _ as unreachable:
            assert_never(unreachable)


def _has_patience(failure: Failure, *, has_next: bool) -> bool:
    """Whether to wait as long as the upstream wants: not where another model could answer meanwhile."""
    longest_s = LONGEST_BACKOFF_S if has_next else LONGEST_RETRY_AFTER_S
    return failure.retry_after_s is None or failure.retry_after_s <= longest_s


def _delay_s(attempts: Attempts, failure: Failure, jitter: Jitter) -> float:
    backoff_s = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0**attempts.retries) * (1.0 - 0.5 * jitter())
    return max(backoff_s, failure.retry_after_s or 0.0)
