"""docs/config.md says what is: its examples load, its errors are the real ones, its tables are complete and true."""

import json
import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
import pytest
from attrs import astuple, fields

from gatewright.accounting.spending import BudgetConfig, BudgetScope, Window, WindowKind
from gatewright.api.facts import Wishes
from gatewright.api.transforms import Transform
from gatewright.api.wishes import WISH_FIELDS, WISH_HEADERS, read_wishes
from gatewright.config import CallTimeouts, Margin, ModelConfig, ServerConfig, Tokenization
from gatewright.configuration.calls import CALL_FIELDS, CALL_TIMEOUT_FIELDS, MOST_ATTEMPTS, MOST_FALLBACKS
from gatewright.configuration.criteria import CRITERIA_FIELDS
from gatewright.configuration.engines import TIMEOUT_FIELDS
from gatewright.configuration.models import BASE_ARGS
from gatewright.configuration.profiles import PROFILE_FIELDS
from gatewright.configuration.schema import FIELD_NAMES, SERVER_SETTINGS
from gatewright.engines.spec import UNBOUNDED_CONTEXT_TOKENS, EngineTimeouts
from gatewright.errors import ConfigError
from gatewright.presets import DEFAULT_MODELS, PROVIDERS
from gatewright.route_config import (
    EstimatorConfig,
    EstimatorKind,
    ExperienceConfig,
    ExperimentConfig,
    FallbackPolicy,
    FallbackStrategy,
    JudgeConfig,
    RegistryConfig,
    RouteConfig,
    StoreConfig,
)
from gatewright.selection.criteria import WEIGHTS, Prefer, Relaxation, SelectionCriteria
from gatewright.selection.profiles import Capability, Feature, Modality, ModelProfile
from gatewright_host.config_files import load_config
from tests.cli.conftest import Cli
from tests.support.configs import local_model, read, remote_model

PATH = Path(__file__).parents[2] / "docs" / "config.md"
DOC = PATH.read_text(encoding="utf-8")

EXAMPLES = re.findall(r"^```lua\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)
ERRORS = re.findall(r"^```lua error\n(.*?)^```\n\n```text\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)

# Section of the document that has the table of each kind of table in the file.
HEADINGS = {
    "server": ["`server`"],
    "model": [
        "Models",
        "Models that run here",
        "Variants",
        "Remote models",
        "What is known of a model",
        "When an upstream fails",
    ],
    "variant": ["Variants"],
    "tokenization": ["Tokenization"],
    "margin": ["Margin"],
    "timeouts": ["Timeouts"],
    "route": ["Fields of a route"],
    "criteria": ["Criteria"],
    "weights": ["Weights"],
    "estimator": ["Estimators"],
    "fallback": ["Fallback of a route"],
    "transform": ["Transforms"],
    "experiment": ["Experiments"],
    "arm": ["Arms"],
    "judge": ["Judges"],
    "budget": ["Budgets"],
    "window": ["Windows"],
    "store": ["The store"],
    "experience": ["Experience"],
    "registry": ["The registry"],
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
        case dict() if not value:
            return "{}"
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
    for name in ("aliases", "engine", "answer_tokens", "margin", "max_oversize", "tokenization", "transform"):
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


def test_defaults_of_profiles():
    table = dict(rows("What is known of a model"))
    names = set(PROFILE_FIELDS) - {"provider"}
    assert set(table) == names
    plain = ModelProfile(name="")
    assert table.pop("features") == "see below"
    assert table.pop("modalities") == '{ "text" }'
    for name in ("capabilities", "tags", "quality_by_task"):
        assert table.pop(name) == "{}"
        assert not getattr(plain, name)
    for name, default in table.items():
        owner = plain.pricing if hasattr(plain.pricing, name) else plain
        assert default == in_lua(getattr(owner, name)), name


def test_words_of_the_vocabularies():
    for words in (
        Capability,
        Feature,
        Modality,
        Relaxation,
        Prefer,
        FallbackStrategy,
        EstimatorKind,
        BudgetScope,
    ):
        assert all(f'"{word.value}"' in DOC for word in words), words


def test_known_providers():
    section = DOC.partition("# Known providers\n")[2].partition("\n### ")[0]
    found = {
        name: (connect, key)
        for name, connect, key in re.findall(r'^\| `"(.*)"` \| `(.*)` \| (.*) \|$', section, re.MULTILINE)
    }
    assert found == {
        name: (preset.connect, "none" if preset.api_key_env is None else f"`{preset.api_key_env}`")
        for name, preset in PROVIDERS.items()
    }
    for name, model in DEFAULT_MODELS.items():
        assert re.search(rf"`{re.escape(name)}`[^()]*\({model.provider}\)", section), name


def test_defaults_of_routes():
    route = {
        name: default for name, default in rows("Fields of a route") if name not in ("criteria", "fallback")
    }
    plain = RouteConfig(name="")
    assert route.pop("prefer") == in_lua(Prefer.BALANCED)
    assert WEIGHTS[Prefer.BALANCED] == plain.weights
    assert route.pop("weights") == "nil"
    assert route.pop("estimator") == in_lua(plain.estimator.kind)
    for name, default in route.items():
        assert default == in_lua(getattr(plain, name)), name
    assert {default for _, default in rows("Weights")} == {"0"}


@pytest.mark.parametrize(
    ("heading", "default", "renamed"),
    [
        ("Estimators", EstimatorConfig(), {"timeout": "timeout_s", "python": "function"}),
        ("Transforms", Transform(), {}),
        ("Experiments", ExperimentConfig(name="", arms=()), {}),
        ("Judges", JudgeConfig(model=""), {}),
        ("The store", StoreConfig(), {}),
        ("Experience", ExperienceConfig(), {}),
        ("The registry", RegistryConfig(), {}),
        ("Budgets", BudgetConfig(name="", limit_usd=0), {"per": "scope"}),
        ("Fallback of a route", FallbackPolicy(), {}),
    ],
)
def test_defaults_of_the_tables_of_routes(heading, default, renamed):
    exceptions = {"window": '"month"', "action": '"refuse"', "strategies": "all, in this order"}
    for name, text in rows(heading):
        if text == "required":
            continue
        expected = exceptions.get(name) or in_lua(getattr(default, renamed.get(name, name)))
        assert text == expected, name
    assert BudgetConfig(name="", limit_usd=0).window == Window(kind=WindowKind.CALENDAR, period="month")
    assert FallbackPolicy().strategies == tuple(FallbackStrategy)


def test_presets_of_weights():
    section = DOC.partition("# Weights\n")[2].partition("\n### ")[0]
    found = {
        prefer: tuple(map(float, numbers.split(" | ")))
        for prefer, numbers in re.findall(r'^\| `"(\w+)"` \| ([0-9. |]+) \|$', section, re.MULTILINE)
    }
    assert found == {prefer.value: astuple(weights) for prefer, weights in WEIGHTS.items()}


def test_wishes_are_documented():
    section = DOC.partition("# Wishes of a request\n")[2].partition("\n## ")[0]
    table = dict(re.findall(r"^\| `([\w.]+)` \| (?:`(.*?)`)? ?\|", section, re.MULTILINE))
    inner = {f"criteria.{name}" for name in CRITERIA_FIELDS}
    assert set(table) == (set(WISH_FIELDS) - {"criteria"}) | inner
    assert {header.encode() for header in table.values() if header} == set(WISH_HEADERS)
    (example,) = re.findall(r"^```json\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    body = json.loads(example)
    wishes = read_wishes(msgspec.Raw(json.dumps(body["gatewright"]).encode()), ())
    assert wishes == Wishes(
        task="translate",
        prefer=Prefer.COST,
        criteria=SelectionCriteria(min_quality_threshold=0.8),
        fallbacks=(),
    )


def test_the_first_auto_route_is_ten_lines_and_raises_no_warning(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    source = re.findall(
        r"^```lua\n(.*?)^```", DOC.partition("# An auto route in ten lines\n")[2], re.MULTILINE | re.DOTALL
    )[0]
    assert len(source.splitlines()) == 10
    loaded = load_config(write(tmp_path, source))
    assert loaded.warnings == ()
    (route,) = loaded.config.routes
    assert [model.name for model in loaded.config.candidates_of(route)] == ["gpt-4o", "gpt-4o-mini"]


@pytest.mark.engine
def test_the_example_of_the_embedded_engine_answers():
    (source,) = [example for example in EXAMPLES if "presets.embedded" in example]
    runner = Cli()
    try:
        (runner.directory / "gatewright.lua").write_text(source)
        done = runner.run("ask", "--model", "demo", "What is Gatewright?")
        assert done.code == 0, done.err
        assert "Gatewright" in done.out
        (engine,) = runner.engines()
        assert engine["context_tokens"] == 1024
    finally:
        runner.close()


def test_no_budget_warns_of_servers_of_one_s_own():
    section = " ".join(DOC.partition("\n## Budgets\n")[2].partition("\n## ")[0].split())
    own = re.search(r"whose `provider` is a server of one's own \((.*?)\)", section)
    assert own is not None
    local = {preset.name for preset in PROVIDERS.values() if preset.is_local}
    assert set(re.findall(r'"([^"]+)"', own[1])) == local


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
