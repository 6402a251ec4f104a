"""One look over a text: how many signs of each kind of work are in it."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from attrs import frozen

from gatewright.selection.complexity_words import KINDS_BY_WORD, WordKind

SCANNED_CHARACTERS: Final = 32_768
"""Of longer texts the beginning and the end are looked at, half of this each: that is where instructions stand."""

_WORD: Final = re.compile(r"[a-z]{2,}")
_NUMBER: Final = re.compile(r"\d[\d.,]*")
_LIST_ITEM: Final = re.compile(r"^[ \t]*(?:\d{1,2}[.)]|[-*+])[ \t]", re.MULTILINE)
_NAME_PARTS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

_CODE_SIGNS: Final = ("```", "{", "}", ";", "()", "</", "=>", "==", "def ", "::")
_FORMULA_SIGNS: Final = ("=", "+", "^", "\\", "%", "$", "<", "≤", "≥", "∫", "∑", "√", "π", "∈", "∀")


@frozen
class TextCounts:
    """Signs in a text.

    Attributes:
        reasoning_cues: Different words that ask for reasons, proofs, comparisons.
        steps: Signs of several steps: lists, "then", a second question.
        code: Signs of program text.
        mathematics: Numbers, formulas, words of arithmetic and higher.
        terms: Different words of specialised fields.
        constraints: Different words that bind the form of the answer.
    """

    reasoning_cues: int = 0
    steps: int = 0
    code: int = 0
    mathematics: int = 0
    terms: int = 0
    constraints: int = 0


def excerpt(pieces: Sequence[str], longest: int = SCANNED_CHARACTERS) -> str:
    """The pieces, a line for each; of much text the beginning and the end.

    Args:
        pieces: In the order in which they stand.
        longest: Characters that are kept, line ends not counted.
    """
    if sum(map(len, pieces)) <= longest:
        return "\n".join(pieces)
    half = longest // 2
    return "\n".join((*_beginning(pieces, half), *_end(pieces, longest - half)))


def _beginning(pieces: Sequence[str], room: int) -> list[str]:
    kept: list[str] = []
    for piece in pieces:
        kept.append(piece[:room])
        room -= len(piece)
        if room <= 0:
            break
    return kept


def _end(pieces: Sequence[str], room: int) -> list[str]:
    kept: list[str] = []
    for piece in reversed(pieces):
        kept.append(piece[-room:])
        room -= len(piece)
        if room <= 0:
            break
    return kept[::-1]


def scan(text: str) -> TextCounts:
    """Count the signs in a text; its length is the caller's to bound (`excerpt`)."""
    lower = text.lower()
    # Each word counts once: a log that says "error" a thousand times is not a thousand times as hard.
    kinds = Counter(map(KINDS_BY_WORD.get, set(_WORD.findall(lower))))
    count = text.count
    return TextCounts(
        reasoning_cues=kinds[WordKind.REASONING],
        steps=kinds[WordKind.STEP] + len(_LIST_ITEM.findall(text)) + max(0, count("?") - 1),
        code=kinds[WordKind.CODE] + sum(map(count, _CODE_SIGNS)),
        mathematics=kinds[WordKind.MATHEMATICS]
        + len(_NUMBER.findall(text))
        + sum(map(count, _FORMULA_SIGNS)),
        terms=kinds[WordKind.TERM],
        constraints=kinds[WordKind.CONSTRAINT],
    )


def name_words(name: str) -> list[str]:
    """The words of an identifier, in lower case: of `plan_multiStep`, plan, multi and step."""
    return [part.lower() for part in _NAME_PARTS.findall(name)]
