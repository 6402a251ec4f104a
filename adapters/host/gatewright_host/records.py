"""Records of running engines, by which the next engine host ends what a killed one left behind."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
from attrs import frozen

from gatewright_host.process import MARKER
from gatewright_host.process_group import has_environment, is_alive, living_members, start_mark

_SUFFIX: Final = ".json"
_SWEEP_TIMEOUT_S: Final = 10.0
_SWEEP_POLL_S: Final = 0.02


@frozen
class Record:
    """One engine process.

    Attributes:
        label: Name of the engine for people.
        pid: Process id of the leader, which is also its group.
        started: `process_group.start_mark` of the leader; another process with its id has another one.
        marker: Value of `MARKER` in the environment of all its processes.
    """

    label: str
    pid: int
    started: str
    marker: str


class Records:
    """The records in one directory, a file for each engine.

    Args:
        directory: Created with the first record.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def add(self, label: str, pid: int, marker: str) -> None:
        """Record an engine that was just spawned.

        Raises:
            OSError: It cannot be written.
        """
        record = Record(label, pid, start_mark(pid) or "", marker)
        self._directory.mkdir(mode=0o700, exist_ok=True)
        path = self._path(pid)
        unfinished = path.with_suffix(".tmp")
        unfinished.write_bytes(msgspec.json.encode(record))
        unfinished.replace(path)

    def remove(self, pid: int) -> None:
        """The engine has ended."""
        with suppress(OSError):
            self._path(pid).unlink()

    def all(self) -> list[Record]:
        """What is recorded; files that cannot be read are removed."""
        records = []
        for path in sorted(self._directory.glob("*")):
            try:
                records.append(msgspec.json.decode(path.read_bytes(), type=Record))
            except (OSError, msgspec.DecodeError):
                with suppress(OSError):
                    path.unlink()
        return records

    def sweep(self) -> list[Record]:
        """Kill every recorded engine that still runs, wait until it has ended, and remove all records.

        Only the holder of the host's lock may call this, before it spawns anything: then whoever is recorded
        is an orphan. Blocks while orphans die, at most `_SWEEP_TIMEOUT_S`.

        Returns:
            Records of those that ran.
        """
        records = self.all()
        orphans = {record: pids for record in records if (pids := _orphans(record))}
        give_up_at = time.monotonic() + _SWEEP_TIMEOUT_S
        remaining = dict(orphans)
        while remaining and time.monotonic() < give_up_at:
            for pids in remaining.values():
                for pid in pids:
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL)
            time.sleep(_SWEEP_POLL_S)
            remaining = {record: pids for record in remaining if (pids := _orphans(record))}
        for record in records:
            if record not in remaining:
                self.remove(record.pid)
        return list(orphans)

    def _path(self, pid: int) -> Path:
        return self._directory / f"{pid}{_SUFFIX}"


def _orphans(record: Record) -> list[int]:
    """Living processes of a recorded engine.

    Where the leader lives and began when the record says, its group is the recorded one. Where it is gone, its
    id may be in use again, for a process or a group; then only the marker in the environment tells.
    """
    if record.started and start_mark(record.pid) == record.started and is_alive(record.pid):
        return living_members(record.pid)
    return [pid for pid in living_members(record.pid) if has_environment(pid, MARKER, record.marker)]
