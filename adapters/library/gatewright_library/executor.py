"""Doing a task from end to end: estimate, select, call, fall back, record."""

import asyncio
import inspect
import logging
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Self

from gatewright.errors import FallbackExhausted, ModelNotFound
from gatewright_host.store.vocabulary import StoreError
from gatewright_library.calling import OpenAICaller
from gatewright_library.course import Course, ExecutionResult
from gatewright_library.failures import (
    AnswerRejected,
    failure_of,
    is_unavailability,
    says_something_of_quality,
)
from gatewright_library.fallback import FallbackStep, FallbackStrategy
from gatewright_library.models import ModelConfig, SelectionCriteria
from gatewright_library.selection import EXPECTED_ANSWER_TOKENS
from gatewright_library.selector import ModelSelector
from gatewright_library.tasks import prompt_tokens, task_name
from gatewright_library.token_manager import TokenManager

_logger: Final = logging.getLogger("gatewright.library")

Call = Callable[[ModelConfig, Any, Any], Any]
"""Called with the model, the task and its inputs; gives the answer, or an awaitable of it."""
Accept = Callable[[Any], bool]
"""Says whether an answer is a good one."""


_NEEDS_LOOP: Final = "Executor.call is a coroutine function; use `await executor.arun(...)`"


class Executor:
    """Does tasks with whichever model suits best. May be used from any thread and any event loop.

    Args:
        model_selector: Chooses, and learns from what comes of it.
        use_fallback_chain: Whether other models are asked where one fails; otherwise its error is raised.
        call: How a model is called: `call(model, task, inputs)`, which may be a coroutine function; None calls its
            provider with the `openai` package. An `OpenAICaller` that is given stays the caller's to close.
        strategies: What is done about failures; empty for `default_strategies`.
        max_length: Models in a chain.
        max_attempts: Calls for one task over all models; None leaves that to the strategies.
        accept: Whether an answer is a good one; another model is asked where it is not, and it counts as no success.
        token_manager: Whose budgets hold, and who is told of what was used.
        sleep: Waits for so many seconds between the calls of `run`.
    """

    def __init__(
        self,
        model_selector: ModelSelector,
        use_fallback_chain: bool = True,
        call: Call | None = None,
        *,
        strategies: Sequence[FallbackStrategy] = (),
        max_length: int = 3,
        max_attempts: int | None = None,
        accept: Accept | None = None,
        token_manager: TokenManager | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.selector = model_selector
        self.use_fallback_chain = use_fallback_chain
        own_caller = OpenAICaller() if call is None else None
        self._own_caller = own_caller
        self._call: Call = call or own_caller or OpenAICaller()
        self._is_async = inspect.iscoroutinefunction(self._call) or inspect.iscoroutinefunction(
            getattr(type(self._call), "__call__", None)  # noqa: B004  # whether it is one, not whether there is one
        )
        self._strategies = tuple(strategies)
        self._max_length = max_length
        self._max_attempts = max_attempts
        self._accept = accept
        self._tokens = token_manager
        if token_manager is not None:
            token_manager.use_models_of(model_selector)
        self._sleep = sleep

    def run(
        self, task: object, inputs: object = None, criteria: SelectionCriteria | None = None
    ) -> ExecutionResult:
        """Do a task.

        Args:
            task: Anything with a `name` and a `docstring` or `description`, a function, or a name.
            inputs: Values by name, or one value.
            criteria: Conditions on the model; None for the usual ones.

        Raises:
            FallbackExhausted: All that may be tried was tried in vain; its `__cause__` is the first error.
            ModelNotFound: No model is enabled.
            TypeError: `call` is a coroutine function, which `arun` can wait for.
            Exception: The call's own, without a fallback chain.
        """
        if self._is_async:
            raise TypeError(_NEEDS_LOOP)
        course = self._begin(task, inputs, criteria)
        while True:
            try:
                model = self._prepare(course)
                answer = _now(self._call(model, task, inputs))
                self._take(course, model, answer)
            except Exception as error:  # noqa: BLE001  # whatever calls raise: strategies say what follows
                step = self._failed(course, error)
            else:
                return self._succeeded(course, answer)
            finally:
                course.give_back()
            if step.delay_s > 0:
                self._sleep(step.delay_s)

    async def arun(
        self, task: object, inputs: object = None, criteria: SelectionCriteria | None = None
    ) -> ExecutionResult:
        """Do a task without blocking the event loop; see `run`."""
        course = await asyncio.to_thread(self._begin, task, inputs, criteria)
        while True:
            try:
                model = self._prepare(course)
                answer = await self._acall(model, task, inputs)
                self._take(course, model, answer)
            except Exception as error:  # noqa: BLE001  # as in `run`
                step = await asyncio.to_thread(self._failed, course, error)
            else:
                return await asyncio.to_thread(self._succeeded, course, answer)
            finally:
                course.give_back()
            await asyncio.sleep(step.delay_s)

    # --- the steps of both

    def _begin(self, task: object, inputs: object, criteria: SelectionCriteria | None) -> Course:
        selection, chain = self.selector.plan(
            task,
            inputs,
            criteria,
            max_length=self._max_length,
            strategies=self._strategies,
            max_attempts=self._max_attempts,
        )
        return Course(task, inputs, selection, chain, selection.selected_model)

    def _prepare(self, course: Course) -> ModelConfig:
        course.begin_call()
        model = self.selector.models.get(course.model)
        if model is None:
            raise ModelNotFound(course.model)
        if self._tokens is not None:
            tokens = prompt_tokens(course.task, course.inputs)
            course.reservation = self._tokens.reserve(
                course.model, tokens, EXPECTED_ANSWER_TOKENS, config=model
            )
        return model

    async def _acall(self, model: ModelConfig, task: object, inputs: object) -> Any:
        if isinstance(self._call, OpenAICaller):
            return await self._call.acall(model, task, inputs)
        if self._is_async:
            return await self._call(model, task, inputs)
        answer = await asyncio.to_thread(self._call, model, task, inputs)
        if inspect.isawaitable(answer):
            return await answer
        return answer

    def _take(self, course: Course, model: ModelConfig, answer: object) -> None:
        course.answered(answer, model, self._tokens)
        if self._accept is not None and not self._accept(answer):
            raise AnswerRejected(f"The answer of {model.name} was not accepted")

    def _failed(self, course: Course, error: Exception) -> FallbackStep:
        """What follows from a call that failed; raises where nothing does."""
        failure = failure_of(error, self.selector.models.get(course.model))
        course.cause = course.cause or error
        course.failures.append(failure.told)
        if is_unavailability(failure):
            self._record(course, success=False, is_available=False)
        elif says_something_of_quality(failure):
            self._record(course, success=False)
        if not self.use_fallback_chain:
            raise error
        step = course.chain.next_step(error, course.tried)
        if step is None:
            raise FallbackExhausted(course.failures) from course.cause
        course.model = step.model
        return step

    def _succeeded(self, course: Course, answer: object) -> ExecutionResult:
        self._record(course, success=True)
        return course.result(answer)

    def _record(self, course: Course, *, success: bool, is_available: bool = True) -> None:
        try:
            self.selector.record_execution(
                task_name(course.task),
                course.model,
                course.inputs,
                success,
                course.latency_ms,
                course.call_cost_usd,
                complexity=course.selection.complexity,
                is_available=is_available,
            )
        except StoreError as error:
            # The answer is there, and worth more than what could be learnt from it.
            _logger.warning("The outcome of a call to %s was not recorded: %s", course.model, error)

    # --- the end

    def close(self) -> None:
        """Close the connections to providers, as far as the executor has opened them."""
        if self._own_caller is not None:
            self._own_caller.close()

    async def aclose(self) -> None:
        """The same with those of this event loop."""
        if self._own_caller is not None:
            await self._own_caller.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def _now(answer: Any) -> Any:
    """An answer that is there already."""
    if inspect.isawaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()
        raise TypeError(_NEEDS_LOOP)
    return answer
