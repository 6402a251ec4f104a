"""One task on its way through the models: what an executor keeps of it, and what comes out."""

import time
from typing import Any

from attrs import define, field, frozen

from gatewright.accounting.costs import cost_usd
from gatewright.errors import FailedAttempt
from gatewright.selection.complexity import TaskComplexity
from gatewright_library.calling import ModelAnswer
from gatewright_library.fallback import FallbackChain
from gatewright_library.models import ModelConfig, pricing_of
from gatewright_library.selection import SelectionResult
from gatewright_library.tasks import count_tokens, prompt_tokens
from gatewright_library.token_manager import Reservation, TokenManager


@frozen(kw_only=True)
class ExecutionResult:
    """A task that was done.

    Attributes:
        answer: What the call gave; a `ModelAnswer` where the executor's own caller made it.
        model: Who answered.
        selection: How the first model was chosen.
        failed_attempts: What was tried in vain before.
        latency_ms: Time of the call that was answered.
        prompt_tokens: Of that call, counted or by estimate.
        completion_tokens: The same of its answer.
        cost_usd: What all calls together cost.
    """

    answer: Any
    model: str
    selection: SelectionResult
    failed_attempts: tuple[FailedAttempt, ...] = ()
    latency_ms: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0

    @property
    def complexity(self) -> TaskComplexity | None:
        """How hard the task was thought to be."""
        return self.selection.complexity

    def __str__(self) -> str:
        return str(self.answer)


@frozen
class Use:
    """Tokens of one call, counted or by estimate."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


@define
class Course:
    """One task on its way.

    Attributes:
        task: The task.
        inputs: Its inputs.
        selection: How the first model was chosen.
        chain: What is done about failures.
        model: Whom to call now.
        tried: Whom it was called so far.
        failures: What went wrong.
        cause: The first error.
        use: Tokens of the present call, once it is answered.
        call_cost_usd: What the present call cost.
        cost_usd: What all calls cost.
        reservation: What is kept for the present call.
    """

    task: object
    inputs: object
    selection: SelectionResult
    chain: FallbackChain
    model: str
    tried: list[str] = field(factory=list)
    failures: list[FailedAttempt] = field(factory=list)
    cause: Exception | None = None
    use: Use = Use(0, 0)
    call_cost_usd: float = 0.0
    cost_usd: float = 0.0
    reservation: Reservation | None = None
    _began_s: float = 0.0
    _ended_s: float | None = None

    @property
    def latency_ms(self) -> float:
        """Time of the present call up to now, or to its end."""
        ended_s = time.perf_counter() if self._ended_s is None else self._ended_s
        return (ended_s - self._began_s) * 1000

    def begin_call(self) -> None:
        """The model is about to be called."""
        self.tried.append(self.model)
        self.use, self.call_cost_usd = Use(0, 0), 0.0
        self._began_s, self._ended_s = time.perf_counter(), None

    def answered(self, answer: object, model: ModelConfig, tokens: TokenManager | None) -> None:
        """There is an answer, which costs something whether it is good or not.

        Args:
            answer: What the call gave.
            model: Who gave it.
            tokens: Who is told of it.
        """
        self._ended_s = time.perf_counter()
        self.use = use_of(answer, self.task, self.inputs)
        self.call_cost_usd = cost_usd(
            pricing_of(model),
            prompt_tokens=self.use.prompt_tokens,
            completion_tokens=self.use.completion_tokens,
            cached_tokens=self.use.cached_tokens,
        )
        self.cost_usd += self.call_cost_usd
        if tokens is not None:
            tokens.track_usage(
                self.model,
                self.use.prompt_tokens,
                self.use.completion_tokens,
                self.use.cached_tokens,
                reservation=self.reservation,
                config=model,
            )

    def give_back(self) -> None:
        """What is reserved for the present call and was not used is free again."""
        if self.reservation is not None:
            self.reservation.release()
            self.reservation = None

    def result(self, answer: object) -> ExecutionResult:
        """The task is done."""
        return ExecutionResult(
            answer=answer,
            model=self.model,
            selection=self.selection,
            failed_attempts=tuple(self.failures),
            latency_ms=self.latency_ms,
            prompt_tokens=self.use.prompt_tokens,
            completion_tokens=self.use.completion_tokens,
            cost_usd=self.cost_usd,
        )


def use_of(answer: object, task: object, inputs: object) -> Use:
    """Tokens of a call: as the answer says, and otherwise as many as its text and the task's may have."""
    told = answer if isinstance(answer, ModelAnswer) else getattr(answer, "usage", None)
    prompt, completion = (getattr(told, name, None) for name in ("prompt_tokens", "completion_tokens"))
    if not isinstance(prompt, int):
        prompt = prompt_tokens(task, inputs)
    if not isinstance(completion, int):
        completion = count_tokens(str(answer))
    cached = getattr(told, "cached_tokens", None)
    if cached is None:
        cached = getattr(getattr(told, "prompt_tokens_details", None), "cached_tokens", None)
    return Use(prompt, completion, cached if isinstance(cached, int) else 0)
