"""What engines print: cut into lines, cleaned, weighed, kept for a while and written to a file."""

import logging
import os
import re
from collections import deque
from contextlib import suppress
from datetime import datetime
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gatewright.commands import Severity

if TYPE_CHECKING:
    from logging.handlers import RotatingFileHandler

LONGEST_LINE: Final = 4096
"""Bytes of one line that are kept; the rest of it is dropped."""
LINES_KEPT: Final = 200
LONGEST_TELLING: Final = 260
FILE_BYTES: Final = 8 * 1024 * 1024
FILES_KEPT: Final = 2

_logger: Final = logging.getLogger("gatewright.engine")

# CSI and OSC sequences, and the two-character escapes.
_ESCAPES: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# llama.cpp: `0.00.123.456 E srv  load_model: ...`, older builds `E srv ...`, both with or without the time.
_LLAMA_PREFIX: Final = re.compile(r"^(?:\d+(?:\.\d+){2,3} )?([DIWE]) ")
# What llama.cpp warns of with every prompt that its cache holds entirely: two lines each, and nothing to be done about them.
_ROUTINE: Final = re.compile(r"need to evaluate at least 1 token\b|\bn_past was set to \d+")
_ERROR: Final = re.compile(
    r"^traceback \(most recent call last\)|^[\w.]*(?:error|exception|exit|interrupt)\b:"
    r"|\b(?:error|fatal|panic|critical|failed|aborted|segmentation fault|terminate called)\b|out of memory",
    re.IGNORECASE,
)
_WARNING: Final = re.compile(r"\bwarn(?:ing)?\b|\bdeprecated\b", re.IGNORECASE)
_LETTERS: Final = {
    "D": Severity.DEBUG,
    "I": Severity.INFO,
    "W": Severity.WARNING,
    "E": Severity.ERROR,
}
_CAUSE: Final = re.compile(
    r"out of memory|no such file|not found|permission denied|address already in use|couldn't bind|unable to allocate"
    r"|failed to allocate|invalid argument|unknown (?:argument|model|architecture)|unsupported|not supported"
    r"|bad magic|invalid magic|cannot open|failed to open",
    re.IGNORECASE,
)
_CONSEQUENCE: Final = re.compile(r"\bexiting\b|cleaning up|core dumped", re.IGNORECASE)

_LEVELS: Final = {
    # What an engine calls information is detail for whoever runs the gateway; the file has it all.
    Severity.DEBUG: logging.DEBUG,
    Severity.INFO: logging.DEBUG,
    Severity.WARNING: logging.WARNING,
    Severity.ERROR: logging.ERROR,
}


def read_severity(line: str) -> Severity:
    """How grave a cleaned line is, by llama.cpp's level letter where there is one, else by its words.

    Warnings that come with every repeated prompt are information: they would drown those that mean something.
    """
    prefix = _LLAMA_PREFIX.match(line)
    if prefix is not None:
        severity = _LETTERS[prefix[1]]
        return Severity.INFO if severity is Severity.WARNING and _ROUTINE.search(line) else severity
    if _ERROR.search(line):
        return Severity.ERROR
    if _WARNING.search(line):
        return Severity.WARNING
    return Severity.INFO


def clean(line: bytes) -> str:
    """The line as printable text: UTF-8 with the undecodable replaced, no escapes, no control characters."""
    text = line.decode("utf-8", "replace").replace("\t", " ")
    return _CONTROLS.sub("", _ESCAPES.sub("", text)).strip()


class LineSplitter:
    """Cuts a byte stream into cleaned lines; a carriage return ends one too, as progress bars write them.

    It buffers no more than `LONGEST_LINE` bytes, whatever comes.
    """

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[str]:
        """The lines that are complete now; empty ones are left out."""
        *complete, rest = data.replace(b"\r", b"\n").split(b"\n")
        lines = []
        for part in complete:
            self._add(part)
            lines.append(self._take())
        self._add(rest)
        return [line for line in lines if line]

    def flush(self) -> list[str]:
        """What is left without a line's end."""
        line = self._take()
        return [line] if line else []

    def _add(self, part: bytes) -> None:
        self._rest += part[: LONGEST_LINE - len(self._rest)]

    def _take(self) -> str:
        line = clean(bytes(self._rest))
        self._rest.clear()
        return line


class EnginesLogFile:
    """The file that `gw-cli logs` reads: all engines' lines, rotated by size, readable by its owner only.

    Args:
        path: The file; opened with the first line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handler: RotatingFileHandler | None = None
        self._is_closed = False

    def write(self, label: str, pid: int, lines: list[tuple[Severity, str]]) -> None:
        """Append lines; a full disk or the like loses them, and no more than them."""
        if self._is_closed or not lines:
            return
        if self._handler is None:
            self._handler = _open_rotating(self._path)
        at = datetime.now().astimezone().isoformat(sep=" ", timespec="milliseconds")
        text = "\n".join(
            f"{at} {label}[{pid}] {severity.value[0].upper()} {line}" for severity, line in lines
        )
        record = logging.LogRecord(_logger.name, logging.INFO, "", 0, text, None, None)
        with suppress(OSError, ValueError):
            self._handler.emit(record)

    def close(self) -> None:
        """Close the file, if it was opened; what comes later is lost."""
        self._is_closed = True
        if self._handler is not None:
            self._handler.close()
            self._handler = None


def _open_rotating(path: Path) -> "RotatingFileHandler":
    # Only a host that runs engines needs it, and clients wait for hosts to come up.
    from logging.handlers import RotatingFileHandler  # noqa: PLC0415

    class PrivateFileHandler(RotatingFileHandler):
        """One whose files only we can read, and that does not complain on stderr of every line it loses."""

        def _open(self) -> TextIOWrapper:
            descriptor = os.open(
                self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
            )
            return os.fdopen(descriptor, "a", encoding="utf-8", errors="replace")

        def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # its given name
            pass

    return PrivateFileHandler(path, maxBytes=FILE_BYTES, backupCount=FILES_KEPT, delay=True)


class EngineLog:
    """What one engine process printed.

    Args:
        label: Name of the engine for people, such as `qwen3@8192`.
        file: Where every line goes as well; None for nowhere.

    Attributes:
        pid: Its process, once it is known.
        lines: The last `LINES_KEPT` lines and their severities.
    """

    def __init__(self, label: str, file: EnginesLogFile | None = None) -> None:
        self.pid = 0
        self.lines: deque[tuple[Severity, str]] = deque(maxlen=LINES_KEPT)
        self._label = label
        self._file = file

    def add(self, lines: list[str]) -> None:
        """Take in cleaned lines."""
        weighed = [(read_severity(line), line) for line in lines]
        self.lines.extend(weighed)
        for severity, line in weighed:
            _logger.log(_LEVELS[severity], "%s: %s", self._label, line, extra={"engine": self._label})
        if self._file is not None:
            self._file.write(self._label, self.pid, weighed)

    def telling_line(self) -> str:
        """The line that says best why the engine ended, shortened; empty if it said nothing.

        The last error that names a cause, else the last error that is more than a farewell, else the last line.
        """
        best = ""
        best_rank = -1
        for severity, line in self.lines:
            rank = 0
            if severity is Severity.ERROR and not _CONSEQUENCE.search(line):
                rank = 2 if _CAUSE.search(line) else 1
            if rank >= best_rank:
                best, best_rank = line, rank
        best = " ".join(_LLAMA_PREFIX.sub("", best).split())
        return best if len(best) <= LONGEST_TELLING else best[: LONGEST_TELLING - 3] + "..."
