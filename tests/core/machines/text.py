"""Messages of the machines as one line of text each: everything that is not at its default."""

from enum import Enum
from typing import Any

import attrs

from gatewright.config import Config
from gatewright.engines.spec import EngineSpec
from gatewright.errors import Problem

UNTOLD = frozenset({"path", "spec", "request_id", "stall_timeout_s", "timeout_s", "connect_timeout_s"})
"""Left out, or told without their name."""


NAMES = {
    "command_id": "command",
    "lease_id": "lease",
    "engine_id": "engine",
    "context_tokens": "context",
    "need_tokens": "need",
    "prompt_tokens": "prompt",
    "completion_tokens": "answer",
    "base_url": "at",
}


def render(message: Any) -> str:
    """One line."""
    words = [type(message).__name__]
    words += [value_text(getattr(message, name)) for name in ("request_id", "spec") if hasattr(message, name)]
    for field in attrs.fields(type(message)):
        value = getattr(message, field.name)
        if field.name in UNTOLD or value == field.default:
            continue
        if isinstance(field.default, attrs.Factory) and not value:  # type: ignore[arg-type]  # attrs types it as a function
            continue
        words.append(f"{NAMES.get(field.name, field.name)}={value_text(value)}")
    return " ".join(words)


def value_text(value: Any) -> str:  # noqa: PLR0911  # one for each kind of value
    match value:
        case EngineSpec():
            return value.label
        case Problem():
            return problem_text(value)
        case Config():
            return "(" + " ".join(model.name for model in value.models) + ")"
        case bool() | None:
            return "yes" if value else "no"
        case float():
            return f"{round(value, 3):g}"
        case Enum():
            return str(value.value)
        case str():
            return repr(value) if " " in value or not value else value
        case tuple() if value and isinstance(value[0], tuple):
            return "{" + " ".join(f"{name}={text}" for name, text in value if name != "x-request-id") + "}"
        case tuple():
            return "[" + " ".join(value_text(item) for item in value) + "]"
        case _ if attrs.has(type(value)):
            return "(" + render(value).partition(" ")[2] + ")"
        case _:
            return str(value)


def problem_text(problem: Problem) -> str:
    extra = "" if problem.retry_after_s is None else f" retry-after={problem.retry_after_s:g}"
    if problem.should_retry is not None:
        extra += f" should-retry={value_text(problem.should_retry)}"
    return f"<{problem.status} {problem.code}{extra}: {problem.message}>"
