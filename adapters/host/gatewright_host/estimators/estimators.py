"""Whoever says how hard a request is, besides the heuristic, which the core asks by itself."""

from collections.abc import Callable
from pathlib import Path
from typing import assert_never

from gatewright.api.facts import RequestFacts
from gatewright.commands import EstimateComplexity
from gatewright.events import ComplexityEstimated, EstimationFailed
from gatewright.route_config import EstimatorKind
from gatewright.selection.complexity import ComplexityEstimate
from gatewright.selection.complexity_heuristic import estimate_complexity
from gatewright.selection.signals import signals_of_text
from gatewright_host.estimators.asked import AskedModels
from gatewright_host.estimators.custom import CustomEstimators, EstimatorError, Task
from gatewright_host.estimators.learned import LearnedEstimator

Ask = Callable[[str, bytes, float], str]
"""Sends a chat completion's body to a model, waits so many seconds at most, and returns the text of the answer."""


class Estimators:
    """Carries out `EstimateComplexity`. Blocking, for any thread; one object for each process.

    Args:
        directory: Where what was learned is kept; None keeps it in memory.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._asked = AskedModels()
        self._custom = CustomEstimators()
        self._learned = LearnedEstimator(directory)

    def estimate(
        self, command: EstimateComplexity, facts: RequestFacts, prompt_text: str, ask: Ask
    ) -> ComplexityEstimated | EstimationFailed:
        """How hard a request is, or why that could not be found out. Never raises.

        Args:
            command: Says who is asked.
            facts: Of the request.
            prompt_text: Of the request; `gatewright.api.signals.prompt_excerpt` has it.
            ask: Calls a model.
        """
        task = facts.wishes.task if facts.wishes is not None else ""
        try:
            return self._estimate(command, task, facts, prompt_text, ask)
        except EstimatorError as error:
            return EstimationFailed(command_id=command.command_id, reason=str(error))
        except Exception as error:  # noqa: BLE001 - the heuristic takes its place, whatever it was
            reason = f"{command.estimator.kind.value}: {type(error).__name__}: {error}"
            return EstimationFailed(command_id=command.command_id, reason=reason)

    def learn(self, model: str, text: str, success: bool, *, task: str = "", request_id: str = "") -> None:
        """Take in an outcome; usually 0.1 ms, now and then some milliseconds: not on a request's path.

        Args:
            model: Candidate that answered.
            text: Of the prompt, as for `estimate`.
            success: Whether it did well.
            task: Name of the task; empty where there is none.
            request_id: Of the request whose answer it is; empty if feedback is not about this one.
        """
        self._learned.learn(model, text, success, task=task, request_id=request_id)

    def take_feedback(self, request_id: str, success: bool) -> None:
        """What somebody says of an answer."""
        self._learned.take_feedback(request_id, success)

    def close(self) -> None:
        """Write what was learned."""
        self._learned.close()

    def _estimate(
        self, command: EstimateComplexity, task: str, facts: RequestFacts, text: str, ask: Ask
    ) -> ComplexityEstimated | EstimationFailed:
        config = command.estimator
        match config.kind:
            case EstimatorKind.MODEL:
                if config.model is None:
                    raise EstimatorError("the estimator names no model")
                said = self._asked.estimate(config.model, task, text, timeout_s=config.timeout_s, ask=ask)
            case EstimatorKind.CUSTOM:
                if config.function is None:
                    raise EstimatorError("the estimator names no function")
                said = self._custom.estimate(
                    config.function,
                    Task(task),
                    {"prompt": text},
                    timeout_s=config.timeout_s,
                    thresholds=config.thresholds,
                )
            case EstimatorKind.LEARNED:
                told = self._learned.predict(
                    command.candidates,
                    text,
                    task=task,
                    min_outcomes=config.min_outcomes,
                    thresholds=config.thresholds,
                    timeout_s=config.timeout_s,
                )
                return ComplexityEstimated(
                    command_id=command.command_id, estimate=told.estimate, chances=told.chances
                )
            case EstimatorKind.HEURISTIC:
                said = _by_heuristic(command, facts, text)
            case EstimatorKind.NONE:
                raise EstimatorError("nobody is to estimate")
            case _:
                assert_never(config.kind)
        return ComplexityEstimated(command_id=command.command_id, estimate=said)


def _by_heuristic(command: EstimateComplexity, facts: RequestFacts, text: str) -> ComplexityEstimate:
    signals = facts.signals
    if signals is None:
        signals = signals_of_text("", "", {"prompt": text})
    config = command.estimator
    return estimate_complexity(signals, thresholds=config.thresholds, weights=config.weights)
