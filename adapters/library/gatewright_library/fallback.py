"""What follows from a failed call: strategies over exceptions, and the chain of models that they work on."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from attrs import frozen

from gatewright.route_config import FallbackStrategy as Kind
from gatewright.selection.failures import Failure
from gatewright.selection.fallback import (
    FIRST_BACKOFF_S,
    LONGEST_BACKOFF_S,
    LONGEST_RETRY_AFTER_S,
    MOST_RETRIES,
    can_handle,
)
from gatewright_library.failures import failure_of
from gatewright_library.models import DEFAULT_MODELS, ModelConfig


@frozen
class FallbackStep:
    """What to do next.

    Attributes:
        model: Whom to call.
        strategy: Name of the strategy that says so.
        delay_s: Wait before the call.
    """

    model: str
    strategy: str
    delay_s: float = 0.0


@frozen(kw_only=True)
class Situation:
    """A chain in the middle of its work.

    Attributes:
        tried: Models that were called, in order; one that was called twice is there twice.
        chain: Models in the order in which they are to be asked.
        others: Further models that could be asked, the best first.
        configs: What is known of the models.
    """

    tried: tuple[str, ...]
    chain: tuple[str, ...]
    others: tuple[str, ...] = ()
    configs: Mapping[str, ModelConfig]

    @property
    def failed(self) -> str | None:
        """Whose call has just failed."""
        return self.tried[-1] if self.tried else None

    @property
    def failed_config(self) -> ModelConfig | None:
        """What is known of it."""
        return self.configs.get(self.failed) if self.failed is not None else None

    @property
    def next_in_chain(self) -> str | None:
        """The first model of the chain that was not tried yet."""
        return next((name for name in self.chain if name not in self.tried), None)

    def first(self, suits: Callable[[ModelConfig], bool]) -> str | None:
        """The best model, of the chain or beyond it, that was not tried yet and suits."""
        for name in (*self.chain, *self.others):
            config = self.configs.get(name)
            if name not in self.tried and config is not None and suits(config):
                return name
        return None


class FallbackStrategy(Protocol):
    """One thing that may be done about failures."""

    @property
    def name(self) -> str:
        """What it is called in logs and steps."""
        ...

    def can_handle(self, error: BaseException) -> bool:
        """Whether it may help against this error."""
        ...

    def next_step(self, error: BaseException, situation: Situation) -> FallbackStep | None:
        """What to do; None if it knows nothing, and the next strategy is asked."""
        ...


class _OfCore:
    """A strategy that handles the same failures as the gateway's strategy of this kind."""

    kind: Kind

    @property
    def name(self) -> str:
        """What it is called in logs and steps."""
        return self.kind.value

    def can_handle(self, error: BaseException) -> bool:
        """Whether it may help against this error."""
        return can_handle(self.kind, failure_of(error))

    def _step(self, model: str | None) -> FallbackStep | None:
        return None if model is None else FallbackStep(model, self.name)


class Retry(_OfCore):
    """The same model again, after a while: where a provider is overloaded or a connection broke.

    Args:
        max_retries: Repetitions of one model's call.
        jitter: Gives a number from 0 to 1, excluded, so that not all wait for equally long.
    """

    kind = Kind.RETRY

    def __init__(self, max_retries: int = 1, *, jitter: Callable[[], float] = random.random) -> None:
        if not 0 <= max_retries <= MOST_RETRIES:
            raise ValueError(f"max_retries is {max_retries}, not from 0 to {MOST_RETRIES}")
        self._max_retries = max_retries
        self._jitter = jitter

    def next_step(self, error: BaseException, situation: Situation) -> FallbackStep | None:
        """The model that failed, unless it was asked often enough or wants to be left alone for long."""
        model = situation.failed
        if model is None:
            return None
        retries = situation.tried.count(model) - 1
        failure = failure_of(error, situation.failed_config)
        if retries >= self._max_retries or not self._has_patience(failure, situation):
            return None
        return FallbackStep(model, self.name, 0.0 if failure.at_once else self._delay_s(retries, failure))

    def _has_patience(self, failure: Failure, situation: Situation) -> bool:
        longest_s = LONGEST_BACKOFF_S if situation.next_in_chain is not None else LONGEST_RETRY_AFTER_S
        return failure.retry_after_s is None or failure.retry_after_s <= longest_s

    def _delay_s(self, retries: int, failure: Failure) -> float:
        backoff_s = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0**retries) * (1.0 - 0.5 * self._jitter())
        return max(backoff_s, failure.retry_after_s or 0.0)


class NextInRanking(_OfCore):
    """The model that was ranked next."""

    kind = Kind.NEXT_IN_RANKING

    def next_step(self, error: BaseException, situation: Situation) -> FallbackStep | None:  # noqa: ARG002 - as the protocol has it
        """The first of the chain that was not tried."""
        return self._step(situation.next_in_chain)


class LargerContext(_OfCore):
    """After an overflow: the best model with a larger context."""

    kind = Kind.LARGER_CONTEXT

    def next_step(self, error: BaseException, situation: Situation) -> FallbackStep | None:
        """The first that holds more than the one that failed."""
        config = situation.failed_config
        if config is None:
            return None
        least = max(config.max_tokens, failure_of(error, config).context_tokens)
        return self._step(situation.first(lambda model: model.max_tokens > least))


class Cheaper(_OfCore):
    """Where a budget does not allow the call: the best model that costs less."""

    kind = Kind.CHEAPER

    def next_step(self, error: BaseException, situation: Situation) -> FallbackStep | None:  # noqa: ARG002 - as the protocol has it
        """The first that costs less than the one that failed."""
        config = situation.failed_config
        if config is None:
            return None
        most = _price(config)
        return self._step(situation.first(lambda model: _price(model) < most))


class ConfiguredFallbacks(_OfCore):
    """Models of the caller's choice.

    Args:
        models: Their names, in the order in which they are to be asked.
    """

    kind = Kind.CONFIGURED

    def __init__(self, models: Sequence[str]) -> None:
        self._models = tuple(models)

    def next_step(self, error: BaseException, situation: Situation) -> FallbackStep | None:  # noqa: ARG002 - as the protocol has it
        """The first of them that was not tried."""
        return self._step(next((name for name in self._models if name not in situation.tried), None))


class LocalWhenOffline(_OfCore):
    """Where a provider cannot be reached: the best model that runs on a machine of one's own."""

    kind = Kind.LOCAL_WHEN_OFFLINE

    def next_step(self, error: BaseException, situation: Situation) -> FallbackStep | None:  # noqa: ARG002 - as the protocol has it
        """The first that runs here."""
        return self._step(situation.first(lambda model: model.is_local))


def default_strategies() -> tuple[FallbackStrategy, ...]:
    """What is done about failures where nobody says otherwise; of those that can, the first one counts."""
    return (Retry(), NextInRanking(), LargerContext(), Cheaper(), LocalWhenOffline())


class FallbackChain:
    """Models in the order in which they are asked, and what is done when one of them fails.

    Args:
        strategies: What may be done; of those that can handle an error, the first that knows a model counts.
            Empty for `default_strategies`.
        max_attempts: Calls over all models; None for no limit but the strategies' own.
        models: Names of the models.
        reason: Why these, one line.
        others: Further models that strategies may choose, the best first.
        configs: What is known of the models; None for `DEFAULT_MODELS`.

    Attributes:
        models: Names of the models.
        reason: Why these.
        max_attempts: Calls over all models.
    """

    def __init__(
        self,
        strategies: Sequence[FallbackStrategy] = (),
        max_attempts: int | None = None,
        *,
        models: Sequence[str] = (),
        reason: str = "",
        others: Sequence[str] = (),
        configs: Mapping[str, ModelConfig] | None = None,
    ) -> None:
        if max_attempts is not None and max_attempts < 1:
            raise ValueError(f"max_attempts is {max_attempts}, not at least 1")
        self.models = list(models)
        self.reason = reason
        self.max_attempts = max_attempts
        self.strategies = tuple(strategies) or default_strategies()
        self._others = tuple(others)
        self._configs = DEFAULT_MODELS if configs is None else configs

    def __iter__(self) -> Iterator[str]:
        return iter(self.models)

    def __len__(self) -> int:
        return len(self.models)

    def __repr__(self) -> str:
        return f"FallbackChain(models={self.models!r}, reason={self.reason!r})"

    def next_step(self, error: BaseException, tried: Sequence[str]) -> FallbackStep | None:
        """What to try after a failed call.

        Args:
            error: What the call raised.
            tried: Models that were called so far, in order, the one that raised it last.

        Returns:
            Whom to call and after which wait; None if nothing is left to try.
        """
        if self.max_attempts is not None and len(tried) >= self.max_attempts:
            return None
        if len(tried) >= MOST_CALLS:
            return None
        situation = Situation(
            tried=tuple(tried), chain=tuple(self.models), others=self._others, configs=self._configs
        )
        for strategy in self.strategies:
            if strategy.can_handle(error):
                step = strategy.next_step(error, situation)
                if step is not None:
                    return step
        return None


MOST_CALLS: Final = 50
"""For one task, whatever strategies say."""


def _price(model: ModelConfig) -> float:
    return model.cost_per_1k_input + model.cost_per_1k_output
