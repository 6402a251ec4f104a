import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright.api.facts import ApiFormat, RequestFacts
from gatewright.api.transform_steps import JSON_SCHEMA_TEXT
from gatewright.api.transforms import (
    Reasoning,
    Transform,
    combine_transforms,
    describe_transform,
    transform_body,
    transform_facts,
)
from tests.support.transforms import USER, changed, messages

SCHEMA = {"type": "object", "properties": {"a": {"type": "number", "maximum": 1.50}}}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}


# --- several transforms


def test_several_transforms_are_one_in_their_order():
    model = Transform(
        system_prefix="model",
        merge_system=True,
        defaults={"temperature": 0, "max_tokens": 5},
        overrides={"top_p": 1},
        removals=("seed",),
        stop=("A",),
        reasoning=Reasoning.LOW,
    )
    route = Transform(
        system_prefix="route",
        defaults={"max_completion_tokens": 9},
        overrides={"top_p": 0.5},
        stop=("B", "A"),
        json_instructions=True,
    )
    assert combine_transforms([model, route]) == Transform(
        system_prefix="model\n\nroute",
        merge_system=True,
        defaults={"temperature": 0, "max_completion_tokens": 9},
        overrides={"top_p": 0.5},
        removals=("seed",),
        stop=("A", "B"),
        json_instructions=True,
        reasoning=Reasoning.LOW,
    )
    # The model knows no system role, so that of the route must not come behind the merging.
    assert messages([model, route]) == [{"role": "user", "content": "model\n\nroute\n\nhello"}]


# --- what is left alone

EVERYTHING = Transform(
    system_prefix="Be brief.",
    merge_system=True,
    defaults={"temperature": 0.1},
    overrides={"top_p": 0.5},
    removals=("seed",),
    stop=("A",),
    json_instructions=True,
    reasoning=Reasoning.OFF,
)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"null", b"\xff", b'{"a":' * 3000])
def test_what_is_no_object_is_returned_as_it_is(body):
    assert transform_body(body, ApiFormat.CHAT, [EVERYTHING]) is body


@pytest.mark.parametrize("transform", [Transform(system_prefix="P"), Transform(merge_system=True)])
@pytest.mark.parametrize("role", [[], {}, 1, None])
def test_odd_roles_are_left_to_the_engine(transform, role):
    odd = {"role": role, "content": "x"}
    assert odd in messages(transform, odd, USER)


def test_forms_and_unknown_endpoints_are_returned_as_they_are():
    body = b'{"messages":[]}'
    assert transform_body(body, ApiFormat.CHAT, [EVERYTHING], "multipart/form-data; boundary=x") is body
    assert transform_body(body, ApiFormat.OTHER, [EVERYTHING]) is body
    assert transform_body(body, ApiFormat.CHAT, []) is body
    assert transform_body(body, ApiFormat.CHAT, [Transform(), Transform()]) is body


def test_text_completions_get_parameters_and_no_system_prompt():
    body = {"prompt": "x", "response_format": {"type": "json_object"}}
    assert changed(EVERYTHING, ApiFormat.COMPLETION, **body) == {
        **body,
        "temperature": 0.1,
        "top_p": 0.5,
        "stop": ["A"],
    }


def test_digits_and_unknown_members_stay_as_they_were_written():
    body = (
        b'{"messages":[{"role":"user","content":"x","n":1.00}],"seed2":12345678901234567890.10,"x":{"b":1e0}}'
    )
    found = transform_body(body, ApiFormat.CHAT, [Transform(overrides={"top_p": 1}, system_prefix="p")])
    for part in (b'"n":1.00', b"12345678901234567890.10", b'{"b":1e0}'):
        assert part in found


CONTENTS = st.one_of(
    st.text(max_size=20),
    st.none(),
    st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": st.text(max_size=9)}), max_size=3),
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool"]), "content": CONTENTS}
    ),
    max_size=5,
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
BODIES = st.builds(
    lambda messages, limits, others: {**others, **limits, "messages": messages},
    MESSAGES,
    st.fixed_dictionaries(
        {},
        optional={
            "max_tokens": st.integers(1, 9999),
            "max_completion_tokens": st.integers(1, 9999),
            "stop": st.none() | st.text(max_size=3) | st.lists(st.text(max_size=3), max_size=3),
            "response_format": st.sampled_from([JSON_SCHEMA, {"type": "json_object"}, {"type": "text"}]),
            "temperature": st.integers(0, 2),
            "reasoning_effort": st.sampled_from(["low", "high"]),
        },
    ),
    st.dictionaries(st.text(min_size=1, max_size=8), JSON_VALUES, max_size=3),
)
TRANSFORMS = st.builds(
    Transform,
    system_prefix=st.sampled_from(["", "Be brief."]),
    merge_system=st.booleans(),
    defaults=st.sampled_from([{}, {"temperature": 0, "max_tokens": 4}]),
    overrides=st.sampled_from([{}, {"max_completion_tokens": 3}, {"top_k": 5}]),
    removals=st.sampled_from([(), ("seed", "x")]),
    stop=st.sampled_from([(), ("A", "B")]),
    json_instructions=st.booleans(),
    reasoning=st.none() | st.sampled_from(Reasoning),
)


@given(body=BODIES, transform=TRANSFORMS, provider=st.sampled_from(["", "vllm", "anthropic"]))
def test_a_changed_body_needs_no_second_change(body, transform, provider):
    once = transform_body(msgspec.json.encode(body), ApiFormat.CHAT, [transform], provider=provider)
    twice = transform_body(once, ApiFormat.CHAT, [transform], provider=provider)
    assert json.loads(twice) == json.loads(once)


@given(body=BODIES, transform=TRANSFORMS)
def test_members_that_no_transform_names_stay(body, transform):
    touched = {
        "messages", "response_format", "stop", "reasoning_effort", "temperature", "top_k", "seed", "x",
        "max_tokens", "max_completion_tokens",
    }  # fmt: skip
    found = json.loads(transform_body(msgspec.json.encode(body), ApiFormat.CHAT, [transform]))
    assert {name: value for name, value in found.items() if name not in touched} == {
        name: value for name, value in body.items() if name not in touched
    }


@given(body=BODIES)
def test_a_body_that_needs_no_change_is_the_same_object(body):
    raw = msgspec.json.encode({**body, "temperature": 1, "top_k": 1, "messages": [USER]})
    transform = Transform(defaults={"temperature": 0}, overrides={"top_k": 1}, removals=("not_there\n",))
    assert transform_body(raw, ApiFormat.CHAT, [transform, Transform(merge_system=True)]) is raw


@given(body=BODIES, transform=TRANSFORMS)
def test_a_model_without_a_system_role_never_sees_one(body, transform):
    found = changed([transform, Transform(merge_system=True)], **body)
    assert not any(message["role"] in {"system", "developer"} for message in found["messages"])


# --- facts


def facts(**fields: Any) -> RequestFacts:
    return RequestFacts(path="/v1/chat/completions", **{"format": ApiFormat.CHAT, **fields})


def test_facts_grow_with_the_prompt():
    given = facts(prompt_bytes=100, messages=2, features=frozenset({"json_schema", "tools"}))
    found = transform_facts(given, [Transform(system_prefix="äb")])
    assert (found.prompt_bytes, found.messages, found.features) == (105, 3, given.features)
    told = transform_facts(given, [Transform(json_instructions=True, merge_system=True)])
    assert told.prompt_bytes == 100 + len(JSON_SCHEMA_TEXT) + 2
    assert (told.messages, told.features) == (2, frozenset({"tools"}))


@pytest.mark.parametrize(
    ("transform", "given", "expected"),
    [
        (Transform(overrides={"max_tokens": 7}), 99, 7),
        (Transform(overrides={"max_tokens": -1}), 99, None),
        (Transform(defaults={"max_tokens": 7}), 99, 99),
        (Transform(defaults={"max_tokens": 7}), None, 7),
        (Transform(removals=("max_tokens",)), 99, 99),
        (Transform(removals=("max_tokens", "max_completion_tokens")), 99, None),
        (Transform(stop=("x",)), 99, 99),
    ],
)
def test_facts_tell_the_limit_of_the_answer_as_it_will_be(transform, given, expected):
    assert transform_facts(facts(answer_tokens=given), [transform]).answer_tokens == expected


def test_an_answer_in_another_form_cannot_be_continued():
    streamed = facts(stream=True, continuable=True)
    assert transform_facts(streamed, [Transform(overrides={"temperature": 0})]).continuable
    assert not transform_facts(streamed, [Transform(overrides={"logprobs": True})]).continuable


def test_facts_that_nothing_concerns_are_the_same_object():
    chat, embedding = facts(), facts(format=ApiFormat.OTHER)
    assert transform_facts(chat, [Transform()]) is chat
    assert transform_facts(embedding, [EVERYTHING]) is embedding


@given(body=BODIES, transform=TRANSFORMS)
def test_facts_never_promise_a_smaller_prompt_than_the_body_has(body, transform):
    from gatewright.api.endpoints import Endpoint, match_endpoint  # noqa: PLC0415  # for this test alone
    from gatewright.api.request import read_request  # noqa: PLC0415  # the same

    body["messages"].append(USER)
    body = {
        name: value for name, value in body.items() if name not in ("model", "stream", "tools", "functions")
    }
    endpoint = match_endpoint("POST", "/v1/chat/completions")
    assert isinstance(endpoint, Endpoint)
    raw = msgspec.json.encode(body)
    promised = transform_facts(read_request(endpoint, (), raw), [transform])
    real = read_request(endpoint, (), transform_body(raw, ApiFormat.CHAT, [transform]))
    assert promised.prompt_bytes + 16 * promised.messages >= real.prompt_bytes - len("system")
    assert promised.answer_tokens == real.answer_tokens


def test_a_description_has_a_line_for_each_thing():
    assert describe_transform(EVERYTHING) == (
        "sets temperature = 0.1 where none is given",
        "sets top_p = 0.5",
        "removes seed",
        'stops at "A"',
        "switches thinking off",
        "describes a wanted JSON schema in words",
        'puts "Be brief." before the system prompt',
        "moves the system prompt into the first user message",
    )
    assert describe_transform(Transform(reasoning=Reasoning.HIGH)) == ("asks for high reasoning effort",)
    assert describe_transform(Transform()) == ()
    (line,) = describe_transform(Transform(system_prefix="x" * 999))
    assert len(line) < 120
