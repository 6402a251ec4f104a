"""`ps`, `stop` and `logs`: looking after the engines."""

import json
import signal
from pathlib import Path
from typing import IO, cast

import pytest

from gatewright.ids import LeaseId
from gatewright.leases import CallResult, LeaseEngine, ReleaseLease
from gatewright_host.host_client import BlockingHostClient
from gatewright_host.state_dir import StateDir
from tests.cli.conftest import PATIENCE_S, Cli, model_lua
from tests.core.machines.build import remote_spec
from tests.support.host import is_running, until_blocking

pytestmark = pytest.mark.engine

SHORT = ("ask", "--max-tokens", "1", "hi")


@pytest.fixture
def tiny(cli: Cli, tiny_model: Path) -> Cli:
    """One engine runs."""
    cli.write_config(model_lua("tiny", tiny_model, 4096, 8192, extra='aliases = { "small" }'))
    done = cli.run(*SHORT)
    assert done.code == 0, done.err
    return cli


def test_without_a_host_there_is_nothing_to_see_and_nothing_to_stop(cli: Cli) -> None:
    for command in (("ps",), ("stop", "--all"), ("stop", "--all", "--now")):
        done = cli.run(*command)
        assert (done.code, done.out, done.err) == (0, "", "no engine host is running\n")
    assert json.loads(cli.run("ps", "--json").out) == {"host": None, "engines": []}
    done = cli.run("logs")
    assert (done.code, done.out, done.err) == (0, "", "no lines yet\n")
    assert not (cli.directory / "state" / "host.log").exists(), "looking starts nothing"


def test_ps_shows_what_runs(tiny: Cli) -> None:
    done = tiny.run("ps")
    assert done.code == 0
    heads, row = [line.split("  ") for line in done.out.splitlines()]
    assert [head.strip() for head in heads if head.strip()] == [
        "MODEL", "CONTEXT", "STATE", "SLOTS", "WAITING", "MEMORY", "IDLE", "PID",
    ]  # fmt: skip
    fields = [field.strip() for field in row if field.strip()]
    assert fields[:5] == ["tiny", "4096", "ready", "0/4", "0"]
    assert fields[5].endswith("MiB")
    assert fields[6].endswith(" s")
    assert is_running(int(fields[7]))


@pytest.mark.parametrize("which", ["gpt", "--all"])
def test_a_provider_that_failed_is_shown_and_called_again(cli: Cli, which: str) -> None:
    cli.write_config('{ name = "gpt", engine = "openai", connect = "http://127.0.0.1:1" }')
    gpt, mini = remote_spec("gpt"), remote_spec("mini")
    state = StateDir.at(cli.directory / "state")
    with BlockingHostClient.connect(state) as client:
        client.send(LeaseEngine(lease_id=LeaseId(9), variants=(mini,)))
        for number in (LeaseId(1), LeaseId(2), LeaseId(3)):
            client.send(LeaseEngine(lease_id=number, variants=(gpt,)))
            client.send(ReleaseLease(lease_id=number, result=CallResult.FAILED))
        client.status()  # all of it has arrived
        done = cli.run("ps")
        assert done.code == 0
        rows = {line.split()[0]: line for line in done.out.splitlines()[1:]}
        assert "circuit open" in rows["gpt"]
        assert "ready" in rows["mini"]
        problem = "gpt@128000: the circuit of gpt-large has been open for"
        assert [line[: len(problem)] for line in done.err.splitlines()] == [problem]

        done = cli.run("stop", which)
        assert (done.code, done.out, done.err) == (0, "gpt is called again\n", "")
        assert "circuit open" not in cli.run("ps").out


def test_ps_as_json(tiny: Cli) -> None:
    status = json.loads(tiny.run("ps", "--json").out)
    assert status["host"]["detached"] is True
    (engine,) = [engine for engine in status["engines"] if engine["pid"] is not None]
    assert engine["state"] == "ready"
    assert engine["slots"] == 4
    assert engine["memory_bytes"] > 1_000_000
    assert engine["base_url"].startswith("http://127.0.0.1:")


def test_stop_ends_one_model_and_the_next_question_starts_it_again(tiny: Cli) -> None:
    pid = tiny.engine_pid()
    done = tiny.run("stop", "small")
    assert (done.code, done.out) == (0, "stopped tiny@4096\n")
    assert not is_running(pid)
    done = tiny.run("stop", "tiny")
    assert (done.code, done.out, done.err) == (0, "", "no engine of tiny is running\n")
    done = tiny.run("ps")
    assert (done.out, done.err) == ("", "no engine is running\n")
    assert tiny.run(*SHORT).code == 0


def test_stop_all_now_ends_the_host_too(tiny: Cli) -> None:
    host, pid = tiny.status()["host"]["pid"], tiny.engine_pid()
    done = tiny.run("stop", "--all", "--now")
    assert (done.code, done.out) == (0, "stopped tiny@4096\n")
    assert not is_running(pid)
    until_blocking(lambda: not is_running(host))


def test_stop_waits_for_requests_unless_told_otherwise(cli: Cli, slow_model: Path) -> None:
    cli.write_config(model_lua("slow", slow_model, 8192))
    asking = cli.start("ask", "--max-tokens", "4000", "hi")
    assert cast("IO[bytes]", asking.stdout).read(1)
    done = cli.run("stop", "--all")
    assert done.code == 0
    assert done.out == "slow@8192 stops when its request is done (--now does not wait)\n"
    assert asking.poll() is None
    assert cli.run("stop", "slow", "--now").out == "stopped slow@8192\n"
    _, err = asking.communicate(timeout=PATIENCE_S)
    assert asking.returncode == 1
    assert b"stopped" in err


def test_stop_wants_to_know_what(cli: Cli) -> None:
    for args in (("stop",), ("stop", "--now"), ("stop", "tiny", "--all")):
        done = cli.run(*args)
        assert (done.code, done.err) == (2, "gw-cli: name a model, or say --all\n")


def test_stop_of_an_unknown_model(tiny: Cli) -> None:
    done = tiny.run("stop", "tinny")
    assert done.code == 2
    assert "did you mean 'tiny'?" in done.err


# --- logs


def test_logs_show_what_the_engine_printed(tiny: Cli) -> None:
    done = tiny.run("logs")
    assert done.code == 0
    assert " tiny@4096[" in done.out
    for name in ("tiny", "small", "tiny@4096"):
        assert tiny.run("logs", "-n", "1000", name).out == tiny.run("logs", "-n", "1000").out
    for name in ("tiny@8192", "small@8192"):
        done = tiny.run("logs", name)
        assert (done.code, done.out, done.err) == (0, "", f"no lines of {name}\n")
    for name in ("tinny", "tinny@8192"):
        done = tiny.run("logs", name)
        assert (done.code, done.out) == (2, "")
        assert "Model 'tinny' not found in configuration; did you mean 'tiny'?" in done.err
    assert "engine host started" in tiny.run("logs", "--host").out


def line(label: str, text: str) -> bytes:
    """As the engine host writes them; `test_logs_show_what_the_engine_printed` has real ones."""
    return f"2026-11-20 17:00:00.000+00:00 {label}[1] I {text}\n".encode()


@pytest.fixture
def log(cli: Cli) -> Path:
    """Where a host would write what its engines print."""
    path = cli.directory / "state" / "engines.log"
    path.parent.mkdir()
    return path


def test_logs_count_lines_of_the_model_across_files(cli: Cli, log: Path) -> None:
    log.with_name("engines.log.1").write_bytes(line("a@1", "one") + line("a@1", "two"))
    log.write_bytes(line("b@1", "three") + line("a@2", "four"))

    def texts(*args: str) -> list[str]:
        return [line.rpartition(" ")[2] for line in cli.run("logs", *args).out.splitlines()]

    assert texts() == ["one", "two", "three", "four"]
    assert texts("-n", "2") == ["three", "four"]
    assert texts("-n", "2", "a") == ["two", "four"]
    assert texts("a@1") == ["one", "two"]
    assert texts("-n", "0") == []


def test_logs_follow_what_comes_over_a_change_of_files(cli: Cli, log: Path) -> None:
    with log.open("ab", buffering=0) as old:
        old.write(line("a@1", "one") + line("a@1", "two"))
        process = cli.start("logs", "-f", "-n", "1", "a")
        lines = cast("IO[bytes]", process.stdout)
        assert lines.readline().endswith(b"two\n")
        old.write(line("b@1", "not this") + line("a@1", "three"))
        assert lines.readline().endswith(b"three\n")
        log.rename(log.with_name("engines.log.1"))
        old.write(line("a@1", "four"))
        log.write_bytes(line("a@1", "five"))
        assert lines.readline().endswith(b"four\n")
        assert lines.readline().endswith(b"five\n")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (130, b"")


def test_logs_of_a_model_that_nobody_knows_yet_can_be_waited_for(cli: Cli, log: Path) -> None:
    process = cli.start("logs", "-f", "later")
    said = cast("IO[bytes]", process.stderr).readline()
    assert said.startswith(b"gw-cli: ")
    assert said.endswith(b"; waiting for lines of it\n")
    log.write_bytes(line("later@1", "one"))
    assert cast("IO[bytes]", process.stdout).readline().endswith(b"one\n")


def test_logs_follow_a_file_that_is_not_there_yet(cli: Cli) -> None:
    process = cli.start("logs", "-f")
    until_blocking((cli.directory / "state").exists)
    (cli.directory / "state" / "engines.log").write_bytes(line("a@1", "one"))
    assert cast("IO[bytes]", process.stdout).readline().endswith(b"one\n")
