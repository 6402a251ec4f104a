"""Requests and answers written to files, for debugging: only where `server.dumps_dir` is set."""

import logging
from pathlib import Path
from typing import BinaryIO, Final

from gatewright.ids import RequestId

REQUEST_SUFFIX: Final = ".request"
ANSWER_SUFFIX: Final = ".answer"

logger: Final = logging.getLogger("gatewright.server")


class Dumps:
    """A directory of dumps; what cannot be written is reported once and never stops a request.

    Args:
        directory: Where to; created if it does not exist.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._failed = False

    def clear(self) -> None:
        """Remove the dumps of earlier runs, and no other file."""
        try:
            for suffix in (REQUEST_SUFFIX, ANSWER_SUFFIX):
                for path in self._directory.glob(f"req_*{suffix}"):
                    path.unlink()
        except OSError as error:
            self._report(error)

    def begin(self, request_id: RequestId, body: bytes) -> "AnswerDump | None":
        """Write a request's body, and open the file of its answer; None where that fails."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            (self._directory / f"{request_id}{REQUEST_SUFFIX}").write_bytes(body)
            return AnswerDump((self._directory / f"{request_id}{ANSWER_SUFFIX}").open("wb"))
        except OSError as error:
            self._report(error)
            return None

    def _report(self, error: OSError) -> None:
        if not self._failed:
            self._failed = True
            logger.warning("dumps are not written to %s: %s", self._directory, error.strerror or error)


class AnswerDump:
    """The answer of one request, as its client gets it, without HTTP framing.

    Args:
        file: Open for writing.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, data: bytes) -> None:
        """Append what was sent."""
        self._file.write(data)

    def close(self) -> None:
        """Finish the file."""
        self._file.close()
