"""Standard output for what was asked for, standard error for everything else."""

import os
import re
import select
import sys
from typing import Final, TextIO

# Escape sequences of an answer must not reach the terminal: they can rewrite what it shows, and worse.
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    r"""The text with control characters, other than line feeds and tabs, written as `\x1b` and the like."""
    return _CONTROLS.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def close_output() -> None:
    """Nobody reads standard output any more: what is still to be written at exit must not fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


class Terminal:
    """The two streams, written past Python's buffers, since a thread that hangs in one of those hangs the exit.

    Attributes:
        out_is_terminal: Somebody looks at standard output.
        err_is_terminal: Somebody looks at standard error.
        is_used: Something was written.
    """

    def __init__(self) -> None:
        self._out = _number_of(sys.stdout)
        self._err = _number_of(sys.stderr)
        self.out_is_terminal = self._out is not None and os.isatty(self._out)
        self.err_is_terminal = self._err is not None and os.isatty(self._err)
        self.is_used = False
        self._at_line_start = True

    def write(self, text: str) -> None:
        """Write a piece of the answer at once.

        Raises:
            BrokenPipeError: Nobody reads it any more.
            OSError: It cannot be written, as on a full disk.
        """
        if not text or self._out is None:
            return
        self.is_used = True
        self._at_line_start = text.endswith("\n")
        shown = printable(text) if self.out_is_terminal else text
        _write_all(self._out, shown.encode(sys.stdout.encoding or "utf-8", "replace"))

    def end_line(self) -> None:
        """Go to the beginning of a line, if something was written and somebody reads it."""
        if not self._at_line_start and self._out is not None and select.select([], [self._out], [], 0)[1]:
            self.write("\n")

    def note(self, text: str) -> None:
        """Tell a person something in passing; nobody else gets to see it."""
        self.dim(text)
        self.dim_end()

    def dim(self, text: str) -> None:
        """Write to a person's standard error, less bright than the answer."""
        if not self.err_is_terminal or self._err is None:
            return
        plain = "NO_COLOR" in os.environ or os.environ.get("TERM", "dumb") == "dumb"
        shown = printable(text) if plain else f"\x1b[2m{printable(text)}\x1b[22m"
        _write_all(self._err, shown.encode(sys.stderr.encoding or "utf-8", "replace"))

    def dim_end(self) -> None:
        """End the line of `dim`."""
        if self.err_is_terminal and self._err is not None:
            _write_all(self._err, b"\n")


def _number_of(stream: TextIO | None) -> int | None:
    """The file behind a stream; None where it was closed before we were started."""
    return stream.fileno() if stream is not None else None


def _write_all(number: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(number, rest) :]
        except BlockingIOError:  # somebody who shares the file made it non-blocking
            select.select([], [number], [])
