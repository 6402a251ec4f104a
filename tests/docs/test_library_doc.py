"""docs/library.md says what is: its examples run, one after the other, and its tables are true."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import fields

import gatewright_library
from gatewright.presets import PROVIDERS
from gatewright.selection.criteria import Prefer
from gatewright_library import (
    ConfiguredFallbacks,
    ExperienceStore,
    ModelSelector,
    OpenAICaller,
    Retry,
    SelectionCriteria,
    default_strategies,
)
from gatewright_library.models import DEFAULT_MODELS
from gatewright_library.selector import RELAXATION
from tests.support.upstream import Upstream, reply

DOC = (Path(__file__).parents[2] / "docs" / "library.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)
BIN = Path(sys.executable).parent
ANSWER = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "7.40"}}],
}


def rows(heading: str) -> dict[str, str]:
    """First and second column of the tables under a heading."""
    section = DOC.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    cells = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {first.strip().strip("`"): second.strip().strip("`") for first, second, *_ in cells}


def test_the_examples_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    body = json.dumps(ANSWER).encode()
    with Upstream(lambda connection, _head, _body: connection.sendall(reply(body))) as upstream:
        namespace: dict[str, object] = {"__name__": "library_doc"}
        for number, example in enumerate(EXAMPLES):
            source = example.replace("http://127.0.0.1:8080", upstream.url)
            exec(compile(source, f"docs/library.md, example {number + 1}", "exec"), namespace)
        (executed, _), (keyed, _) = upstream.requests
    assert b"authorization: bearer none" in executed.lower()
    assert b"authorization: bearer sk-example-change-me" in keyed.lower()
    printed = capsys.readouterr().out
    for comment in (
        "llama-3.1-8b\n",
        "no model of 2 fits:",
        "0.825\n",
        "The budget 'model=gpt-4o' has $0.175000 of",
    ):
        assert comment in printed
    assert "7.40 " in printed
    (reason,) = re.findall(r"result\.reason\)  # (.*)", DOC)
    assert reason in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["experience"]
    for command in re.findall(r"^(gw-cli .*?)  +#", DOC, re.MULTILINE):
        program, *words = command.split()
        done = subprocess.run(
            [BIN / program, *words], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "qwen3" in done.stdout


def test_the_table_of_the_selector_is_complete_and_true():
    table = rows("A first choice")
    parameters = inspect.signature(ModelSelector).parameters
    assert set(table) == set(parameters) - {"chance"}
    assert table["default_model"].strip('"') == parameters["default_model"].default
    assert table["enable_learning"] == str(parameters["enable_learning"].default)
    assert parameters["weights"].default is Prefer.BALANCED
    assert table["weights"] == "Prefer.BALANCED"


def test_the_table_of_the_caller_is_complete_and_true():
    parameters = inspect.signature(OpenAICaller).parameters
    assert rows("Executor") == {name: str(parameter.default) for name, parameter in parameters.items()}


def test_the_table_of_criteria_is_complete_and_true():
    table = rows("Criteria")
    criteria = SelectionCriteria()
    assert table == {field.name: repr(getattr(criteria, field.name)) for field in fields(SelectionCriteria)}
    order = [each.value for each in RELAXATION]
    assert f"until one does: {', '.join(order)} (and features)" in " ".join(DOC.split())


def test_the_table_of_strategies_is_in_the_order_in_which_they_are_asked():
    named = [re.sub(r"\(.*", "", name) for name in rows("Fallback")]
    assert named == [*(type(each).__name__ for each in default_strategies()), ConfiguredFallbacks.__name__]
    assert inspect.signature(Retry).parameters["max_retries"].default == 1


@pytest.mark.parametrize("name", sorted({*DEFAULT_MODELS}))
def test_the_presets_are_named(name):
    assert name in DOC


def test_the_providers_and_their_keys_are_named():
    for provider in PROVIDERS.values():
        assert f"`{provider.name}`" in DOC
        assert provider.api_key_env is None or provider.api_key_env in DOC


def test_the_usual_place_is_the_documented_one(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert "`~/.gatewright/experience`" in DOC
    assert ExperienceStore().base_path == Path("/home/somebody/.gatewright/experience")


def test_all_that_is_imported_is_there_to_be_imported():
    for names in re.findall(r"from gatewright_library import (.*)", DOC):
        for name in names.split(", "):
            assert name in gatewright_library.__all__
    assert sorted(gatewright_library.__all__) == sorted(set(gatewright_library.__all__))
    assert all(hasattr(gatewright_library, name) for name in gatewright_library.__all__)
