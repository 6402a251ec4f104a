import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gatewright_host.host_lock import Announcement, HostLock, HostRunning, is_reachable, read_announcement
from gatewright_host.state_dir import StateDir


def test_one_holds_it_at_a_time(tmp_path: Path) -> None:
    first, second = HostLock(tmp_path / "lock"), HostLock(tmp_path / "lock")
    first.acquire()
    first.announce(Announcement(1, "/somewhere"))
    with pytest.raises(HostRunning):
        second.acquire()
    assert read_announcement(tmp_path / "lock") == Announcement(1, "/somewhere")
    first.release()
    first.release()
    assert read_announcement(tmp_path / "lock") is None
    second.acquire()
    second.release()


def test_it_ends_with_its_process(tmp_path: Path) -> None:
    text = (
        "import sys, pathlib; from gatewright_host.host_lock import *\n"
        "lock = HostLock(pathlib.Path(sys.argv[1])); lock.acquire(); lock.announce(Announcement(1, '/x'))\n"
        "print(flush=True); input()"
    )
    command = [sys.executable, "-c", text, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(HostRunning):
            HostLock(tmp_path / "lock").acquire()
        other.kill()
    lock = HostLock(tmp_path / "lock")
    lock.acquire()
    assert read_announcement(tmp_path / "lock") is None  # what the killed one wrote is gone
    lock.release()


def test_it_is_for_its_owner_and_not_inherited(tmp_path: Path) -> None:
    lock = HostLock(tmp_path / "lock")
    lock.acquire()
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
    assert lock._fd is not None
    assert not os.get_inheritable(lock._fd)
    lock.release()


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        HostLock(tmp_path / "absent" / "lock").acquire()


@pytest.mark.parametrize("text", [b"", b"{}", b"\xff", b'{"pid": "x", "socket": 1}'])
def test_what_cannot_be_read_announces_nobody(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "lock").write_bytes(text)
    assert read_announcement(tmp_path / "lock") is None
    assert not is_reachable(tmp_path / "lock")


def test_reachable_is_who_listens(state: StateDir) -> None:
    lock, path = HostLock(state.lock_file), str(state.path / "s")
    lock.acquire()
    lock.announce(Announcement(1, path))
    assert not is_reachable(state.lock_file)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        assert is_reachable(state.lock_file)
    assert not is_reachable(state.lock_file)
    lock.release()
