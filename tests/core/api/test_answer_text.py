import json

import pytest

from gatewright.api.answer_text import answer_text
from gatewright.api.facts import ApiFormat

JSON = "application/json"
EVENTS = "text/event-stream; charset=utf-8"


def stream(*events: object) -> bytes:
    return (
        b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"
    )


@pytest.mark.parametrize(
    ("format_", "document"),
    [
        (
            ApiFormat.CHAT,
            {"choices": [{"message": {"content": "Hello you"}}, {"message": {"content": "no"}}]},
        ),
        (ApiFormat.CHAT, {"choices": [{"message": {"content": [{"type": "text", "text": "Hello you"}]}}]}),
        (ApiFormat.COMPLETION, {"choices": [{"text": "Hello you"}]}),
        (ApiFormat.RESPONSES, {"output": [{"content": [{"type": "output_text", "text": "Hello you"}]}]}),
        (
            ApiFormat.MESSAGES,
            {"content": [{"type": "text", "text": "Hello "}, {"type": "text", "text": "you"}]},
        ),
        (ApiFormat.NATIVE, {"content": "Hello you"}),
    ],
)
def test_the_text_of_a_document(format_, document):
    assert answer_text(format_, JSON, json.dumps(document).encode()) == "Hello you"


@pytest.mark.parametrize(
    ("format_", "events"),
    [
        (ApiFormat.CHAT, [{"choices": [{"delta": {"content": part}}]} for part in ("Hello", " ", "you")]),
        (ApiFormat.CHAT, [{"choices": []}, {"choices": [{"delta": {"content": "Hello you"}}]}]),
        (ApiFormat.COMPLETION, [{"choices": [{"text": part}]} for part in ("Hello", " you")]),
        (
            ApiFormat.RESPONSES,
            [{"type": "response.created"}, {"type": "response.output_text.delta", "delta": "Hello you"}],
        ),
        (ApiFormat.MESSAGES, [{"type": "content_block_delta", "delta": {"text": "Hello you"}}]),
    ],
)
def test_the_text_of_a_stream(format_, events):
    assert answer_text(format_, EVENTS, stream(*events)) == "Hello you"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff", b'{"choices": 3}', b'{"choices": [{}]}', b"null"]
)
def test_what_holds_no_text_has_none(body):
    for format_ in ApiFormat:
        assert answer_text(format_, JSON, body) == ""
        assert answer_text(format_, EVENTS, b"data: " + body + b"\n\n") == ""
