"""The lock that makes one engine host of many processes that want to be it."""

import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path

import msgspec
from attrs import frozen


class HostRunning(Exception):  # a finding; the process attaches to that host instead
    """Another process is the engine host of this state directory."""


@frozen
class Announcement:
    """What a running engine host tells of itself in its lock file.

    Attributes:
        pid: Its process.
        socket: Where it listens.
    """

    pid: int
    socket: str


class HostLock:
    """An exclusive lock on a file, held until `release` or the end of the process, however that comes.

    Args:
        path: The file; it stays when the lock is gone, since removing it would let two hold it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            HostRunning: Somebody has it.
            OSError: The file cannot be opened.
        """
        # Not inherited by engines: one that outlived us would hold the lock.
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise HostRunning(f"{self._path} is locked") from None
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        os.ftruncate(fd, 0)

    def announce(self, announcement: Announcement) -> None:
        """Write down where the holder of the lock can be reached."""
        assert self._fd is not None, "not locked"
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, msgspec.json.encode(announcement), 0)

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if self._fd is None:
            return
        with suppress(OSError):
            os.ftruncate(self._fd, 0)
        os.close(self._fd)
        self._fd = None


def read_announcement(path: Path) -> Announcement | None:
    """What the host that holds or held the lock wrote; it may be gone."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Announcement)
    except (OSError, msgspec.DecodeError):
        return None


def is_reachable(path: Path) -> bool:
    """Whether somebody listens where the lock file says."""
    announcement = read_announcement(path)
    if announcement is None:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(announcement.socket)
        except OSError:
            return False
        return True
