"""docs/config.md says what is: its examples load, its errors are the real ones, its tables are complete and true."""

import json
import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from attrs import fields

from gatewright.config import CallTimeouts, Margin, ModelConfig, ServerConfig, Tokenization
from gatewright.config_calls import CALL_FIELDS, CALL_TIMEOUT_FIELDS, MOST_ATTEMPTS, MOST_FALLBACKS
from gatewright.config_engines import TIMEOUT_FIELDS
from gatewright.config_models import BASE_ARGS
from gatewright.config_schema import FIELD_NAMES, SERVER_SETTINGS
from gatewright.engines.spec import UNBOUNDED_CONTEXT_TOKENS, EngineTimeouts
from gatewright.errors import ConfigError
from gatewright_host.config_files import load_config
from tests.support.configs import local_model, read, remote_model

PATH = Path(__file__).parents[2] / "docs" / "config.md"
DOC = PATH.read_text(encoding="utf-8")

EXAMPLES = re.findall(r"^```lua\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)
ERRORS = re.findall(r"^```lua error\n(.*?)^```\n\n```text\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)

# Section of the document that has the table of each kind of table in the file.
HEADINGS = {
    "server": ["`server`"],
    "model": ["Models", "Models that run here", "Variants", "Remote models", "When an upstream fails"],
    "variant": ["Variants"],
    "tokenization": ["Tokenization"],
    "margin": ["Margin"],
    "timeouts": ["Timeouts"],
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


def test_defaults_of_calls():
    remote, local = read(remote_model(), local_model()).models
    chained = read(remote_model(fallbacks=["qwen"]), local_model()).models[0]
    table = {name: default.replace("`", "") for name, default in rows("When an upstream fails")}
    assert tuple(table) == CALL_FIELDS
    assert table["fallbacks"] == default_of(ModelConfig, "fallbacks")
    assert table["max_attempts"] == default_of(ModelConfig, "max_attempts")
    assert table["retries"] == f"{remote.retries}, or {local.retries} where it runs here"
    assert f"at most {MOST_FALLBACKS}." in DOC
    assert f"1 to {MOST_ATTEMPTS};" in DOC

    limits = {name: default.replace("`", "") for name, default in rows("Timeouts")}
    for name in CALL_TIMEOUT_FIELDS:
        alone, followed = (in_lua(getattr(model.timeouts, f"{name}_s")) for model in (remote, chained))
        assert limits[name] == (alone if alone == followed else f"{alone}, or {followed} with fallbacks")
    assert local.timeouts == CallTimeouts(connect_s=remote.timeouts.connect_s)


def test_the_example_of_fallbacks_is_explained_as_it_is(tmp_path):
    (source,) = [example for example in EXAMPLES if "fallbacks" in example]
    config = load_config(write(tmp_path, source)).config
    chains = [[model.name for model in config.chain_of(each)] for each in config.models]
    assert chains == [["gpt", "mistral", "qwen3"], ["mistral"], ["qwen3"]]


def test_links_to_other_documents_lead_somewhere():
    for file, anchor in re.findall(r"\]\(([a-z]*\.md)?#([a-z-]+)\)", DOC):
        text = (PATH.parent / file).read_text(encoding="utf-8") if file else DOC
        headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
        assert anchor in [re.sub(r"[^a-z -]", "", each.lower()).replace(" ", "-") for each in headings]
