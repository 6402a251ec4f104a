"""Waiting for another thread and for signals at once."""

import select
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Final, Self

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_PORTION_BYTES: Final = 4096


class Waiting:
    """A wait of the first thread. What SIGINT and SIGTERM raise, they raise in `wait` and nowhere else.

    An exception in the midst of `threading.Event.wait` can leave its lock locked, or end in a `RuntimeError` about one
    that is not; and a signal between CPython's last look at signals and the wait for a lock does not end that wait.
    """

    def __init__(self) -> None:
        self._bell, self._rope = socket.socketpair()
        self._is_done = False
        self._came: list[signal.Signals] = []
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], object]] = {}
        self._wakeup_before = -1

    def __enter__(self) -> Self:
        self._bell.settimeout(0)
        self._rope.settimeout(0)
        if threading.current_thread() is threading.main_thread():  # no other may say what signals do
            self._wakeup_before = signal.set_wakeup_fd(self._rope.fileno(), warn_on_full_buffer=False)
            for number in _SIGNALS:
                before = signal.getsignal(number)
                if callable(before):  # it is not ignored, as under nohup
                    self._before[number] = before
                    signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(self._wakeup_before)
        self._bell.close()
        self._rope.close()

    def done(self) -> None:
        """End the wait; called by the other thread."""
        self._is_done = True
        with suppress(OSError):  # so much rings already, or nobody waits any more
            self._rope.send(b"\0")

    def wait(self, timeout_s: float | None) -> bool:
        """Whether it is done.

        Args:
            timeout_s: Longest wait; None waits for ever.

        Raises:
            BaseException: What the handler of a signal that came raises, such as `KeyboardInterrupt`.
        """
        if not self._came and not self._is_done:
            select.select([self._bell], [], [], timeout_s)
            with suppress(BlockingIOError):
                self._bell.recv(_PORTION_BYTES)
        while self._came:
            number = self._came.pop(0)
            self._before[number](number, None)
        return self._is_done

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  # a handler's
        self._came.append(signal.Signals(number))
