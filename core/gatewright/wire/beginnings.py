"""With which event an answer begins: the first that holds some of it. What precedes it can still be taken back."""

from typing import Any, Final, TypeVar

import msgspec

from gatewright.api.facts import ApiFormat
from gatewright.wire.json_text import read_object


class _Choice(msgspec.Struct):
    finish_reason: Any = None
    delta: dict[str, Any] | None = None
    text: Any = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None


class _NativeChunk(msgspec.Struct):
    content: Any = None
    stop: Any = None


class _Block(msgspec.Struct):
    type: Any = None


class _Event(msgspec.Struct):
    type: Any = None
    content_block: _Block | None = None


_MESSAGES_TOKENS: Final = frozenset(("content_block_delta", "message_delta", "message_stop"))
_RESPONSES_TOKENS: Final = frozenset(
    ("response.output_item.done", "response.completed", "response.incomplete", "response.failed")
)
_Shape = TypeVar("_Shape", _Chunk, _NativeChunk, _Event)


def holds_token(format: ApiFormat, data: bytes) -> bool:  # noqa: A002 - the word that facts use
    """Whether an event with this data holds some of the answer, or its end.

    Args:
        format: API family of the answer.
        data: Of the event; anything.
    """
    match format:
        case ApiFormat.CHAT | ApiFormat.COMPLETION:
            chunk = _read(_CHUNK, data)
            return chunk is not None and any(map(_is_token, chunk.choices or ()))
        case ApiFormat.NATIVE:
            native = _read(_NATIVE, data)
            return native is not None and (bool(native.content) or native.stop is True)
        case ApiFormat.MESSAGES | ApiFormat.RESPONSES:
            event = _read(_EVENT, data)
            return event is not None and isinstance(event.type, str) and _is_token_event(event.type, event)
        case ApiFormat.OTHER:
            return True


def _read(decoder: "msgspec.json.Decoder[_Shape]", data: bytes) -> _Shape | None:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = read_object(data)
    try:
        return None if found is None else msgspec.convert(found, decoder.type)
    except msgspec.ValidationError:
        return None


def _is_token(choice: _Choice) -> bool:
    if choice.finish_reason or choice.text:
        return True
    return any(value for name, value in (choice.delta or {}).items() if name != "role")


def _is_token_event(kind: str, event: _Event) -> bool:
    if kind == "content_block_start":
        # A block of text begins empty; that of a tool names the tool.
        return event.content_block is not None and event.content_block.type != "text"
    return kind in _MESSAGES_TOKENS or kind in _RESPONSES_TOKENS or kind.endswith(".delta")


_CHUNK: Final = msgspec.json.Decoder(_Chunk)
_NATIVE: Final = msgspec.json.Decoder(_NativeChunk)
_EVENT: Final = msgspec.json.Decoder(_Event)
