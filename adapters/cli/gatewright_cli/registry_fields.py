"""What may be said of a model on the command line, under the names that the registry has for it."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Final

import click
from attrs import frozen

from gatewright_cli import exits

_NONE: Final = "none"


def _word(text: str) -> object:
    return text


def _number(text: str) -> object:
    """A number; what is none stays a text, to be refused with its value."""
    try:
        number = float(text.removeprefix("$"))
    except ValueError:
        return text
    return int(number) if number.is_integer() else number


@frozen
class _Field:
    """One option and the field that it sets."""

    name: str
    option: str
    metavar: str
    text: str
    read: Callable[[str], object] = _word
    is_list: bool = False


_FIELDS: Final = (
    _Field("provider", "--provider", "NAME", "Who serves it: openai, anthropic, together, ollama, vllm, ..."),
    _Field("connect", "--connect", "URL", "Its address, without the API path.  [default: the provider's]"),
    _Field("api_key_env", "--api-key-env", "NAME", "Environment variable of the server that holds its key."),
    _Field("upstream_model", "--upstream-model", "NAME", "What the provider calls it."),
    _Field("context", "--context", "N", "Its context, in tokens.", _number),
    _Field("parallel", "--parallel", "N", "Most requests at a time.", _number),
    _Field("aliases", "--alias", "NAME", "Another name for it; several times for several.", is_list=True),
    _Field(
        "capabilities", "--capability", "NAME", "What it is good at; several times for several.", is_list=True
    ),
    _Field("features", "--feature", "NAME", "What its API does; several times for several.", is_list=True),
    _Field("modalities", "--modality", "NAME", "What it takes besides text: image, audio.", is_list=True),
    _Field("tags", "--tag", "TAG", "A word of your own; several times for several.", is_list=True),
    _Field("input_per_million", "--input-price", "USD", "Price of a million prompt tokens.", _number),
    _Field("output_per_million", "--output-price", "USD", "Price of a million completion tokens.", _number),
    _Field(
        "cached_input_per_million", "--cached-price", "USD", "The same for cached prompt tokens.", _number
    ),
    _Field("engine_hour", "--engine-hour", "USD", "Price of an hour of an engine of your own.", _number),
    _Field("quality", "--quality", "Q", "Chance that it does a middling task well, 0 to 1.", _number),
    _Field("latency_ms", "--latency", "MS", "Time of a short answer, in milliseconds.", _number),
    _Field("output_tokens_per_s", "--speed", "N", "Tokens of its answers in a second.", _number),
    _Field("description", "--description", "TEXT", "One line for people."),
)

_BY_TASK: Final = "quality_by_task"
FIELD_OPTIONS: Final = {
    "name": "NAME",
    **{field.name: field.option for field in _FIELDS},
    _BY_TASK: "--quality-for",
}
"""Options by the names of the fields that they set."""


def field_options(function: Callable[..., int]) -> Callable[..., int]:
    """Gives a command an option for each field, as its argument `wanted`, which holds those that were named."""

    @wraps(function)
    def wrapper(*args: Any, **options: Any) -> int:
        wanted: dict[str, object] = {}
        for field in _FIELDS:
            said = options.pop(field.name)
            if field.is_list and said:
                wanted[field.name] = None if _NONE in said else list(said)
            elif not field.is_list and said is not None:
                wanted[field.name] = None if said == _NONE else field.read(said)
        by_task = options.pop(_BY_TASK)
        if by_task:
            wanted[_BY_TASK] = dict(_task_quality(said) for said in by_task)
        return function(*args, wanted=wanted, **options)

    decorated = click.option(
        "--quality-for",
        _BY_TASK,
        metavar="TASK=Q",
        multiple=True,
        help="The same for a task by name; several times for several.",
    )(wrapper)
    for field in reversed(_FIELDS):
        decorated = click.option(
            field.option, field.name, metavar=field.metavar, multiple=field.is_list, help=field.text
        )(decorated)
    return decorated


def _task_quality(said: str) -> tuple[str, object]:
    task, equals, quality = said.rpartition("=")
    if not equals or not task:
        raise exits.Misuse(f"--quality-for: {said!r} is none of TASK=Q, such as translate=0.9")
    return task, _number(quality)
