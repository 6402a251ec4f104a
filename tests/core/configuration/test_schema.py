from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewright.config import (
    EngineKind,
    LogFormat,
    LogLevel,
    Margin,
    ServerConfig,
    TcpListener,
)
from gatewright.configuration.schema import FIELD_NAMES, config_warnings, read_config
from gatewright.engines.spec import EngineTimeouts, ProcessSpec
from gatewright.errors import ConfigError
from tests.support.configs import (
    PORT_ARGS,
    local_model,
    only_problem,
    problems,
    read,
    variant,
)


def test_the_smallest_configuration_takes_every_default():
    config = read()
    assert config.server == ServerConfig()
    (model,) = config.models
    (spec,) = model.variants
    assert (model.name, model.engine, model.margin, model.tokenization) == (
        "qwen",
        EngineKind.LLAMACPP,
        Margin(),
        None,
    )
    assert spec.process == ProcessSpec(binary="llama-server", args=tuple(PORT_ARGS))
    assert (spec.connect, spec.place, spec.parallel) == ("http://127.0.0.1:${PORT}", "primary", None)
    assert spec.timeouts == EngineTimeouts()


def test_both_globals_are_required():
    with pytest.raises(ConfigError) as caught:
        read_config({})
    assert caught.value.problems == (
        "server: missing; expected a global table; server = {} takes every default",
        "models: missing; expected a global list, such as models = { { name = ..., variants = { ... } } }",
    )


def test_other_globals_are_not_looked_at():
    assert read_config({"server": {}, "models": [local_model()], "llama_port": object()}).models


def test_all_problems_come_at_once():
    found = problems(
        local_model(name="", variants=[variant(context="8k"), variant(binary=1)]),
        local_model(engine="llama"),
        max_waiting=0,
        log_levle="info",
    )
    assert [line.partition(": ")[0] for line in found] == [
        "server.log_levle",
        "server.max_waiting",
        "models[1].name",
        "models[1].variants[1].context",
        "models[1].variants[2].binary",
        "models[2].engine",
    ]


@pytest.mark.parametrize("empty", [[], {}])
def test_lua_s_empty_table_is_a_list_and_a_map(empty):
    config = read_config(
        {
            "server": empty,
            "models": [local_model(aliases=empty, env=empty, variants=[variant(env=empty)], margin=empty)],
        }
    )
    assert config.models[0].aliases == ()
    assert config.models[0].margin == Margin()
    assert only_problem(local_model(variants=empty)) == (
        "models[1].variants: empty; expected at least one variant"
    )
    with pytest.raises(ConfigError, match="models: empty"):
        read_config({"server": {}, "models": empty})


@pytest.mark.parametrize(
    ("server", "problem"),
    [
        ({"max_bodybytes": 1}, 'server.max_bodybytes: unknown field; did you mean "max_body_bytes"?'),
        ({"Open": True}, 'server.Open: unknown field; did you mean "open"?'),
        ({"a b": 1}, 'server["a b"]: unknown field; known are '),
        ({1: "x"}, "server[1]: a value without a name; expected `name = value`"),
    ],
)
def test_unknown_fields(server, problem):
    with pytest.raises(ConfigError) as caught:
        read_config({"server": server, "models": [local_model()]})
    assert caught.value.problems[0].startswith(problem)


def test_unknown_fields_at_every_level():
    found = problems(
        local_model(
            answer_token=1,
            margin={"ratios": 1},
            tokenization={"binary": "t", "extra_arg": []},
            variants=[variant(contex=1, name="x")],
        )
    )
    assert found == [
        'models[1].variants[1].contex: unknown field; did you mean "context"?',
        "models[1].variants[1].name: belongs into the model, not into a variant",
        'models[1].answer_token: unknown field; did you mean "answer_tokens"?',
        'models[1].margin.ratios: unknown field; did you mean "ratio"?',
        'models[1].tokenization.extra_arg: unknown field; did you mean "extra_args"?',
    ]


def test_every_server_field():
    config = read(
        listen_v4="127.0.0.1:1",
        listen_v6="none",
        api_keys=["k"],
        open=True,
        allowed_hosts=["gw.lan", "*"],
        max_head_bytes=1,
        max_body_bytes=2.0,
        max_waiting=3,
        max_connections=4,
        max_wait_s=5,
        queue_timeout=6.5,
        head_timeout=7,
        body_timeout=8,
        keep_alive_timeout=9,
        stall_timeout=10,
        shutdown_timeout=11,
        state_dir="s",
        log_level="WARNING",
        log_format="json",
        default_model="qwen",
        dumps_dir="d",
        clear_dumps_on_start=True,
        health_check_timeout=12,
        engine_startup_timeout=13,
        engine_idle_timeout=14,
        engine_stop_timeout=15,
    )
    assert config.server == ServerConfig(
        listen=(TcpListener(host="127.0.0.1", port=1),),
        timeouts=EngineTimeouts(health_check_s=12.0, startup_s=13.0, idle_s=14.0, stop_s=15.0),
        api_keys=("k",),
        open=True,
        allowed_hosts=("gw.lan", "*"),
        max_head_bytes=1,
        max_body_bytes=2,
        max_waiting=3,
        max_connections=4,
        max_wait_s=5.0,
        queue_timeout_s=6.5,
        head_timeout_s=7.0,
        body_timeout_s=8.0,
        keep_alive_timeout_s=9.0,
        stall_timeout_s=10.0,
        shutdown_timeout_s=11.0,
        state_dir="s",
        log_level=LogLevel.WARNING,
        log_format=LogFormat.JSON,
        default_model="qwen",
        dumps_dir="d",
        clear_dumps_on_start=True,
    )
    assert isinstance(config.server.max_body_bytes, int)
    assert isinstance(config.server.max_wait_s, float)


@pytest.mark.parametrize(
    ("field", "value", "rest"),
    [
        ("queue_timeout", 0, "got 0, expected a number of seconds above 0"),
        ("queue_timeout", -1.5, "got -1.5, expected a number of seconds above 0"),
        ("queue_timeout", True, "got true, expected a number of seconds above 0"),
        ("queue_timeout", "5", 'got "5", expected a number of seconds above 0'),
        ("queue_timeout", float("nan"), "got nan, expected a number of seconds above 0"),
        ("queue_timeout", float("inf"), "got inf, expected a number of seconds above 0"),
        ("engine_stop_timeout", 0, "got 0, expected a number of seconds above 0"),
        ("max_waiting", 1.5, "got 1.5, expected a whole number above 0"),
        ("max_waiting", 10**400, "got a number beyond 2^53, expected a whole number above 0"),
        ("open", 1, "got 1, expected true or false"),
        ("open", "yes", 'got "yes", expected true or false'),
        ("log_format", "xml", 'got "xml", expected one of "text", "json"'),
        ("state_dir", "", 'got "", expected a non-empty string'),
        ("state_dir", "a\0b", 'got "a\\x00b", expected a non-empty string'),
        ("state_dir", ["x"], "got a list, expected a non-empty string"),
        ("dumps_dir", {"a": 1}, "got a table with named fields, expected a non-empty string"),
        ("state_dir", False, "got false, expected a non-empty string"),
    ],
)
def test_values_that_are_not_allowed(field, value, rest):
    assert only_problem(**{field: value}) == f"server.{field}: {rest}"


@pytest.mark.parametrize(
    "keys",
    ["sk-topsecret", ["sk-topsecret", 1], {"main": "sk-topsecret"}, ["sk-topsecret\0"], ["sk-topsecret", ""]],
)
def test_api_keys_are_never_shown(keys):
    assert "topsecret" not in only_problem(api_keys=keys)
    assert "topsecret" not in repr(read(api_keys=["sk-topsecret"]))


def test_default_model_is_a_model_or_an_alias():
    assert read(local_model(aliases=["q"]), default_model="q").default_model is not None
    assert only_problem(default_model="qwem") == (
        'server.default_model: got "qwem", expected the name of a model; did you mean "qwen"?'
    )


def test_allowed_hosts_are_names():
    assert only_problem(allowed_hosts=["https://gw.lan/"]) == (
        'server.allowed_hosts[1]: got "https://gw.lan/", expected a host name without scheme and path'
    )


words = st.sampled_from(sorted({name for names in FIELD_NAMES.values() for name in names}))
texts = st.sampled_from(
    [
        "",
        "none",
        "llama.cpp",
        "openai",
        "http://h:1",
        "http://[",
        "http://h:${PORT}",
        "${PORT}",
        "-np",
        "8080",
        "::1",
    ]
) | st.text(st.characters(), max_size=12)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.binary(max_size=3) | st.just(10**400)
)
keys = words | words | st.text(max_size=5) | st.integers() | st.booleans() | st.floats()
junk = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=6),
    max_leaves=25,
)
tables = st.dictionaries(keys, junk, max_size=8)


@st.composite
def nearly_valid(draw: st.DrawFn) -> dict[str, Any]:
    variants = st.lists(tables.map(lambda extra: variant() | extra), max_size=3)
    models = st.lists(
        st.builds(lambda extra, found: {"name": "m", "variants": found} | extra, tables, variants) | tables,
        max_size=3,
    )
    return {"server": draw(tables), "models": draw(models)}


def problems_of(raw: dict[str, Any]) -> tuple[str, ...]:
    try:
        config = read_config(raw)
    except ConfigError as error:
        return error.problems
    config_warnings(config)
    assert all(model.variants for model in config.models)
    return ()


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(["server", "models"]), junk) | nearly_valid())
def test_junk_raises_nothing_but_config_errors(raw):
    assert all(problem.isprintable() for problem in problems_of(raw))


@settings(max_examples=200, deadline=None)
@given(tables)
def test_junk_in_one_variant(extra):
    raw = {"server": {}, "models": [local_model(variants=[variant() | extra])]}
    assert all(problem.startswith("models[1].variants[1]") for problem in problems_of(raw))
