"""`gw-cli ask` on a real engine: the answer on standard output, and the way there."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import PATIENCE_S, Cli, Finished, model_lua

pytestmark = pytest.mark.engine

SHORT = ("--max-tokens", "8", "--temperature", "0")


def prompt_tokens(done: Finished) -> int:
    assert done.code == 0, done.err
    tokens: int = json.loads(done.out)["usage"]["prompt_tokens"]
    return tokens


def test_the_answer_and_nothing_else_is_on_standard_output(warm: Cli) -> None:
    done = warm.run("ask", *SHORT, "Hello", "there")
    assert (done.code, done.err) == (0, "")
    assert done.out.strip()
    assert done.out.endswith("\n")
    assert not done.out.endswith("\n\n")


def test_streamed_or_not_the_answer_is_the_same(warm: Cli) -> None:
    streamed = warm.run("ask", *SHORT, "Hello")
    whole = warm.run("ask", *SHORT, "--no-stream", "Hello")
    assert (whole.code, whole.err) == (0, "")
    assert whole.out == streamed.out


def test_json_is_the_whole_response(warm: Cli) -> None:
    done = warm.run("ask", *SHORT, "--json", "Hello")
    assert (done.code, done.err) == (0, "")
    response = json.loads(done.out)
    assert response["object"] == "chat.completion"
    assert response["usage"]["completion_tokens"] == 8
    text = warm.run("ask", *SHORT, "Hello").out
    assert response["choices"][0]["message"]["content"] == text.removesuffix("\n")


def test_what_is_piped_in_joins_the_arguments(warm: Cli) -> None:
    joined = warm.run("ask", "--json", *SHORT, "say this again", stdin="some text\nin two lines\n")
    at_once = warm.run("ask", "--json", *SHORT, "say this again\n\nsome text\nin two lines")
    piped = warm.run("ask", "--json", *SHORT, stdin="say this again\n\nsome text\nin two lines\n\n")
    assert prompt_tokens(joined) == prompt_tokens(at_once) == prompt_tokens(piped)
    assert prompt_tokens(warm.run("ask", "--json", *SHORT, "say this again")) < prompt_tokens(joined)


def test_piped_bytes_need_not_be_text(warm: Cli) -> None:
    assert warm.run("ask", *SHORT, stdin=b"caf\xe9 \xff\n").code == 0


def test_a_system_prompt_is_part_of_the_prompt(warm: Cli) -> None:
    plain = prompt_tokens(warm.run("ask", "--json", *SHORT, "Hello"))
    assert prompt_tokens(warm.run("ask", "--json", *SHORT, "--system", "Be brief.", "Hello")) > plain


def test_an_alias_is_a_name_too(warm: Cli) -> None:
    assert warm.run("ask", "-m", "small", *SHORT, "Hello").code == 0


def test_a_schema_is_followed(warm: Cli) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    path = warm.directory / "schema.json"
    path.write_text(json.dumps(schema))
    done = warm.run("ask", "--schema", path, "Is it?")
    assert done.code == 0, done.err
    assert isinstance(json.loads(done.out)["ok"], bool)


def test_the_second_question_finds_the_engine_warm(cli: Cli, tiny_model: Path) -> None:
    assert cli.run("ask", "-m", tiny_model, *SHORT, "Hello").code == 0
    pid = cli.engine_pid()
    host = cli.status()["host"]["pid"]
    assert cli.run("ask", "-m", tiny_model, *SHORT, "Hello again").code == 0
    assert cli.engine_pid() == pid
    assert cli.status()["host"]["pid"] == host


def test_a_long_prompt_goes_to_the_larger_variant(warm: Cli) -> None:
    done = warm.run("ask", "-v", *SHORT, stdin="word " * 5000)
    assert done.code == 0, done.err
    assert "tiny@8192, answered" in done.err


def test_a_prompt_for_no_variant_fails_with_its_figures(warm: Cli) -> None:
    done = warm.run("ask", *SHORT, stdin="word " * 40_000)
    assert done.code == 1
    assert done.out == ""
    assert done.err.startswith("gw-cli: Request requires ")
    assert "largest variant only supports 8192" in done.err
    assert done.err.count("\n") == 1


def test_verbose_tells_what_happens(warm: Cli) -> None:
    done = warm.run("ask", "-v", *SHORT, "Hello")
    assert done.code == 0
    assert "8 out" in done.err
    assert "in all" in done.err


def test_many_at_once_on_a_cold_host_share_one(cli: Cli, tiny_model: Path) -> None:
    cli.write_config(model_lua("tiny", tiny_model, 4096))
    running = [cli.start("ask", *SHORT, f"Question {number}") for number in range(8)]
    for each in running:
        out, err = each.communicate(timeout=PATIENCE_S)
        assert (each.returncode, err) == (0, b"")
        assert out.strip()
    assert len(cli.engines()) == 1


def test_an_engine_that_cannot_start_says_why(cli: Cli) -> None:
    broken = cli.directory / "broken.gguf"
    broken.write_bytes(b"GGUF nonsense")
    cli.write_config(model_lua("broken", broken, 4096))
    done = cli.run("ask", "Hello")
    assert done.code == 1
    assert done.out == ""
    assert done.err.startswith("gw-cli: ")
    assert "broken@4096" in done.err
    assert done.err.count("\n") == 1


def test_standard_input_may_be_closed(warm: Cli) -> None:
    command = f"exec {subprocess.list2cmdline([str(part) for part in (*_ask(), 'Hello')])} <&-"
    done = subprocess.run(
        ["sh", "-c", command],
        env=warm.env,
        cwd=warm.directory,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def _ask() -> tuple[str | Path, ...]:
    from tests.cli.conftest import CLI  # noqa: PLC0415  # for a shell

    return (CLI, "ask", *SHORT)
