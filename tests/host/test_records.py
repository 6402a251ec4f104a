import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve

from gatewright_host.process import MARKER
from gatewright_host.records import Record, Records
from tests.support.fake_engine import CHILD
from tests.support.host import is_running, until_blocking

LEADER = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-S", "-E", "-c", {CHILD!r}, sys.argv[1]])
child.wait()
"""


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "engines")


@pytest.fixture
def child_file(tmp_path: Path) -> Path:
    return tmp_path / "child"


@pytest.fixture
def leader(child_file: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A group of two that a killed host could have left behind."""
    command = [sys.executable, "-S", "-E", "-c", LEADER, str(child_file)]
    environment = {**os.environ, MARKER: "run/1"}
    with subprocess.Popen(command, start_new_session=True, env=environment) as process:
        until_blocking(lambda: child_file.exists() and child_file.read_text())
        yield process
        process.kill()
    for pid in (int(child_file.read_text()),):
        if is_running(pid):
            os.kill(pid, 9)


def test_records_are_kept_until_removed(records: Records, tmp_path: Path) -> None:
    assert records.all() == []
    records.add("m@1", os.getpid(), "run/1")
    (record,) = records.all()
    assert (record.label, record.pid, record.marker) == ("m@1", os.getpid(), "run/1")
    assert record.started
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "engines",)] == [0o700]
    records.remove(os.getpid())
    records.remove(os.getpid())
    assert records.all() == []


def test_what_cannot_be_read_is_removed(records: Records, tmp_path: Path) -> None:
    records.add("m@1", os.getpid(), "run/1")
    records.remove(os.getpid())
    for name, text in (("1.json", b"{"), ("2.json", b'{"pid": "x"}'), ("3.tmp", b"\xff")):
        (tmp_path / "engines" / name).write_bytes(text)
    assert records.sweep() == []
    assert list((tmp_path / "engines").iterdir()) == []


def test_a_sweep_ends_the_whole_group(
    records: Records, leader: "subprocess.Popen[bytes]", child_file: Path
) -> None:
    records.add("m@1", leader.pid, "run/1")
    (swept,) = records.sweep()
    assert swept.pid == leader.pid
    assert not is_running(leader.pid)
    assert not is_running(int(child_file.read_text()))
    assert records.all() == []
    assert records.sweep() == []


def test_a_sweep_ends_what_outlived_its_leader(
    records: Records, leader: "subprocess.Popen[bytes]", child_file: Path
) -> None:
    """The kernel kills the leader together with the host, and nobody else."""
    records.add("m@1", leader.pid, "run/1")
    leader.kill()
    leader.wait()
    child = int(child_file.read_text())
    assert is_running(child)
    assert len(records.sweep()) == 1
    assert not is_running(child)


def test_a_sweep_leaves_strangers_alone(
    records: Records, leader: "subprocess.Popen[bytes]", child_file: Path, tmp_path: Path
) -> None:
    """Another process has the recorded id now: it began later, or its group bears another mark."""
    records.add("m@1", leader.pid, "other run/1")
    (path,) = (tmp_path / "engines").iterdir()
    text = path.read_text().replace('"started":"', '"started":"1')
    path.write_text(text)
    assert records.sweep() == []
    assert is_running(leader.pid)
    leader.kill()
    leader.wait()
    path.write_text(text)
    assert records.sweep() == []
    assert is_running(int(child_file.read_text()))
    assert records.all() == []


def test_a_record_of_nobody_is_removed(records: Records) -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", "pass"]) as gone:
        records.add("m@1", gone.pid, "run/1")
    assert records.sweep() == []
    assert records.all() == []


def test_records_are_values() -> None:
    record = Record("m@1", 1, "boot/2", "run/1")
    assert evolve(record, pid=2) != record
