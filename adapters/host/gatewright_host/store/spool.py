"""Records that wait in a file until somebody with a store comes by.

A program that asks one question would spend more time on loading a database's driver than on its record: it appends a
line here, and whoever has the store open next writes it down. Nothing here needs SQLAlchemy.
"""

import errno
import fcntl
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from gatewright import codec
from gatewright.commands import RecordRequest
from gatewright_host.store.vocabulary import Written

logger: Final = logging.getLogger("gatewright.store")

_PRIVATE: Final = 0o600
_BATCH: Final = 200


class _Line(msgspec.Struct):
    at_s: float
    epoch_s: float
    record: msgspec.Raw
    prompt: str | None = None


_decode: Final = msgspec.json.Decoder(_Line).decode


class Spool:
    """The file of one state directory; for any number of processes at a time.

    Args:
        directory: The state directory.
    """

    def __init__(self, directory: Path) -> None:
        self._file = directory / "spool.jsonl"
        self._taken = directory / "spool.taken"
        self._lock = directory / "spool.lock"

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not self._file.exists() and not self._taken.exists()

    def add(self, written: Written) -> None:
        """Keep a record until the store takes it.

        Raises:
            OSError: The file cannot be written.
        """
        line = _Line(
            at_s=written.at_s,
            epoch_s=written.gateway_epoch_s,
            record=msgspec.Raw(codec.encode(written.record)),
            prompt=written.prompt,
        )
        # It also ends a line that somebody was killed in.
        data = b"\n" + msgspec.json.encode(line) + b"\n"
        with self._locked():
            number = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, _PRIVATE)
            try:
                if os.write(number, data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(number)

    def empty_into(self, write: Callable[[Sequence[Written]], None]) -> int:
        """Have everything written down, and forget it; records that were written before are no worse for it.

        Args:
            write: Takes records; if it raises, what it was given stays here.

        Returns:
            How many records there were.
        """
        if self.is_empty:
            return 0
        with self._locked():
            # What an earlier process took and did not come to write goes first.
            if not self._taken.exists():
                with suppress(FileNotFoundError):
                    self._file.replace(self._taken)
            count = 0
            for batch in self._batches():
                write(batch)
                count += len(batch)
            self._taken.unlink(missing_ok=True)
        return count

    def _batches(self) -> Iterator[list[Written]]:
        try:
            lines = self._taken.read_bytes().splitlines()
        except FileNotFoundError:
            return
        read = [written for line in lines if line and (written := _read(line)) is not None]
        for start in range(0, len(read), _BATCH):
            yield read[start : start + _BATCH]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        number = os.open(self._lock, os.O_RDWR | os.O_CREAT, _PRIVATE)
        try:
            fcntl.flock(number, fcntl.LOCK_EX)
            yield
        finally:
            os.close(number)


def _read(line: bytes) -> Written | None:
    """The record of a line; None where it is none: a process was killed while it wrote, or is of another version."""
    try:
        found = _decode(line)
        record = codec.decode(found.record)
    except (msgspec.DecodeError, codec.CodecError) as error:
        logger.warning("a record in the spool cannot be read, and is left out: %s", error)
        return None
    if not isinstance(record, RecordRequest):
        return None
    return Written(record=record, at_s=found.at_s, gateway_epoch_s=found.epoch_s, prompt=found.prompt)
