"""Transforms of requests as tables, in models, routes and an experiment's arms."""

from math import isfinite
from typing import Any, Final

from attrs import frozen

from gatewright.api.transform_steps import ANSWER_LIMITS
from gatewright.api.transforms import Reasoning, Transform
from gatewright.configuration.reader import (
    FLAG,
    TEXT,
    ListOf,
    Place,
    Scalar,
    TableOf,
    as_list,
    one_of,
    usable_text,
    whole_number,
)

TRANSFORM_FIELDS: Final = (
    "system_prefix",
    "merge_system",
    "defaults",
    "overrides",
    "removals",
    "stop",
    "json_instructions",
    "reasoning",
)

_CONTENT: Final = frozenset(
    ("model", "messages", "prompt", "input", "system", "instructions", "stream", "gatewright")
)
_READ_BEFORE: Final = frozenset((*_CONTENT, "n", "best_of", "stream_options"))
"""What was read of a request before it is changed; it would no longer be true."""


def _removal(value: object) -> str | None:
    return None if value in _CONTENT else usable_text(value)


_REMOVAL: Final = Scalar('the name of a parameter that may be left out, such as "logit_bias"', _removal)


@frozen
class TransformKind:
    """What is done to a request's body."""

    expected: str = 'a table such as { system_prefix = "...", defaults = { temperature = 0.2 } }'

    def read(self, value: object, place: Place) -> Transform | None:
        """The transform."""
        table = TableOf(self.expected).read(value, place)
        if table is None:
            return None
        table.expect_only(TRANSFORM_FIELDS, {})
        return Transform(
            system_prefix=table.get("system_prefix", TEXT, ""),
            merge_system=table.get("merge_system", FLAG, default=False),
            defaults=table.get("defaults", _ParametersKind(), {}),
            overrides=table.get("overrides", _ParametersKind(), {}),
            removals=table.get("removals", ListOf(_REMOVAL), ()),
            stop=table.get("stop", ListOf(TEXT), ()),
            json_instructions=table.get("json_instructions", FLAG, default=False),
            reasoning=table.find("reasoning", one_of(Reasoning)),
        )


@frozen
class _ParametersKind:
    """Members of a request's body with any values that JSON has."""

    expected: str = "a table such as { temperature = 0.2, top_p = 0.9 }"

    def read(self, value: object, place: Place) -> dict[str, Any] | None:
        table = TableOf(self.expected).read(value, place)
        if table is None:
            return None
        parameters: dict[str, Any] = {}
        for name, setting in table.values.items():
            where = place.field(name)
            if not isinstance(name, str):
                where.report("a value without a name; expected `parameter = value`")
            elif name in _READ_BEFORE:
                where.report("is the client's to say, or decided before; it cannot be set here")
            elif name in ANSWER_LIMITS:
                _read_limit(setting, where, name, parameters)
            else:
                parameters[name] = _json_value(setting, where)
        return parameters


def _read_limit(value: object, place: Place, name: str, parameters: dict[str, Any]) -> None:
    limit = whole_number(value)
    if limit is None or (limit < 1 and limit != -1):
        place.refuse(value, "a whole number of tokens above 0, or -1 for no limit")
    else:
        parameters[name] = limit


def _json_value(value: object, place: Place) -> Any:
    """The value as JSON has it; numbers that Lua's arithmetic made 4096.0 are whole."""
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                place.field(name).report("a value without a name; expected `name = value`")
        return {str(name): _json_value(item, place.field(name)) for name, item in value.items()}
    items = as_list(value)
    if items is not None:
        return [_json_value(item, place.item(number)) for number, item in enumerate(items, 1)]
    if isinstance(value, float) and not isfinite(value):
        place.refuse(value, "a value that JSON has")
        return None
    whole = whole_number(value)
    return value if whole is None else whole
