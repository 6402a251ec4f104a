"""What a person sees while an engine comes up: a spinner with its state and the seconds."""

import threading
from time import monotonic
from typing import TYPE_CHECKING, Final

from gatewright.leases import LeaseGranted, LeaseNews, LeaseProgress

if TYPE_CHECKING:
    from rich.status import Status

TICK_S: Final = 0.1
_PATIENCE_S: Final = 0.4
"""What takes no longer is better left alone."""
_STARTING: Final = frozenset(("starting", "loading"))


class Progress:
    """A spinner on standard error. `tick` belongs to one thread, the rest to any.

    Args:
        model: What is asked, for before there is any news.
        shown: Whether anybody looks.
        whole: The answer comes in one piece, so that its writing is waited for too.
    """

    def __init__(self, model: str, *, shown: bool, whole: bool = False) -> None:
        self.shown = shown
        self._whole = whole
        self._model = model
        self._began_at = monotonic()
        self._news: LeaseNews | None = None
        self._lock = threading.Lock()
        self._stopped = not shown
        self._status: Status | None = None

    def hear(self, news: LeaseNews) -> None:
        """News of the lease that is waited for."""
        self._news = news

    def tick(self) -> None:
        """Draw it anew."""
        waited_s = monotonic() - self._began_at
        if self._stopped or waited_s < _PATIENCE_S:
            return
        text = describe(self._news, self._model, waited_s, whole=self._whole)
        with self._lock:
            self._draw(text)

    def _draw(self, text: str) -> None:
        if self._stopped:
            return
        if self._status is None:
            # Most answers begin before anybody has to see this.
            from rich.console import Console  # noqa: PLC0415

            self._status = Console(stderr=True, highlight=False, markup=False).status(text)
            self._status.start()
        else:
            self._status.update(text)

    def stop(self) -> None:
        """Remove it, for good."""
        with self._lock:
            self._stopped = True
            if self._status is not None:
                self._status.stop()
                self._status = None


def describe(news: LeaseNews | None, model: str, waited_s: float, *, whole: bool = False) -> str:
    """The spinner's text.

    Args:
        news: What was heard last.
        model: Name of the model.
        waited_s: Seconds since the question was put.
        whole: The answer comes in one piece.
    """
    seconds = f"{waited_s:.0f} s"
    match news:
        case LeaseGranted(context_tokens=context_tokens):
            work = "answers" if whole else "reads the question"
            return f"{model}@{context_tokens} {work} … {seconds}"
        case LeaseProgress(engine=engine, phase=phase):
            if news.expected_s is not None and phase in _STARTING:
                seconds = f"{seconds} of about {max(news.expected_s, 1.0):.0f} s"
            place = f", position {news.position}" if news.position > 1 else ""
            return f"{_phase(engine, phase)} … {seconds}{place}"
        case _:
            return f"{model}: looking for an engine … {seconds}"


def _phase(engine: str, phase: str) -> str:
    match phase:
        case "busy":
            return f"{engine} is busy with other requests"
        case "stopped":
            return f"starting {engine}"
        case "crashed" | "refused":
            return f"{engine} {phase}, trying again"
        case _ if phase.startswith("waiting"):
            return f"{engine} is {phase}"
        case _:
            return f"{phase} {engine}"
