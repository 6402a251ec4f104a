import pytest

from gatewright.config import (
    Margin,
    Tokenization,
)
from gatewright.configuration.schema import read_config
from gatewright.engines.spec import UNBOUNDED_CONTEXT_TOKENS
from gatewright.errors import ConfigError
from tests.support.configs import local_model, only_problem, problems, read, remote_model, variant


@pytest.mark.parametrize("name", ["", " a", "a\n", "a\0", 5, "x" * 201, ["a"]])
def test_names_that_are_not_allowed(name):
    assert only_problem(local_model(name=name)).startswith("models[1].name: got ")


def test_a_missing_name():
    model = local_model()
    del model["name"]
    assert (
        only_problem(model)
        == "models[1].name: missing; expected a name of 1 to 200 printable characters, without spaces around it"
    )


def test_names_and_aliases_are_one_name_space():
    assert problems(
        local_model(name="a", aliases=["b", "b"]),
        local_model(name="b"),
        remote_model(name="c", aliases=["a"]),
    ) == [
        'models[1].aliases[2]: "b" is already taken by models[1].aliases[1]',
        'models[2].name: "b" is already taken by models[1].aliases[1]',
        'models[3].aliases[1]: "a" is already taken by models[1].name',
    ]


def test_models_are_a_list():
    with pytest.raises(ConfigError, match=r"models: got a table with named fields, expected a list"):
        read_config({"server": {}, "models": {"qwen": local_model()}})
    with pytest.raises(ConfigError, match=r"models\[2\]: nil in the middle of a list"):
        read_config({"server": {}, "models": [local_model(), None]})
    assert only_problem({**local_model(), 1: "x"}) == (
        "models[1][1]: a value without a name; expected `name = value`"
    )


@pytest.mark.parametrize(
    ("engine", "name", "place"),
    [
        ("llama.cpp", "qwen", "primary"),
        ("llama.cpp.secondary", "qwen", "secondary:qwen"),
    ],
)
def test_places_of_local_engines(engine, name, place):
    (spec,) = read(local_model(name=name, engine=engine)).models[0].variants
    assert (spec.model, spec.place, spec.is_remote) == (name, place, False)


@pytest.mark.parametrize(
    ("margin", "expected"),
    [
        (0, Margin(ratio=0.0, tokens=0)),
        (256.0, Margin(ratio=0.0, tokens=256)),
        ({"ratio": 0.25}, Margin(ratio=0.25, tokens=512)),
        ({"tokens": 64}, Margin(ratio=0.1, tokens=64)),
        ({"ratio": 0, "tokens": 9}, Margin(ratio=0.0, tokens=9)),
    ],
)
def test_margin(margin, expected):
    assert read(local_model(margin=margin)).models[0].margin == expected


@pytest.mark.parametrize("margin", [-1, 0.5, "10%", True, {"ratio": 10}, {"tokens": -1}, [1]])
def test_margins_that_are_not_allowed(margin):
    assert only_problem(local_model(margin=margin)).startswith("models[1].margin")


def test_the_other_numbers_of_a_model():
    model = read(local_model(answer_tokens=0, max_oversize=1)).models[0]
    assert (model.answer_tokens, model.max_oversize) == (0, 1.0)
    assert only_problem(local_model(max_oversize=0.5)) == (
        "models[1].max_oversize: got 0.5, expected a number, 1 or more"
    )
    assert "models[1].answer_tokens: got -1" in only_problem(local_model(answer_tokens=-1))


def test_tokenization():
    model = read(
        local_model(
            tokenization={"binary": "tok", "extra_args": ["-m", "x"], "extra_tokens_per_message": 8.0}
        )
    ).models[0]
    assert model.tokenization == Tokenization(
        binary="tok",
        args=("--log-disable", "--stdin", "--ids", "-m", "x"),
        extra_tokens_per_message=8,
    )
    given = read(local_model(tokenization={"binary": "tok", "base_args": {}, "extra_tokens": 3})).models[0]
    assert given.tokenization == Tokenization(binary="tok", extra_tokens=3)
    assert only_problem(local_model(tokenization={})) == (
        "models[1].tokenization.binary: missing; expected a non-empty string"
    )


def test_a_remote_model():
    (spec,) = (
        read(
            remote_model(
                name="fast",
                api_key_env="KEY",
                upstream_model="org/model",
                context=131072,
                parallel=8,
                health_check_timeout=3,
                variants={},
            )
        )
        .models[0]
        .variants
    )
    assert (spec.place, spec.is_remote, spec.process) == ("remote:fast", True, None)
    assert (spec.connect, spec.context_tokens, spec.parallel) == ("https://api.example.com", 131072, 8)
    assert (spec.api_key_env, spec.upstream_model) == ("KEY", "org/model")
    assert spec.timeouts.health_check_s == 3.0
    (plain,) = read(remote_model()).models[0].variants
    assert (plain.context_tokens, plain.parallel) == (UNBOUNDED_CONTEXT_TOKENS, None)


def test_a_remote_model_runs_nothing():
    reason = 'engine "openai" runs no program and has no variants; remove it'
    assert problems(remote_model(variants=[variant()], binary="x", work_dir="y")) == [
        f"models[1].variants: {reason}; connect, context and upstream_model stand in the model itself",
        f"models[1].binary: {reason}",
        f"models[1].work_dir: {reason}",
    ]


def test_problems_of_remote_models():
    assert only_problem({"name": "a", "engine": "openai"}).startswith("models[1].connect: missing")
    assert "${PORT} is for engines that are started here" in only_problem(
        remote_model(connect="http://h:${PORT}")
    )
    problem = only_problem(remote_model(api_key_env="sk-proj-12345"))
    assert problem == (
        "models[1].api_key_env: got a string, expected the name of an environment variable, "
        'such as "OPENAI_API_KEY"'
    )


def test_remote_fields_in_local_models():
    assert problems(local_model(context=1, api_key_env="K", upstream_model="x")) == [
        "models[1].context: belongs into a variant; expected variants = { { context = ... } }",
        "models[1].api_key_env: only for engine = presets.engines.openai",
        "models[1].upstream_model: only for engine = presets.engines.openai",
    ]
