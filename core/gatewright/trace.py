"""Traces: what a machine was told and what it answered, line by line, to be replayed into a fresh machine."""

import hashlib
import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from attrs import frozen

from gatewright import codec
from gatewright.timers import Machine

_SECRET_FLAGS: Final = frozenset({"--api-key", "--hf-token", "-hft"})
_DIGEST_LENGTH: Final = 12
_DIGEST: Final = re.compile(rf"sha256:[0-9a-f]{{{_DIGEST_LENGTH}}}")


@frozen(kw_only=True)
class TraceLine:
    """One step of a machine.

    Attributes:
        machine: Which: "fleet" or "gateway".
        now: Seconds that it was given.
        event: What it was told.
        commands: What it answered.
    """

    machine: str
    now: float
    event: object
    commands: tuple[object, ...]


@frozen
class Difference:
    """A step that came out differently.

    Attributes:
        number: Of the line, from 1.
        line: What was recorded.
        commands: What the machine answers now.
    """

    number: int
    line: TraceLine
    commands: tuple[object, ...]


def write_line(line: TraceLine) -> bytes:
    """The step as one line of JSON with its end, and without secrets.

    API keys, values of environment variables and of flags that take a secret become digests: equal ones stay
    equal and different ones different, so that a replay decides as the original did.
    """
    plain = {
        "machine": line.machine,
        "now": line.now,
        "event": _to_plain(line.event),
        "commands": [_to_plain(command) for command in line.commands],
    }
    return msgspec.json.encode(plain) + b"\n"


class _Shape(msgspec.Struct):
    machine: str
    now: float
    event: msgspec.Raw
    commands: list[msgspec.Raw]


def read_line(data: bytes) -> TraceLine:
    """The step of one line.

    Raises:
        codec.CodecError: It is none.
    """
    try:
        shape = msgspec.json.decode(data, type=_Shape)
    except msgspec.DecodeError as error:
        raise codec.CodecError(str(error)) from error
    return TraceLine(
        machine=shape.machine,
        now=shape.now,
        event=codec.decode(shape.event),
        commands=tuple(codec.decode(command) for command in shape.commands),
    )


def replay(lines: Iterable[TraceLine], machine: Machine[Any, Any]) -> list[Difference]:
    """Tell a fresh machine all of it again and compare.

    Args:
        lines: Steps of one machine, from its first on.
        machine: In the state that the recorded one began in.
    """
    differences = []
    for number, line in enumerate(lines, 1):
        commands = tuple(codec.decode(_blanked(command)) for command in machine.handle(line.event, line.now))
        if commands != line.commands:
            differences.append(Difference(number, line, commands))
    return differences


def _blanked(message: object) -> bytes:
    return msgspec.json.encode(_to_plain(message))


def _to_plain(message: object) -> object:
    return _blank(msgspec.json.decode(codec.encode(message)))


def _blank(value: object) -> object:
    if isinstance(value, list):
        return [_blank(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {name: _blank_field(name, item) for name, item in value.items()}


def _blank_field(name: str, value: object) -> object:
    match name, value:
        case "api_keys", list(keys):
            return [_digest(key) for key in keys]
        case "env", list(pairs):
            return [[variable, _digest(content)] for variable, content in pairs]
        case "args", list(args):
            return [_blank_argument(previous, arg) for previous, arg in zip(["", *args], args, strict=False)]
        case _:
            return _blank(value)


def _blank_argument(previous: str, arg: str) -> str:
    if previous in _SECRET_FLAGS:
        return _digest(arg)
    flag, equals, value = arg.partition("=")
    return f"{flag}={_digest(value)}" if equals and flag in _SECRET_FLAGS else arg


def _digest(secret: str) -> str:
    if _DIGEST.fullmatch(secret):
        return secret  # of a replay: blanked when it was recorded
    return "sha256:" + hashlib.sha256(secret.encode()).hexdigest()[:_DIGEST_LENGTH]
