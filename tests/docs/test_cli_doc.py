"""docs/cli.md says what is: every command and option is in it, nothing else is, and its examples run."""

import importlib
import os
import re
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import click
import pytest

from gatewright_cli import ps, replay
from gatewright_cli.main import COMMANDS, cli
from tests.cli.conftest import CLI, PATIENCE_S, Cli, model_lua

DOC = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
COMMON = "Options of all commands"
HOME = "/home/you"

EXAMPLES = re.findall(r"^```console\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)


def section(heading: str) -> str:
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", DOC, re.MULTILINE | re.DOTALL)
    assert found is not None, f"docs/cli.md has no section {heading}"
    return found[1]


def documented(text: str) -> set[str]:
    """Options in the first column of tables."""
    cells = re.findall(r"^\| (`-.*?) \|", text, re.MULTILINE)
    return {option for cell in cells for option in re.findall(r"`(--?[a-z][a-z-]*)", cell)}


def options_of(command: click.Command) -> set[str]:
    """Its options, and those of the commands that it consists of."""
    inner = command.commands.values() if isinstance(command, click.Group) and command is not cli else ()
    return _own_options(command).union(*[options_of(each) for each in inner])


def _own_options(command: click.Command) -> set[str]:
    options = [param for param in command.params if isinstance(param, click.Option)]
    return {name for option in options for name in option.opts}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_documented_and_every_documented_one_exists(name: str) -> None:
    command = importlib.import_module(f"gatewright_cli.{name}").command
    common = documented(section(COMMON)) - {"-h", "--help"} if name != "version" else set()
    assert options_of(command) == documented(section(f"`gw-cli {name}`")) | common


def test_every_documented_command_exists() -> None:
    assert re.findall(r"^## `gw-cli (\w+)`", DOC, re.MULTILINE) == list(COMMANDS)


def test_options_of_the_command_itself_are_documented() -> None:
    for option in options_of(cli):
        assert f"gw-cli {option}" in section(COMMON)


# --- examples


@pytest.fixture(scope="module")
def reader(tiny_model: Path) -> Iterator[Cli]:
    """Somebody who tries the examples, one after the other."""
    runner = Cli()
    runner.write_config(model_lua("qwen", tiny_model, 8192, 32768, extra='aliases = { "gpt-4o" }'))
    yield runner
    runner.close()


def steps(example: str) -> Iterator[tuple[str, list[str]]]:
    """Commands and the lines that are printed after each."""
    lines = example.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
    for start, end in pairwise([*starts, len(lines)]):
        yield lines[start].removeprefix("$ "), lines[start + 1 : end]


def pattern_of(lines: list[str]) -> str:
    """An ellipsis stands for whatever is there; one that is a line for any number of lines."""
    parts = [r"[\s\S]*" if line == "…" else f"{re.escape(line).replace('…', '.*')}\n" for line in lines]
    return "".join(parts)


@pytest.mark.engine
def test_examples_run_and_print_what_is_shown(reader: Cli) -> None:
    assert len(EXAMPLES) > 8
    env = {**reader.env, "PATH": f"{CLI.parent}{os.pathsep}{os.environ['PATH']}"}
    for command, expected in [step for example in EXAMPLES for step in steps(example)]:
        done = subprocess.run(
            ["sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_S,
            cwd=reader.directory,
            env=env,
            check=False,
        )
        shown = done.stdout.replace(str(reader.directory), HOME)
        refused = any(line.startswith("gw-cli: ") for line in expected)
        assert done.returncode == (2 if refused else 0), (command, shown)
        assert re.fullmatch(pattern_of(expected), shown), (command, shown)


@pytest.mark.parametrize(("name", "heads"), [("ps", ps.HEADS), ("replay", replay.HEADS)])
def test_tables_have_the_columns_that_are_shown(name: str, heads: tuple[str, ...]) -> None:
    shown = section(f"`gw-cli {name}`").partition("```text\n")[2].splitlines()[0]
    assert tuple(shown.split()) == heads
