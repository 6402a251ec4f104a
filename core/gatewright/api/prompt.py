"""The text in a request that becomes prompt: found the same way for measuring it and for tokenizing it.

Media are counted, never measured: a picture's tokens do not depend on how many characters encode it.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from gatewright.api.bodies import Body
from gatewright.api.endpoints import BodyShape
from gatewright.errors import InvalidRequest

MEDIA_TYPES: Final = frozenset(
    (
        "image", "image_url", "input_image",
        "audio", "audio_url", "input_audio",
        "video", "video_url", "input_video",
        "file", "input_file", "document",
    )
)  # fmt: skip
_TEXT_TYPES: Final = frozenset(("text", "input_text", "output_text"))
_NUMBER_BYTES: Final = 8
_LONGEST_MEDIA_TYPE: Final = 24
"""Characters at the beginning of a data URL that tell a picture from a sound."""
_PUNCTUATION_BYTES: Final = 6
"""Quotes, colon, comma and spaces around a member of an object that a template writes as JSON."""


class PromptMeter:
    """Adds up a prompt.

    Attributes:
        text_bytes: UTF-8 bytes of its text.
        tokens: Tokens that were given as numbers.
        media: Images, sounds, files.
        kinds: Which of them, in the words of the API, as far as it tells.
    """

    def __init__(self) -> None:
        self.text_bytes = 0
        self.tokens = 0
        self.media = 0
        self.kinds: set[str] | None = None

    @property
    def weight(self) -> int:
        """For comparing prompts, in bytes."""
        return self.text_bytes + 4 * self.tokens

    def add_text(self, text: str) -> None:
        """Text that stands in the prompt as it is."""
        # A string knows whether it is ASCII: no copy is made of the usual long text.
        self.text_bytes += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))

    def add_json(self, raw: msgspec.Raw) -> None:
        """JSON that a template writes into the prompt."""
        size = len(memoryview(raw))
        if size > 4:  # noqa: PLR2004 - anything but null and the empty
            self.text_bytes += size

    def add_medium(self, kind: str) -> None:
        """An image, a sound or a file, which is not measured."""
        self.media += 1
        if self.kinds is None:
            self.kinds = set()
        self.kinds.add(kind)

    def add_overhead(self, size: int) -> None:
        """Bytes that stand between texts."""
        self.text_bytes += size


class PromptText(PromptMeter):
    """Keeps a prompt's text as well, in `pieces`."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []

    def add_text(self, text: str) -> None:
        """See `PromptMeter`."""
        super().add_text(text)
        if text:
            self.pieces.append(text)

    def add_json(self, raw: msgspec.Raw) -> None:
        """See `PromptMeter`."""
        size = self.text_bytes
        super().add_json(raw)
        if self.text_bytes > size:
            self.pieces.append(bytes(raw).decode("utf-8", "replace"))


def walk_prompt(shape: BodyShape, body: Body, meter: PromptMeter) -> int:
    """Add up the prompt of a body, the largest one where it holds several; the number of messages.

    Raises:
        InvalidRequest: There is no prompt where one must be, or it is of a wrong type.
    """
    return _WALKS[shape](body, meter)


def largest_prompt(shape: BodyShape, body: Body) -> Any:
    """Of a body without messages: its largest prompt, text or a list of texts and tokens, as `/tokenize` takes it.

    Raises:
        InvalidRequest: As for `walk_prompt`.
    """
    match shape:
        case BodyShape.PROMPT:
            return _largest(_prompts(body.prompt, "prompt"))
        case BodyShape.EMBEDDING:
            return _largest(_prompts(*_embedding_input(body)))
        case _:
            text = PromptText()
            walk_prompt(shape, body, text)
            return "\n".join(text.pieces)


# --- messages


def _walk_chat(body: Body, meter: PromptMeter) -> int:
    meter.add_json(body.tools)
    meter.add_json(body.functions)
    meter.add_json(body.response_format)
    return _walk_messages(body.messages, meter)


def _walk_anthropic(body: Body, meter: PromptMeter) -> int:
    meter.add_json(body.tools)
    _walk_content(body.system, meter)
    return _walk_messages(body.messages, meter)


def _walk_messages(messages: Any, meter: PromptMeter) -> int:
    if not isinstance(messages, list):
        raise InvalidRequest(f"'messages' must be a list of messages, {_found(messages)}", param="messages")
    if not messages:
        raise InvalidRequest("'messages' must not be empty", param="messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise InvalidRequest(
                f"'messages[{index}]' must be an object, {_found(message)}", param="messages"
            )
        _walk_message(message, meter)
    return len(messages)


def _walk_responses(body: Body, meter: PromptMeter) -> int:
    meter.add_json(body.tools)
    meter.add_json(body.text)
    _walk_content(body.instructions, meter)
    found = body.input
    if isinstance(found, str):
        meter.add_text(found)
        return 1
    if isinstance(found, list):
        for index, item in enumerate(found):
            if not isinstance(item, dict):
                raise InvalidRequest(f"'input[{index}]' must be an object, {_found(item)}", param="input")
            _walk_message(item, meter)
        return len(found)
    if found is None and body.prompt is not None:
        return 1  # a prompt that is stored at the provider
    raise InvalidRequest(f"'input' must be a string or a list of items, {_found(found)}", param="input")


def _walk_message(message: dict[str, Any], meter: PromptMeter) -> None:
    for name, value in message.items():
        if name in {"content", "output"}:
            _walk_content(value, meter)
        elif isinstance(value, str):
            meter.add_text(value)  # role, name, tool_call_id, reasoning_content
        elif value is not None:
            _walk_value(value, meter)


def _walk_content(content: Any, meter: PromptMeter) -> None:
    if isinstance(content, str):
        meter.add_text(content)
    elif content is not None:
        _walk_value(content, meter)


def _walk_value(root: Any, meter: PromptMeter) -> None:
    """All text in a value, whatever its shape. Without recursion: the depth is the client's choice."""
    waiting = [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if value.startswith("data:"):
                meter.add_medium(value[5:_LONGEST_MEDIA_TYPE])
            else:
                meter.add_text(value)
        elif isinstance(value, list):
            waiting.extend(reversed(value))
        elif isinstance(value, dict):
            kind = value.get("type")
            if not isinstance(kind, str):
                kind = ""
            if kind in _TEXT_TYPES and isinstance(value.get("text"), str):
                meter.add_text(value["text"])
            elif kind in MEDIA_TYPES:
                _walk_medium(value, meter)
            else:
                for name, member in reversed(value.items()):
                    meter.add_overhead(len(name) + _PUNCTUATION_BYTES)
                    waiting.append(member)
        elif value is not None:
            meter.add_overhead(_NUMBER_BYTES)


def _walk_medium(part: dict[str, Any], meter: PromptMeter) -> None:
    source = part.get("source")
    if isinstance(source, dict) and source.get("type") == "text" and isinstance(source.get("data"), str):
        meter.add_text(source["data"])  # Anthropic's document of plain text
    else:
        meter.add_medium(part["type"])


# --- prompts


def _walk_prompts(body: Body, meter: PromptMeter) -> int:
    meter.add_json(body.response_format)
    _walk_content(body.suffix, meter)
    _add_prompt(_largest(_prompts(body.prompt, "prompt")), meter)
    return 1


def _walk_infill(body: Body, meter: PromptMeter) -> int:
    for part in (body.input_extra, body.input_prefix, body.prompt, body.input_suffix):
        _walk_content(part, meter)
    return 1


def _walk_embedding(body: Body, meter: PromptMeter) -> int:
    _add_prompt(_largest(_prompts(*_embedding_input(body))), meter)
    return 1


def _walk_rerank(body: Body, meter: PromptMeter) -> int:
    if not isinstance(body.query, str):
        raise InvalidRequest(f"'query' must be a string, {_found(body.query)}", param="query")
    name, documents = ("documents", body.documents) if body.documents is not None else ("texts", body.texts)
    if not isinstance(documents, list) or not documents:
        raise InvalidRequest(f"'{name}' must be a list of documents, {_found(documents)}", param=name)
    meter.add_text(body.query)
    largest = max(map(_metered(_walk_content), documents), key=lambda pair: pair[0])[1]
    _walk_content(largest, meter)
    return 1


def _walk_nothing(_body: Body, _meter: PromptMeter) -> int:
    return 0


def _embedding_input(body: Body) -> tuple[Any, str]:
    return (
        (body.content, "content")
        if body.input is None and body.content is not None
        else (body.input, "input")
    )


def _prompts(value: Any, name: str) -> Iterator[Any]:
    """Each prompt of a value that may be one or a list of them (llama-server: tokens and texts may be mixed).

    Raises:
        InvalidRequest: It is neither.
    """
    if isinstance(value, str | dict):
        yield value
    elif isinstance(value, list) and value:
        if any(_is_token(part) for part in value):
            yield value
        else:
            yield from value
    elif isinstance(value, list):
        raise InvalidRequest(f"'{name}' must not be empty", param=name)
    else:
        raise InvalidRequest(
            f"'{name}' must be a string, a list of strings or a list of tokens, {_found(value)}", param=name
        )


def _largest(prompts: Iterator[Any]) -> Any:
    return max(map(_metered(_add_prompt), prompts), key=lambda pair: pair[0])[1]


def _metered(walk: Callable[[Any, PromptMeter], None]) -> Callable[[Any], tuple[int, Any]]:
    def measure(prompt: Any) -> tuple[int, Any]:
        meter = PromptMeter()
        walk(prompt, meter)
        return meter.weight, prompt

    return measure


def _add_prompt(prompt: Any, meter: PromptMeter) -> None:
    if isinstance(prompt, str):
        meter.add_text(prompt)
    elif isinstance(prompt, dict):
        # llama-server: {"prompt_string": text, "multimodal_data": [base64, ...]}; embeddings: content parts
        data = prompt.get("multimodal_data")
        meter.media += len(data) if isinstance(data, list) else 0
        _walk_value({name: value for name, value in prompt.items() if name != "multimodal_data"}, meter)
    elif isinstance(prompt, list):
        for part in prompt:
            if _is_token(part):
                meter.tokens += 1
            else:
                _walk_content(part, meter)
    elif prompt is not None:
        meter.add_overhead(_NUMBER_BYTES)


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _found(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "nothing"}
    return f"not {names.get(type(value), 'a number')}"


_WALKS: Final[dict[BodyShape, Callable[[Body, PromptMeter], int]]] = {
    BodyShape.CHAT: _walk_chat,
    BodyShape.PROMPT: _walk_prompts,
    BodyShape.INFILL: _walk_infill,
    BodyShape.RESPONSES: _walk_responses,
    BodyShape.MESSAGES: _walk_anthropic,
    BodyShape.EMBEDDING: _walk_embedding,
    BodyShape.RERANK: _walk_rerank,
    BodyShape.ANY: _walk_nothing,
}
