"""gw-cli as its users run it: a process, with a state directory of its own, and nothing left afterwards."""

import contextlib
import io
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from gatewright_cli.main import main
from gatewright_cli.ps import plain_status
from gatewright_host.host_client import BlockingHostClient
from gatewright_host.host_protocol import HostLost
from gatewright_host.state_dir import StateDir
from tests.support.host import is_running, processes_with, until_blocking
from tests.support.tiny_models import build_tiny_model

CLI = Path(sys.executable).with_name("gw-cli")
ENGINE = Path(sys.executable).with_name("gatewright-engine")
PATIENCE_S = 90.0
"""A test fails by it; none waits for it."""


class Cli:
    """Runs gw-cli in a directory of its own.

    Attributes:
        directory: Where it runs: configuration, home and state are in there.
        env: Its environment.
    """

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []
        # Not pytest's: a socket's path has to be short.
        self.directory = Path(tempfile.mkdtemp(prefix="gwc"))
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("GATEWRIGHT_", "XDG_"))
        }
        self.env = {
            **kept,
            "HOME": str(self.directory),
            "XDG_RUNTIME_DIR": str(self.directory),
            "GATEWRIGHT_STATE_DIR": str(self.directory / "state"),
            "PYTHONWARNINGS": "error",
            "TERM": "xterm-256color",
        }

    def run(self, *args: str | Path, stdin: str | bytes | None = None, **env: str) -> "Finished":
        """Run it to its end, with nothing or this on its standard input."""
        text = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            [CLI, *args],
            input=text if text is not None else b"",
            capture_output=True,
            timeout=PATIENCE_S,
            cwd=self.directory,
            env=self.env | env,
            check=False,
        )
        return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())

    def start(self, *args: str | Path, **streams: Any) -> "subprocess.Popen[bytes]":
        """Start it, with pipes unless others are given."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen([CLI, *args], cwd=self.directory, env=self.env, **(pipes | streams))
        self._started.append(process)
        return process

    def status(self) -> dict[str, Any]:
        """What `ps --json` says, asked for without a process: tests wait for it to change."""
        try:
            state = StateDir.at(self.directory / "state")
            with BlockingHostClient.connect(state, start=False, watch=True) as client:
                return plain_status(client.status())
        except HostLost:
            return plain_status(None)

    def engines(self) -> list[dict[str, Any]]:
        """Engines that run."""
        return [engine for engine in self.status()["engines"] if engine["pid"] is not None]

    def engine_pid(self) -> int:
        """Process of the only engine that runs."""
        (engine,) = self.engines()
        pid: int = engine["pid"]
        return pid

    def wait_leases(self, number: int) -> None:
        """Wait until so many requests are under way."""
        until_blocking(lambda: sum(engine["leases"] for engine in self.engines()) == number)

    def write_config(self, *models: str, server: str = "") -> Path:
        """Write `gatewright.lua` into the directory."""
        path = self.directory / "gatewright.lua"
        path.write_text(f"server = {{ {server} }}\nmodels = {{ {', '.join(models)} }}\n")
        return path

    def close(self) -> None:
        """End the host and its engines, and see that they are gone."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.communicate(timeout=PATIENCE_S)
        if (self.directory / "state").exists():
            self._stop_host()
        shutil.rmtree(self.directory)

    def _stop_host(self) -> None:
        pids = [engine["pid"] for engine in self.engines()]
        # Another configuration may be broken by a test; the state directory is named by the environment.
        done = self.run("stop", "--all", "--now")
        assert done.code == 0, done.err
        until_blocking(lambda: not any(is_running(pid) for pid in pids))
        until_blocking(lambda: not processes_with(str(self.directory)))


class InProcess(Cli):
    """The same without a process, for what starts nothing and shows it on no terminal: a tenth of the time."""

    def run(self, *args: str | Path, stdin: str | bytes | None = None, **env: str) -> "Finished":
        """Run it to its end, with nothing or this on its standard input."""
        text = stdin.encode() if isinstance(stdin, str) else stdin or b""
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.directory)
            for name in [name for name in os.environ if name.startswith(("GATEWRIGHT_", "XDG_"))]:
                patch.delenv(name)
            for name, value in (self.env | env).items():
                patch.setenv(name, value)
            patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main([str(arg) for arg in args])
        return Finished(code, out.getvalue(), err.getvalue())


@frozen
class Finished:
    """What came of a run.

    Attributes:
        code: Exit code.
        out: Standard output.
        err: Standard error.
    """

    code: int
    out: str
    err: str

    def __attrs_post_init__(self) -> None:
        assert "Traceback" not in self.err, self.err


def model_lua(name: str, gguf: Path, *contexts: int, slots: int = 4, extra: str = "") -> str:
    """A model of the configuration file, with one embedded engine for each context."""
    variants = ", ".join(
        f'{{ binary = "{ENGINE}", context = {context}, args = {{ "-m", "{gguf}", "-c", "{context}", "-np", "{slots}", '
        f'"-kvu", "-t", "1", "--port", "${{PORT}}", "--jinja" }} }}'
        for context in contexts
    )
    return f'{{ name = "{name}", variants = {{ {variants} }}, {extra} }}'


@pytest.fixture(autouse=True)
def same_logging() -> Iterator[None]:
    """The command sets logging up for a process of its own."""
    logger = logging.getLogger("gatewright")
    handlers, propagate, level = logger.handlers[:], logger.propagate, logger.level
    yield
    logger.handlers, logger.propagate = handlers, propagate
    logger.setLevel(level)


@pytest.fixture
def quick() -> Iterator[InProcess]:
    """Without a process."""
    runner = InProcess()
    yield runner
    runner.close()


@pytest.fixture(scope="session")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 200 tokens a second at best, so that there is time to do something to an answer."""
    return build_tiny_model(tmp_path_factory.mktemp("models") / "slow.gguf", name="slow", slow=True)


@pytest.fixture
def cli() -> Iterator[Cli]:
    """Without an engine host yet."""
    runner = Cli()
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def warm(tiny_model: Path) -> Iterator[Cli]:
    """With a configuration of one model, "tiny", which all tests of a module share."""
    runner = Cli()
    runner.write_config(model_lua("tiny", tiny_model, 4096, 8192, extra='aliases = { "small" }'))
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def slow(slow_model: Path) -> Iterator[Cli]:
    """With a model that takes its time, whose engine runs."""
    runner = Cli()
    runner.write_config(model_lua("slow", slow_model, 8192))
    assert runner.run("ask", "--max-tokens", "1", "hi").code == 0
    yield runner
    runner.close()
