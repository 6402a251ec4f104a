import json
from typing import Any

import pytest

from gatewright.api.facts import ApiFormat
from gatewright.api.transform_steps import JSON_OBJECT_TEXT, JSON_SCHEMA_TEXT
from gatewright.api.transforms import (
    Reasoning,
    Transform,
    transform_body,
)
from tests.support.transforms import USER, changed, messages, parameters

SYSTEM = {"role": "system", "content": "be kind"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "number", "maximum": 1.50}}}


# --- parameters


def test_a_default_is_set_where_the_client_sets_nothing():
    transform = Transform(defaults={"temperature": 0.2, "top_p": 0.9})
    assert parameters(transform, temperature=1, top_p=None) == {"temperature": 1, "top_p": 0.9}


def test_an_override_is_set_whatever_the_client_says_and_a_removal_taken_out():
    transform = Transform(overrides={"temperature": 0.2}, removals=("logit_bias", "seed"))
    assert parameters(transform, temperature=1, logit_bias={"1": 2}, x=[1]) == {"temperature": 0.2, "x": [1]}


@pytest.mark.parametrize(
    ("api", "name"),
    [
        (ApiFormat.CHAT, "max_completion_tokens"),
        (ApiFormat.COMPLETION, "max_tokens"),
        (ApiFormat.RESPONSES, "max_output_tokens"),
        (ApiFormat.MESSAGES, "max_tokens"),
        (ApiFormat.NATIVE, "n_predict"),
    ],
)
def test_the_limit_of_an_answer_is_one_parameter_with_a_name_in_each_api(api, name):
    transform = Transform(overrides={"max_completion_tokens": 7})
    assert parameters(transform, api, max_tokens=5, n_predict=-1) == {name: 7}


def test_a_limit_by_any_name_keeps_the_default_of_another_name_away():
    transform = Transform(defaults={"max_tokens": 7})
    assert parameters(transform, max_completion_tokens=5) == {"max_completion_tokens": 5}
    assert parameters(transform, max_completion_tokens=None) == {"max_tokens": 7}


def test_a_removal_takes_out_what_it_names_and_no_other_name():
    assert parameters(Transform(removals=("max_tokens",)), max_completion_tokens=5) == {
        "max_completion_tokens": 5
    }


@pytest.mark.parametrize(
    ("api", "name"),
    [(ApiFormat.CHAT, "stop"), (ApiFormat.NATIVE, "stop"), (ApiFormat.MESSAGES, "stop_sequences")],
)
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, ["A", "B"]),
        ([], ["A", "B"]),
        ("", ["A", "B"]),
        ("x", ["x", "A", "B"]),
        (["B", "y"], ["B", "y", "A"]),
    ],
)
def test_stop_sequences_come_behind_the_clients(api, name, given, expected):
    assert parameters(Transform(stop=("A", "B")), api, **{name: given}) == {name: expected}


def test_responses_have_no_stop_sequences():
    assert parameters(Transform(stop=("A",)), ApiFormat.RESPONSES, input="x") == {"input": "x"}


# --- reasoning


@pytest.mark.parametrize(("level", "effort"), [(Reasoning.OFF, "none"), (Reasoning.HIGH, "high")])
def test_openai_is_told_the_effort(level, effort):
    transform = Transform(reasoning=level)
    assert parameters(transform, reasoning_effort="low") == {"reasoning_effort": effort}
    assert parameters(transform, ApiFormat.RESPONSES, reasoning={"summary": "auto"}) == {
        "reasoning": {"summary": "auto", "effort": effort}
    }


@pytest.mark.parametrize("provider", ["llama.cpp", "llama.cpp.secondary", "vllm", "sglang"])
def test_servers_that_fill_in_templates_get_the_templates_switches(provider):
    body = {"chat_template_kwargs": {"x": 1, "enable_thinking": True}, "reasoning_effort": "high"}
    assert parameters(Transform(reasoning=Reasoning.OFF), provider=provider, **body) == {
        "chat_template_kwargs": {"x": 1, "enable_thinking": False}
    }
    assert parameters(Transform(reasoning=Reasoning.LOW), provider=provider) == {
        "chat_template_kwargs": {"enable_thinking": True, "reasoning_effort": "low"}
    }


def test_anthropic_is_given_a_budget_below_the_answers_limit():
    def thinking(level: Reasoning, **body: Any) -> Any:
        by_messages = changed(Transform(reasoning=level), ApiFormat.MESSAGES, messages=[USER], **body)
        by_chat = changed(Transform(reasoning=level), provider="anthropic", **body)
        assert by_messages == by_chat
        return by_messages.get("thinking")

    assert thinking(Reasoning.OFF) == {"type": "disabled"}
    assert thinking(Reasoning.MEDIUM, max_tokens=8000) == {"type": "enabled", "budget_tokens": 4096}
    assert thinking(Reasoning.HIGH, max_tokens=8000) == {"type": "enabled", "budget_tokens": 7999}
    assert thinking(Reasoning.LOW, max_tokens=1024) is None
    assert thinking(Reasoning.LOW) is None


# --- the system prompt


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_prefix_comes_before_the_system_prompt(role):
    transform = Transform(system_prefix="Be brief.")
    assert messages(transform, {"role": role, "content": "be kind", "name": "x"}, USER) == [
        {"role": role, "content": "Be brief.\n\nbe kind", "name": "x"},
        USER,
    ]
    parts = [{"type": "text", "text": "be kind", "cache_control": {}}]
    assert messages(transform, {"role": role, "content": parts}, USER) == [
        {"role": role, "content": [{"type": "text", "text": "Be brief."}, *parts]},
        USER,
    ]


def test_a_system_prompt_is_made_where_there_is_none():
    transform = Transform(system_prefix="Be brief.")
    assert messages(transform) == [{"role": "system", "content": "Be brief."}, USER]
    assert changed(transform, ApiFormat.MESSAGES, messages=[USER]) == {
        "messages": [USER],
        "system": "Be brief.",
    }
    assert changed(transform, ApiFormat.RESPONSES, input="hi", instructions=None) == {
        "input": "hi",
        "instructions": "Be brief.",
    }


def test_prefixes_of_the_other_apis():
    transform = Transform(system_prefix="Be brief.")
    blocks = [{"type": "text", "text": "be kind"}]
    assert changed(transform, ApiFormat.MESSAGES, messages=[USER], system=blocks)["system"] == [
        {"type": "text", "text": "Be brief."},
        *blocks,
    ]
    assert changed(transform, ApiFormat.RESPONSES, input="hi", instructions="be kind")["instructions"] == (
        "Be brief.\n\nbe kind"
    )


def test_the_system_prompt_becomes_the_beginning_of_the_first_user_message():
    transform = Transform(merge_system=True)
    answer = {"role": "assistant", "content": "yes"}
    late = {"role": "system", "content": [{"type": "text", "text": "be honest"}]}
    assert messages(transform, SYSTEM, answer, USER, late, USER) == [
        answer,
        {"role": "user", "content": "be kind\n\nbe honest\n\nhello"},
        USER,
    ]
    picture = {"type": "image_url", "image_url": {"url": "x"}}
    assert messages(transform, SYSTEM, {"role": "user", "content": [picture]}) == [
        {"role": "user", "content": [{"type": "text", "text": "be kind"}, picture]}
    ]
    assert messages(transform, SYSTEM, answer) == [{"role": "user", "content": "be kind"}, answer]
    assert messages(transform, {"role": "system", "content": ""}, USER) == [USER]


def test_merging_in_the_other_apis():
    transform = Transform(merge_system=True, system_prefix="Be brief.")
    blocks = [{"type": "text", "text": "be kind"}, {"type": "text", "text": "be honest"}]
    assert changed(transform, ApiFormat.MESSAGES, messages=[USER], system=blocks) == {
        "messages": [{"role": "user", "content": "Be brief.\n\nbe kind\n\nbe honest\n\nhello"}]
    }
    assert changed(transform, ApiFormat.RESPONSES, input="hi", instructions="be kind") == {
        "input": "Be brief.\n\nbe kind\n\nhi"
    }
    items = [
        {"role": "developer", "content": "be kind"},
        {"role": "user", "content": [{"type": "input_text", "text": "x"}]},
    ]
    assert changed(transform, ApiFormat.RESPONSES, input=items)["input"] == [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Be brief.\n\nbe kind"},
                {"type": "input_text", "text": "x"},
            ],
        }
    ]


# --- JSON in words


def test_a_schema_is_told_in_words_at_the_end_of_the_system_prompt():
    raw = b'{"messages":[{"role":"system","content":"be kind"}],"response_format":{"type":"json_schema","json_schema":{"schema":{"maximum":1.50}}}}'
    found = json.loads(
        transform_body(raw, ApiFormat.CHAT, [Transform(json_instructions=True, system_prefix="Be brief.")])
    )
    assert found == {
        "messages": [
            {"role": "system", "content": f'Be brief.\n\nbe kind\n\n{JSON_SCHEMA_TEXT}{{"maximum":1.50}}'}
        ]
    }


def test_a_wish_for_any_object_is_told_in_words():
    assert changed(Transform(json_instructions=True), response_format={"type": "json_object"}) == {
        "messages": [{"role": "system", "content": JSON_OBJECT_TEXT}, USER]
    }


def test_other_formats_of_an_answer_stay():
    transform = Transform(json_instructions=True)
    for wish in ({"type": "text"}, {"type": "grammar"}, "json_object", None, {}):
        assert parameters(transform, response_format=wish) == {"response_format": wish}


@pytest.mark.parametrize(
    ("api", "member"),
    [
        (
            ApiFormat.RESPONSES,
            {"text": {"format": {"type": "json_schema", "schema": SCHEMA}, "verbosity": "low"}},
        ),
        (ApiFormat.MESSAGES, {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}),
        (ApiFormat.MESSAGES, {"output_format": {"type": "json_schema", "schema": SCHEMA}}),
    ],
)
def test_schemas_of_the_other_apis(api, member):
    found = changed(Transform(json_instructions=True), api, input="hi", **member)
    system = found.pop("instructions" if api is ApiFormat.RESPONSES else "system")
    assert system.startswith(JSON_SCHEMA_TEXT)
    assert json.loads(system.removeprefix(JSON_SCHEMA_TEXT)) == SCHEMA
    assert found == ({"input": "hi", "text": {"verbosity": "low"}} if "text" in member else {"input": "hi"})


def test_words_go_to_the_user_where_there_is_no_system_role():
    transform = Transform(json_instructions=True, merge_system=True)
    assert messages(transform, response_format={"type": "json_object"}) == [
        {"role": "user", "content": f"{JSON_OBJECT_TEXT}\n\nhello"}
    ]
