from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright.api.continuation import continue_body
from gatewright.api.facts import ApiFormat, Continuation

HELLO = {"role": "user", "content": "hello"}
CHAT_WAYS = [each for each in Continuation if each not in {Continuation.REPEAT, Continuation.PROMPT}]


def chat(
    continuation: Continuation = Continuation.ASSISTANT, text: str = "so far", tokens: int = 3, **body: Any
) -> Any:
    raw = msgspec.json.encode({"messages": [HELLO], **body})
    return msgspec.json.decode(continue_body(raw, ApiFormat.CHAT, text, tokens, continuation))


def completion(text: str = " upon", tokens: int = 3, **body: Any) -> Any:
    raw = msgspec.json.encode({"prompt": "Once", **body})
    return msgspec.json.decode(continue_body(raw, ApiFormat.COMPLETION, text, tokens, Continuation.PROMPT))


@pytest.mark.parametrize(
    ("continuation", "in_message", "beside"),
    [
        (Continuation.ASSISTANT, {}, {}),
        (Continuation.PREFIX, {"prefix": True}, {}),
        (
            Continuation.CONTINUE_FINAL_MESSAGE,
            {},
            {"continue_final_message": True, "add_generation_prompt": False},
        ),
        (Continuation.LLAMACPP, {}, {"chat_template_kwargs": {"enable_thinking": False}}),
    ],
)
def test_the_beginning_is_the_last_message(continuation: Continuation, in_message: Any, beside: Any):
    message = {"role": "assistant", "content": "so far", **in_message}
    assert chat(continuation, model="m") == {"messages": [HELLO, message], "model": "m", **beside}


@pytest.mark.parametrize("format", [ApiFormat.CHAT, ApiFormat.COMPLETION])
def test_to_repeat_nothing_is_changed(format: ApiFormat):  # noqa: A002
    body = b'{ "messages": [], "max_tokens": 5 }'
    assert continue_body(body, format, "text", 3, Continuation.REPEAT) == body


@pytest.mark.parametrize("continuation", CHAT_WAYS)
def test_a_message_that_the_client_had_begun_goes_on(continuation: Continuation):
    begun = {"role": "assistant", "content": "I say: ", "name": "n"}
    assert chat(continuation, messages=[HELLO, begun])["messages"][0] == HELLO
    last = chat(continuation, messages=[HELLO, begun])["messages"][1]
    assert (last["content"], last["name"]) == ("I say: so far", "n")
    assert len(chat(continuation, messages=[HELLO, begun])["messages"]) == 2


def test_a_message_of_parts_gets_another_part():
    parts = [{"type": "text", "text": "I say: "}]
    (message,) = chat(messages=[{"role": "assistant", "content": parts}])["messages"]
    assert message["content"] == [*parts, {"type": "text", "text": "so far"}]


@pytest.mark.parametrize(
    "last", [{"role": "assistant", "content": None}, {"role": "assistant"}, {"role": "tool", "content": "x"}]
)
def test_a_message_without_content_stays(last: dict[str, Any]):
    assert chat(messages=[HELLO, last])["messages"] == [
        HELLO,
        last,
        {"role": "assistant", "content": "so far"},
    ]


@pytest.mark.parametrize("given", [None, {}, {"enable_thinking": True, "other": 1}])
def test_arguments_of_the_template_are_merged(given: dict[str, Any] | None):
    kwargs = chat(Continuation.LLAMACPP, chat_template_kwargs=given)["chat_template_kwargs"]
    assert kwargs == {**(given or {}), "enable_thinking": False}


def test_a_prompt_is_extended():
    assert completion(model="m") == {"prompt": "Once upon", "model": "m"}
    assert completion(prompt=["Once"]) == {"prompt": ["Once upon"]}


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "n_predict"])
@pytest.mark.parametrize(
    ("limit", "left"),
    [(10, 7), (10.0, 7), (4, 1), (3, 1), (1, 1), (0, 0), (-1, -1), (None, None), ("x", "x"), (True, True)],
)
def test_limits_are_reduced_by_what_was_sent(name: str, limit: Any, left: Any):
    assert chat(**{name: limit})[name] == left
    assert completion(**{name: limit})[name] == left


def test_values_are_copied_digit_by_digit():
    body = (
        b'{"seed":12345678901234567890123,"t":1.10,"messages":[{"role":"user","content":"\\u00bd","x":1e0}]}'
    )
    found = continue_body(body, ApiFormat.CHAT, "½", 0, Continuation.ASSISTANT)
    assert found == (
        b'{"seed":12345678901234567890123,"t":1.10,"messages":[{"role":"user","content":"\\u00bd","x":1e0},'
        b'{"role":"assistant","content":"\xc2\xbd"}]}'
    )


@pytest.mark.parametrize(
    ("format", "body"),
    [
        (ApiFormat.CHAT, b"{"),
        (ApiFormat.CHAT, b"[]"),
        (ApiFormat.CHAT, b"{}"),
        (ApiFormat.CHAT, b'{"messages":5}'),
        (ApiFormat.CHAT, b'{"messages":[5]}'),
        (ApiFormat.COMPLETION, b"{}"),
        (ApiFormat.COMPLETION, b'{"prompt":[1,2]}'),
        (ApiFormat.COMPLETION, b'{"prompt":["a","b"]}'),
    ],
)
def test_what_cannot_be_continued(format: ApiFormat, body: bytes):  # noqa: A002
    way = Continuation.PROMPT if format is ApiFormat.COMPLETION else Continuation.ASSISTANT
    with pytest.raises(ValueError, match="cannot be continued"):
        continue_body(body, format, "x", 1, way)


@given(st.text(), st.text(), st.sampled_from(CHAT_WAYS), st.integers(0, 100))
def test_any_text_goes_on(begun: str, text: str, continuation: Continuation, tokens: int):
    found = chat(
        continuation, text, tokens, messages=[{"role": "assistant", "content": begun}], max_tokens=50
    )
    assert found["messages"][0]["content"] == begun + text
    assert found["max_tokens"] == max(1, 50 - tokens)
    assert completion(text, tokens, prompt=begun)["prompt"] == begun + text
