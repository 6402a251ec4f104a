import pytest

from gatewright.engines.spec import EngineTimeouts, ProcessSpec
from tests.support.configs import (
    PORT_ARGS,
    local_model,
    only_problem,
    problems,
    read,
    remote_model,
    variant,
)


def test_variants_come_by_ascending_context():
    model = read(local_model(variants=[variant(context=c) for c in (32768, 4096.0, 8192)])).models[0]
    assert [spec.context_tokens for spec in model.variants] == [4096, 8192, 32768]
    assert model.largest_context_tokens == 32768


def test_contexts_of_one_model_differ():
    assert only_problem(local_model(variants=[variant(), variant(context=8192), variant()])) == (
        "models[1].variants[3].context: 4096 is already the context of models[1].variants[1]"
    )


@pytest.mark.parametrize("context", [0, -1, 1.5, "4096", True, 10**20])
def test_contexts_that_are_not_allowed(context):
    assert "expected a whole number of tokens above 0" in only_problem(
        local_model(variants=[variant(context=context)])
    )


def test_required_fields_of_a_variant():
    assert problems(local_model(variants=[{}])) == [
        "models[1].variants[1].context: missing; expected a whole number of tokens above 0",
        "models[1].variants[1].binary: missing; expected a non-empty string",
    ]
    assert only_problem({"name": "a"}) == (
        "models[1].variants: missing; expected a list, each item a variant "
        "{ binary = ..., args = { ... }, context = ... }"
    )
    assert "models[1].variants: got a table with named fields" in only_problem(
        local_model(variants=variant())
    )


def test_timeouts_cascade_from_variant_over_model_to_server():
    model = read(
        local_model(
            engine_idle_timeout=20,
            engine_startup_timeout=21,
            variants=[variant(engine_idle_timeout=30), variant(context=1)],
        ),
        engine_idle_timeout=10,
        engine_startup_timeout=11,
        health_check_timeout=12,
    ).models[0]
    small, large = model.variants
    assert small.timeouts == EngineTimeouts(health_check_s=12.0, startup_s=21.0, idle_s=20.0)
    assert large.timeouts == EngineTimeouts(health_check_s=12.0, startup_s=21.0, idle_s=30.0)


def test_the_model_gives_defaults_for_its_variants():
    model = read(
        local_model(
            binary="/opt/llama-server",
            args=["-m", "x"],
            connect="http://127.0.0.1:9/v1/",
            parallel=2,
            work_dir="w",
            env={"B": "model", "A": 0},
            variants=[
                {"context": 1},
                {
                    "context": 2,
                    "binary": "other",
                    "args": [],
                    "parallel": 3,
                    "env": {"B": "v"},
                    "work_dir": "v",
                },
            ],
        )
    ).models[0]
    first, second = model.variants
    assert first.process == ProcessSpec(
        binary="/opt/llama-server", args=("-m", "x"), env=(("A", "0"), ("B", "model")), work_dir="w"
    )
    assert (first.connect, first.parallel) == ("http://127.0.0.1:9", 2)
    assert second.process == ProcessSpec(binary="other", env=(("A", "0"), ("B", "v")), work_dir="v")
    assert second.parallel == 3


def test_numbers_in_args_become_text_without_lua_s_point_zero():
    args = ["-c", 4096.0, "-t", 4, "--temp", 0.7, "--lora", "", *PORT_ARGS]
    (spec,) = read(local_model(variants=[variant(args=args)])).models[0].variants
    assert spec.process is not None
    assert spec.process.args[:8] == ("-c", "4096", "-t", "4", "--temp", "0.7", "--lora", "")


@pytest.mark.parametrize("args", ["-m x", {"m": "x"}, 5])
def test_args_are_a_list(args):
    assert "expected a list of strings such as" in only_problem(local_model(variants=[variant(args=args)]))


def test_args_hold_text_and_numbers():
    assert problems(local_model(variants=[variant(args=["-m", True, None])])) == [
        "models[1].variants[1].args[2]: got true, expected a string or a number",
        "models[1].variants[1].args[3]: nil in the middle of a list; is a variable's name misspelt?",
    ]


@pytest.mark.parametrize(
    ("args", "parallel"),
    [
        (["-np", "4"], 4),
        (["--parallel", 2], 2),
        (["-np=3"], 3),
        (["--parallel=5"], 5),
        (["-np", "4", "-np", "2"], 2),
        (["-np", "-1"], None),
        (["-np", "0"], None),
        (["-np", "many"], None),
        (["-np"], None),
        (["-np", "9" * 5000], None),
        ([], None),
    ],
)
def test_parallel_comes_from_the_arguments(args, parallel):
    (spec,) = read(local_model(variants=[variant(args=[*PORT_ARGS, *args])])).models[0].variants
    assert spec.parallel == parallel
    (spec,) = read(local_model(variants=[variant(args=[*PORT_ARGS, *args], parallel=7)])).models[0].variants
    assert spec.parallel == 7


@pytest.mark.parametrize(
    ("env", "path"),
    [
        ({"A": True}, "models[1].variants[1].env.A: got a boolean"),
        ({"TOKEN": "secret\0"}, "models[1].variants[1].env.TOKEN: got a string"),
        ({"A=B": "secret"}, 'models[1].variants[1].env["A=B"]: not a name'),
        ({"": "secret"}, 'models[1].variants[1].env[""]: not a name'),
        ({1: "secret"}, "models[1].variants[1].env[1]: not a name"),
        (["secret"], "models[1].variants[1].env: got a list"),
        ("secret", "models[1].variants[1].env: got a string"),
    ],
)
def test_env_is_a_map_whose_values_are_never_shown(env, path):
    problem = only_problem(local_model(variants=[variant(env=env)]))
    assert problem.startswith(path)
    assert "secret" not in problem


def test_env_names_may_hold_dots():
    (spec,) = read(local_model(variants=[variant(env={"A.B": "x"})])).models[0].variants
    assert spec.process is not None
    assert spec.process.env == (("A.B", "x"),)


@pytest.mark.parametrize(
    ("connect", "expected"),
    [
        ("http://127.0.0.1:9", "http://127.0.0.1:9"),
        ("http://127.0.0.1:9/", "http://127.0.0.1:9"),
        ("http://127.0.0.1:9/v1", "http://127.0.0.1:9"),
        ("http://[::1]:9/v1/", "http://[::1]:9"),
        ("https://host/api/v1", "https://host/api"),
        ("HTTP://host//v1//", "HTTP://host"),
    ],
)
def test_base_urls(connect, expected):
    (spec,) = read(local_model(variants=[variant(args=[], connect=connect)])).models[0].variants
    assert spec.connect == expected


@pytest.mark.parametrize(
    "connect",
    [
        "127.0.0.1:9",
        "ftp://host",
        "http://",
        "http://:80",
        "http://host:port",
        "http://host:99999",
        "http://[::1",
        "http://a b",
        "http://host\n",
        "http://host/v1/chat/completions",
        "",
        5,
        ["http://host"],
        "http://${HOST}:80",
        "http://host/${PORT}",
    ],
)
def test_urls_that_are_not_allowed(connect):
    assert "expected an http or https URL" in only_problem(
        local_model(variants=[variant(args=[], connect=connect)])
    )


@pytest.mark.parametrize("url", ["https://user:pw@host", "https://host/v1?key=pw", "https://host/#pw"])
def test_urls_with_secrets_are_not_shown(url):
    problem = only_problem(remote_model(connect=url))
    assert "expected a URL without user name, query and fragment" in problem
    assert "pw" not in problem


def test_the_placeholder_stands_in_both_or_neither():
    fixed, chosen = "http://127.0.0.1:9", "http://127.0.0.1:${PORT}"
    for args, connect in (([], fixed), (PORT_ARGS, chosen), (["--port=${PORT}"], chosen)):
        (spec,) = read(local_model(variants=[variant(args=args, connect=connect)])).models[0].variants
        assert spec.connect == connect
    assert only_problem(local_model(connect=fixed)) == (
        'models[1].variants[1].connect: "http://127.0.0.1:9" has a fixed port, but args contain ${PORT}, so the port '
        'is chosen at start; write connect = "http://127.0.0.1:${PORT}", or the fixed port in both'
    )
    assert only_problem(local_model(connect=chosen, variants=[variant(args=[])])) == (
        'models[1].variants[1].connect: "http://127.0.0.1:${PORT}" contains ${PORT}, but args do not, so the engine '
        'would not learn its port; add "--port", "${PORT}" to args, or write the fixed port in both'
    )


def test_a_missing_url_is_guessed_in_the_message():
    problem = only_problem(local_model(variants=[variant(args=["--port", "8099"])]))
    assert (
        'missing; expected the URL at which the engine listens, such as connect = "http://127.0.0.1:8099"'
        in problem
    )
    assert 'connect = "http://127.0.0.1:8081"' in only_problem(local_model(variants=[variant(args=[])]))


def test_other_placeholders():
    assert only_problem(local_model(variants=[variant(args=["-m", "${MODEL}"], connect="http://h:1")])) == (
        "models[1].variants[1].args: ${MODEL} is not replaced by anything; only ${PORT} is"
    )
