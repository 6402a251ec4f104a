"""The estimator that asks a model, and remembers what it said."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec

from gatewright.selection.complexity import ComplexityEstimate
from gatewright.selection.complexity_prompt import ANSWER_TOKENS, estimation_messages, read_estimation
from gatewright_host.estimators.custom import EstimatorError

_MOST_ANSWERS: Final = 4096
"""Answers that are remembered; about 2 MB."""


class AskedModels:
    """Asks models how hard requests are, each about each prompt once. For any thread."""

    def __init__(self, most_answers: int = _MOST_ANSWERS) -> None:
        self._most_answers = most_answers
        self._answers: OrderedDict[bytes, ComplexityEstimate] = OrderedDict()
        self._lock = threading.Lock()

    def estimate(
        self, model: str, task: str, text: str, *, timeout_s: float, ask: Callable[[str, bytes, float], str]
    ) -> ComplexityEstimate:
        """What the model says.

        Args:
            model: Its name.
            task: Name of the task; empty where there is none.
            text: Of the prompt.
            timeout_s: Longest wait for it.
            ask: Sends a chat completion's body to the model and returns the text of its answer.

        Raises:
            EstimatorError: It cannot be asked, takes too long, or its answer names no level.
        """
        key = _digest(model, task, text)
        with self._lock:
            if (known := self._answers.get(key)) is not None:
                self._answers.move_to_end(key)
                return known
        body = msgspec.json.encode(
            {
                "model": model,
                "messages": estimation_messages(task, text),
                "temperature": 0,
                "max_tokens": ANSWER_TOKENS,
                "stream": False,
            }
        )
        try:
            answer = ask(model, body, timeout_s)
        except Exception as error:
            what = str(error) or type(error).__name__
            raise EstimatorError(f"{model} could not be asked: {' '.join(what.split())[:200]}") from error
        estimate = read_estimation(answer)
        if estimate is None:
            raise EstimatorError(f"{model} named no level: {' '.join(answer.split())[:100]!r}")
        with self._lock:
            self._answers[key] = estimate
            while len(self._answers) > self._most_answers:
                self._answers.popitem(last=False)
        return estimate


def _digest(model: str, task: str, text: str) -> bytes:
    """Of all that the answer depends on; the text itself is not kept."""
    parts = hashlib.sha256()
    for part in (model, task, text):
        encoded = part.encode("utf-8", "surrogatepass")
        parts.update(len(encoded).to_bytes(8, "big") + encoded)
    return parts.digest()
