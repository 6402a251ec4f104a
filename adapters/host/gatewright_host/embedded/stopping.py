"""Ending the process on SIGTERM or SIGINT: at once, with exit code 0, whatever it is doing.

Two things stand in the way. xllamacpp holds the interpreter lock while ``Server(...)`` loads a model, which may take
minutes, so no Python signal handler runs until then. And its orderly shutdown waits for requests that are being served.
An engine has nothing to lose but a slot file that is being written, so the process simply ends.

On glibc the C library does it, without Python: SIGTERM's handler is ``quick_exit``, which passes on the signal's number
as exit code; but the one function registered to run before it is ``_exit``, called with NULL, that is with 0.
Elsewhere the default action ends a process that is still loading (it dies by the signal, as llama-server would), and a
Python handler one that serves.
"""

import os
import signal
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def end_on_signals() -> bool:
    """Have the signals end the process from now on, if the C library can do so.

    Call it on the main thread, and block SIGNALS on the thread that starts the engine: a signal must not reach a thread
    that holds the C library's exit lock, as those that run static initializers of C++ do.

    Returns:
        Whether it is done; if not, the default action stays, and ``end_on_signals_when_serving`` is due.
    """
    import ctypes  # noqa: PLC0415 -- costs as much as the rest of the start; --help does not need it

    libc = ctypes.CDLL(None)
    if not hasattr(libc, "__cxa_at_quick_exit"):
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own handler would wait for the lock
        return False
    exit_at_once = ctypes.cast(libc["_exit"], ctypes.c_void_p)
    libc["__cxa_at_quick_exit"](exit_at_once, None)
    libc.signal.restype = ctypes.c_void_p
    for number in SIGNALS:
        libc.signal(int(number), ctypes.cast(libc.quick_exit, ctypes.c_void_p))
    return True


def end_on_signals_when_serving() -> None:
    """Have Python end the process; call it on the main thread, once nothing holds the interpreter lock any more."""
    for number in SIGNALS:
        signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    del number, frame
    os._exit(0)
