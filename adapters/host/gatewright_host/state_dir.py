"""Where the engine host of a user keeps its lock, socket, records and logs."""

import hashlib
import os
import stat
from pathlib import Path
from typing import Final

from attrs import frozen

_PRIVATE: Final = 0o700
_LONGEST_SOCKET_PATH: Final = 99
"""Bytes. The kernel's limit is 108 with the final zero on Linux, 104 on macOS and the BSDs."""


class StateDirError(Exception):
    """The state directory cannot be used; the message is one line for people."""


@frozen
class StateDir:
    """Paths in one state directory; one engine host runs for each.

    Attributes:
        path: The directory, resolved, so that two spellings of one place are one engine host.
    """

    path: Path

    @classmethod
    def at(cls, path: str | os.PathLike[str] | None = None) -> "StateDir":
        """The given directory, or the user's default one, created if it does not exist.

        Raises:
            StateDirError: It cannot be created, belongs to somebody else, or others may write in it.
        """
        chosen = Path(path).expanduser() if path is not None else _default_path()
        try:
            chosen.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
            chosen = chosen.resolve(strict=True)
            found = chosen.stat()
        except OSError as error:
            raise StateDirError(f"state directory {chosen}: {error.strerror or error}") from error
        if found.st_uid != os.geteuid():
            raise StateDirError(f"state directory {chosen} belongs to user {found.st_uid}, not to you")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            # Not ours to change: it may be /tmp.
            raise StateDirError(
                f"state directory {chosen} can be written by others; chmod go-w it, or choose another"
            )
        return cls(chosen)

    @property
    def lock_file(self) -> Path:
        """Locked by the engine host while it lives; tells its process id and socket."""
        return self.path / "host.lock"

    @property
    def start_lock_file(self) -> Path:
        """Locked by a client while it starts an engine host, so that others wait instead of starting more."""
        return self.path / "start.lock"

    @property
    def records_dir(self) -> Path:
        """One file for each engine process that runs."""
        return self.path / "engines"

    @property
    def host_log(self) -> Path:
        """Log of a detached engine host."""
        return self.path / "host.log"

    @property
    def engines_log(self) -> Path:
        """What all engines print."""
        return self.path / "engines.log"

    @property
    def store_file(self) -> Path:
        """The database of the store, where the configuration names no other."""
        return self.path / "gatewright.db"

    def choose_socket(self) -> Path:
        """Where the engine host listens: in the user's runtime directory, or else in the state directory.

        Only the host calls this; clients read the path from the lock file, since their environment may differ.

        Raises:
            StateDirError: Every candidate's path is too long for a socket.
        """
        name = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16] + ".sock"
        candidates = [self.path / "host.sock"]
        runtime = _runtime_dir()
        if runtime is not None:
            candidates.insert(0, runtime / name)
        for candidate in candidates:
            if len(os.fsencode(candidate)) <= _LONGEST_SOCKET_PATH:
                return candidate
        raise StateDirError(
            f"state directory {self.path} has too long a path for a socket in it; "
            "set XDG_RUNTIME_DIR or choose a shorter one"
        )


def _default_path() -> Path:
    # platformdirs costs more than the rest of this module, and an explicit path needs none of it.
    from platformdirs import user_state_path  # noqa: PLC0415

    return user_state_path("gatewright", appauthor=False)


def _runtime_dir() -> Path | None:
    """A directory of ours that only we can enter, in the user's runtime directory; None if there is none."""
    parent = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}")
    if not parent.is_absolute() or not _is_private(parent):
        return None
    directory = parent / "gatewright"
    try:
        directory.mkdir(mode=_PRIVATE, exist_ok=True)
    except OSError:
        return None
    return directory if _is_private(directory) else None


def _is_private(directory: Path) -> bool:
    """Whether it is a directory of ours that others cannot enter."""
    try:
        found = directory.lstat()
    except OSError:
        return False
    others = stat.S_IRWXG | stat.S_IRWXO
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & others
