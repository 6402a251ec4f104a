"""What the heuristic estimator looks at: counts over a request's text, taken where the text is, so that the text need not travel."""

from collections.abc import Mapping
from typing import Final

from attrs import frozen

from gatewright.selection.complexity_scan import excerpt, name_words, scan
from gatewright.selection.complexity_words import task_words


@frozen(kw_only=True)
class PromptSignals:
    """Counts over one request.

    Attributes:
        task: Name of the task, where the client named one.
        task_words: Words of the task's name and description that speak of hard work, less those that speak of easy work.
        text_characters: All text of the prompt.
        inputs: Separate inputs: documents, fields, files.
        turns: Messages of the conversation.
        reasoning_cues: Different words that ask for reasons, proofs, comparisons.
        steps: Signs of several steps: lists, "then", "finally", a second question.
        code: Signs of program text.
        mathematics: Numbers, signs of formulas, words of arithmetic and higher.
        terms: Different words of specialised fields.
        constraints: Conditions on the form of the answer: schema, format, length.
        tools: Tools that the model may call.
        media: Pictures and sounds.
        answer_tokens: Limit that the client named for the answer.
    """

    task: str = ""
    task_words: int = 0
    text_characters: int = 0
    inputs: int = 1
    turns: int = 1
    reasoning_cues: int = 0
    steps: int = 0
    code: int = 0
    mathematics: int = 0
    terms: int = 0
    constraints: int = 0
    tools: int = 0
    media: int = 0
    answer_tokens: int | None = None


_TASK_CHARACTERS: Final = 4096
"""Of a task's description; a docstring is shorter, and a whole manual says no more."""
_MOST_VALUES: Final = 10_000
"""Values of inputs that are looked at; a data frame's cells are not worth more."""


def signals_of_text(task_name: str, description: str, inputs: Mapping[str, object]) -> PromptSignals:
    """Signals of a task that a program is about to have done.

    Args:
        task_name: Such as "extract_values"; its parts are read as words.
        description: What is to be done, a docstring for example.
        inputs: Values by name. Texts count as they are; of lists and mappings what is in them; of all else how it prints.
    """
    pieces: list[str] = []
    for value in inputs.values():
        _collect(value, pieces)
    names = name_words(task_name)
    described = description[:_TASK_CHARACTERS]
    counts = scan(excerpt((" ".join(names), described, *pieces)))
    return PromptSignals(
        task=task_name,
        task_words=task_words(names + name_words(described)),
        text_characters=len(description) + sum(map(len, pieces)),
        inputs=max(1, len(inputs)),
        reasoning_cues=counts.reasoning_cues,
        steps=counts.steps,
        code=counts.code,
        mathematics=counts.mathematics,
        terms=counts.terms,
        constraints=counts.constraints,
    )


def _collect(root: object, pieces: list[str]) -> None:
    """All text in a value. Without recursion: it may be nested to any depth, or in itself."""
    waiting = [root]
    for _ in range(_MOST_VALUES):
        if not waiting:
            return
        match waiting.pop():
            case str() as text:
                pieces.append(text)
            case bytes() | bytearray() as data:
                pieces.append(data.decode("utf-8", "replace"))
            case Mapping() as members:
                waiting.extend(reversed([*members.values()]))
            case list() | tuple() | set() | frozenset() as members:
                waiting.extend(reversed([*members]))
            case None:
                pass
            case other:
                pieces.append(_printed(other))


def _printed(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - anybody's class; a value that cannot be printed says nothing
        return ""
