"""Traces: what machines were told and what they answered, line by line, to be replayed into fresh machines.

The first line of a machine says how it was made: its event is `GatewayStarted` or `FleetStarted`.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from attrs import frozen

from gatewright import codec
from gatewright.timers import Machine
from gatewright.tracing.blanking import blanked


@frozen(kw_only=True)
class TraceLine:
    """One step of a machine.

    Attributes:
        machine: Which: "fleet" or "gateway".
        now: Seconds that it was given.
        event: What it was told.
        commands: What it answered.
        raised: Name of the exception that it raised instead, which is a defect; None if it did not. What the
            exception says is left to a replay, since it may hold secrets.
        source: Tells it from the others that write to the same trace; empty where it is alone.
    """

    machine: str
    now: float
    event: object
    commands: tuple[object, ...]
    raised: str | None = None
    source: str = ""


Trace = Callable[[TraceLine], None]
"""Takes what a machine was told and answered, in the order in which that happened; it must return at once."""


def handle_traced(
    machine: Machine[Any, Any], name: str, event: object, now: float, trace: Trace | None
) -> list[Any]:
    """Tell a machine a fact, and a trace what came of it.

    Args:
        machine: Which.
        name: Its name in traces.
        event: What happened.
        now: Seconds, on the machine's clock.
        trace: Takes the step, also where the machine raised: that is the one that matters most. None tells nobody.

    Returns:
        What the machine wants done.
    """
    if trace is None:
        return machine.handle(event, now)
    try:
        commands = machine.handle(event, now)
    except Exception as error:
        trace(TraceLine(machine=name, now=now, event=event, commands=(), raised=type(error).__name__))
        raise
    trace(TraceLine(machine=name, now=now, event=event, commands=tuple(commands)))
    return commands


class _Shape(msgspec.Struct, kw_only=True, omit_defaults=True):
    source: str = ""
    machine: str
    now: float
    event: msgspec.Raw
    commands: list[msgspec.Raw]
    raised: str | None = None


def write_line(line: TraceLine, source: str | None = None) -> bytes:
    """The step as one line of JSON with its end, and without secrets.

    Args:
        line: The step.
        source: Written in the place of the line's own, if given.
    """
    shape = _Shape(
        source=line.source if source is None else source,
        machine=line.machine,
        now=line.now,
        event=_as_json(line.event),
        commands=[_as_json(command) for command in line.commands],
        raised=line.raised,
    )
    return msgspec.json.encode(shape) + b"\n"


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
        source=shape.source,
        machine=shape.machine,
        now=shape.now,
        event=codec.decode(shape.event),
        commands=tuple(codec.decode(command) for command in shape.commands),
        raised=shape.raised,
    )


def as_recorded(message: object) -> object:
    """A message as it comes back from a trace: without its secrets."""
    return codec.decode(_as_json(message))


def _as_json(message: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(blanked(message)))
