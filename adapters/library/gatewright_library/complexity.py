"""How hard a task is: by counting over its text, or by asking a model."""

import logging
import threading
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from typing import Final

from gatewright.selection.complexity import ComplexityEstimate, TaskComplexity
from gatewright.selection.complexity_heuristic import complexity_at, confidence_at, estimate_complexity
from gatewright.selection.complexity_prompt import estimation_messages, read_estimation
from gatewright.selection.signals import signals_of_text
from gatewright_library.calling import OpenAICaller, config_of
from gatewright_library.tasks import as_inputs, render_inputs, task_description, task_name

_logger: Final = logging.getLogger("gatewright.library")

ASK_TIMEOUT_S: Final = 10.0
"""Longest wait for a model that is asked how hard a task is."""

Messages = list[dict[str, str]]
LlmBackend = Callable[[Messages, str], str]
"""Called with the messages of a chat and the name of a model; gives the text of the answer."""
ComplexityEstimator = Callable[[object, Mapping[str, object]], "TaskComplexity | ComplexityEstimate"]
"""Called with a task and its inputs."""


def heuristic_estimate(task: object, inputs: object) -> ComplexityEstimate:
    """How hard a task is, by counting over its name, its description and its inputs, with the reasons."""
    return estimate_complexity(signals_of_text(task_name(task), task_description(task), as_inputs(inputs)))


def heuristic_complexity_estimator(task: object, inputs: object) -> TaskComplexity:
    """How hard a task is, by counting over its name, its description and its inputs.

    Args:
        task: Anything with a `name` and a `docstring` or `description`, a function, or a name.
        inputs: Values by name.
    """
    return heuristic_estimate(task, inputs).complexity


def estimate_task_complexity_llm(
    task: object,
    inputs: object,
    model: str = "gpt-4o-mini",
    llm_backend: LlmBackend | None = None,
    timeout_s: float = ASK_TIMEOUT_S,
) -> TaskComplexity:
    """How hard a task is, as a model says; `heuristic_complexity_estimator` takes its place where it does not say.

    Args:
        task: Anything with a `name` and a `docstring` or `description`, a function, or a name.
        inputs: Values by name.
        model: Who is asked.
        llm_backend: How it is asked; None calls its provider.
        timeout_s: Longest wait for it.
    """
    text = "\n\n".join(part for part in (task_description(task), render_inputs(inputs)) if part)
    messages = estimation_messages(task_name(task), text)
    try:
        answer = _within(timeout_s, lambda: (llm_backend or _ask_provider(timeout_s))(messages, model))
        estimate = read_estimation(answer)
    except Exception as error:  # noqa: BLE001 - whoever was asked; there is an answer without him
        _logger.info("%s was asked how hard '%s' is: %r", model, task_name(task), error)
        estimate = None
    return heuristic_complexity_estimator(task, inputs) if estimate is None else estimate.complexity


def estimate_with(
    estimator: ComplexityEstimator | None, task: object, inputs: Mapping[str, object]
) -> ComplexityEstimate:
    """What an estimator says, as an estimate; the heuristic takes its place where it fails.

    Args:
        estimator: Whom to ask; None for the heuristic.
        task: The task.
        inputs: Values by name.
    """
    if estimator is None or estimator is heuristic_complexity_estimator:
        return heuristic_estimate(task, inputs)
    try:
        said = estimator(task, inputs)
        if isinstance(said, ComplexityEstimate):
            return said
        complexity = TaskComplexity(said)
    except Exception:
        _logger.warning("The estimator of complexity failed; the heuristic takes its place", exc_info=True)
        return heuristic_estimate(task, inputs)
    score = (complexity.level + 0.5) / len(TaskComplexity)
    return ComplexityEstimate(
        complexity=complexity,
        score=score,
        confidence=confidence_at(score) if complexity_at(score) is complexity else 0.0,
        estimator=getattr(estimator, "__name__", type(estimator).__name__),
    )


def _ask_provider(timeout_s: float) -> LlmBackend:
    def ask(messages: Messages, model: str) -> str:
        with OpenAICaller(timeout_s=timeout_s) as caller:
            return caller.ask(config_of(model), messages).text

    return ask


def _within(timeout_s: float, ask: Callable[[], str]) -> str:
    """What it gives, or an error once the time is over; whoever still works then is left alone."""
    results: SimpleQueue[tuple[str | None, Exception | None]] = SimpleQueue()

    def work() -> None:
        try:
            results.put((ask(), None))
        except Exception as error:  # noqa: BLE001 - raised again where it is waited for
            results.put((None, error))

    threading.Thread(target=work, name="gatewright-complexity", daemon=True).start()
    answer, error = results.get(timeout=timeout_s)
    if error is not None:
        raise error
    if not isinstance(answer, str):
        raise TypeError(f"the backend gave {type(answer).__name__}, not text")
    return answer
