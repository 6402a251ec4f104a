from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright.api.bodies import Body, read_body
from gatewright.api.endpoints import BodyShape
from gatewright.api.signals import prompt_excerpt, read_signals
from gatewright.selection.signals import PromptSignals

QUESTION = "Prove it, then explain why 2 + 2 = 4."


def body(**members: Any) -> Body:
    return read_body(msgspec.json.encode(members))


def signals(shape: BodyShape, **members: Any) -> PromptSignals:
    return read_signals(shape, body(**members))


PARTS = [{"type": "text", "text": QUESTION}]
SHAPES = [
    (BodyShape.CHAT, {"messages": [{"role": "user", "content": QUESTION}]}),
    (BodyShape.CHAT, {"messages": [{"role": "user", "content": PARTS}]}),
    (BodyShape.MESSAGES, {"messages": [{"role": "user", "content": PARTS}]}),
    (BodyShape.MESSAGES, {"system": QUESTION, "messages": []}),
    (BodyShape.RESPONSES, {"input": QUESTION}),
    (
        BodyShape.RESPONSES,
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": QUESTION}]}]},
    ),
    (BodyShape.RESPONSES, {"instructions": QUESTION, "input": ""}),
    (BodyShape.RESPONSES, {"input": [{"type": "function_call_output", "call_id": "1", "output": QUESTION}]}),
    (BodyShape.PROMPT, {"prompt": QUESTION}),
    (BodyShape.PROMPT, {"prompt": [QUESTION]}),
    (BodyShape.PROMPT, {"prompt": {"prompt_string": QUESTION}}),
    (BodyShape.INFILL, {"input_prefix": QUESTION}),
    (BodyShape.EMBEDDING, {"input": QUESTION}),
    (BodyShape.RERANK, {"query": QUESTION, "documents": []}),
]


@pytest.mark.parametrize(("shape", "members"), SHAPES)
def test_the_same_question_has_the_same_signs_in_every_shape(shape, members):
    found = signals(shape, **members)
    assert (found.reasoning_cues, found.steps, found.mathematics) == (3, 1, 5)
    assert found.text_characters == len(QUESTION)


@pytest.mark.parametrize(("shape", "members"), SHAPES)
def test_the_excerpt_is_the_text(shape, members):
    assert prompt_excerpt(shape, body(**members)).strip() == QUESTION


def test_turns_are_messages_and_answers_are_not_looked_at():
    talk = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": QUESTION},
        {"role": "user", "content": "thanks"},
    ]
    found = signals(BodyShape.CHAT, messages=talk)
    assert found.turns == 3
    assert found.reasoning_cues == 0
    assert found.text_characters == len("hi" + QUESTION + "thanks")


def test_of_a_long_system_prompt_the_beginning_is_looked_at():
    system = {"role": "system", "content": "x " * 5000 + "prove why"}
    found = signals(BodyShape.CHAT, messages=[system, {"role": "user", "content": "hi"}])
    assert found.reasoning_cues == 0
    assert found.text_characters == 10_000 + len("prove why" + "hi")


def test_tools_are_counted():
    tools = [{"type": "function", "function": {"name": name}} for name in "abc"]
    assert signals(BodyShape.CHAT, messages=[], tools=tools).tools == 3
    assert signals(BodyShape.CHAT, messages=[], functions=tools[:2]).tools == 2
    assert signals(BodyShape.CHAT, messages=[], tools={"a": 1}).tools == 0


def test_media_are_counted_and_not_measured():
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 5000}},
        {"type": "document", "source": {"type": "text", "data": "a contract"}},
    ]
    found = signals(BodyShape.MESSAGES, messages=[{"role": "user", "content": parts}])
    assert found.media == 1
    assert found.inputs == 2
    assert found.text_characters == len("What is this?" + "a contract")


def test_documents_are_inputs():
    assert signals(BodyShape.RERANK, query="q", documents=["a", "b", "c"]).inputs == 4


@pytest.mark.parametrize(
    "members",
    [
        {"response_format": {"type": "json_schema", "json_schema": {}}},
        {"response_format": {"type": "json_object"}},
        {"text": {"format": {"type": "json_schema"}}},
        {"grammar": "root ::= x"},
        {"guided_choice": ["a", "b"]},
    ],
)
def test_a_form_of_the_answer_is_a_constraint(members):
    assert signals(BodyShape.CHAT, messages=[], **members).constraints > 0
    assert signals(BodyShape.CHAT, messages=[], response_format={"type": "text"}).constraints == 0


def test_the_limit_of_the_answer_is_told():
    assert signals(BodyShape.CHAT, messages=[], max_tokens=100).answer_tokens == 100
    assert signals(BodyShape.CHAT, messages=[], max_completion_tokens=7, max_tokens=100).answer_tokens == 7
    assert signals(BodyShape.PROMPT, prompt="", n_predict=-1).answer_tokens is None
    assert signals(BodyShape.CHAT, messages=[], max_tokens=True).answer_tokens is None


def test_the_task_is_read_as_words():
    found = read_signals(BodyShape.CHAT, body(messages=[]), task="analyze_contract")
    assert (found.task, found.task_words) == ("analyze_contract", 1)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "type", "text", "source", "data", "multimodal_data", "output"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(
    st.sampled_from(BodyShape),
    st.dictionaries(
        st.sampled_from(
            ["messages", "input", "prompt", "system", "tools", "documents", "query", "text", "max_tokens"]
        ),
        json_values,
    ),
)
def test_no_body_raises(shape, members):
    found = signals(shape, **members)
    assert found.text_characters >= 0
    assert found.turns >= 1
    assert found.inputs >= 1


def test_depth_and_breadth_are_bounded():
    deep: Any = "prove"
    for _ in range(300):
        deep = [deep]
    assert signals(BodyShape.CHAT, messages=[{"role": "user", "content": deep}]).reasoning_cues == 1
    wide = [0] * 200_000
    assert signals(BodyShape.PROMPT, prompt=wide).text_characters == 0
