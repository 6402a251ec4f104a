from typing import Any

import msgspec
import pytest

from gatewright.api.bodies import read_body
from gatewright.api.endpoints import BodyShape
from gatewright.api.prompt import PromptMeter, PromptText, largest_prompt, walk_prompt
from gatewright.errors import InvalidRequest


def measure(shape: BodyShape, **body: Any) -> PromptMeter:
    meter = PromptMeter()
    walk_prompt(shape, read_body(msgspec.json.encode(body)), meter)
    return meter


def chat(*messages: Any, **more: Any) -> PromptMeter:
    return measure(BodyShape.CHAT, messages=list(messages), **more)


def text_of(shape: BodyShape, **body: Any) -> str:
    text = PromptText()
    walk_prompt(shape, read_body(msgspec.json.encode(body)), text)
    assert text.text_bytes == measure(shape, **body).text_bytes
    return "\n".join(text.pieces)


def refused(shape: BodyShape, **body: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        measure(shape, **body)
    return caught.value.problem.message


# --- messages


def test_a_message_counts_its_texts_in_utf_8():
    assert chat({"role": "user", "content": "hello"}).text_bytes == len("userhello")
    assert chat({"role": "user", "content": "héllo 漢"}).text_bytes == len("user") + 10
    assert chat({"role": "user", "name": "bob", "content": None}).text_bytes == len("userbob")


def test_parts_count_their_text_only():
    parts = [{"type": "text", "text": "What is"}, {"type": "input_text", "text": "this"}]
    meter = chat({"role": "user", "content": parts})
    assert meter.text_bytes == len("userWhat isthis")
    assert meter.media == 0


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1000}},
        {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
        {"type": "input_audio", "input_audio": {"data": "A" * 1000, "format": "wav"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 1000}},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "A" * 1000},
        },
        {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 1000},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA"}},
    ],
)
def test_media_are_counted_not_measured(part: dict[str, Any]):
    meter = chat({"role": "user", "content": [{"type": "text", "text": "hi"}, part]})
    assert meter.media == 1
    assert meter.text_bytes == len("userhi")


def test_media_within_a_tool_result_are_found():
    result = {
        "type": "tool_result",
        "tool_use_id": "x",
        "content": [{"type": "image", "source": {"data": "A" * 1000}}],
    }
    meter = chat({"role": "user", "content": [result]})
    assert meter.media == 1
    assert meter.text_bytes < 150
    assert (
        chat({"role": "user", "content": [{"type": "odd", "url": "data:x;base64," + "A" * 999}]}).media == 1
    )


def test_a_document_of_plain_text_is_text():
    part = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hello"}}
    meter = chat({"role": "user", "content": [part]})
    assert (meter.media, meter.text_bytes) == (0, len("userhello"))


def test_text_that_begins_like_a_data_url_is_text():
    for content in ("data: x", [{"type": "text", "text": "data: x"}]):
        meter = chat({"role": "user", "content": content})
        assert (meter.media, meter.text_bytes) == (0, len("userdata: x"))


def test_tools_and_schemas_count_as_they_are_written():
    tools = b'[ {"type": "function", "function": {"name": "f"}} ]'
    base = b'{"messages":[{"role":"user","content":"x"}]%b}'
    plain, meter = PromptMeter(), PromptMeter()
    walk_prompt(BodyShape.CHAT, read_body(base % b""), plain)
    walk_prompt(BodyShape.CHAT, read_body(base % (b',"tools":' + tools + b',"functions":null')), meter)
    assert meter.text_bytes - plain.text_bytes == len(tools)
    schema = {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}
    assert chat({"role": "user", "content": "x"}, response_format=schema).text_bytes > plain.text_bytes + 50


def test_calls_of_tools_count():
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    assert chat({"role": "assistant", "content": None, "tool_calls": [call]}).text_bytes > len(
        'f{"a":1}c1function'
    )


def test_no_depth_is_too_deep_to_walk():
    body = b'{"messages":[{"content":' + b'[{"a":' * 150 + b'"x"' + b"}]" * 150 + b"}]}"
    meter = PromptMeter()
    walk_prompt(BodyShape.CHAT, read_body(body), meter)
    assert meter.text_bytes >= 150


def test_messages_are_counted():
    body = read_body(b'{"messages":[{"role":"user","content":"a"},{"role":"user","content":"b"}]}')
    assert walk_prompt(BodyShape.CHAT, body, PromptMeter()) == 2


def test_anthropic_system_and_blocks():
    messages = [{"role": "user", "content": "hello"}]
    assert measure(BodyShape.MESSAGES, messages=messages, system="be").text_bytes == len("userhellobe")
    blocks = [{"type": "text", "text": "be", "cache_control": {"type": "ephemeral"}}]
    assert measure(BodyShape.MESSAGES, messages=messages, system=blocks).text_bytes == len("userhellobe")
    assert measure(BodyShape.MESSAGES, messages=messages, tools=[{"name": "f"}]).text_bytes == len(
        'userhello[{"name":"f"}]'
    )


def test_responses():
    assert measure(BodyShape.RESPONSES, input="hello", instructions="be").text_bytes == len("hellobe")
    items = [{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}]
    assert measure(BodyShape.RESPONSES, input=items).text_bytes == len("userhello")
    output = [{"type": "function_call_output", "call_id": "c", "output": "42"}]
    assert measure(BodyShape.RESPONSES, input=output).text_bytes == len("function_call_outputc42")
    assert measure(BodyShape.RESPONSES, prompt={"id": "stored"}).text_bytes == 0


@pytest.mark.parametrize(
    ("shape", "body", "message"),
    [
        (BodyShape.CHAT, {}, "'messages' must be a list of messages, not nothing"),
        (BodyShape.CHAT, {"messages": "x"}, "'messages' must be a list of messages, not a string"),
        (BodyShape.CHAT, {"messages": {}}, "'messages' must be a list of messages, not an object"),
        (BodyShape.CHAT, {"messages": []}, "'messages' must not be empty"),
        (BodyShape.CHAT, {"messages": [{}, 5]}, "'messages[1]' must be an object, not a number"),
        (BodyShape.MESSAGES, {"messages": True}, "'messages' must be a list of messages, not a boolean"),
        (BodyShape.RESPONSES, {}, "'input' must be a string or a list of items, not nothing"),
        (BodyShape.RESPONSES, {"input": [1]}, "'input[0]' must be an object, not a number"),
        (
            BodyShape.PROMPT,
            {},
            "'prompt' must be a string, a list of strings or a list of tokens, not nothing",
        ),
        (
            BodyShape.PROMPT,
            {"prompt": 5},
            "'prompt' must be a string, a list of strings or a list of tokens, not a number",
        ),
        (BodyShape.PROMPT, {"prompt": []}, "'prompt' must not be empty"),
        (BodyShape.EMBEDDING, {"input": []}, "'input' must not be empty"),
        (BodyShape.RERANK, {"documents": ["x"]}, "'query' must be a string, not nothing"),
        (BodyShape.RERANK, {"query": "x"}, "'texts' must be a list of documents, not nothing"),
        (
            BodyShape.RERANK,
            {"query": "x", "documents": 1},
            "'documents' must be a list of documents, not a number",
        ),
    ],
)
def test_what_is_missing_or_wrong_is_named(shape: BodyShape, body: dict[str, Any], message: str):
    assert refused(shape, **body) == message


# --- prompts


@pytest.mark.parametrize(
    ("prompt", "text_bytes", "tokens"),
    [
        ("hello", 5, 0),
        ("", 0, 0),
        ([1, 2, 3], 0, 3),
        (["a", "largest", "bb"], 7, 0),
        ([[1, 2], "x" * 9], 9, 0),
        ([[1, 2, 3], "x" * 9], 0, 3),
        ([1, "hello", 2], 5, 2),
        ([[1], [1, 2], [1]], 0, 2),
        (["x", [1, "hello"]], 5, 1),
    ],
)
def test_of_several_prompts_the_largest_counts(prompt: Any, text_bytes: int, tokens: int):
    for shape, name in (
        (BodyShape.PROMPT, "prompt"),
        (BodyShape.EMBEDDING, "input"),
        (BodyShape.EMBEDDING, "content"),
    ):
        meter = measure(shape, **{name: prompt})
        assert (meter.text_bytes, meter.tokens, meter.media) == (text_bytes, tokens, 0)


def test_a_prompt_with_media():
    prompt = {"prompt_string": "What is <__media__>", "multimodal_data": ["A" * 1000, "B" * 1000]}
    meter = measure(BodyShape.PROMPT, prompt=prompt)
    assert meter.media == 2
    assert meter.text_bytes < 60
    content = {"content": [{"type": "text", "text": "string"}]}
    assert measure(BodyShape.EMBEDDING, input=[content]).text_bytes < 30


def test_infill():
    extra = [{"filename": "a.h", "text": "int x;"}]
    meter = measure(BodyShape.INFILL, input_prefix="ab", input_suffix="cd", prompt="ef", input_extra=extra)
    assert len("abcdef") + len("a.hint x;") <= meter.text_bytes < 60
    assert measure(BodyShape.INFILL).text_bytes == 0


def test_rerank_takes_the_query_with_the_largest_document():
    for name in ("documents", "texts"):
        assert measure(BodyShape.RERANK, query="qq", **{name: ["a", "bbbb", "cc"]}).text_bytes == 6
    assert measure(BodyShape.RERANK, query="q", documents=[{"text": "aaa"}, "b"]).text_bytes >= 4


def test_other_bodies_have_no_prompt():
    assert measure(BodyShape.ANY, messages=5, prompt=5).text_bytes == 0


# --- as text


def test_the_text_of_a_prompt():
    messages = [
        {"role": "system", "content": "be"},
        {"role": "user", "content": [{"type": "text", "text": "hello"}]},
    ]
    assert text_of(BodyShape.CHAT, messages=messages) == "system\nbe\nuser\nhello"
    assert text_of(BodyShape.CHAT, messages=messages[:1], tools=[{"a": 1}]) == '[{"a":1}]\nsystem\nbe'
    assert text_of(BodyShape.RESPONSES, input="b", instructions="a") == "a\nb"
    assert text_of(BodyShape.INFILL, input_prefix="a", input_suffix="b") == "a\nb"
    assert text_of(BodyShape.PROMPT, prompt=[1, "x"]) == "x"


def test_the_largest_prompt_as_it_was_given():
    def largest(shape: BodyShape, **body: Any) -> Any:
        return largest_prompt(shape, read_body(msgspec.json.encode(body)))

    assert largest(BodyShape.PROMPT, prompt="x") == "x"
    assert largest(BodyShape.PROMPT, prompt=["x", "yy"]) == "yy"
    assert largest(BodyShape.PROMPT, prompt=[1, "x", 2]) == [1, "x", 2]
    assert largest(BodyShape.EMBEDDING, input=[[1], [2, 3]]) == [2, 3]
    assert largest(BodyShape.RERANK, query="q", documents=["a", "bb"]) == "q\nbb"
    assert largest(BodyShape.INFILL, input_prefix="a", input_suffix="b") == "a\nb"
