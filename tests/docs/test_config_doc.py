"""docs/config.md says what is: its examples load, its errors are the real ones, its tables are complete and true."""

import json
import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from attrs import fields

from gatewright.config import Margin, ModelConfig, ServerConfig, Tokenization
from gatewright.config_engines import TIMEOUT_FIELDS
from gatewright.config_models import BASE_ARGS
from gatewright.config_schema import FIELD_NAMES, SERVER_SETTINGS
from gatewright.engines.spec import UNBOUNDED_CONTEXT_TOKENS, EngineTimeouts
from gatewright.errors import ConfigError
from gatewright_host.config_files import load_config

DOC = (Path(__file__).parents[2] / "docs" / "config.md").read_text(encoding="utf-8")

EXAMPLES = re.findall(r"^```lua\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)
ERRORS = re.findall(r"^```lua error\n(.*?)^```\n\n```text\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)

# Section of the document that has the table of each kind of table in the file.
HEADINGS = {
    "server": ["`server`"],
    "model": ["Models", "Models that run here", "Variants", "Remote models"],
    "variant": ["Variants"],
    "tokenization": ["Tokenization"],
    "margin": ["Margin"],
}


def rows(heading: str) -> Iterator[tuple[str, str]]:
    """Name and default of every field in the tables under a heading."""
    section = re.split(r"^#+ ", DOC.partition(f"# {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| `") and len(cells) == 4:
            yield cells[0].strip("`"), cells[2].strip("`")


def documented(kind: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for heading in HEADINGS[kind]:
        for name, default in rows(heading):
            found.setdefault(name, default)
    return found


def in_lua(value: Any) -> str:
    match value:
        case None:
            return "nil"
        case bool():
            return str(value).lower()
        case StrEnum():
            return json.dumps(value.value)
        case float() | int():
            return f"{value:.10g}"
        case Margin():
            return f"{{ ratio = {in_lua(value.ratio)}, tokens = {in_lua(value.tokens)} }}"
        case tuple():
            return "{ " + ", ".join(json.dumps(item) for item in value) + " }" if value else "{}"
        case _:
            return json.dumps(value)


def default_of(owner: type, attribute: str) -> str:
    found = next(field for field in fields(owner) if field.name == attribute).default
    factory = getattr(found, "factory", None)
    return in_lua(factory() if factory else found)


def write(directory: Path, source: str) -> Path:
    path = directory / "gatewright.lua"
    path.write_text(source, encoding="utf-8")
    return path


@pytest.mark.parametrize("source", EXAMPLES)
def test_examples_load(source, tmp_path):
    load_config(write(tmp_path, source))


def test_there_are_examples_of_every_engine_type():
    text = "".join(EXAMPLES)
    assert all(f"presets.engines.{name}" in text for name in ("llamacpp", "llamacpp_secondary", "openai"))


@pytest.mark.parametrize(("source", "messages"), ERRORS)
def test_errors_are_the_real_ones(source, messages, tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, source))
    assert caught.value.problems == tuple(messages.splitlines())


@pytest.mark.parametrize("kind", FIELD_NAMES)
def test_every_field_is_documented_and_no_other(kind):
    assert set(documented(kind)) == set(FIELD_NAMES[kind])


def test_defaults_of_the_server():
    table = documented("server")
    for name, (attribute, _) in SERVER_SETTINGS.items():
        assert table[name] == default_of(ServerConfig, attribute), name
    for name, attribute in TIMEOUT_FIELDS.items():
        assert table[name] == default_of(EngineTimeouts, attribute), name
    assert "If none of the three fields is given, the server listens on `127.0.0.1:8080`." in DOC
    (listener,) = ServerConfig().listen
    assert repr(listener) == "TcpListener(host='127.0.0.1', port=8080)"


def test_defaults_of_models():
    table = dict(rows("Models"))
    for name in ("aliases", "engine", "answer_tokens", "margin", "max_oversize", "tokenization"):
        assert table.pop(name) == default_of(ModelConfig, name), name
    assert table == {"name": "required"}
    assert dict(rows("Remote models"))["context"] == str(UNBOUNDED_CONTEXT_TOKENS)


def test_defaults_of_the_smaller_tables():
    for name in ("ratio", "tokens"):
        assert documented("margin")[name] == default_of(Margin, name)
    table = documented("tokenization")
    assert table["base_args"] == in_lua(BASE_ARGS)
    for name in ("extra_tokens_per_message", "extra_tokens"):
        assert table[name] == default_of(Tokenization, name)
