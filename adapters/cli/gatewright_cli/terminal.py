"""Standard output for what was asked for, standard error for everything else."""

import os
import re
import select
import sys
from typing import Final

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
    """

    def __init__(self) -> None:
        self.out_is_terminal = sys.stdout.isatty()
        self.err_is_terminal = sys.stderr.isatty()
        self._at_line_start = True

    def write(self, text: str) -> None:
        """Write a piece of the answer at once.

        Raises:
            BrokenPipeError: Nobody reads it any more.
        """
        if not text:
            return
        self._at_line_start = text.endswith("\n")
        shown = printable(text) if self.out_is_terminal else text
        _write_all(sys.stdout.fileno(), shown.encode(sys.stdout.encoding or "utf-8", "replace"))

    def end_line(self) -> None:
        """Go to the beginning of a line, if something was written."""
        if not self._at_line_start:
            self.write("\n")

    def note(self, text: str) -> None:
        """Tell a person something in passing; nobody else gets to see it."""
        if self.err_is_terminal:
            self.dim(text)
            _write_all(sys.stderr.fileno(), b"\n")

    def dim(self, text: str) -> None:
        """Write to a person's standard error, less bright than the answer."""
        if not self.err_is_terminal:
            return
        bright = "NO_COLOR" in os.environ or os.environ.get("TERM", "dumb") == "dumb"
        shown = printable(text) if bright else f"\x1b[2m{printable(text)}\x1b[22m"
        _write_all(sys.stderr.fileno(), shown.encode(sys.stderr.encoding or "utf-8", "replace"))


def _write_all(number: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(number, rest) :]
        except BlockingIOError:  # somebody who shares the file made it non-blocking
            select.select([], [number], [])
