"""What a client has of a streamed answer: kept while it passes, read only if the rest does not come.

One object serves all attempts at one request. On the way of an answer that comes to its end it costs an append per read,
and some decoding for each 64 KiB.
"""

from typing import Any, Final

import msgspec

from gatewright.api.facts import ApiFormat, RequestFacts, Resumable
from gatewright.wire.json_text import read_object
from gatewright.wire.sse import data_lines, event_data, split_events

MAX_RAW_BYTES: Final = 65_536
"""Events that are kept undecoded at most: they are some fifty times as large as their text."""
CHARACTERS_PER_TOKEN: Final = 4
"""Of text that nobody has counted."""
MAX_TEXT_CHARACTERS: Final = 4_194_304
"""Of a longer answer nothing is known, and nothing can be continued."""

_TEXTLESS: Final = frozenset(
    ("role", "name", "content", "reasoning_content", "reasoning", "reasoning_details")
)
"""Members of a delta that are text, or say nothing that is not in its text."""


class _Choice(msgspec.Struct):
    index: Any = 0
    delta: dict[str, Any] | None = None
    text: Any = None


class _Chunk(msgspec.Struct):
    id: Any = None
    created: Any = None
    model: Any = None
    object: Any = None
    choices: list[_Choice] | None = None


_CHUNK: Final = msgspec.json.Decoder(_Chunk)
_FORMATS: Final = frozenset((ApiFormat.CHAT, ApiFormat.COMPLETION))


class SentAnswer:
    """The text of the one answer of a chat or text completion, as far as it was sent.

    Of all other answers nothing is kept: they cannot be resumed.

    Args:
        facts: Of the request.
    """

    def __init__(self, facts: RequestFacts) -> None:
        self._is_readable = facts.format in _FORMATS and facts.choices == 1
        self._raw: list[bytes] = []
        self._raw_bytes = 0
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._characters = 0
        self._tokens = 0
        self._has_tool_calls = False
        self._has_more = False
        self._first: _Chunk | None = None
        self._was_kept = False

    def keep(self, data: bytes) -> None:
        """Take in events that were sent, in the order in which they were."""
        if not self._is_readable:
            return
        self._was_kept = True
        self._raw.append(data)
        self._raw_bytes += len(data)
        if self._raw_bytes > MAX_RAW_BYTES:
            self._read()

    @property
    def is_readable(self) -> bool:
        """Whether all that was sent could be read."""
        self._read()
        return self._is_readable

    @property
    def id(self) -> str | None:
        """Of the answer, where its first chunk names one."""
        value = self._first_chunk.id
        return value if isinstance(value, str) else None

    @property
    def created(self) -> int | None:
        """Time of the answer in seconds since 1970, where its first chunk tells it."""
        value = self._first_chunk.created
        return value if isinstance(value, int) else None

    @property
    def model(self) -> str | None:
        """As the first chunk names it."""
        value = self._first_chunk.model
        return value if isinstance(value, str) else None

    @property
    def object(self) -> str | None:
        """Type of the chunks, as the first one names it."""
        value = self._first_chunk.object
        return value if isinstance(value, str) else None

    @property
    def text(self) -> str:
        """The answer itself."""
        self._read()
        return _joined(self._text)

    @property
    def reasoning(self) -> str:
        """What was thought before it."""
        self._read()
        return _joined(self._reasoning)

    @property
    def tokens(self) -> int:
        """Chunks with text or reasoning: an estimate, since a chunk may hold several tokens."""
        self._read()
        return self._tokens

    @property
    def likely_tokens(self) -> int | None:
        """Estimate of all tokens, for where nobody counts them; None if there is more than text, or what nobody can read."""
        self._read()
        if not self._is_readable or self._has_more:
            return None
        return max(self._tokens, self._characters // CHARACTERS_PER_TOKEN)

    @property
    def has_tool_calls(self) -> bool:
        """Whether a call of a tool has begun."""
        self._read()
        return self._has_tool_calls

    @property
    def resumable(self) -> Resumable:
        """What can be done if the rest does not come."""
        self._read()
        if not self._was_kept or not self._is_readable or self._has_tool_calls or self._has_more:
            return Resumable.NO
        return Resumable.CONTINUE if self._text else Resumable.REPEAT

    @property
    def _first_chunk(self) -> _Chunk:
        self._read()
        return self._first or _NO_CHUNK

    def _read(self) -> None:
        """Turn what is kept into text."""
        if not self._raw or not self._is_readable:
            return
        block = b"".join(self._raw)
        self._raw.clear()
        self._raw_bytes = 0
        chunks = _read_chunks(block)
        if chunks is None:
            self._give_up()
            return
        for chunk in chunks:
            if self._first is None:
                self._first = chunk
            for choice in chunk.choices or ():
                self._take(choice)
        if self._characters > MAX_TEXT_CHARACTERS:
            self._give_up()

    def _take(self, choice: _Choice) -> None:
        delta = choice.delta or {}
        text = choice.text or delta.get("content") or ""
        reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
        if choice.index != 0 or not isinstance(text, str) or not isinstance(reasoning, str):
            self._has_more = True
            return
        if text:
            self._text.append(text)
        if reasoning:
            self._reasoning.append(reasoning)
        if text or reasoning:
            self._tokens += 1
            self._characters += len(text) + len(reasoning)
        for name, value in delta.items():
            if value and name not in _TEXTLESS:
                self._has_more = True
                self._has_tool_calls = self._has_tool_calls or name in {"tool_calls", "function_call"}

    def _give_up(self) -> None:
        self._is_readable = False
        self._text.clear()
        self._reasoning.clear()
        self._raw.clear()


_NO_CHUNK: Final = _Chunk()


def _joined(pieces: list[str]) -> str:
    if len(pieces) > 1:
        pieces[:] = ["".join(pieces)]
    return pieces[0] if pieces else ""


def _read_chunks(block: bytes) -> list[_Chunk] | None:
    """The chunks of whole events; None if something among them is no chunk."""
    count = block.count(b"\n\n")
    lines = None if b"\r" in block else data_lines(block, count)
    if lines is not None:
        try:
            chunks = _CHUNK.decode_lines(lines)
            if len(chunks) == count:
                return chunks
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    chunks = []
    for event in split_events(block):
        data = event_data(event)
        if data is None or data.strip() == b"[DONE]":
            continue
        found = read_object(data)
        try:
            chunks.append(msgspec.convert(found, _Chunk))
        except msgspec.ValidationError:
            return None
    return chunks
