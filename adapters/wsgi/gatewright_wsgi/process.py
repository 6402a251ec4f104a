"""What all requests of one process share, made by whichever process serves them."""

import atexit
import logging
import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Final
from weakref import WeakSet

from gatewright.config import Config
from gatewright_host.blocking.service import Service
from gatewright_host.dumps import Dumps
from gatewright_host.host_client import BlockingHostClient
from gatewright_host.state_dir import StateDir
from gatewright_host.trace_file import open_trace
from gatewright_wsgi.clients import ClientWatch

logger: Final = logging.getLogger("gatewright.server")


def make_service(config: Config) -> Service:
    """The Gateway of this process, which connects to the engine host with its first request.

    Raises:
        StateDirError: The state directory cannot be used.
    """
    state = StateDir.at(config.server.state_dir)
    trace = None
    try:
        # The end of the process closes the trace: what is given up at its end is still recorded.
        trace = open_trace(os.environ)
    except OSError as error:
        logger.error("requests are served without the trace %s: %s", error.filename, error.strerror)  # noqa: TRY400  # the text says it all
    service = Service(config, lambda: BlockingHostClient.connect(state), trace=trace, state=state)
    if service.office is not None:
        service.office.keep_figures()
    return service


class Process:
    """One process's share in an application.

    Args:
        config: Configuration.

    Attributes:
        service: Its Gateway.
        watch: Its clients.
        dumps: Where requests and answers are written for debugging; None writes none.
    """

    def __init__(self, config: Config) -> None:
        directory = config.server.dumps_dir
        self.service = make_service(config)
        self.watch = ClientWatch(config.server.stall_timeout_s)
        self.dumps = Dumps(Path(directory)) if directory is not None else None

    def give_up_questions(self) -> None:
        """Ask models nothing more but what clients ask."""
        if self.service.office is not None:
            self.service.office.questions.give_up()

    def close(self) -> None:
        """Give back what it holds."""
        self.watch.close()
        self.service.close()


class Processes:
    """An application's processes, each of which sees itself only.

    A server may load the application and fork afterwards (gunicorn's `--preload`): sockets and threads are made with
    the first request, and a child begins without its parent's.

    Args:
        config: Configuration.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self.start_anew()
        _ALL.add(self)

    def start_anew(self) -> None:
        """Begin with nothing, as a forked child has to."""
        self._lock = threading.Lock()
        self._present: Process | None = None

    @property
    def present(self) -> Process:
        """This process's."""
        present = self._present
        if present is None:
            with self._lock:
                present = self._present = self._present or Process(self._config)
        return present

    def close(self) -> None:
        """Give back what this process holds."""
        with self._lock:
            present, self._present = self._present, None
        if present is not None:
            present.close()

    def give_up_questions(self) -> None:
        """As of `Process`; one that is only being made has asked nothing yet."""
        if self._present is not None:
            self._present.give_up_questions()


_ALL: Final[WeakSet[Processes]] = WeakSet()


def give_up_questions_on_sigterm() -> None:
    """From now on, SIGTERM also gives up what this process asks models on its own behalf: estimators, judges.

    gunicorn tells an application of its end only once all requests have ended. For a worker's main thread, after
    gunicorn has set its own handlers: as `post_worker_init`.
    """
    before = signal.getsignal(signal.SIGTERM)

    def give_up() -> None:
        for processes in list(_ALL):
            processes.give_up_questions()

    def handle(number: int, frame: FrameType | None) -> None:
        # Not here: whoever was interrupted may hold the very locks that this needs.
        threading.Thread(target=give_up, name="gatewright-giving-up", daemon=True).start()
        if callable(before):
            before(number, frame)

    signal.signal(signal.SIGTERM, handle)


def _after_fork() -> None:
    for processes in list(_ALL):
        processes.start_anew()


def _at_exit() -> None:
    for processes in list(_ALL):
        processes.close()


os.register_at_fork(after_in_child=_after_fork)
# A worker that ends in good form says goodbye to the engine host; the host sees the ends of others by their sockets.
atexit.register(_at_exit)
