"""The commands of docs/operations.md, README.md and docs/performance.md, run."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gateway import wait_until

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def lines(document: str, program: str) -> list[str]:
    """Lines of the document's shell blocks that run a program, without their comments."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    found = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in found if Path(line.partition(" ")[0]).name == program]


@pytest.fixture
def place(tiny_model: Path) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="gwd-"))
    shutil.copy(tiny_model, directory / "FILE.gguf")
    (directory / "gatewright.lua").write_text(
        'server = { listen_v4 = "127.0.0.1:0" }\n'
        'models = { { name = "far", engine = presets.engines.openai, connect = "http://127.0.0.1:1" } }\n'
    )
    yield directory
    shutil.rmtree(directory)


def environment(place: Path) -> dict[str, str]:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return {
        **os.environ,
        "PATH": path,
        "HOME": str(place),
        "XDG_RUNTIME_DIR": str(place),
        "GATEWRIGHT_STATE_DIR": str(place / "state"),
    }


def adapt(command: str) -> list[str]:
    words = shlex.split(command.replace("~/models/Qwen3-8B-Q4_K_M.gguf", "FILE.gguf"))
    if "--model" in words and words[0].endswith("gw-server"):
        words += ["--listen", "127.0.0.1:0"]
    return [Path(words[0]).name, *(word.replace(":9000", ":0") for word in words[1:])]


@pytest.mark.engine
@pytest.mark.parametrize(
    "command", [*lines("docs/operations.md", "gw-server"), *lines("README.md", "gw-server")]
)
def test_servers_start_and_stop(place: Path, command: str) -> None:
    log = place / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            adapt(command), cwd=place, env=environment(place), stdout=file, stderr=subprocess.STDOUT
        )
    if "--check" in command:
        assert process.wait(30) == 0
        assert "1 models, no errors" in log.read_text()
        return
    try:
        wait_until(lambda: "listening on" in log.read_text(), "it listens")
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


@pytest.mark.parametrize("command", lines("docs/operations.md", "gunicorn"))
def test_gunicorn_starts_and_stops(place: Path, command: str) -> None:
    shutil.copytree(ROOT / "deploy", place / "deploy")
    log = place / "log"
    settings = {"GUNICORN_CMD_ARGS": "--bind 127.0.0.1:0 --no-control-socket"}
    with log.open("wb") as file:
        process = subprocess.Popen(
            adapt(command),
            cwd=place,
            env={**environment(place), **settings},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        match = wait_until(lambda: re.search(r"Listening at: (http://\S+)", log.read_text()), "it listens")
        with urllib.request.urlopen(f"{match.group(1)}/v1/models", timeout=30) as answer:
            assert b'"far"' in answer.read()
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


@pytest.mark.engine
@pytest.mark.parametrize("command", lines("README.md", "gw-cli"))
def test_questions_are_answered(place: Path, command: str) -> None:
    words = [*adapt(command), "--max-tokens", "4"]
    settings = {"cwd": place, "env": environment(place), "capture_output": True, "text": True, "timeout": 60}
    try:
        done = subprocess.run(words, **settings, check=False, stdin=subprocess.DEVNULL)  # type: ignore[call-overload]
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
    finally:
        subprocess.run(["gw-cli", "stop", "--all", "--now"], **settings, check=True)  # type: ignore[call-overload]


BENCHMARKS = lines("docs/performance.md", "python")


@pytest.mark.parametrize("command", [each for each in BENCHMARKS if "soak.py" not in each])
def test_benchmarks_run(command: str) -> None:
    words = [sys.executable, *shlex.split(command)[1:]]
    for option, value in (("--seconds", "0.2"), ("--rounds", "1"), ("--requests", "40")):
        if option in words:
            words[words.index(option) + 1] = value
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "|---" in done.stdout or "nginx is not installed" in done.stdout


@pytest.mark.parametrize("command", [each for each in BENCHMARKS if "--transport" in each])
def test_the_soak_runs(command: str) -> None:
    """On one transport and briefly; `tests/soak` runs it on all of them."""
    words = [sys.executable, *shlex.split(command)[1:]]
    words[words.index("--seconds") + 1] = "6"
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
