"""From a request's body to the signals by which the heuristic estimator tells how hard it is."""

from typing import Any, Final

import msgspec

from gatewright.api.bodies import Body, is_given
from gatewright.api.endpoints import BodyShape
from gatewright.api.prompt import MEDIA_TYPES
from gatewright.selection.complexity_scan import SCANNED_CHARACTERS, TextCounts, excerpt, name_words, scan
from gatewright.selection.complexity_words import task_words
from gatewright.selection.signals import PromptSignals

_INSTRUCTION_CHARACTERS: Final = 2048
"""Of system prompts: an agent's are long, the same with every request, and full of words for all it could be asked."""
_MOST_PARTS: Final = 100_000
_SCHEMA_WEIGHT: Final = 4
"""A schema binds the answer as much as this many words."""
_INSTRUCTING: Final = frozenset(("system", "developer"))
_ANSWERING: Final = frozenset(("assistant", "model"))
_LISTS: Final = msgspec.json.Decoder(list[msgspec.Raw])


class _Gathered:
    """What was found of a prompt.

    Attributes:
        pieces: Texts that are looked at: all but answers, and of instructions the beginning.
        characters: Of all texts.
        turns: Messages.
        inputs: Separate inputs besides the question itself.
        media: Pictures and sounds.
    """

    __slots__ = ("characters", "inputs", "media", "pieces", "turns")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.characters = 0
        self.turns = 1
        self.inputs = 1
        self.media = 0

    def add(self, text: str, role: str = "user") -> None:
        self.characters += len(text)
        if role in _INSTRUCTING:
            self.pieces.append(text[:_INSTRUCTION_CHARACTERS])
        elif role not in _ANSWERING:
            self.pieces.append(text)


_MOST_TOKENS: Final = 2**53
"""Beyond this a float no longer holds every whole number."""


def read_signals(shape: BodyShape, body: Body, *, task: str = "") -> PromptSignals:
    """Signals of a request. Never raises: what is malformed is for others to refuse, and says nothing here.

    Args:
        shape: Where the body keeps its prompt.
        body: The request's.
        task: Name of its task, where the client told it.
    """
    found = _gather(shape, body)
    counts = scan(excerpt(found.pieces)) if found.pieces else TextCounts()
    return PromptSignals(
        task=task,
        task_words=task_words(name_words(task)) if task else 0,
        text_characters=found.characters,
        inputs=found.inputs,
        turns=found.turns,
        reasoning_cues=counts.reasoning_cues,
        steps=counts.steps,
        code=counts.code,
        mathematics=counts.mathematics,
        terms=counts.terms,
        constraints=counts.constraints + (_SCHEMA_WEIGHT if _has_schema(body) else 0),
        tools=_length(body.tools) + _length(body.functions),
        media=found.media,
        answer_tokens=_answer_tokens(body),
    )


def prompt_excerpt(shape: BodyShape, body: Body, longest: int = SCANNED_CHARACTERS) -> str:
    """The text that the signals are counted in, for estimators that read it. Never raises.

    Args:
        shape: Where the body keeps its prompt.
        body: The request's.
        longest: Characters; of more, the beginning and the end.
    """
    return excerpt(_gather(shape, body).pieces, longest)


def _gather(shape: BodyShape, body: Body) -> _Gathered:
    found = _Gathered()
    match shape:
        case BodyShape.CHAT | BodyShape.MESSAGES:
            _walk(body.system, found, "system")
            _walk_messages(body.messages, found)
        case BodyShape.RESPONSES:
            _walk(body.instructions, found, "system")
            if isinstance(body.input, list):
                _walk_messages(body.input, found)
            else:
                _walk(body.input, found)
        case BodyShape.RERANK:
            _walk(body.query, found)
            documents = body.documents if body.documents is not None else body.texts
            _walk(documents, found)
            found.inputs += len(documents) if isinstance(documents, list) else 0
        case _:
            for part in (body.input_extra, body.input_prefix, body.prompt, body.input, body.content):
                _walk(part, found)
            _walk(body.suffix, found)
            _walk(body.input_suffix, found)
    return found


def _walk_messages(messages: Any, found: _Gathered) -> None:
    if not isinstance(messages, list):
        return
    found.turns = max(1, len(messages))
    for message in messages:
        if not isinstance(message, dict):
            continue
        role = message.get("role")
        if not isinstance(role, str):
            role = "user"
        content = message.get("content")
        if isinstance(content, str):
            found.add(content, role)
        else:
            _walk(content, found, role)
        if (output := message.get("output")) is not None:  # of a function, in the Responses API
            _walk(output, found, role)


def _walk(root: Any, found: _Gathered, role: str = "user") -> None:
    """All text in a value, whatever its shape. Without recursion: the depth is the client's choice."""
    if isinstance(root, str):
        found.add(root, role)
        return
    waiting = [root]
    for _ in range(_MOST_PARTS):
        if not waiting:
            return
        value = waiting.pop()
        if isinstance(value, str):
            if not value.startswith("data:"):
                found.add(value, role)
        elif isinstance(value, list):
            waiting.extend(reversed(value))
        elif isinstance(value, dict):
            _walk_part(value, found, waiting)


def _walk_part(part: dict[str, Any], found: _Gathered, waiting: list[Any]) -> None:
    """One part of a message, or a prompt of llama-server's."""
    kind = part.get("type")
    if isinstance(kind, str) and kind in MEDIA_TYPES:
        source = part.get("source")
        if isinstance(source, dict) and source.get("type") == "text":
            found.inputs += 1
            waiting.append(source.get("data"))  # Anthropic's document of plain text
        else:
            found.media += 1
        return
    data = part.get("multimodal_data")
    found.media += len(data) if isinstance(data, list) else 0
    waiting.extend(part[name] for name in ("prompt_string", "content", "output", "text") if name in part)


def _has_schema(body: Body) -> bool:
    """Whether the answer's form is bound by more than words."""
    if any(
        map(
            is_given,
            (
                body.grammar,
                body.json_schema,
                body.structured_outputs,
                body.guided_json,
                body.guided_regex,
                body.guided_choice,
                body.guided_grammar,
                body.regex,
                body.ebnf,
            ),
        )
    ):
        return True
    return any(
        is_given(value) and b'"json' in memoryview(value).tobytes()
        for value in (body.response_format, body.text)
    )


def _length(raw: msgspec.Raw) -> int:
    if not is_given(raw):
        return 0
    try:
        return len(_LISTS.decode(raw))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0


def _answer_tokens(body: Body) -> int | None:
    for limit in (body.max_completion_tokens, body.max_tokens, body.max_output_tokens, body.n_predict):
        if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0:
            return min(limit, _MOST_TOKENS)
    return None
