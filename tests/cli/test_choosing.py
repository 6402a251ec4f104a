"""`models`, `check` and `explain`, and which model is meant: nothing here starts an engine."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Finished, InProcess, model_lua

OPENAI = '{ name = "far", engine = presets.engines.openai, connect = "https://api.example.com/v1" }'


@pytest.fixture
def two(quick: InProcess, tiny_model: Path) -> InProcess:
    """Two models are configured, one of them remote."""
    quick.write_config(model_lua("tiny", tiny_model, 4096, 8192, extra='aliases = { "small", "t" }'), OPENAI)
    return quick


def refused(done: Finished, *parts: str) -> None:
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("gw-cli: ")
    assert done.err.count("\n") == 1
    for part in parts:
        assert part in done.err


# --- which model is meant


def test_an_unknown_model_is_told_with_what_there_is(two: InProcess) -> None:
    for command in ("ask", "explain"):
        done = two.run(command, "-m", "tinny", "hi")
        refused(done, "Model 'tinny' not found in configuration", "did you mean 'tiny'?", "models: tiny, far")


def test_of_several_models_one_has_to_be_named(two: InProcess) -> None:
    refused(two.run("explain", "hi"), "--model (tiny, far)", "server.default_model")


def test_the_default_model(quick: InProcess, tiny_model: Path) -> None:
    quick.write_config(model_lua("tiny", tiny_model, 4096), OPENAI, server='default_model = "tiny"')
    assert json.loads(quick.run("explain", "--json", "hi").out)["model"] == "tiny"


@pytest.mark.parametrize("by", [lambda path: path, lambda path: path.name, lambda path: f"./{path.name}"])
def test_a_file_is_a_model(quick: InProcess, tiny_model: Path, by: object) -> None:
    assert callable(by)
    (quick.directory / tiny_model.name).symlink_to(tiny_model)
    done = quick.run("explain", "--json", "-m", str(by(quick.directory / tiny_model.name)), "hi")
    assert done.code == 0, done.err
    assert json.loads(done.out)["model"] == "tiny"


def test_a_file_that_is_missing_or_no_model(quick: InProcess) -> None:
    refused(quick.run("explain", "-m", "nowhere.gguf", "hi"), "nowhere.gguf", "no such file")
    (quick.directory / "bad.gguf").write_text("nonsense")
    refused(quick.run("explain", "-m", "bad.gguf", "hi"), "bad.gguf")
    refused(quick.run("explain", "-m", "nowhere", "hi"), "no configuration", "no such file")


def test_a_file_that_is_missing_is_told_beside_a_configuration(two: InProcess) -> None:
    for command in ("ask", "explain"):
        refused(two.run(command, "-m", "nofile.gguf", "hi"), "nofile.gguf: no such file")


# --- arguments


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (("ask",), "nothing to ask"),
        (("ask", "--bogus", "hi"), "--bogus"),
        (("ask", "--max-tokens", "0", "hi"), "--max-tokens"),
        (("ask", "--timeout", "0", "hi"), "--timeout"),
        (("ask", "--temperature", "hot", "hi"), "--temperature"),
        (("ask", "--schema", "nowhere.json", "hi"), "nowhere.json"),
        (("ask", "-c", "nowhere.lua", "hi"), "nowhere.lua: no such file"),
        (("frobnicate",), "frobnicate"),
        (("--frobnicate",), "--frobnicate"),
        (("logs", "--host", "tiny"), "about no model"),
    ],
)
def test_wrong_arguments_are_one_line_and_2(quick: InProcess, args: tuple[str, ...], part: str) -> None:
    refused(quick.run(*args), part)


def test_no_arguments_are_answered_by_help(quick: InProcess) -> None:
    done = quick.run()
    assert (done.code, done.out) == (2, "")
    assert "Usage: gw-cli" in done.err


def test_a_state_directory_that_cannot_be(quick: InProcess) -> None:
    (quick.directory / "file").touch()
    done = quick.run("ps", "--state-dir", "file/inside")
    assert done.code == 1
    assert done.err.startswith("gw-cli: state directory ")
    assert done.err.count("\n") == 1


# --- models


def test_models(two: InProcess) -> None:
    done = two.run("models")
    assert (done.code, done.err) == (0, "")
    assert [line.split() for line in done.out.splitlines()] == [
        ["NAME", "ALIASES", "ENGINE", "CONTEXTS", "PARALLEL"],
        ["tiny", "small,t", "llama.cpp", "4096,8192", "4"],
        ["far", "-", "openai", "-", "-"],
    ]


def test_models_as_json(two: InProcess) -> None:
    tiny, far = json.loads(two.run("models", "--json").out)
    assert tiny["aliases"] == ["small", "t"]
    assert [each["context_tokens"] for each in tiny["variants"]] == [4096, 8192]
    assert far["engine"] == "openai"


# --- check


def test_check_tells_all_that_is_wrong(quick: InProcess) -> None:
    quick.write_config(
        '{ name = "a", variants = {} }', '{ name = "b", engine = "steam" }', server="max_waiting = -1"
    )
    done = quick.run("check")
    assert (done.code, done.out) == (2, "")
    lines = done.err.splitlines()
    assert len(lines) >= 3
    assert all(line.startswith("gw-cli: gatewright.lua: ") for line in lines)
    for path in ("models[1].variants", "models[2].engine", "server.max_waiting"):
        assert any(path in line for line in lines), path
    assert not (quick.directory / "state").exists(), "nothing was begun"


def test_ask_tells_the_same_and_starts_nothing(quick: InProcess) -> None:
    quick.write_config('{ name = "a", variants = {} }', '{ name = "b", engine = "steam" }')
    done = quick.run("ask", "hi")
    assert done.code == 2
    assert done.err == quick.run("check").err
    assert not (quick.directory / "state").exists()


def test_looking_at_engines_needs_no_valid_configuration(quick: InProcess) -> None:
    quick.write_config("oops")
    del quick.env["GATEWRIGHT_STATE_DIR"]
    done = quick.run("ps")
    assert done.code == 2
    assert "--state-dir DIR does without" in done.err
    assert quick.run("ps", "--state-dir", quick.directory / "state").code == 0
    quick.env["GATEWRIGHT_STATE_DIR"] = str(quick.directory / "state")


def test_check_of_a_good_one(two: InProcess) -> None:
    done = two.run("check")
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{two.directory}/gatewright.lua: 2 models, no errors\n"


def test_check_warns_of_what_is_only_suspicious(quick: InProcess) -> None:
    quick.write_config(model_lua("lost", Path("/nowhere/model.gguf"), 4096))
    done = quick.run("check")
    assert done.code == 0
    assert done.err.startswith("warning: lost: ")
    assert done.out.endswith(": 1 model, no errors\n")


def test_check_without_a_configuration(quick: InProcess) -> None:
    refused(quick.run("check"), "there is no configuration")


# --- explain


def test_explain_says_what_and_why(two: InProcess) -> None:
    done = two.run("explain", "-m", "small", "hi")
    assert (done.code, done.err) == (0, "")
    table = done.out.partition("\n\n")[2].splitlines()
    assert table[1].split(maxsplit=1) == ["4096", "chosen: the smallest that fits"]
    assert table[2].split(maxsplit=1) == ["8192", "fits; used if it is loaded already"]
    assert not (two.directory / "state").exists(), "nothing was begun"


def explained(cli: InProcess, *args: str, stdin: str | None = None) -> dict[str, object]:
    done = cli.run("explain", "--json", "-m", "tiny", *args, stdin=stdin)
    assert done.code == 0, done.err
    answer: dict[str, object] = json.loads(done.out)
    return answer


def test_explained_figures_add_up(two: InProcess) -> None:
    figures = explained(two, "--max-tokens", "100", stdin="x" * 1000)
    prompt = figures["prompt"]
    assert isinstance(prompt, dict)
    assert prompt["bytes"] >= 1000
    assert prompt["low"] < prompt["likely"] < prompt["high"]
    assert figures["answer_tokens"] == 100
    assert figures["margin_tokens"] == 512
    assert figures["need_tokens"] == prompt["high"] + 100 + 512
    assert figures["exact_count"] is False
    assert figures["error"] is None


def test_explain_uses_the_reserve_where_no_limit_is_given(two: InProcess) -> None:
    assert explained(two, "hi")["answer_tokens"] == 1024


def test_explain_says_when_a_count_would_be_asked_for(two: InProcess) -> None:
    figures = explained(two, stdin="word " * 2000)
    assert figures["exact_count"] is True
    text = two.run("explain", "-m", "tiny", stdin="word " * 2000).out
    assert "asked of a running engine of the model" in text


def test_explain_says_why_none_will_do(two: InProcess) -> None:
    prompt = "word " * 300_000
    figures = explained(two, stdin=prompt)
    assert "largest variant only supports 8192" in str(figures["error"])
    variants = figures["variants"]
    assert isinstance(variants, list)
    assert {each["verdict"] for each in variants} == {"too small"}
    assert "Request requires" in two.run("explain", "-m", "tiny", stdin=prompt).out


def test_explain_tells_where_the_reserve_has_no_room(two: InProcess) -> None:
    figures = explained(two, stdin="word " * 6000)
    prompt = figures["prompt"]
    assert isinstance(prompt, dict)
    assert figures["answer_tokens"] == 1
    assert figures["need_tokens"] == prompt["likely"] + 1
    text = two.run("explain", "-m", "tiny", stdin="word " * 6000).out
    assert "no variant has room for the reserve of 1024 as well" in text


def test_explain_of_a_remote_model(two: InProcess) -> None:
    done = two.run("explain", "-m", "far", "hi")
    assert done.code == 0
    assert "chosen" in done.out


def test_explain_says_who_is_asked_next(quick: InProcess, tiny_model: Path) -> None:
    far = OPENAI.replace("}", ', fallbacks = { "small", "else" }, max_attempts = 5 }')
    quick.write_config(
        model_lua("tiny", tiny_model, 4096, extra='aliases = { "small" }'),
        far,
        OPENAI.replace("far", "else"),
    )
    assert "\nthen    tiny, else " in quick.run("explain", "-m", "far", "hi").out
    assert "then" not in quick.run("explain", "-m", "tiny", "hi").out

    text = quick.run("explain", "-v", "-m", "far", "hi").out
    assert "\ncalls   2 retries of a failed call, at most 5 calls over all models\n" in text
    limits = "connect 10 s, head 60 s, first_token 10 s, between_chunks 20 s, total 1800 s"
    assert f"\nlimits  {limits}\n" in text
    text = quick.run("explain", "-v", "-m", "tiny", "hi").out
    assert "\ncalls   1 retry of a failed call\n" in text
    assert "\nlimits  connect 10 s, head -, first_token -, between_chunks -, total -\n" in text

    figures = json.loads(quick.run("explain", "--json", "-m", "far", "hi").out)
    assert (figures["fallbacks"], figures["retries"], figures["max_attempts"]) == (["tiny", "else"], 2, 5)
    assert (figures["timeouts"]["head"], figures["timeouts"]["total"]) == (60, 1800)


def test_check_tells_of_fallbacks_that_do_not_exist(quick: InProcess) -> None:
    quick.write_config(OPENAI.replace("}", ', fallbacks = { "fer" } }'), OPENAI.replace("far", "fur"))
    done = quick.run("check")
    assert done.code == 2
    assert 'models[1].fallbacks[1]: got "fer"' in done.err
    assert 'did you mean "fur"?' in done.err
