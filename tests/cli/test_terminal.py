"""What a person at a terminal sees."""

import os
import re
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gatewright.ids import LeaseId
from gatewright.leases import LeaseGranted, LeaseProgress
from gatewright_cli.progress import describe
from gatewright_cli.tables import bytes_text, seconds_text
from gatewright_cli.terminal import printable
from tests.cli.conftest import CLI, PATIENCE_S, Cli, model_lua

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


class Screen:
    """A pseudo-terminal."""

    def __init__(self) -> None:
        self.ours, self.theirs = os.openpty()

    def read(self) -> str:
        """Everything that was written, up to the end of the last program that could write."""
        os.close(self.theirs)
        shown = b""
        while select.select([self.ours], [], [], PATIENCE_S)[0]:
            try:
                data = os.read(self.ours, 65536)
            except OSError:  # how Linux says that nobody is left
                break
            if not data:
                break
            shown += data
        return shown.decode()


@contextmanager
def screen() -> Iterator[Screen]:
    shown = Screen()
    try:
        yield shown
    finally:
        os.close(shown.ours)


def run_on(shown: Screen, cli: Cli, *args: str | Path, **env: str) -> tuple[int, str]:
    """Run with everything on a terminal."""
    process = subprocess.Popen(
        [CLI, *args],
        stdin=shown.theirs,
        stdout=shown.theirs,
        stderr=shown.theirs,
        cwd=cli.directory,
        env=cli.env | env,
    )
    text = shown.read()
    return process.wait(PATIENCE_S), text


@pytest.mark.engine
def test_a_person_sees_the_engine_come_up(cli: Cli, slow_model: Path) -> None:
    cli.write_config(model_lua("slow", slow_model, 4096))
    with screen() as shown:
        code, text = run_on(shown, cli, "ask", "--max-tokens", "4", "hi")
    assert code == 0
    assert re.search(r"(starting|loading) slow@4096 … \d+ s", text)
    assert text.count(HIDE_CURSOR) == text.count(SHOW_CURSOR) == 1
    after = text.partition(SHOW_CURSOR)[2]
    assert "…" not in after, "the spinner is gone before the answer begins"


@pytest.mark.engine
def test_a_warm_engine_needs_no_spinner_and_a_cut_answer_says_so(warm: Cli) -> None:
    warm.run("ask", "--max-tokens", "1", "hi")
    with screen() as shown:
        code, text = run_on(shown, warm, "ask", "--max-tokens", "4", "hi")
    assert code == 0
    assert text.endswith("\r\n")
    assert "(cut short: the limit of tokens is reached)" in text


@pytest.mark.engine
def test_the_spinner_stays_out_of_a_file(cli: Cli, slow_model: Path) -> None:
    """Standard output may be a file while a person watches standard error."""
    cli.write_config(model_lua("slow", slow_model, 4096))
    with screen() as shown:
        process = subprocess.Popen(
            [CLI, "ask", "--max-tokens", "4", "hi"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=shown.theirs,
            cwd=cli.directory,
            env=cli.env,
        )
        text = shown.read()
        out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert HIDE_CURSOR in text
    assert b"\x1b" not in out


@pytest.mark.engine
def test_without_a_prompt_at_a_terminal_it_does_not_wait_for_one(warm: Cli) -> None:
    with screen() as shown:
        code, text = run_on(shown, warm, "ask")
    assert code == 2
    assert "nothing to ask" in text


@pytest.mark.engine
def test_json_is_indented_for_a_person(warm: Cli) -> None:
    with screen() as shown:
        code, text = run_on(shown, warm, "ask", "--json", "--max-tokens", "1", "hi")
    assert code == 0
    assert '\r\n  "choices"' in text


def test_escape_sequences_do_not_reach_a_terminal() -> None:
    assert printable("\x1b]0;gotcha\x07 a\tb\n\r\x00\x7f\x9b1m é …") == (
        "\\x1b]0;gotcha\\x07 a\tb\n\\x0d\\x00\\x7f\\x9b1m é …"
    )


@pytest.mark.parametrize(
    ("phase", "position", "expected_s", "text"),
    [
        ("starting", 1, None, "starting qwen@8192 … 3 s"),
        ("loading", 2, 8.2, "loading qwen@8192 … 3 s of about 8 s, position 2"),
        ("loading", 1, 0.1, "loading qwen@8192 … 3 s of about 1 s"),
        ("busy", 3, 8.0, "qwen@8192 is busy with other requests … 3 s, position 3"),
        ("stopped", 1, None, "starting qwen@8192 … 3 s"),
        (
            "waiting for gemma@4096 (draining)",
            1,
            None,
            "qwen@8192 is waiting for gemma@4096 (draining) … 3 s",
        ),
        ("crashed", 1, None, "qwen@8192 crashed, trying again … 3 s"),
    ],
)
def test_progress(phase: str, position: int, expected_s: float | None, text: str) -> None:
    news = LeaseProgress(
        lease_id=LeaseId(1), position=position, engine="qwen@8192", phase=phase, expected_s=expected_s
    )
    assert describe(news, "qwen", 3.2) == text


def test_progress_before_and_after_the_wait() -> None:
    assert describe(None, "qwen", 0.4) == "qwen: looking for an engine … 0 s"
    granted = LeaseGranted(lease_id=LeaseId(1), context_tokens=8192, base_url="http://127.0.0.1:1")
    assert describe(granted, "qwen", 5.0) == "qwen@8192 reads the question … 5 s"
    assert describe(granted, "qwen", 5.0, whole=True) == "qwen@8192 answers … 5 s"


def test_units() -> None:
    assert [seconds_text(each) for each in (0.4, 119, 120, 7199, 7200)] == [
        "0 s",
        "119 s",
        "2 min",
        "120 min",
        "2 h",
    ]
    assert [bytes_text(each) for each in (34 * 2**20, 5 * 2**30)] == ["34.0 MiB", "5.0 GiB"]
