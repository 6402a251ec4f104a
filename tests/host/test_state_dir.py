import os
from pathlib import Path

import pytest

from gatewright_host.state_dir import StateDir, StateDirError


@pytest.fixture
def runtime(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's runtime directory."""
    directory = state.path / "run"
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    return directory


def test_it_is_created_for_its_owner_only(tmp_path: Path) -> None:
    state = StateDir.at(tmp_path / "a" / "b")
    assert state.path.stat().st_mode & 0o777 == 0o700


def test_a_directory_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert StateDir.at(tmp_path).path.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_a_directory_that_others_write_in_is_not_used(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(StateDirError, match="can be written by others"):
        StateDir.at(tmp_path)


def test_two_spellings_are_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert StateDir.at(tmp_path / "link") == StateDir.at(tmp_path) == StateDir.at(".")


def test_the_default_is_the_users_state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert StateDir.at().path == tmp_path / "gatewright"


def test_a_file_in_its_place_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateDirError, match="file"):
        StateDir.at(tmp_path / "file")


def test_somebody_elses_directory_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(StateDirError, match="belongs to user"):
        StateDir.at(tmp_path)


def test_the_socket_lies_in_the_runtime_directory(state: StateDir, runtime: Path) -> None:
    socket = state.choose_socket()
    assert socket.parent == runtime / "gatewright"
    assert socket.parent.stat().st_mode & 0o777 == 0o700
    assert socket != StateDir.at(runtime).choose_socket()


@pytest.mark.parametrize("mode", [0o755, 0o770])
def test_a_shared_runtime_directory_is_not_used(state: StateDir, runtime: Path, mode: int) -> None:
    runtime.chmod(mode)
    assert state.choose_socket() == state.path / "host.sock"


def test_a_runtime_directory_that_is_not_there_is_not_used(state: StateDir, runtime: Path) -> None:
    runtime.rmdir()
    assert state.choose_socket() == state.path / "host.sock"


def test_too_long_a_runtime_path_is_not_used(
    state: StateDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / ("x" * 80)
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    assert state.choose_socket() == state.path / "host.sock"


def test_no_room_for_a_socket_is_said_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "absent"))
    with pytest.raises(StateDirError, match="too long"):
        StateDir.at(tmp_path / ("x" * 100)).choose_socket()
