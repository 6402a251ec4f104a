"""Logging of every process of ours: one line an event, on stderr, as text or JSON."""

import json
import logging
import sys
import time
from typing import Final, TextIO

from gatewright.commands import Severity
from gatewright.config import LogFormat, LogLevel

_LEVELS: Final = {
    Severity.DEBUG: logging.DEBUG,
    Severity.INFO: logging.INFO,
    Severity.WARNING: logging.WARNING,
    Severity.ERROR: logging.ERROR,
}


def log_level_of(severity: Severity | LogLevel) -> int:
    """The `logging` level of a severity."""
    return _LEVELS[Severity(severity.value)]


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (Unix seconds), level, logger, message."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        fields: dict[str, object] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """`2026-11-20T17:00:00.123Z info gateway: ...`, in UTC."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        moment = f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}Z"
        name = record.name.removeprefix("gatewright.")
        line = f"{moment} {record.levelname.lower()} {name}: {record.getMessage()}"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


def set_up_logging(level: LogLevel, format_: LogFormat, stream: TextIO | None = None) -> None:
    """Send everything of `gatewright.*` to a stream; calling it again replaces what was set before.

    Args:
        level: Least severity that is written.
        format_: Shape of a line.
        stream: Where to; stderr by default.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if format_ is LogFormat.JSON else TextFormatter())
    root = logging.getLogger("gatewright")
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(log_level_of(level))
    root.propagate = False
