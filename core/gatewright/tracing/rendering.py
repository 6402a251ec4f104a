"""Messages of the machines as one line of text each: everything that is not at its default, for people."""

from collections.abc import Iterator, Sequence
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

import attrs

from gatewright import codec
from gatewright.config import Config
from gatewright.engines.spec import EngineSpec
from gatewright.errors import Problem

_UNTOLD: Final = frozenset(
    {"path", "spec", "request_id", "stall_timeout_s", "timeout_s", "connect_timeout_s"}
)
"""Left out, or told without their name."""

_NAMES: Final = MappingProxyType(
    {
        "command_id": "command",
        "lease_id": "lease",
        "engine_id": "engine",
        "context_tokens": "context",
        "need_tokens": "need",
        "prompt_tokens": "prompt",
        "completion_tokens": "answer",
        "base_url": "at",
    }
)


_SMALL: Final = 0.01


def render(message: Any) -> str:
    """One line, in which what is long or always the same is left out."""
    words = [type(message).__name__]
    words += [
        _value_text(getattr(message, name)) for name in ("request_id", "spec") if hasattr(message, name)
    ]
    words += [f"{_NAMES.get(name, name)}={_value_text(value)}" for name, value in _told(message)]
    return " ".join(words)


def render_apart(first: Sequence[Any], second: Sequence[Any]) -> tuple[list[str], list[str]]:
    """A line for each message of two lists, to be compared: different messages have different lines.

    Where `render` makes no difference between two of them, both are told in full, as JSON.
    """
    by_text: dict[str, Any] = {}
    alike = {
        text for text, message in _rendered((*first, *second)) if by_text.setdefault(text, message) != message
    }

    def lines(messages: Sequence[Any]) -> list[str]:
        return [
            codec.encode(message).decode() if text in alike else text for text, message in _rendered(messages)
        ]

    return lines(first), lines(second)


def _rendered(messages: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    return ((render(message), message) for message in messages)


def _told(message: Any) -> Iterator[tuple[str, Any]]:
    for field in attrs.fields(type(message)):
        value = getattr(message, field.name)
        is_made = isinstance(field.default, attrs.Factory)  # type: ignore[arg-type]  # attrs types it as a function
        if field.name not in _UNTOLD and value != field.default and not (is_made and not value):
            yield field.name, value


def _value_text(value: Any) -> str:  # noqa: PLR0911  # one for each kind of value
    match value:
        case EngineSpec():
            return value.label
        case Problem():
            return _problem_text(value)
        case Config():
            return "(" + " ".join(model.name for model in value.models) + ")"
        case bool() | None:
            return "yes" if value else "no"
        case float():
            # Times to the millisecond; amounts of money are often smaller.
            return f"{round(value, 3):g}" if abs(value) >= _SMALL else f"{value:.3g}"
        case Enum():
            return str(value.value)
        case str():
            return repr(value) if " " in value or not value else value
        case tuple() if value and isinstance(value[0], tuple):
            return "{" + " ".join(f"{name}={text}" for name, text in value if name != "x-request-id") + "}"
        case tuple():
            return "[" + " ".join(_value_text(item) for item in value) + "]"
        case _ if codec.MESSAGES.get(type(value).__name__) is type(value):
            return f"({render(value)})"
        case _ if attrs.has(type(value)):
            return "(" + render(value).partition(" ")[2] + ")"
        case _:
            return str(value)


def _problem_text(problem: Problem) -> str:
    extra = "" if problem.retry_after_s is None else f" retry-after={problem.retry_after_s:g}"
    if problem.should_retry is not None:
        extra += f" should-retry={_value_text(problem.should_retry)}"
    return f"<{problem.status} {problem.code}{extra}: {problem.message}>"
