"""How a check ends early, and the sentences that say why."""

import json
from collections.abc import Container
from typing import Any, Final

from gatewright_cli.verification.client import Answer

CLIENT_ERRORS: Final = range(400, 500)
_SHOWN_CHARACTERS: Final = 120


class Failed(Exception):
    """What came is not what was expected.

    Args:
        expected: What should have come.
        got: What came instead.
    """

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f"expected {expected}, got {got}")


class Skipped(Exception):
    """There is nothing to be checked here; the message says why."""


def shown(value: object) -> str:
    """A value in one short line."""
    match value:
        case bytes():
            text = ascii(value.decode("utf-8", "replace"))
        case str():
            text = repr(value)
        case _:
            text = json.dumps(value, ensure_ascii=False, default=repr)
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def expect(condition: object, expected: str, got: object) -> None:
    """Go on only if the condition holds.

    Args:
        condition: Whether it is as it should be.
        expected: What should have come.
        got: What came.

    Raises:
        Failed: It does not hold.
    """
    if not condition:
        raise Failed(expected, shown(got))


def expect_status(answer: Answer, statuses: Container[int], expected: str) -> None:
    """Go on only if the answer has one of these statuses.

    Raises:
        Failed: It has another.
    """
    if answer.status not in statuses:
        raise Failed(expected, f"{answer.status} {shown(answer.body)}")


def document_of(answer: Answer) -> dict[str, Any]:
    """The JSON object in the body of an answer.

    Raises:
        Failed: There is none.
    """
    kind = answer.get("content-type") or "no content-type"
    expect(kind.partition(";")[0].strip() == "application/json", "content-type application/json", kind)
    return parse_object(answer.body)


def parse_object(text: bytes | str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        Failed: It is none.
    """
    try:
        document = json.loads(text)
    except ValueError:
        raise Failed("a JSON object in UTF-8", shown(text)) from None
    expect(isinstance(document, dict), "a JSON object", document)
    return dict(document)


def error_of(answer: Answer, statuses: Container[int], expected: str) -> dict[str, Any]:
    """The error object of an answer.

    Args:
        answer: The answer.
        statuses: The statuses that are right.
        expected: These in words.

    Raises:
        Failed: The status is another, or the error has not OpenAI's shape.
    """
    expect_status(answer, statuses, expected)
    error = document_of(answer).get("error")
    expect(
        isinstance(error, dict) and isinstance(error.get("message"), str) and error["message"],
        'an error of the shape {"error": {"message": …}}',
        answer.body,
    )
    assert isinstance(error, dict)  # just seen
    return error
