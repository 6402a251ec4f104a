"""Calls that may hang, made by threads that may hang with them, while the caller waits no longer than it wants to."""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _Job(Generic[T]):
    """One call: what to do, and what came of it."""

    __slots__ = ("done", "error", "is_abandoned", "result", "work")

    def __init__(self, work: Callable[[], T]) -> None:
        self.work = work
        self.done = threading.Event()
        self.result: T | None = None
        self.error: BaseException | None = None
        self.is_abandoned = False


class Workers:
    """A few daemon threads, started when they are first needed.

    Args:
        name: Of the threads.
        most: Their number at most.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._jobs: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._started = 0
        self._free = 0

    def call(self, work: Callable[[], T], timeout_s: float) -> T:
        """Call it and wait.

        Args:
            work: What to call; what it raises is raised here.
            timeout_s: Longest wait.

        Raises:
            TimeoutError: It took too long. It may still be done, or never.
        """
        job = _Job(work)
        with self._lock:
            if self._free > 0:
                self._free -= 1
            elif self._started < self._most:
                self._started += 1
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
            self._jobs.put(job)
        if not job.done.wait(timeout_s):
            job.is_abandoned = True
            raise TimeoutError
        if job.error is not None:
            raise job.error
        return job.result  # type: ignore[return-value]  # done without an error: it is there

    def stop(self) -> None:
        """End the threads, each once it has done what it does."""
        with self._lock:
            for _ in range(self._started):
                self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            if not job.is_abandoned:
                try:
                    job.result = job.work()
                except BaseException as error:  # noqa: BLE001  # it is raised in the thread that waits
                    job.error = error
                job.done.set()
            with self._lock:
                if self._jobs.empty():
                    self._free += 1
