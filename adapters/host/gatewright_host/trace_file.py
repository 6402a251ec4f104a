"""A trace as a file, to which any number of processes may write at the same time."""

import logging
import os
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from gatewright.tracing.trace import TraceLine, write_line

TRACE_VARIABLE: Final = "GATEWRIGHT_TRACE"
"""Environment variable that names the file in which every step of the machines is recorded, to be replayed."""

_logger: Final = logging.getLogger("gatewright.trace")
_numbers: Final = count(1)


class TraceFile:
    """Adds the steps of machines, as they come, to a file that `gatewright.tracing.trace.read_line` reads.

    Each line is one write to the end of the file, so that threads and processes do not get into each other's way,
    and says whose it is: the process and, from its second trace on, which of its traces. It is the `trace` of one
    Gateway, one Fleet, or one of each. Use it as a context manager, or leave it open until the process ends.

    Args:
        path: Made if it is not there, for its owner only, since it holds paths and command lines.

    Raises:
        OSError: The file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        pid, number = os.getpid(), next(_numbers)
        self._source = f"{pid}" if number == 1 else f"{pid}.{number}"

    def __call__(self, line: TraceLine) -> None:
        """Write one step. What cannot be written ends the trace and nothing else."""
        if self._fd is None:
            return
        data = write_line(line, self._source)
        try:
            written = os.write(self._fd, data)
        except OSError as error:
            self._give_up(error.strerror or str(error))
        else:
            if written < len(data):
                # The rest would land behind what others have written by now.
                self._give_up("no room for a whole line")

    def _give_up(self, reason: str) -> None:
        _logger.error("trace %s: %s; nothing more of this process is recorded", self._path, reason)
        self.close()

    def close(self) -> None:
        """Record nothing more. Closing twice is closing once."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def open_trace(environ: Mapping[str, str]) -> TraceFile | None:
    """The trace that the environment asks for; None where it asks for none.

    Raises:
        OSError: The file cannot be written.
    """
    path = environ.get(TRACE_VARIABLE)
    return TraceFile(Path(path)) if path else None
