"""Carrying one question through: a thread for the request, while the first one minds the clock and the keyboard."""

import threading
from time import monotonic
from typing import Final

from gatewright.commands import RecordRequest
from gatewright_cli.answer import AnswerReader
from gatewright_cli.progress import TICK_S, Progress
from gatewright_cli.question import QuestionRequest
from gatewright_cli.waiting import Waiting
from gatewright_host.blocking.exchange import Exchange
from gatewright_host.blocking.service import Service

_LEAVE_TIMEOUT_S: Final = 1.0
"""How long a request that is given up may take to say goodbye; the end of the process says it for it then."""


class TimedOut(Exception):
    """The answer did not come in time."""


class Asking:
    """One question on its way.

    Args:
        service: Carries it through.
        request: The question.
        answer: Takes the answer.
        progress: Shown until the answer begins.
    """

    def __init__(
        self, service: Service, request: QuestionRequest, answer: AnswerReader, progress: Progress
    ) -> None:
        self._exchange: Exchange = service.exchange(answer, request.head, request.facts, request.body)
        self._progress = progress
        self._waiting = Waiting()
        self._error: BaseException | None = None

    def run(self, timeout_s: float | None) -> RecordRequest:
        """Wait for the answer.

        Args:
            timeout_s: Longest wait for its end; None waits for ever.

        Returns:
            How it ended.

        Raises:
            TimedOut: It did not, in time.
            KeyboardInterrupt: The user does not want it any more.
        """
        give_up_at = None if timeout_s is None else monotonic() + timeout_s
        with self._waiting:
            # A daemon: if it hangs where nothing can wake it, as in a name's resolution, the process ends all the same.
            threading.Thread(target=self._carry_through, name="gatewright-request", daemon=True).start()
            try:
                self._wait(give_up_at)
            except BaseException:
                self._leave()
                raise
            finally:
                self._progress.stop()
        if self._error is not None:
            raise self._error
        assert self._exchange.record is not None
        return self._exchange.record

    def _carry_through(self) -> None:
        try:
            self._exchange.run()
        except BaseException as error:  # noqa: BLE001  # the first thread raises it
            self._error = error
        finally:
            self._waiting.done()

    def _wait(self, give_up_at: float | None) -> None:
        while True:
            rest_s = None if give_up_at is None else max(0.0, give_up_at - monotonic())
            slice_s = _least(rest_s, TICK_S if self._progress.shown else None)
            if self._waiting.wait(slice_s):
                return
            if give_up_at is not None and monotonic() >= give_up_at:
                raise TimedOut
            self._progress.tick()

    def _leave(self) -> None:
        """Cancel the engine's work and give it back. In a thread, since the Gateway may just be at somebody's disposal."""
        threading.Thread(target=self._exchange.client_lost, daemon=True).start()
        self._waiting.wait(_LEAVE_TIMEOUT_S)


def _least(*numbers: float | None) -> float | None:
    given = [number for number in numbers if number is not None]
    return min(given) if given else None
