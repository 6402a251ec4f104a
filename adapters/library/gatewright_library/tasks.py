"""What a task is to the library: anything with a name, and words that say what is to be done."""

import inspect
from collections.abc import Mapping
from typing import Final

import msgspec

_BYTES_PER_TOKEN: Final = 4
"""The usual rule of thumb, for English and current vocabularies."""


def task_name(task: object) -> str:
    """What a task is called.

    Args:
        task: Anything with a `name`, a function or class, or a string, which is the name itself.
    """
    if isinstance(task, str):
        return task
    for attribute in ("name", "__name__"):
        name = getattr(task, attribute, None)
        if isinstance(name, str) and name:
            return name
    return type(task).__name__


def task_description(task: object) -> str:
    """What a task says of itself: its `docstring`, its `description`, or a function's own docstring; empty if nothing."""
    if isinstance(task, str):
        return ""
    for attribute in ("docstring", "description"):
        text = getattr(task, attribute, None)
        if isinstance(text, str) and text:
            return inspect.cleandoc(text)
    # What a plain object has under `__doc__` is its class's, which speaks of the class.
    if callable(task) or inspect.isclass(task):
        return inspect.getdoc(task) or ""
    return ""


def as_inputs(inputs: object) -> Mapping[str, object]:
    """Inputs by name; what comes without a name gets one."""
    if inputs is None:
        return {}
    if isinstance(inputs, Mapping):
        return inputs
    return {"input": inputs}


def render_inputs(inputs: object) -> str:
    """Inputs as the text that a model is shown: one alone as it is, several with their names."""
    named = as_inputs(inputs)
    if len(named) == 1:
        return _render(next(iter(named.values())))
    return "\n\n".join(f"{name}:\n{_render(value)}" for name, value in named.items())


def count_tokens(text: str) -> int:
    """How many tokens a text has, more or less: nobody's tokenizer is asked."""
    return -(-len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN)


def prompt_tokens(task: object, inputs: object) -> int:
    """How many tokens a task's prompt has, more or less."""
    return count_tokens(task_description(task)) + count_tokens(render_inputs(inputs))


def _render(value: object) -> str:
    if isinstance(value, str):
        return value
    try:
        return msgspec.json.encode(value, enc_hook=str).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        return str(value)  # JSON has no shape for it
