import sys
import time
from pathlib import Path

import pytest

from gatewright.config import Tokenization
from gatewright_host.tokenizer_program import TokenizerFailed, count_with_program
from tests.support.fake_engine import CHILD
from tests.support.host import is_running, until_blocking


def program(text: str, **extra: int) -> Tokenization:
    return Tokenization(binary=sys.executable, args=("-S", "-E", "-c", text), **extra)


WORDS = "import sys; print([len(word) for word in sys.stdin.buffer.read().split()])"


def test_tokens_are_counted_and_the_templates_are_added() -> None:
    assert count_with_program(program(WORDS), "one two three", 1) == 3
    assert (
        count_with_program(program(WORDS, extra_tokens=5, extra_tokens_per_message=4), "one", 3) == 1 + 5 + 12
    )


def test_no_text_is_no_tokens() -> None:
    assert count_with_program(program(WORDS), "", 0) == 0


def test_long_texts_and_any_character_pass() -> None:
    assert count_with_program(program(WORDS), "wörd \U0001f600 \ud800 \x00 " * 50_000, 1) == 200_000


def test_lines_before_the_ids_do_not_count() -> None:
    text = "import sys; sys.stdin.read(); print('loading [12] of [3]'); print('[1, 22,\\n 333]')"
    assert count_with_program(program(text), "x", 1) == 3


def test_a_program_that_does_not_read_may_count() -> None:
    assert count_with_program(program("print('[1]')"), "x" * 1_000_000, 1) == 1


@pytest.mark.parametrize(
    ("tokenization", "message"),
    [
        (Tokenization(binary="/absent/llama-tokenize"), "/absent/llama-tokenize: No such file or directory"),
        (Tokenization(binary="nul\0byte"), "embedded null byte"),
        (program("import sys; sys.exit('E error: \\x1b[1mno model')"), "exit code 1: E error: no model"),
        (program("raise SystemExit(3)"), "ended with exit code 3"),
        (program("print('hello')"), "printed no list of token ids"),
        (program("print('[a, b]')"), "printed no list of token ids"),
    ],
)
def test_failures_are_one_line(tokenization: Tokenization, message: str) -> None:
    with pytest.raises(TokenizerFailed) as caught:
        count_with_program(tokenization, "text", 1)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_slow_program_is_killed_with_its_children(tmp_path: Path) -> None:
    file = tmp_path / "child"
    text = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {CHILD!r}, {str(file)!r}])"
    with pytest.raises(TokenizerFailed, match="did not count within 1 s"):
        count_with_program(program(text), "x" * 1_000_000, 1, timeout_s=1)
    if file.exists() and file.read_text():
        until_blocking(lambda: not is_running(int(file.read_text())))


def test_children_do_not_hold_it_up(tmp_path: Path) -> None:
    file = tmp_path / "child"
    text = (
        f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-S', '-c', {CHILD!r}, {str(file)!r}],"
        f" stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)\n"
        f"import os\nwhile not os.path.exists({str(file)!r}): time.sleep(0.01)\nprint('[1, 2]')"
    )
    begun = time.monotonic()
    assert count_with_program(program(text), "x", 1, timeout_s=100) == 2
    assert time.monotonic() - begun < 50
    until_blocking(lambda: not is_running(int(file.read_text() or 0)))
