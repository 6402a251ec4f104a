"""A trace as a file."""

from pathlib import Path
from types import TracebackType
from typing import Self

from gatewright.trace import TraceLine, write_line


class TraceFile:
    """Writes the steps of machines, as they come, to a file that `gatewright.trace.read_line` reads.

    Use it as a context manager, and as the `trace` of drivers in one thread.

    Args:
        path: Replaced if it exists; readable by its owner only, since it holds paths and command lines.
    """

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600)
        self._file = path.open("wb")

    def __call__(self, line: TraceLine) -> None:
        """Write one step."""
        self._file.write(write_line(line))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
