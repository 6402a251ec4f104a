"""Figures of several processes, added up: each keeps its own in a file of the state directory, and reads those of the rest.

A process holds a lock on its file for as long as it lives, however it ends. What a dead one has left is added to the file
`kept`, and its own file removed, whenever somebody starts or wants totals: counters never fall, and files never pile up.

prometheus-client's own way for several processes needs an environment variable before its import, keeps the files of
all dead workers for ever, and maps them into memory, where a full disk is a signal that kills the process. Here it is
an `OSError`, and the figures go on in memory.
"""

import fcntl
import logging
import math
import os
import secrets
import struct
import threading
import time
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Final

import msgspec
from attrs import define, field, frozen

logger: Final = logging.getLogger("gatewright.metrics")

Key = tuple[str, ...]
"""A figure's name, and the values of its labels."""
Addition = tuple[Key, tuple[tuple[int, float], ...], int]
"""What is added to a figure: cells and amounts; and how many cells it has."""

_SUFFIX: Final = ".figures"
_KEPT: Final = "kept"
_LOCK: Final = "lock"
_HEAD: Final = struct.Struct("<HH")
_CELL_BYTES: Final = 8
_LONGEST_KEY_BYTES: Final = 4096
_PRIVATE: Final = 0o700
_MOMENT_S: Final = 0.05


@frozen
class _Kept:
    """What dead processes have left.

    Attributes:
        figures: Keys and values.
        files: Those whose values are among them, and which may still be there.
    """

    figures: list[tuple[Key, list[float]]] = field(factory=list)
    files: list[str] = field(factory=list)


@define
class _Row:
    offset: int | None
    cells: list[float]


class FigureFiles:
    """The figures of this process, and the totals of all. Any thread may call it.

    A change is written at once if there was none in the last moment, and otherwise together with those that follow: many
    requests a second would else pay for a dozen writes each. What a killed process loses is that moment.

    Args:
        directory: Where the files are; made with the first figure.
        live: Names of figures that end with their process, such as what is under way.
    """

    def __init__(self, directory: Path, live: Collection[str] = ()) -> None:
        self._directory = directory
        self._live = frozenset(live)
        self._reported: set[int | None] = set()
        self._start_anew()
        _all_files.add(self)

    def _start_anew(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[Key, _Row] = {}
        self._unwritten: dict[Key, _Row] = {}
        self._added_at = self._set_at = -math.inf
        self._writer: threading.Thread | None = None
        self._fd: int | None = None
        self._name = ""
        self._end = 0
        self._is_broken = False

    def forked(self) -> None:
        """In a forked child: what it has inherited is its parent's, and the parent writes it down."""
        fd = self._fd
        self._start_anew()
        if fd is not None:
            os.close(fd)

    def add(self, additions: Iterable[Addition], values: Mapping[Key, float] | None = None) -> None:
        """Add to figures.

        Args:
            additions: What is added.
            values: Figures of one cell that get another value with it.
        """
        with self._lock:
            self._begin()
            for key, amounts, cells in additions:
                row = self._rows.get(key)
                if row is None:
                    row = self._rows[key] = _Row(None, [0.0] * cells)
                for cell, amount in amounts:
                    row.cells[cell] += amount
                self._unwritten[key] = row
            for key, value in (values or {}).items():
                self._put(key, value)
            self._added_at = self._write_or_wait(self._added_at)

    def set(self, key: Key, value: float) -> None:
        """Give a figure of one cell another value."""
        with self._lock:
            self._begin()
            self._put(key, value)
            self._set_at = self._write_or_wait(self._set_at)

    def totals(self) -> dict[Key, list[float]]:
        """The sums over all processes, those that have ended included."""
        with self._lock:
            self._begin()
            self._write_all()
            totals = {key: list(row.cells) for key, row in self._rows.items()}
        try:
            with self._directory_lock():
                others = self._read_others()
        except OSError as error:
            self._report(error)
            return totals
        for key, cells in others:
            _add(totals, key, cells)
        return totals

    def close(self) -> None:
        """Leave the figures to whoever asks next."""
        with self._lock:
            self._write_all()
            fd = self._fd
            self._start_anew()
        if fd is not None:
            os.close(fd)

    # --- its own file

    def _begin(self) -> None:
        if self._fd is not None or self._is_broken:
            return
        try:
            self._directory.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
            with self._directory_lock():
                self._fold()
                self._name = f"{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                fd = os.open(self._directory / self._name, flags, 0o600)
                fcntl.flock(fd, fcntl.LOCK_EX)
                self._fd = fd
        except OSError as error:
            self._is_broken = True
            self._report(error)

    def _put(self, key: Key, value: float) -> None:
        row = self._rows.setdefault(key, _Row(None, [0.0]))
        if row.cells[0] != value:
            row.cells[0] = value
            self._unwritten[key] = row

    def _write_or_wait(self, last_at: float) -> float:
        """Write if a moment has passed since the last time, and soon otherwise; returns the last time."""
        now = time.monotonic()
        if now - last_at >= _MOMENT_S:
            self._write_all()
            return now
        if self._writer is None and self._fd is not None and self._unwritten:
            self._writer = threading.Thread(target=self._write_on, name="gatewright-figures", daemon=True)
            self._writer.start()
        return last_at

    def _write_on(self) -> None:
        """Write every moment, until nothing has changed for one."""
        while True:
            time.sleep(_MOMENT_S)
            with self._lock:
                if self._writer is not threading.current_thread():
                    return  # closed meanwhile
                if not self._unwritten:
                    self._writer = None
                    return
                self._write_all()

    def _write_all(self) -> None:
        """What cannot be written is tried again with the next change of its figure."""
        unwritten, self._unwritten = self._unwritten, {}
        for key, row in unwritten.items():
            self._write(key, row)

    def _write(self, key: Key, row: _Row) -> None:
        if self._fd is None:
            return
        cells = _cells(len(row.cells)).pack(*row.cells)
        try:
            if row.offset is not None:
                os.pwrite(self._fd, cells, row.offset)
                return
            name = msgspec.json.encode(key)
            if len(name) > _LONGEST_KEY_BYTES:
                return
            entry = _HEAD.pack(len(name), len(row.cells)) + name + cells
            if os.pwrite(self._fd, entry, self._end) == len(entry):
                row.offset = self._end + len(entry) - len(cells)
                self._end += len(entry)
        except OSError as error:
            self._report(error)

    def _report(self, error: OSError) -> None:
        if error.errno in self._reported:
            return  # each request changes a dozen figures: one line says it all
        self._reported.add(error.errno)
        logger.warning("metrics in %s: %s; those of other processes may be missing", self._directory, error)

    # --- the files of the rest

    @contextmanager
    def _directory_lock(self) -> Iterator[None]:
        fd = os.open(self._directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _read_others(self) -> list[tuple[Key, list[float]]]:
        found = self._fold()
        for path in self._directory.glob(f"*{_SUFFIX}"):
            if path.name != self._name:
                found.extend(_read(path))
        return found

    def _fold(self) -> list[tuple[Key, list[float]]]:
        """Add what dead processes have left to what is kept; the directory is locked. Returns what is kept then."""
        kept = self._read_kept()
        counted = set(kept.files)
        dead = [
            path
            for path in self._directory.glob(f"*{_SUFFIX}")
            if path.name != self._name and not _is_held(path)
        ]
        if not dead:
            return kept.figures
        totals = dict(kept.figures)
        for path in dead:
            if path.name not in counted:
                for key, cells in _read(path):
                    if key and key[0] not in self._live:
                        _add(totals, key, cells)
        figures = list(totals.items())
        # Their names are kept with the sums: whoever dies between here and the removal has nothing counted twice.
        self._write_kept(_Kept(figures, [path.name for path in dead]))
        for path in dead:
            path.unlink(missing_ok=True)
        return figures

    def _read_kept(self) -> _Kept:
        try:
            return msgspec.json.decode((self._directory / _KEPT).read_bytes(), type=_Kept)
        except FileNotFoundError:
            return _Kept()
        except msgspec.MsgspecError as error:
            logger.warning(
                "metrics in %s: %s cannot be read (%s); it begins anew", self._directory, _KEPT, error
            )
            return _Kept()

    def _write_kept(self, kept: _Kept) -> None:
        new = self._directory / f"{_KEPT}.new"
        with new.open("wb") as file:
            file.write(msgspec.json.encode(kept))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._directory / _KEPT)


@lru_cache
def _cells(number: int) -> struct.Struct:
    return struct.Struct(f"<{number}d")


def _is_held(path: Path) -> bool:
    """Whether the process that writes the file still lives."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True  # nothing that could be folded
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _read(path: Path) -> Iterator[tuple[Key, list[float]]]:
    """The figures in a file; what its process is just writing at its end is not there yet."""
    data = b""
    with suppress(OSError):
        data = path.read_bytes()
    at = 0
    while at + _HEAD.size <= len(data):
        name_bytes, cells = _HEAD.unpack_from(data, at)
        values_at = at + _HEAD.size + name_bytes
        at = values_at + cells * _CELL_BYTES
        if at > len(data):
            return
        with suppress(msgspec.MsgspecError):
            key = msgspec.json.decode(data[values_at - name_bytes : values_at], type=Key)
            yield key, list(_cells(cells).unpack_from(data, values_at))


def _add(totals: dict[Key, list[float]], key: Key, cells: Sequence[float]) -> None:
    present = totals.get(key)
    if present is None or len(present) != len(cells):  # of a version with other buckets: the newer one counts
        totals[key] = list(cells)
        return
    for cell, amount in enumerate(cells):
        present[cell] += amount


_all_files: Final[weakref.WeakSet[FigureFiles]] = weakref.WeakSet()


def _forked() -> None:
    for files in _all_files:
        files.forked()


os.register_at_fork(after_in_child=_forked)
