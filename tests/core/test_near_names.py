from collections.abc import Iterator

import pytest

from gatewright.api.models import find_model
from gatewright.errors import ModelNotFound
from gatewright.near_names import near_name
from tests.support.routes import read

FEW = {"auto": 1, "qwen3-8b": 1, "GPT-4o": 1}
MANY = {**FEW, **{f"model-{number:05}": 1 for number in range(10_000)}}


@pytest.mark.parametrize("known", [FEW, MANY], ids=["few", "many"])
@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("atuo", "auto"),
        ("auot", "auto"),
        ("aut", "auto"),
        ("auuto", "auto"),
        ("outo", "auto"),
        ("Auto", "auto"),
        ("qwen3-8", "qwen3-8b"),
        ("wqen3-8b", "qwen3-8b"),
        ("", None),
        ("claude", None),
        ("x" * 10_000, None),
    ],
)
def test_what_may_have_been_meant(wrong, meant, known):
    assert near_name(wrong, known) == meant


def test_among_few_names_it_may_be_further_away():
    assert near_name("gpt-40-", FEW) == "GPT-4o"
    assert near_name("qwen-8b", FEW) == "qwen3-8b"
    assert near_name("qwen", ()) is None


class Counted(dict):
    looked = 0

    def __contains__(self, name) -> bool:
        Counted.looked += 1
        return super().__contains__(name)

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("looks at every name")


def test_the_cost_does_not_grow_with_the_number_of_names():
    assert near_name("n" * 80, Counted(MANY)) is None
    assert Counted.looked < 20_000


def test_an_unknown_model_is_refused_with_what_may_have_been_meant():
    config = read(auto={})
    assert config.not_found("atuo").problem.message == (
        "Model 'atuo' not found in configuration; did you mean 'auto'?"
    )
    assert config.not_found("gtp").problem.message.endswith("; did you mean 'gpt'?")
    assert config.not_found("nobody").problem.message == "Model 'nobody' not found in configuration"
    with pytest.raises(ModelNotFound, match=r"did you mean 'small'\?"):
        find_model(config, "smal")
