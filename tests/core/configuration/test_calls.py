import pytest

from gatewright import codec
from gatewright.api.facts import Continuation
from gatewright.config import CallTimeouts, ModelConfig
from gatewright.configuration.schema import read_config
from gatewright.events import ConfigReplaced
from tests.support.configs import (
    local_model,
    only_problem,
    problems,
    read,
    remote_model,
    variant,
)

LOCAL_ENGINES = ("llama.cpp", "llama.cpp.secondary")


def model_of(fields: dict[str, object], *others: dict[str, object]) -> ModelConfig:
    return read(fields, *others).models[0]


# --- defaults


@pytest.mark.parametrize("engine", LOCAL_ENGINES)
def test_defaults_of_models_that_run_here(engine):
    model = model_of(local_model(engine=engine))
    assert (model.fallbacks, model.retries, model.max_attempts) == ((), 1, None)
    assert model.timeouts == CallTimeouts(connect_s=10.0)
    assert model.prefill is Continuation.LLAMACPP


def test_defaults_of_remote_models():
    model = model_of(remote_model())
    assert (model.fallbacks, model.retries, model.max_attempts) == ((), 2, None)
    assert model.timeouts == CallTimeouts(
        connect_s=10.0, head_s=300.0, first_token_s=30.0, between_chunks_s=30.0, total_s=1800.0
    )
    assert model.prefill is None


def test_a_remote_model_with_fallbacks_is_waited_for_less():
    model = model_of(remote_model(fallbacks=["qwen"]), local_model(fallbacks=["gpt"]))
    assert model.timeouts == CallTimeouts(
        connect_s=10.0, head_s=60.0, first_token_s=10.0, between_chunks_s=20.0, total_s=1800.0
    )
    assert read(remote_model(), local_model(fallbacks=["gpt"])).models[1].timeouts == CallTimeouts()


def test_an_engine_type_that_is_refused_has_no_more_problems():
    assert len(problems(local_model(engine="steam", retries=2, prefill=True, timeouts={"total": 1}))) == 1


# --- fallbacks


def test_fallbacks_are_names_and_aliases_in_order():
    config = read(
        remote_model(name="a", aliases=["first"], fallbacks=["third", "b"]),
        local_model(name="b", fallbacks=["first"]),
        remote_model(name="c", aliases=["third"]),
    )
    a, b, c = config.models
    assert a.fallbacks == ("third", "b")
    assert config.chain_of(a) == (a, c, b)
    assert config.chain_of(b) == (b, a), "of a's own fallbacks none is asked"
    assert config.chain_of(c) == (c,)


def test_a_fallback_has_to_exist():
    assert problems(
        remote_model(fallbacks=["qwen2", "nobody"]), local_model(fallbacks=["gtp"], aliases=["local"])
    ) == [
        'models[1].fallbacks[1]: got "qwen2", expected the name of another model; did you mean "qwen"?',
        'models[1].fallbacks[2]: got "nobody", expected the name of another model; known are local, qwen',
        'models[2].fallbacks[1]: got "gtp", expected the name of another model; did you mean "gpt"?',
    ]
    assert only_problem(remote_model(fallbacks=["x"])) == (
        'models[1].fallbacks[1]: got "x", expected the name of another model; there is none'
    )


@pytest.mark.parametrize("name", ["gpt", "g"])
def test_a_model_is_no_fallback_of_its_own(name):
    assert only_problem(remote_model(aliases=["g"], fallbacks=["qwen", name]), local_model()) == (
        f'models[1].fallbacks[2]: "{name}" is the model itself; expected the name of another model'
    )


def test_nobody_is_asked_twice():
    assert problems(remote_model(fallbacks=["q", "qwen", "q"]), local_model(aliases=["q"])) == [
        'models[1].fallbacks[2]: "qwen" is the same model as models[1].fallbacks[1]',
        'models[1].fallbacks[3]: "q" is the same model as models[1].fallbacks[1]',
    ]


def test_at_most_eight_fallbacks():
    others = [remote_model(name=f"m{number}") for number in range(9)]
    names = [other["name"] for other in others]
    assert model_of(remote_model(fallbacks=names[:8]), *others).fallbacks == tuple(names[:8])
    assert only_problem(remote_model(fallbacks=names), *others) == (
        "models[1].fallbacks: 9 models; expected at most 8"
    )


@pytest.mark.parametrize("empty", [[], {}])
def test_no_fallbacks(empty):
    assert model_of(remote_model(fallbacks=empty)) == model_of(remote_model())


@pytest.mark.parametrize(
    ("fallbacks", "problem"),
    [
        ("qwen", 'models[1].fallbacks: got "qwen", expected a list, each item the name of a model'),
        ({"a": "qwen"}, "models[1].fallbacks: got a table with named fields, expected a list, each item"),
        (["qwen", 5], "models[1].fallbacks[2]: got 5, expected the name of a model"),
        (["qwen", None], "models[1].fallbacks[2]: nil in the middle of a list"),
        ([False], "models[1].fallbacks[1]: got false, expected the name of a model"),
        (False, "models[1].fallbacks: got false, expected a list"),
    ],
)
def test_fallbacks_that_are_no_list_of_names(fallbacks, problem):
    assert only_problem(remote_model(fallbacks=fallbacks), local_model()).startswith(problem)


def test_fallbacks_among_models_with_problems_of_their_own():
    found = problems(
        remote_model(name="", aliases=["x"], fallbacks=["qwen", "x"]),
        remote_model(name="", fallbacks=["x"]),
        local_model(retries=9),
    )
    assert [line.partition(": ")[0] for line in found] == [
        "models[1].name",
        "models[2].name",
        "models[3].retries",
        "models[1].fallbacks[2]",
    ]
    with pytest.raises(ValueError, match=r"models\[2\]: got 5"):
        read_config({"server": {}, "models": [remote_model(fallbacks=["qwen"]), 5, local_model()]})


# --- numbers


@pytest.mark.parametrize("retries", [0, 1, 2.0])
def test_retries(retries):
    assert model_of(remote_model(retries=retries)).retries == retries
    assert model_of(local_model(retries=retries)).retries == retries


@pytest.mark.parametrize("retries", [3, -1, 1.5, "2", False])
def test_retries_that_are_not_allowed(retries):
    assert only_problem(remote_model(retries=retries)).endswith(
        "expected a whole number of retries, at most 2 (0 for none)"
    )


def test_max_attempts():
    for number in (1, 32):
        assert model_of(remote_model(max_attempts=number)).max_attempts == number
        assert model_of(local_model(max_attempts=number)).max_attempts == number
    for number in (0, 33, 2.5, False):
        problem = only_problem(local_model(max_attempts=number))
        assert problem.startswith("models[1].max_attempts: got ")
        assert problem.endswith("expected a whole number of calls, 1 to 32")


# --- timeouts


def test_timeouts():
    given = {"connect": 1, "head": 2, "first_token": 3.5, "between_chunks": 4, "total": 5}
    expected = CallTimeouts(connect_s=1.0, head_s=2.0, first_token_s=3.5, between_chunks_s=4.0, total_s=5.0)
    assert model_of(remote_model(timeouts=given)).timeouts == expected
    assert model_of(local_model(timeouts=given)).timeouts == expected


def test_timeouts_that_are_not_given_keep_their_defaults():
    assert model_of(remote_model(timeouts={"head": 7})).timeouts == CallTimeouts(
        head_s=7.0, first_token_s=30.0, between_chunks_s=30.0, total_s=1800.0
    )
    chained = model_of(remote_model(timeouts={"head": 7}, fallbacks=["qwen"]), local_model())
    assert chained.timeouts == CallTimeouts(
        head_s=7.0, first_token_s=10.0, between_chunks_s=20.0, total_s=1800.0
    )
    assert model_of(local_model(timeouts={"total": 7})).timeouts == CallTimeouts(total_s=7.0)
    assert model_of(remote_model(timeouts={})) == model_of(remote_model())


def test_timeouts_that_are_switched_off():
    off = {"head": False, "first_token": False, "between_chunks": False, "total": False}
    assert model_of(remote_model(timeouts=off)).timeouts == CallTimeouts()
    assert model_of(local_model(timeouts=off)).timeouts == CallTimeouts()


@pytest.mark.parametrize("name", ["head", "first_token", "between_chunks", "total"])
@pytest.mark.parametrize("value", [0, -1, "10", True, [], float("inf"), float("nan")])
def test_timeouts_that_are_not_allowed(name, value):
    problem = only_problem(remote_model(timeouts={name: value}))
    assert problem.startswith(f"models[1].timeouts.{name}: got ")
    assert problem.endswith("expected a number of seconds above 0, or false for no limit")


@pytest.mark.parametrize("value", [0, False])
def test_a_connection_always_has_a_limit(value):
    assert only_problem(remote_model(timeouts={"connect": value})).endswith(
        "expected a number of seconds above 0"
    )


def test_members_of_timeouts_that_do_not_exist():
    assert problems(remote_model(timeouts={"first_tokn": 1, "idle": 1, 1: 30})) == [
        'models[1].timeouts.first_tokn: unknown field; did you mean "first_token"?',
        "models[1].timeouts.idle: unknown field; known are between_chunks, connect, first_token, head, total",
        "models[1].timeouts[1]: a value without a name; expected `name = value`",
    ]
    assert only_problem(remote_model(timeouts=30)) == (
        "models[1].timeouts: got 30, expected a table such as { first_token = 10, total = 600 }"
    )


def test_timeouts_of_engines_are_others():
    model = model_of(local_model(engine_startup_timeout=7, timeouts={"total": 8}))
    assert (model.variants[0].timeouts.startup_s, model.timeouts.total_s) == (7.0, 8.0)


# --- prefill


@pytest.mark.parametrize(
    ("prefill", "local", "remote"),
    [
        (True, Continuation.LLAMACPP, Continuation.ASSISTANT),
        (False, None, None),
        ("prefix", Continuation.PREFIX, Continuation.PREFIX),
        (
            "continue_final_message",
            Continuation.CONTINUE_FINAL_MESSAGE,
            Continuation.CONTINUE_FINAL_MESSAGE,
        ),
    ],
)
def test_prefill(prefill, local, remote):
    for engine in LOCAL_ENGINES:
        assert model_of(local_model(engine=engine, prefill=prefill)).prefill is local
    assert model_of(remote_model(prefill=prefill)).prefill is remote


@pytest.mark.parametrize("prefill", ["assistant", "prompt", "repeat", "", 1, {}])
def test_prefills_that_are_not_allowed(prefill):
    assert only_problem(remote_model(prefill=prefill)).endswith(
        'expected true, false, "prefix" or "continue_final_message"'
    )


# --- where they stand


@pytest.mark.parametrize("name", ["fallbacks", "retries", "max_attempts", "timeouts", "prefill"])
def test_they_belong_into_the_model(name):
    assert only_problem(local_model(variants=[variant(**{name: 1})])) == (
        f"models[1].variants[1].{name}: belongs into the model, not into a variant"
    )
    assert problems(local_model(), **{name: 1})[0].startswith(f"server.{name}: unknown field; ")


def test_misspelt_names_are_recognised():
    assert only_problem(remote_model(fallback=["x"])) == (
        'models[1].fallback: unknown field; did you mean "fallbacks"?'
    )


# --- over the wire


def test_a_whole_configuration_comes_back_as_it_was():
    config = read(
        remote_model(
            aliases=["g"],
            api_key_env="KEY",
            fallbacks=["q", "other"],
            retries=1,
            max_attempts=5,
            timeouts={"connect": 1.5, "head": False, "total": 60},
            prefill="prefix",
            margin={"ratio": 0.2},
        ),
        local_model(
            aliases=["q"],
            tokenization={"binary": "tok"},
            prefill=False,
            variants=[variant(env={"A": "b"}), variant(context=8192)],
        ),
        remote_model(name="other", prefill=True),
        local_model(name="aside", engine="llama.cpp.secondary", prefill="continue_final_message"),
        listen_v4="127.0.0.1:1",
        listen_unix="/run/x.sock",
        default_model="g",
    )
    again = codec.decode(codec.encode(ConfigReplaced(config=config)))
    assert again == ConfigReplaced(config=config)
    assert isinstance(again, ConfigReplaced)
    gpt = again.config.find_model("g")
    assert [model.name for model in again.config.chain_of(gpt)] == ["gpt", "qwen", "other"]
    assert gpt.prefill is Continuation.PREFIX
