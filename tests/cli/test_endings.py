"""How `gw-cli ask` ends when it does not end well: interrupted, cut off, too late, unread."""

import os
import signal
import subprocess
from pathlib import Path
from typing import IO, cast

import pytest

from tests.cli.conftest import CLI, PATIENCE_S, Cli
from tests.support.host import is_running, until_blocking

pytestmark = pytest.mark.engine

LONG = ("ask", "--max-tokens", "4000", "Tell me everything")


def begun(process: "subprocess.Popen[bytes]") -> bytes:
    """Wait for the first byte of the answer."""
    byte = cast("IO[bytes]", process.stdout).read(1)
    assert byte, cast("IO[bytes]", process.stderr).read()
    return byte


def finished(process: "subprocess.Popen[bytes]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE_S)
    assert b"Traceback" not in err
    return process.returncode, out.decode(), err.decode()


def test_interrupted_in_the_answer_it_gives_the_engine_back(slow: Cli) -> None:
    process = slow.start(*LONG)
    begun(process)
    process.send_signal(signal.SIGINT)
    code, _, err = finished(process)
    assert (code, err) == (130, "")
    slow.wait_leases(0)
    assert slow.engines(), "the engine itself stays"


def test_interrupted_while_it_waits_for_an_engine(slow: Cli) -> None:
    others = [slow.start(*LONG) for _ in range(4)]
    for other in others:
        begun(other)
    waiting = slow.start(*LONG)
    until_blocking(lambda: any(engine["waiting"] for engine in slow.engines()))
    waiting.send_signal(signal.SIGINT)
    assert finished(waiting) == (130, "", "")
    until_blocking(lambda: not any(engine["waiting"] for engine in slow.engines()))
    for other in others:
        other.send_signal(signal.SIGINT)
        assert finished(other)[0] == 130
    slow.wait_leases(0)


def test_interrupted_while_a_host_starts(cli: Cli, slow_model: Path) -> None:
    process = cli.start("ask", "-m", slow_model, "hi")
    until_blocking((cli.directory / "state" / "host.log").exists)
    process.send_signal(signal.SIGINT)
    assert finished(process) == (130, "", "")


def test_killed_it_gives_the_engine_back(slow: Cli) -> None:
    process = slow.start(*LONG)
    begun(process)
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    slow.wait_leases(0)


def test_a_reader_that_has_enough_ends_it_quietly(slow: Cli) -> None:
    process = slow.start(*LONG)
    begun(process)
    cast("IO[bytes]", process.stdout).close()
    assert process.wait(PATIENCE_S) == 0
    assert cast("IO[bytes]", process.stderr).read() == b""
    cast("IO[bytes]", process.stderr).close()
    slow.wait_leases(0)


def test_head_ends_it_quietly_in_a_shell(slow: Cli) -> None:
    script = f"'{CLI}' ask --max-tokens 4000 hi | head -c 1"
    done = subprocess.run(
        ["sh", "-c", script],
        env=slow.env,
        cwd=slow.directory,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, len(done.stdout), done.stderr) == (0, 1, b"")
    slow.wait_leases(0)


@pytest.mark.parametrize("how", [[], ["--no-stream"], ["--json"]])
def test_too_late_it_fails_and_gives_the_engine_back(slow: Cli, how: list[str]) -> None:
    done = slow.run(*LONG, *how, "--timeout", "1")
    assert done.code == 1
    assert done.err == "gw-cli: no complete answer within 1 s\n"
    assert done.out == "" or (not how and done.out.endswith("\n"))
    slow.wait_leases(0)


def test_an_answer_goes_on_though_its_engine_dies(slow: Cli) -> None:
    process = slow.start("ask", "--max-tokens", "300", "Tell me everything")
    begun(process)
    os.kill(slow.engine_pid(), signal.SIGKILL)
    code, out, err = finished(process)
    assert code == 0
    assert len(out.split()) > 20
    assert "cut short" in err or not err


def test_an_engine_that_dies_before_the_answer_is_replaced(slow: Cli) -> None:
    pid = slow.engine_pid()
    os.kill(pid, signal.SIGSTOP)  # so that it takes the question and does not answer
    process = slow.start("ask", "--max-tokens", "4", "hi")
    slow.wait_leases(1)
    os.kill(pid, signal.SIGKILL)
    code, out, err = finished(process)
    assert (code, err) == (0, "")
    assert out.strip()
    assert slow.engine_pid() != pid


def test_an_answer_goes_on_though_the_engine_host_dies(slow: Cli) -> None:
    process = slow.start("ask", "--max-tokens", "300", "Tell me everything")
    begun(process)
    host, engine = slow.status()["host"]["pid"], slow.engine_pid()
    os.kill(host, signal.SIGKILL)
    code, out, _ = finished(process)
    assert code == 0
    assert len(out.split()) > 20
    assert slow.status()["host"]["pid"] != host
    assert not is_running(engine)
