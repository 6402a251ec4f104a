"""The operator's own estimator: a Python function."""

import importlib
import math
import threading
from collections.abc import Callable
from typing import Any, Final

from attrs import frozen

from gatewright.selection.complexity import ComplexityEstimate, TaskComplexity
from gatewright.selection.complexity_heuristic import DEFAULT_THRESHOLDS, complexity_at, confidence_at

_MOST_CALLS: Final = 16
"""Calls under way. A function that hangs keeps its thread for ever; no more of them than this."""
_SURE: Final = 0.5
_LEVELS: Final = tuple(TaskComplexity)


class EstimatorError(Exception):
    """An estimator could not tell; the message is one line for people."""


@frozen
class Task:
    """What the function is told of the task.

    Attributes:
        name: Its name; empty where the client told none.
        description: What it is about; empty where nobody said.
    """

    name: str
    description: str = ""


class CustomEstimators:
    """Functions named "module:function", each imported at its first use. For any thread."""

    def __init__(self) -> None:
        self._functions: dict[str, Callable[..., Any]] = {}
        self._free = threading.BoundedSemaphore(_MOST_CALLS)

    def estimate(
        self,
        function: str,
        task: Task,
        inputs: dict[str, object],
        *,
        timeout_s: float,
        thresholds: tuple[float, float, float, float] | None = None,
    ) -> ComplexityEstimate:
        """What the function says.

        Args:
            function: Its name.
            task: First argument.
            inputs: Second argument.
            timeout_s: Longest wait for it, its import included.
            thresholds: For a function that tells a number.

        Raises:
            EstimatorError: It cannot be imported, raises, takes too long, or tells nothing that can be used.
        """
        if not self._free.acquire(blocking=False):
            raise EstimatorError(f"{function}: {_MOST_CALLS} earlier calls have not returned yet")
        call = _Call(lambda: self._find(function)(task, inputs), self._free.release)
        # A thread of its own, since a function cannot be stopped; a daemon, so that one that hangs keeps no process alive.
        try:
            threading.Thread(target=call.run, name=f"estimator {function}", daemon=True).start()
        except RuntimeError as error:
            self._free.release()
            raise EstimatorError(f"{function}: {error}") from error
        if not call.done.wait(timeout_s):
            raise EstimatorError(f"{function} has not returned within {timeout_s:g} s")
        if call.error is not None:
            if isinstance(call.error, EstimatorError):
                raise call.error
            raise EstimatorError(
                f"{function} raised {type(call.error).__name__}: {_line(call.error)}"
            ) from call.error
        return read_answer(function, call.answer, thresholds)

    def _find(self, name: str) -> Callable[..., Any]:
        if (known := self._functions.get(name)) is not None:
            return known
        module, mark, path = name.partition(":")
        if not (module and mark and path):
            raise EstimatorError(f"{name!r} must be 'module:function'")
        try:
            found: Any = importlib.import_module(module)
        except Exception as error:
            raise EstimatorError(
                f"{name} cannot be imported: {type(error).__name__}: {_line(error)}"
            ) from error
        for part in path.split("."):
            try:
                found = getattr(found, part)
            except AttributeError:
                raise EstimatorError(f"{name} cannot be imported: {module} has no {path}") from None
        if not callable(found):
            raise EstimatorError(f"{name} is no function")
        function: Callable[..., Any] = found
        self._functions[name] = function
        return function


class _Call:
    """One call, on its own thread."""

    def __init__(self, function: Callable[[], Any], finished: Callable[[], None]) -> None:
        self._function = function
        self._finished = finished
        self.done = threading.Event()
        self.answer: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """Call it, and keep what comes of it."""
        try:
            self.answer = self._function()
        except BaseException as error:  # noqa: BLE001 - anybody's code; `SystemExit` ends no thread of ours
            self.error = error
        finally:
            self._finished()
            self.done.set()


def read_answer(
    function: str, answer: object, thresholds: tuple[float, float, float, float] | None = None
) -> ComplexityEstimate:
    """An estimate of whatever the function returned.

    Args:
        function: Its name, for the estimate and for errors.
        answer: A `TaskComplexity`, its value, a number from 0 to 1, or a `ComplexityEstimate`.
        thresholds: For numbers.

    Raises:
        EstimatorError: It is something else.
    """
    match answer:
        case ComplexityEstimate():
            return answer
        case str():  # `TaskComplexity` is one too
            try:
                level = TaskComplexity(answer.strip().lower())
            except ValueError:
                raise _unusable(function, answer) from None
            middle = (level.level + 0.5) / len(_LEVELS)
            return ComplexityEstimate(complexity=level, score=middle, confidence=_SURE, estimator=function)
        case bool():
            raise _unusable(function, answer)
        case int() | float() if math.isfinite(answer) and 0 <= answer <= 1:
            limits = thresholds or DEFAULT_THRESHOLDS
            return ComplexityEstimate(
                complexity=complexity_at(answer, limits),
                score=float(answer),
                confidence=confidence_at(answer, limits),
                estimator=function,
            )
        case _:
            raise _unusable(function, answer)


def _unusable(function: str, answer: object) -> EstimatorError:
    levels = ", ".join(repr(level.value) for level in TaskComplexity)
    return EstimatorError(
        f"{function} returned {_line(repr(answer))}; it must return one of {levels}, a number from 0 to 1, "
        "or a ComplexityEstimate"
    )


def _line(what: object) -> str:
    try:
        return " ".join(str(what).split())[:200]
    except Exception:  # noqa: BLE001 - anybody's exception may be unable to say what it is
        return "(no text)"
