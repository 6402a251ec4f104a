from typing import Any

import pytest
from hypothesis import given

from gatewright.configuration.profiles import PROFILE_FIELDS, profile_to_plain, read_profile
from gatewright.configuration.reader import Place, Table
from gatewright.selection.profiles import Capability, Feature, Modality, ModelProfile, Pricing, ProfileSource
from tests.support.profiles import profile, profiles


def read(base=None, **values: Any):
    place = Place("models[1]")
    return read_profile(Table(place, values), base or profile()), place.problems


def problem(**values: Any):
    _, problems = read(**values)
    (line,) = problems
    return line


def test_nothing_said_leaves_everything():
    base = profile(quality=0.9, tags=frozenset({"ours"}), description="good")
    assert read(base) == (base, [])


def test_everything_said():
    read_one, problems = read(
        provider="ours",
        capabilities=["Code", "math"],
        features=["tools"],
        tags=["fast", "eu"],
        modalities=["image"],
        input_per_million=1,
        output_per_million=2.5,
        cached_input_per_million=0,
        engine_hour=0.4,
        quality=1,
        quality_by_task={"translate": 0.9},
        latency_ms=800,
        output_tokens_per_s=55,
        load_s=0,
        description="of the house",
    )
    assert problems == []
    assert read_one == ModelProfile(
        name="a",
        provider="ours",
        context_tokens=8192,
        capabilities=frozenset({Capability.CODE, Capability.MATH}),
        features=frozenset({Feature.TOOLS}),
        modalities=frozenset({Modality.TEXT, Modality.IMAGE}),
        tags=frozenset({"fast", "eu"}),
        pricing=Pricing(
            input_per_million=1.0, output_per_million=2.5, cached_input_per_million=0.0, engine_hour=0.4
        ),
        quality=1.0,
        quality_by_task={"translate": 0.9},
        latency_ms=800.0,
        output_tokens_per_s=55.0,
        load_s=0.0,
        description="of the house",
    )


def test_an_unknown_capability_lists_the_vocabulary():
    assert problem(capabilities=["coding"]) == (
        'models[1].capabilities[1]: got "coding", expected one of chat, code, reasoning, math, extraction, '
        "summarization, creative, multilingual, long_context, agent, embedding, rerank; words of your own belong into tags"
    )
    assert problem(features=["vision"]).startswith(
        'models[1].features[1]: got "vision", expected one of tools'
    )


@pytest.mark.parametrize(
    ("values", "start"),
    [
        ({"capabilities": "code"}, 'models[1].capabilities: got "code", expected a list of "chat"'),
        ({"capabilities": ["code", None]}, "models[1].capabilities[2]: nil in the middle of a list"),
        ({"features": [5]}, "models[1].features[1]: got 5, expected one of tools"),
        (
            {"modalities": ["video"]},
            'models[1].modalities[1]: got "video", expected one of text, image, audio',
        ),
        ({"tags": ["a "]}, 'models[1].tags[1]: got "a ", expected a word of your own'),
        ({"input_per_million": -1}, "models[1].input_per_million: got -1, expected a price in US dollars"),
        ({"engine_hour": "1"}, 'models[1].engine_hour: got "1", expected a price'),
        ({"quality": 80}, "models[1].quality: got 80, expected a number between 0 and 1"),
        (
            {"quality_by_task": {"a": 2}},
            "models[1].quality_by_task.a: got 2, expected a number between 0 and 1",
        ),
        ({"quality_by_task": [0.5]}, "models[1].quality_by_task: got a list, expected a table of qualities"),
        ({"quality_by_task": {1: 0.5}}, "models[1].quality_by_task[1]: a value without a name"),
        ({"latency_ms": 0}, "models[1].latency_ms: got 0, expected a number of milliseconds above 0"),
        ({"output_tokens_per_s": 0}, "models[1].output_tokens_per_s: got 0, expected a number of tokens"),
        ({"description": 5}, "models[1].description: got 5, expected a non-empty string"),
    ],
)
def test_what_is_not_allowed(values, start):
    assert problem(**values).startswith(start)


def test_all_problems_at_once():
    _, problems = read(quality=2, latency_ms=-1, capabilities=["x", "y"])
    assert len(problems) == 4


@given(profiles())
def test_a_profile_comes_back_from_its_plain_fields(model):
    base = ModelProfile(name=model.name, context_tokens=model.context_tokens, source=ProfileSource.CONFIG)
    plain = profile_to_plain(model)
    assert set(plain) <= set(PROFILE_FIELDS)
    assert read(base, **plain) == (model, [])
