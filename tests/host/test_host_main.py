import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gatewright.leases import LeaseLost, LeaseRefused, ReleaseLease
from gatewright_host import host_main
from gatewright_host.host_client import BlockingHostClient
from gatewright_host.host_lock import HostLock, read_announcement
from gatewright_host.records import Records
from gatewright_host.state_dir import StateDir
from tests.host.test_host_client import end_of
from tests.support.host import PATIENCE_S, ask, fake_spec, is_running, processes_with, until_blocking

PROGRAM = (sys.executable, "-m", "gatewright_host.host_main")


@contextmanager
def host_process(state: StateDir, *args: str) -> Iterator["subprocess.Popen[str]"]:
    """A host in the foreground."""
    command = [*PROGRAM, "--state-dir", str(state.path), *args]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        until_blocking(lambda: read_announcement(state.lock_file) or process.poll() is not None)
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_its_engines(state: StateDir, number: signal.Signals) -> None:
    with host_process(state) as process:
        with BlockingHostClient.connect(state, start=False) as client:
            client.send(ask(1))
            end_of(client)
            (report,) = client.status().engines
            process.send_signal(number)
            client.send(ReleaseLease(lease_id=ask(1).lease_id))
            assert process.wait(PATIENCE_S) == 0
        assert not is_running(report.pid or 0)
        assert Records(state.records_dir).all() == []
        assert process.stderr is not None
        assert f"{number.name}: shutting down" in process.stderr.read()


def test_after_a_signal_who_waits_is_refused_and_who_runs_has_a_grace(state: StateDir) -> None:
    with (
        host_process(state, "--grace", "600") as process,
        BlockingHostClient.connect(state, start=False) as client,
    ):
        client.send(ask(1, fake_spec("deaf", stop_s=600)))
        end_of(client)
        client.send(ask(2, fake_spec(model="other")))
        process.send_signal(signal.SIGTERM)
        refused = end_of(client)
        assert isinstance(refused, LeaseRefused)
        assert refused.problem.kind == "ShuttingDown"
        (report,) = [report for report in client.status().engines if report.pid is not None]
        assert (report.engine.state, report.engine.leases) == ("ready", 1)
        process.send_signal(signal.SIGTERM)
        assert isinstance(end_of(client), LeaseLost)
        assert process.wait(PATIENCE_S) == 0
        assert not is_running(report.pid or 0)


def test_a_second_signal_ends_engines_by_force(state: StateDir) -> None:
    with (
        host_process(state, "--grace", "0") as process,
        BlockingHostClient.connect(state, start=False) as client,
    ):
        client.send(ask(1, fake_spec("deaf", stop_s=600)))
        end_of(client)
        process.send_signal(signal.SIGTERM)
        assert isinstance(end_of(client), LeaseLost)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def test_it_ends_when_nobody_needs_it(state: StateDir) -> None:
    with host_process(state, "--linger", "0.05") as process:
        assert process.wait(PATIENCE_S) == 0


def test_another_host_makes_it_superfluous(state: StateDir) -> None:
    with host_process(state), host_process(state) as second:
        assert second.wait(PATIENCE_S) == 0


def test_it_waits_for_one_that_is_ending(state: StateDir) -> None:
    lock = HostLock(state.lock_file)
    lock.acquire()
    with subprocess.Popen([*PROGRAM, "--state-dir", str(state.path)], stderr=subprocess.DEVNULL) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        lock.release()
        until_blocking(lambda: read_announcement(state.lock_file))
        process.terminate()
        assert process.wait(PATIENCE_S) == 0


def test_a_signal_while_it_waits_ends_it(state: StateDir) -> None:
    lock = HostLock(state.lock_file)
    lock.acquire()
    with subprocess.Popen([*PROGRAM, "--state-dir", str(state.path)], stderr=subprocess.PIPE) as process:
        catches_sigterm = 1 << (signal.SIGTERM - 1)
        until_blocking(lambda: caught_signals(process.pid) & catches_sigterm)
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
    lock.release()


def caught_signals(pid: int) -> int:
    """The signals that a process has handlers for, as bits."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return int(line.split()[1], 16)
    return 0


def test_detached_it_is_nobodys_child(state: StateDir) -> None:
    command = [*PROGRAM, "--detach", "--state-dir", str(state.path), "--linger", "0.5"]
    assert subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0
    until_blocking(lambda: read_announcement(state.lock_file))
    (pid,) = processes_with(str(state.path))
    assert os.getpid() not in {pid, os.getppid()}
    until_blocking(lambda: not is_running(pid))


def test_a_state_directory_that_cannot_be_used(state: StateDir, capsys: pytest.CaptureFixture[str]) -> None:
    file = state.path / "file"
    file.touch()
    assert host_main.main(["--state-dir", str(file)]) == 1
    assert "the engine host cannot run: state directory" in capsys.readouterr().err


def test_a_bug_in_the_fleet_ends_it(state: StateDir) -> None:
    """A machine that raised cannot be relied on; a new host starts afresh."""
    text = (
        "import sys\nfrom gatewright import fleet\nfrom gatewright_host.host_main import main\n"
        "def ask(*_): raise AssertionError('a bug for a test')\nfleet.Fleet._ask = ask\nsys.exit(main())"
    )
    command = [sys.executable, "-c", text, "--state-dir", str(state.path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        until_blocking(lambda: read_announcement(state.lock_file))
        with BlockingHostClient.connect(state, start=False) as client:
            client.send(ask(1))
            assert process.wait(PATIENCE_S) == 1
        assert process.stderr is not None
        assert "a bug for a test" in process.stderr.read()
    assert read_announcement(state.lock_file) is None
