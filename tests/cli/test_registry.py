"""`gw-cli registry`: what is known of models, and registering them."""

import json

import pytest

from tests.cli.conftest import InProcess
from tests.cli.figures import configure, open_store

ALLOWED = 'registry = { api_key_env = { MINE_KEY = "http://127.0.0.1:9" } }'


def test_a_well_known_model_needs_no_more_than_its_name_and_provider(quick: InProcess) -> None:
    done = quick.run("registry", "add", "gpt-4o-mini", "--provider", "openai")
    assert (done.code, done.out) == (0, "registered gpt-4o-mini (https://api.openai.com)\n")
    shown = json.loads(quick.run("registry", "show", "gpt-4o-mini", "--json").out)
    assert shown["source"] == "store"
    assert shown["api_key_env"] == "OPENAI_API_KEY"
    assert shown["context"] == 128_000
    assert shown["input_per_million"] == 0.15


def test_all_that_may_be_said_is_kept(quick: InProcess) -> None:
    configure(quick, ALLOWED)
    done = quick.run(
        "registry", "add", "mine", "--connect", "http://127.0.0.1:9/", "--upstream-model", "m-1", "--context", "8192",
        "--parallel", "2", "--alias", "m", "--capability", "code", "--capability", "math", "--feature", "tools",
        "--modality", "image", "--tag", "fast", "--input-price", "$0.5", "--output-price", "1", "--cached-price", "0.1",
        "--engine-hour", "0.2", "--quality", "0.8", "--quality-for", "translate=0.9", "--latency", "250", "--speed", "40",
        "--description", "Ours.", "--api-key-env", "MINE_KEY", "--provider", "us",
    )  # fmt: skip
    assert done.code == 0, done.err
    with open_store(quick) as store:
        (model,) = store.models()
    assert (model.connect.rstrip("/"), model.upstream_model, model.parallel) == (
        "http://127.0.0.1:9",
        "m-1",
        2,
    )
    assert (model.api_key_env, model.aliases) == ("MINE_KEY", ("m",))
    profile = model.profile
    assert (profile.provider, profile.context_tokens, profile.quality, profile.latency_ms) == (
        "us",
        8192,
        0.8,
        250,
    )
    assert (profile.capabilities, profile.tags) == (frozenset({"code", "math"}), frozenset({"fast"}))
    assert profile.features == frozenset({"tools"})
    assert profile.modalities == frozenset({"text", "image"})
    assert (profile.pricing.input_per_million, profile.pricing.output_per_million) == (0.5, 1)
    assert (profile.pricing.cached_input_per_million, profile.pricing.engine_hour) == (0.1, 0.2)
    assert profile.quality_by_task == {"translate": 0.9}
    assert (profile.output_tokens_per_s, profile.description) == (40, "Ours.")


def test_set_changes_what_is_said_and_none_takes_it_back(quick: InProcess) -> None:
    quick.run("registry", "add", "mine", "--connect", "http://127.0.0.1:9", "--tag", "a", "--quality", "0.8")
    assert quick.run("registry", "set", "mine", "--quality", "0.5", "--tag", "none").out == "changed mine\n"
    with open_store(quick) as store:
        (model,) = store.models()
    assert (model.profile.quality, model.profile.tags) == (0.5, frozenset())
    quick.run("registry", "set", "mine", "--quality", "none")
    with open_store(quick) as store:
        assert store.models()[0].profile.quality == 0.7, "the usual one"


def test_remove_forgets_it(quick: InProcess) -> None:
    quick.run("registry", "add", "mine", "--connect", "http://127.0.0.1:9")
    assert quick.run("registry", "remove", "mine").out == "removed mine\n"
    done = quick.run("registry", "remove", "mine")
    assert (done.code, done.err) == (2, "gw-cli: there is no model 'mine'\n")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("add", "mine"), "gw-cli: --connect: missing; expected"),
        (("add", "mine", "--connect", "http://h", "--quality", "7"), "gw-cli: --quality: got 7, expected"),
        (
            ("add", "mine", "--connect", "http://h", "--capability", "codes"),
            'gw-cli: --capability: got "codes"',
        ),
        (
            ("add", "mine", "--connect", "http://h", "--quality-for", "x"),
            "gw-cli: --quality-for: 'x' is none of",
        ),
        (("set", "mine"), "gw-cli: nothing to change"),
        (("set", "mine", "--quality", "1"), "gw-cli: there is no model 'mine'"),
        (("show", "mine"), "gw-cli: there is no model 'mine'"),
        ((), "gw-cli: Missing command"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_with_the_option(
    quick: InProcess, args: tuple[str, ...], said: str
) -> None:
    done = quick.run("registry", *args)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(said), done.err


def test_several_problems_are_told_at_once(quick: InProcess) -> None:
    done = quick.run("registry", "add", "mine", "--connect", "http://h", "--quality", "7", "--speed", "x")
    assert done.code == 2
    assert len(done.err.splitlines()) == 2


def test_a_name_is_registered_once(quick: InProcess) -> None:
    quick.run("registry", "add", "mine", "--connect", "http://127.0.0.1:9")
    done = quick.run("registry", "add", "mine", "--connect", "http://127.0.0.1:9")
    assert done.code == 2
    assert "registered already" in done.err


@pytest.mark.parametrize("name", ["medium", "mid", "auto"])
def test_names_of_the_file_cannot_be_taken(quick: InProcess, name: str) -> None:
    configure(quick)
    done = quick.run("registry", "add", name, "--connect", "http://127.0.0.1:9")
    assert done.code == 2
    assert "of the configuration file" in done.err


@pytest.mark.parametrize("action", ["add", "set"])
@pytest.mark.parametrize("alias", ["mid", "auto", "other", "another"])
def test_nor_can_aliases_be_what_means_somebody_else(quick: InProcess, action: str, alias: str) -> None:
    configure(quick)
    url = ("--connect", "http://127.0.0.1:9")
    assert quick.run("registry", "add", "other", *url, "--alias", "another").code == 0
    if action == "set":
        assert quick.run("registry", "add", "mine", *url).code == 0
    done = quick.run("registry", action, "mine", *url, "--alias", "free", "--alias", alias)
    assert done.code == 2
    assert done.err.startswith(f'gw-cli: --alias: "{alias}" is already taken by ')


def test_a_registered_model_may_keep_its_names(quick: InProcess) -> None:
    quick.run("registry", "add", "mine", "--connect", "http://127.0.0.1:9", "--alias", "m")
    assert quick.run("registry", "set", "mine", "--alias", "m", "--alias", "n").code == 0


@pytest.mark.parametrize("action", [("set", "medium", "--quality", "1"), ("remove", "medium")])
def test_models_of_the_file_are_changed_there(quick: InProcess, action: tuple[str, ...]) -> None:
    configure(quick)
    done = quick.run("registry", *action)
    assert (done.code, "change it there" in done.err) == (2, True)


def test_variables_go_only_where_the_configuration_says(quick: InProcess) -> None:
    mine = ("add", "mine", "--connect", "http://127.0.0.1:9", "--api-key-env", "MINE_KEY")
    done = quick.run("registry", *mine)
    assert done.code == 2
    assert done.err.startswith("gw-cli: --api-key-env: not for this connect; ")
    configure(quick, ALLOWED)
    assert quick.run("registry", *mine).code == 0
    assert quick.run("registry", "set", "mine", "--connect", "http://127.0.0.1:8").code == 2
    assert "mine" in quick.run("models").out
    configure(quick)  # which says it no longer
    done = quick.run("models")
    assert "mine" not in done.out
    assert done.err.startswith("gw-cli: without the registered model mine: api_key_env: ")


def test_list_shows_both_kinds_and_filters(quick: InProcess) -> None:
    configure(quick)
    quick.run(
        "registry", "add", "mine", "--connect", "http://127.0.0.1:9", "--capability", "code", "--tag", "fast",
        "--feature", "tools",
    )  # fmt: skip

    def names(*args: str) -> list[str]:
        return [row["name"] for row in json.loads(quick.run("registry", "list", "--json", *args).out)]

    assert names() == ["small", "medium", "large", "mine"]
    assert names("--capability", "code") == ["medium", "large", "mine"]
    assert names("--capability", "code", "--capability", "reasoning") == ["large"]
    assert names("--tag", "fast", "--feature", "tools") == ["mine"]
    table = quick.run("registry", "list").out.splitlines()
    assert table[0].split()[:3] == ["NAME", "FROM", "PROVIDER"]
    assert [line.split()[:2] for line in table[1:]][-1] == ["mine", "store"]
    assert (
        quick.run("registry", "list", "--csv", "--tag", "fast").out.splitlines()[1].startswith("mine,store,")
    )
    done = quick.run("registry", "list", "--tag", "none-has-it")
    assert (done.code, done.out, done.err) == (0, "", "no model is known that fits\n")


def test_looking_makes_no_store(quick: InProcess) -> None:
    assert json.loads(quick.run("registry", "list", "--json").out) == []
    assert list((quick.directory / "state").iterdir()) == []
