"""Tokens and money in one process: estimates, use, and budgets that hold however many threads spend."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Final, Self
from weakref import WeakKeyDictionary

from attrs import define, frozen

from gatewright.accounting.costs import cost_usd
from gatewright.errors import BudgetExceeded, ModelNotFound, ResourceExhausted
from gatewright_library.checks import expect_number
from gatewright_library.models import DEFAULT_MODELS, ModelConfig, pricing_of
from gatewright_library.selector import ModelSelector
from gatewright_library.tasks import count_tokens, render_inputs

_TOLERANCE_USD: Final = 1e-12
"""A sum of many small amounts that ought to be the limit may lie above it by so much."""


@frozen(kw_only=True)
class Budget:
    """A limit. Of money and tokens, what is None has none.

    Attributes:
        limit_usd: US dollars.
        limit_tokens: Prompt and completion tokens together.
        model: Model whose use counts; None for all together.
        period_s: After so many seconds from its first use it begins anew; None for never.
    """

    limit_usd: float | None = None
    limit_tokens: int | None = None
    model: str | None = None
    period_s: float | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse what is no limit.

        Raises:
            ValueError: A field is out of its range.
        """
        for name in ("limit_usd", "limit_tokens"):
            expect_number(getattr(self, name), f"Budget.{name}", optional=True)
        expect_number(self.period_s, "Budget.period_s", above=True, optional=True)

    @property
    def name(self) -> str:
        """What errors call it."""
        return "overall" if self.model is None else f"model={self.model}"


@frozen(kw_only=True)
class TokenUsage:
    """What was used.

    Attributes:
        prompt_tokens: Whole prompts, the cached parts included.
        completion_tokens: Answers.
        cached_tokens: Parts of the prompts that came out of a cache.
        cost_usd: What that cost, in US dollars.
        calls: Number of calls.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float = 0.0
    calls: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompts and answers together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: "TokenUsage") -> "TokenUsage":
        return TokenUsage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            cost_usd=self.cost_usd + other.cost_usd,
            calls=self.calls + other.calls,
        )


@define
class _Account:
    """What a budget has left.

    Attributes:
        budget: The budget.
        spent_usd: Spent in this period.
        spent_tokens: The same in tokens.
        reserved_usd: Kept for calls under way.
        reserved_tokens: The same in tokens.
        ends_at: Unix time at which the period ends.
    """

    budget: Budget
    spent_usd: float = 0.0
    spent_tokens: int = 0
    reserved_usd: float = 0.0
    reserved_tokens: int = 0
    ends_at: float | None = None

    def turn_over(self, now: float) -> None:
        """Begin anew where the period is over; what is reserved stays reserved."""
        period_s = self.budget.period_s
        if period_s is not None and (self.ends_at is None or now >= self.ends_at):
            self.spent_usd, self.spent_tokens, self.ends_at = 0.0, 0, now + period_s

    def check(self, amount_usd: float, tokens: int, *, is_free: bool) -> None:
        """Raise where the amount would go beyond it; a model that costs nothing may always be called for the money."""
        budget = self.budget
        if budget.limit_usd is not None:
            left_usd = budget.limit_usd - self.spent_usd - self.reserved_usd
            if not is_free and (amount_usd > left_usd + _TOLERANCE_USD or left_usd <= 0):
                raise BudgetExceeded(
                    f"The budget '{budget.name}' has ${max(left_usd, 0.0):.6f} of ${budget.limit_usd:.6f} left; "
                    f"the call needs ${amount_usd:.6f}",
                    budget=budget.name,
                    resets_at=None if self.ends_at is None else int(self.ends_at),
                )
        if budget.limit_tokens is not None:
            left = budget.limit_tokens - self.spent_tokens - self.reserved_tokens
            if tokens > left or left <= 0:
                raise ResourceExhausted(
                    f"The budget '{budget.name}' has {max(left, 0)} of {budget.limit_tokens} tokens left; "
                    f"the call needs {tokens}"
                )


class Reservation:
    """An amount that is kept for one call; leaving its `with` block gives back what was not settled."""

    def __init__(
        self, manager: "TokenManager", model: str, amount_usd: float, tokens: int, config: ModelConfig
    ) -> None:
        self._manager = manager
        self._config = config  # whatever becomes of the models meanwhile, its prices count
        self.model = model
        self.amount_usd = amount_usd
        self.tokens = tokens

    def settle(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> float:
        """Put what was really used in its place; gives the cost in US dollars."""
        return self._manager.track_usage(
            self.model,
            prompt_tokens,
            completion_tokens,
            cached_tokens,
            reservation=self,
            config=self._config,
        )

    def release(self) -> None:
        """Give it back; a second time does nothing."""
        self._manager.release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


class TokenManager:
    """Estimates and counts tokens, and watches budgets. All methods may be called from any thread.

    It knows of this process only; where several share a budget, the gateway's budgets are the ones to use.

    Args:
        models: Models by name, whose prices count; None for those of the selectors that it is used with, and
            `DEFAULT_MODELS`.
        budgets: Limits, all of which hold.
        clock: Unix time.
    """

    def __init__(
        self,
        models: Mapping[str, ModelConfig] | None = None,
        *,
        budgets: Iterable[Budget] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._models = models
        self._clock = clock
        self._lock = threading.Lock()  # over everything below
        self._accounts = [_Account(budget) for budget in budgets]
        self._usage: dict[str, TokenUsage] = {}
        self._reservations: dict[Reservation, list[_Account]] = {}
        # Weak, since one manager may outlive many executors.
        self._selectors: WeakKeyDictionary[ModelSelector, None] = WeakKeyDictionary()

    def use_models_of(self, selector: ModelSelector) -> None:
        """Know its models by their names, as they are at any time; of no effect where the manager has models of its own.

        An executor that is given the manager does this by itself.
        """
        with self._lock:
            self._selectors[selector] = None

    def set_budget(self, budget: Budget) -> None:
        """Set a limit; one on the same model, or on all, takes its place, and what was spent counts on."""
        with self._lock:
            for account in self._accounts:
                if account.budget.model == budget.model:
                    account.budget = budget
                    return
            self._accounts.append(_Account(budget))

    def estimate_tokens(self, inputs: object) -> int:
        """How many tokens a text or a task's inputs have, more or less."""
        return count_tokens(render_inputs(inputs))

    def estimate_cost(self, model: str, tokens: int | tuple[int, int]) -> float:
        """What a call costs, in US dollars.

        Args:
            model: Its name.
            tokens: Prompt and completion tokens; one number stands for the prompt alone.

        Raises:
            ModelNotFound: There is none of that name.
        """
        prompt_tokens, completion_tokens = (tokens, 0) if isinstance(tokens, int) else tokens
        return _cost(self._find(model), prompt_tokens, completion_tokens)

    def check_budget(self, model: str, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        """Raise where the budgets do not allow a call; nothing is reserved.

        Args:
            model: Who would be called.
            prompt_tokens: Of the call, by estimate.
            completion_tokens: The same.

        Raises:
            BudgetExceeded: There is not enough money left.
            ResourceExhausted: There are not enough tokens left.
            ModelNotFound: There is no such model.
        """
        config = self._find(model)
        amount_usd = _cost(config, prompt_tokens, completion_tokens)
        with self._lock:
            self._check(model, config, amount_usd, prompt_tokens + completion_tokens)

    def reserve(
        self,
        model: str,
        prompt_tokens: int,
        completion_tokens: int = 0,
        *,
        config: ModelConfig | None = None,
    ) -> Reservation:
        """Keep what a call is going to use; to be settled or released.

        Args:
            model: Who is to be called.
            prompt_tokens: Of the call, by estimate.
            completion_tokens: The same.
            config: What is known of that model; its prices count where the manager has no model of this name itself.

        Raises:
            BudgetExceeded: There is not enough money left.
            ResourceExhausted: There are not enough tokens left.
            ModelNotFound: There is no such model.
        """
        config = self._find(model, config)
        amount_usd = _cost(config, prompt_tokens, completion_tokens)
        reservation = Reservation(self, model, amount_usd, prompt_tokens + completion_tokens, config)
        with self._lock:
            self._check(model, config, amount_usd, reservation.tokens)
            accounts = self._reservations[reservation] = self._of(model)
            for account in accounts:
                account.reserved_usd += amount_usd
                account.reserved_tokens += reservation.tokens
        return reservation

    def release(self, reservation: Reservation) -> None:
        """Give a reservation back; a second time does nothing."""
        with self._lock:
            self._release(reservation)

    def track_usage(
        self,
        model: str,
        prompt_tokens: int,
        completion_tokens: int,
        cached_tokens: int = 0,
        *,
        reservation: Reservation | None = None,
        config: ModelConfig | None = None,
    ) -> float:
        """Count what a call has used.

        Args:
            model: Who was called.
            prompt_tokens: Whole prompt, the cached part included.
            completion_tokens: Answer.
            cached_tokens: Part of the prompt that came out of a cache.
            reservation: What was kept for the call, which this settles.
            config: What is known of that model; its prices count where the manager has no model of this name itself.

        Returns:
            What it cost, in US dollars.

        Raises:
            ModelNotFound: There is no such model.
        """
        amount_usd = _cost(self._find(model, config), prompt_tokens, completion_tokens, cached_tokens)
        used = TokenUsage(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            cached_tokens=cached_tokens,
            cost_usd=amount_usd,
            calls=1,
        )
        now = self._clock()
        with self._lock:
            if reservation is not None:
                self._release(reservation)
            self._usage[model] = self._usage.get(model, TokenUsage()) + used
            for account in self._of(model):
                account.turn_over(now)
                account.spent_usd += amount_usd
                account.spent_tokens += used.total_tokens
        return amount_usd

    def usage(self, model: str | None = None) -> TokenUsage:
        """What was used so far, by one model or by all."""
        with self._lock:
            if model is not None:
                return self._usage.get(model, TokenUsage())
            return sum(self._usage.values(), TokenUsage())

    def usage_by_model(self) -> dict[str, TokenUsage]:
        """What was used so far, by model."""
        with self._lock:
            return dict(self._usage)

    def _release(self, reservation: Reservation) -> None:
        for account in self._reservations.pop(reservation, ()):
            # Sums of floats need not come back to 0 by themselves.
            account.reserved_usd = max(0.0, account.reserved_usd - reservation.amount_usd)
            account.reserved_tokens -= reservation.tokens

    def _check(self, model: str, config: ModelConfig, amount_usd: float, tokens: int) -> None:
        now = self._clock()
        is_free = config.cost_per_1k_input == 0 and config.cost_per_1k_output == 0
        for account in self._of(model):
            account.turn_over(now)
            account.check(amount_usd, tokens, is_free=is_free)

    def _of(self, model: str) -> list[_Account]:
        return [account for account in self._accounts if account.budget.model in {None, model}]

    def _find(self, name: str, config: ModelConfig | None = None) -> ModelConfig:
        """The model whose prices count.

        Args:
            name: Its name.
            config: What the caller knows of it.

        Raises:
            ModelNotFound: Nobody knows of any.
        """
        if self._models is not None and name in self._models:
            return self._models[name]
        if config is not None:
            return config
        if self._models is None:
            with self._lock:
                known: list[Mapping[str, ModelConfig]] = [each.models for each in self._selectors]
            for models in (*known, DEFAULT_MODELS):
                if name in models:
                    return models[name]
        raise ModelNotFound(name)


def _cost(model: ModelConfig, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> float:
    return cost_usd(
        pricing_of(model),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        cached_tokens=cached_tokens,
    )
