"""What happened to each request, without what depends on time, place and neighbours.

The projections of two traces of the same scenario are equal, whichever drivers recorded them.
"""

import re
from collections.abc import Iterable
from enum import Enum
from typing import Any, Final

import attrs
from attrs import frozen

from gatewright.commands import SendComment
from gatewright.events import GatewayStarted, RelayEnded
from gatewright.ids import RequestId
from gatewright.leases import LeaseProgress
from gatewright.tracing.stories import Stories, Story
from gatewright.tracing.trace import TraceLine

REQUEST: Final = RequestId("request")
"""Every request, in its own projection."""

_PORT: Final = re.compile(r"(?<=:)\d{2,5}\b")
_SECONDS: Final = re.compile(r"\b\d+(\.\d+)?(?= m?s\b)")
_PID: Final = re.compile(r"(?<=\bpid )\d+")
_WAIT_HEADER: Final = "x-gw-wait-ms"
_BLOT: Final = "N"
_FADING: Final = frozenset(("score", "confidence"))
"""Of a choice: what was learnt counts for less with every moment."""
_DIGITS: Final = 3


@frozen
class Step:
    """What a Gateway was told about a request, and what it commanded for it.

    Attributes:
        event: The fact.
        commands: The commands.
    """

    event: object
    commands: tuple[object, ...]


def project(lines: Iterable[TraceLine]) -> dict[RequestId, tuple[Step, ...]]:
    """The steps of each request, by its id, in the order in which the requests came.

    Ids are numbered anew for each request; durations are 0, though whether there is one is kept; ports, process ids
    and times in texts are blotted out, and so is how much of a broken answer was passed on. News of how a wait goes on
    and comments to clients that wait are left out, since there are as many of them as there is time for.

    Args:
        lines: A trace, of which only the steps of Gateways matter.
    """
    gateways: dict[tuple[str, str], Stories[int]] = {}
    stories: list[Story[int]] = []
    for number, line in enumerate(lines):
        owner = (line.source, line.machine)
        if isinstance(line.event, GatewayStarted):
            # Another one of the same source is gone, and its process id is another's now.
            stories += gateways[owner].rest() if owner in gateways else []
            gateways[owner] = Stories()
        elif owner in gateways:
            stories += gateways[owner].take(number, line)
    for gateway in gateways.values():
        stories += gateway.rest()
    stories.sort(key=lambda story: story.parts[0].key)
    return {story.request_id: _steps(story) for story in stories if story.request_id is not None}


def _steps(story: Story[int]) -> tuple[Step, ...]:
    blotter = _Blotter(story.request_id or "")
    return tuple(
        Step(blotter.message(part.event), tuple(map(blotter.message, commands)))
        for part in story.parts
        if not isinstance(part.event, LeaseProgress)
        and ((commands := _without_comments(part.commands)) or not part.commands)
    )


def _without_comments(commands: tuple[object, ...]) -> tuple[object, ...]:
    return tuple(command for command in commands if not isinstance(command, SendComment))


class _Blotter:
    """Blots out of one request's messages what is not the same each time."""

    def __init__(self, request_id: str) -> None:
        self._request_id = re.compile(rf"\b{re.escape(request_id)}\b")
        self._numbers: dict[str, dict[int, int]] = {"lease_id": {}, "command_id": {}}

    def message(self, message: Any) -> Any:
        """The message as it would have been anywhere."""
        if isinstance(message, RelayEnded) and message.failure is not None:
            message = attrs.evolve(message, relayed_bytes=0, relayed_tokens=0)
        return self._value("", message)

    def _value(self, name: str, value: Any) -> Any:
        match value:
            case None | bool() | Enum():
                return value
            case int() if name in self._numbers:
                known = self._numbers[name]
                return known.setdefault(value, len(known) + 1)
            case int() | float() if name.endswith(("_s", "_ms")) or name == "at":
                return 0.0
            case float() if name in _FADING:
                return round(value, _DIGITS)
            case str():
                return self._text(value)
            case (str(header), str()) if header == _WAIT_HEADER:
                return (header, _BLOT)
            case tuple():
                return tuple(self._value(name, item) for item in value)
            case _ if attrs.has(type(value)):
                fields = [field for field in attrs.fields(type(value)) if field.init]
                return attrs.evolve(
                    value,
                    **{field.alias: self._value(field.name, getattr(value, field.name)) for field in fields},
                )
            case _:
                return value

    def _text(self, text: str) -> str:
        text = self._request_id.sub(REQUEST, text)
        for pattern in (_PORT, _SECONDS, _PID):
            text = pattern.sub(_BLOT, text)
        return text
