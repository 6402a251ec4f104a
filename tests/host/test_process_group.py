import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from gatewright_host import process_group
from gatewright_host.process_group import (
    has_environment,
    is_alive,
    kill_group,
    living_members,
    memory_bytes,
    start_mark,
)
from tests.support.host import until_blocking

SLEEP = (sys.executable, "-S", "-E", "-c", "import time; time.sleep(600)")


@pytest.fixture(params=["proc", "psutil"])
def source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where it is read: /proc, or where there is none, psutil."""
    if request.param == "psutil":
        monkeypatch.setattr(process_group, "_IS_LINUX", False)
    return str(request.param)


@pytest.fixture
def leader() -> Iterator["subprocess.Popen[bytes]"]:
    """A process in a group of its own."""
    with subprocess.Popen(SLEEP, process_group=0, env={"WHO": "me"}) as process:
        yield process
        process.kill()


def test_members_come_and_go(source: str, leader: "subprocess.Popen[bytes]") -> None:
    with subprocess.Popen(SLEEP, process_group=leader.pid) as member:
        assert sorted(living_members(leader.pid)) == sorted([leader.pid, member.pid])
        kill_group(leader.pid, signal.SIGKILL)
        until_blocking(lambda: not living_members(leader.pid))  # zombies still
        assert member.wait() == -signal.SIGKILL
    leader.wait()
    kill_group(leader.pid, signal.SIGKILL)  # nobody there


def test_a_start_is_told_from_another(source: str, leader: "subprocess.Popen[bytes]") -> None:
    mark = start_mark(leader.pid)
    assert mark is not None
    assert start_mark(leader.pid) == mark
    assert start_mark(os.getpid()) != mark
    leader.kill()
    leader.wait()
    assert start_mark(leader.pid) is None
    assert not is_alive(leader.pid)


def test_memory_is_that_of_all_members(leader: "subprocess.Popen[bytes]") -> None:
    interpreter = 4_000_000  # less than any takes
    until_blocking(lambda: memory_bytes(leader.pid) > interpreter)
    assert memory_bytes(leader.pid) < 2 * psutil.Process().memory_info().rss
    alone = psutil.Process(leader.pid).memory_info().rss
    with subprocess.Popen(SLEEP, process_group=leader.pid) as member:
        until_blocking(lambda: memory_bytes(leader.pid) > alone + interpreter)
        member.kill()


def test_environments_are_compared(
    leader: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    until_blocking(lambda: has_environment(leader.pid, "WHO", "me"))
    assert not has_environment(leader.pid, "WHO", "you")
    assert not has_environment(leader.pid, "WHAT", "me")

    def refuse(_: object) -> dict[str, str]:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil.Process, "environ", refuse)
    assert not has_environment(leader.pid, "WHO", "me")
