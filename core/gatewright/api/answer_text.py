"""The text of an answer, out of the body that a client got: for judging it, never for passing it on."""

from typing import Any, Final

import msgspec

from gatewright.api.facts import ApiFormat
from gatewright.wire.sse import SseSplitter, event_data

_EVENT_STREAM: Final = "text/event-stream"


class _Part(msgspec.Struct):
    content: Any = None
    text: Any = None


class _Choice(msgspec.Struct):
    delta: _Part | None = None
    message: _Part | None = None
    text: Any = None


class _Document(msgspec.Struct):
    """The members of all formats' documents and events that hold text."""

    type: Any = None
    choices: list[_Choice] | None = None
    content: Any = None
    output: Any = None
    delta: Any = None


_DOCUMENT: Final = msgspec.json.Decoder(_Document)


def answer_text(format: ApiFormat, content_type: str | None, body: bytes) -> str:  # noqa: A002  # as in facts
    """The text of the first answer in a body; empty where there is none, or nobody can read it.

    Args:
        format: API family.
        content_type: Of the answer: a document or an event stream.
        body: All of it.
    """
    if content_type is not None and content_type.partition(";")[0].strip().lower() == _EVENT_STREAM:
        splitter = SseSplitter()
        events = splitter.feed(body)
        return "".join([_text_of(format, data) for event in events if (data := event_data(event))])
    return _text_of(format, body)


def _text_of(format: ApiFormat, data: bytes) -> str:  # noqa: A002  # as in facts
    try:
        document = _DOCUMENT.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""  # "[DONE]", or nothing that anyone can read
    if document.choices:
        choice = document.choices[0]
        part = choice.delta or choice.message
        return _plain(part.content if part is not None else choice.text)
    match format:
        case ApiFormat.RESPONSES if document.type == "response.output_text.delta":
            return _plain(document.delta)
        case ApiFormat.RESPONSES if isinstance(document.output, list):
            return "".join(
                [_plain(item.get("content")) for item in document.output if isinstance(item, dict)]
            )
        case ApiFormat.MESSAGES if isinstance(document.delta, dict):
            return _plain(document.delta.get("text"))
        case ApiFormat.MESSAGES | ApiFormat.NATIVE:
            return _plain(document.content)
        case _:
            return ""


def _plain(content: Any) -> str:
    """Content that may be text, nothing, or a list of parts with texts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join([_plain(part.get("text")) for part in content if isinstance(part, dict)])
    return ""
