"""Process groups: who is in one, when its processes began, how much memory they take, and their end."""

import importlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

_IS_LINUX: Final = sys.platform == "linux"
_PROC: Final = Path("/proc")
_BOOT_ID: Final = _PROC / "sys/kernel/random/boot_id"
_DEAD_STATES: Final = "ZX"
# Fields of /proc/PID/stat behind the command's closing parenthesis (proc(5) counts from 1, these from 0).
_STATE_FIELD: Final = 0
_START_FIELD: Final = 19


def kill_group(group: int, number: signal.Signals) -> None:
    """Send a signal to every process of a group; an empty one, or one of somebody else, is left alone."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def living_members(group: int) -> list[int]:
    """Process ids of a group's members that have not ended; zombies have.

    A member that has left the group, such as a daemon in a session of its own, is none any more.
    """
    return [pid for pid in _pids() if _group_of(pid) == group and is_alive(pid)]


def is_alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    if _IS_LINUX:
        fields = _stat_fields(pid)
        return fields is not None and fields[_STATE_FIELD] not in _DEAD_STATES
    psutil = _psutil()
    try:
        return bool(psutil.Process(pid).status() not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD})
    except psutil.Error:
        return False


def start_mark(pid: int) -> str | None:
    """When a process began, as a text that a later process of the same id does not share; None if it is gone.

    On Linux the kernel's own ticks since boot and the boot's id, which no change of the clock touches.
    """
    if _IS_LINUX:
        fields = _stat_fields(pid)
        return f"{_boot_id()}/{fields[_START_FIELD]}" if fields is not None else None
    psutil = _psutil()
    try:
        return repr(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def memory_bytes(group: int) -> int:
    """Resident memory of a group's living members."""
    psutil = _psutil()
    total = 0
    for pid in living_members(group):
        with suppress(psutil.Error):
            total += psutil.Process(pid).memory_info().rss
    return total


def has_environment(pid: int, name: str, value: str) -> bool:
    """Whether a process was started with this variable in its environment; False if we may not look."""
    psutil = _psutil()
    try:
        return bool(psutil.Process(pid).environ().get(name) == value)
    except (psutil.Error, OSError):
        return False


def _psutil() -> Any:
    """psutil, which takes 17 ms to load: on Linux only `ps` and a sweep with something to sweep need it."""
    return importlib.import_module("psutil")


def _pids() -> Iterator[int]:
    if not _IS_LINUX:
        psutil = _psutil()
        yield from psutil.pids()
        return
    with os.scandir(_PROC) as entries:
        for entry in entries:
            if entry.name.isdigit():
                yield int(entry.name)


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def _stat_fields(pid: int) -> list[str] | None:
    try:
        text = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The command may contain spaces and parentheses: what counts is behind the last one.
    return text.rpartition(b")")[2].decode("ascii").split()


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""
