"""docs/complexity.md says what is: its examples run, its tables are complete and true."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gatewright.configuration.schema import read_config
from gatewright.route_config import EstimatorKind
from gatewright.selection.complexity_heuristic import DEFAULT_THRESHOLDS, DEFAULT_WEIGHTS
from gatewright_host.lua_config import load_lua

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "complexity.md").read_text(encoding="utf-8")
MODELS = """
server = {}
models = {
  { name = "small", engine = presets.engines.openai, connect = "http://127.0.0.1:1" },
  { name = "large", engine = presets.engines.openai, connect = "http://127.0.0.1:2" },
}
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOC, re.DOTALL)


def section(heading: str) -> str:
    return re.split(r"^##? ", DOC.partition(f"## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize("text", blocks("lua"))
def test_configurations_load(tmp_path: Path, text: str) -> None:
    path = tmp_path / "gatewright.lua"
    path.write_text(MODELS + text)
    (route,) = read_config(load_lua(path)).routes
    assert f'"{route.estimator.kind.value}"' in text


def test_every_kind_is_in_the_first_table() -> None:
    head = DOC.partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| [^W]", head, re.MULTILINE)
    assert rows == ["heuristic", "model", "learned", "custom", "none"]
    assert set(rows) == {kind.value for kind in EstimatorKind}


def test_the_dimensions_are_those_that_there_are() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \| ([\d.]+) \|$", section("The heuristic"), re.MULTILINE)
    assert {name: float(weight) for name, weight in rows} == DEFAULT_WEIGHTS
    assert f"{{ {', '.join(map(str, DEFAULT_THRESHOLDS))} }}" in DOC


@pytest.mark.parametrize("program", blocks("python"))
def test_programs_run(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


COMMANDS = [line for block in blocks("sh") for line in block.splitlines()]


def run(directory: Path, command: str, *more: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(ROOT / shlex.split(command)[1]), *shlex.split(command)[2:], *more]
    return subprocess.run(words, cwd=directory, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize("command", [command for command in COMMANDS if "--synthetic" in command])
def test_made_up_outcomes_are_measured(tmp_path: Path, command: str) -> None:
    done = run(tmp_path, command.replace("3000", "200"), "--rounds", "20")
    assert done.returncode == 0, done.stderr
    names = re.findall(r"^\| ((?!- its)[a-z][^|]*) \|", section("What they are worth"), re.MULTILINE)
    assert names
    for name in names:
        assert f"| {name} |" in done.stdout


@pytest.mark.engine
def test_real_outcomes_are_made_and_measured(tmp_path: Path) -> None:
    make, compare = (command for command in COMMANDS if "outcomes.jsonl" in command)
    done = run(tmp_path, make, "--sample", "150")
    assert done.returncode == 0, done.stderr
    done = run(tmp_path, compare, "--rounds", "20")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("150 prompts; weak demo-coarse")


def test_the_layouts_of_data_are_read(tmp_path: Path) -> None:
    (ours,), (wide,) = blocks("json"), blocks("csv")
    right = json.loads(ours)
    right["outcomes"] = {"small": 1, "large": 1}
    (tmp_path / "ours.jsonl").write_text("\n".join([ours.strip(), json.dumps(right)] * 20))
    (tmp_path / "wide.csv").write_text(wide + "What is 1 + 1?,True,True\n" * 20)
    rows = [
        f"{prompt},{model},{score},0.1"
        for prompt in range(40)
        for model, score in (("a", prompt % 2), ("b", 1))
    ]
    (tmp_path / "long.csv").write_text("\n".join(["prompt,model,correct,usd", *rows]))
    bare, long = (command for command in COMMANDS if " DATA" in command)
    for command, name in ((bare, "ours.jsonl"), (bare, "wide.csv"), (long, "long.csv")):
        done = run(tmp_path, command.replace("DATA", name), "--rounds", "20")
        assert done.returncode == 0, done.stderr
        assert "| shuffled control |" in done.stdout


def test_every_option_is_in_the_table() -> None:
    done = run(ROOT, "python benchmarks/complexity.py", "--help")
    told = set(re.findall(r"^  (?:-h, )?(--[a-z-]+)", done.stdout, re.MULTILINE)) - {"--help"}
    assert told == set(re.findall(r"`(--[a-z-]+)`", section("Your own data")))
