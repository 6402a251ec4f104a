"""A wait that signals end, wherever they find it."""

import os
import signal
import threading

import pytest

from gatewright_cli.waiting import Waiting
from tests.cli.conftest import PATIENCE_S


def test_another_thread_ends_it():
    with Waiting() as waiting:
        assert not waiting.wait(0)
        threading.Timer(0.05, waiting.done).start()
        assert waiting.wait(PATIENCE_S)
        assert waiting.wait(PATIENCE_S), "and it stays done"
    waiting.done()  # whoever comes too late is not to fail


def test_a_signal_that_comes_outside_the_wait_ends_the_next():
    with Waiting() as waiting:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass  # where an ordinary handler would raise
        with pytest.raises(KeyboardInterrupt):
            waiting.wait(None)
        assert not waiting.wait(0), "once is enough"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_ends_it():
    with Waiting() as waiting:
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            waiting.wait(None)
        timer.join()


def test_what_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Waiting() as waiting:
            os.kill(os.getpid(), signal.SIGINT)
            assert not waiting.wait(0.05)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_each_handler_of_its_own_raises_its_own():
    class Terminated(BaseException):
        pass

    def terminate(number: int, frame: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        with Waiting() as waiting:
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(Terminated):
                waiting.wait(None)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_in_another_thread_it_leaves_signals_alone():
    found = []

    def wait() -> None:
        with Waiting() as waiting:
            waiting.done()
            found.append(waiting.wait(None))

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(PATIENCE_S)
    assert found == [True]
