"""The command itself: what is loaded when, and that the help tells the truth."""

import importlib
import subprocess
import sys

import click
import pytest

from gatewright_cli.main import COMMANDS, main

NOT_NEEDED_FOR_HELP = ("rich", "msgspec", "attrs", "h11", "asyncio", "gatewright", "gatewright_host", "ssl")


def test_the_help_loads_nothing_that_it_does_not_need() -> None:
    script = f"import sys, gatewright_cli.main as m; m.main(['--help']); print([n for n in {NOT_NEEDED_FOR_HELP} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_the_help_that_the_list_promises(name: str) -> None:
    command = importlib.import_module(f"gatewright_cli.{name}").command
    assert isinstance(command, click.Command)
    assert command.help


@pytest.mark.parametrize("args", [["--help"], ["-h"], ["--version"], ["version"], ["ask", "--help"]])
def test_what_always_works(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == 0
    captured = capsys.readouterr()
    assert captured.out
    assert captured.err == ""


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    main(["version"])
    version = capsys.readouterr().out
    main(["--version"])
    assert capsys.readouterr().out == f"gw-cli {version}"


def test_an_interrupt_anywhere_is_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gatewright_cli.options.choose_config", interrupted)
    monkeypatch.setattr("gatewright_cli.options.Common.choose", interrupted)
    assert main(["models"]) == 130
    assert capsys.readouterr() == ("", "")


def test_an_interrupt_that_makes_something_fail_is_an_interrupt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("release unlocked lock")  # as `threading.Condition` does

    monkeypatch.setattr("gatewright_cli.options.choose_config", interrupted)
    monkeypatch.setattr("gatewright_cli.options.Common.choose", interrupted)
    assert main(["models"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_defect_is_one_line_and_more_with_verbose(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("gatewright_cli.options.Common.choose", broken)
    assert main(["models"]) == 1
    assert (
        capsys.readouterr().err
        == "gw-cli: a defect of this program: ZeroDivisionError: by zero (-v shows where)\n"
    )
    with pytest.raises(ZeroDivisionError):
        main(["models", "-v"])
