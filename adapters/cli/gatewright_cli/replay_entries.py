"""Which steps of a replay are shown, and how one of them looks."""

from collections.abc import Iterator
from difflib import unified_diff
from typing import Any, Final, Protocol

from attrs import frozen

from gatewright.ids import RequestId
from gatewright.tracing.blanking import blanked
from gatewright.tracing.rendering import render, render_apart
from gatewright.tracing.replay import Run, Step
from gatewright.tracing.stories import Stories, Story
from gatewright_host.driving import MACHINE as GATEWAY

SHOWN: Final = 10
"""Differing steps of one machine: the first is the one that counts, and the others mostly follow from it."""


@frozen
class Entry:
    """A step to be shown.

    Attributes:
        step: The step.
        at_s: Seconds since the beginning of what is shown: its machine, or its request.
        commands: What was recorded, as far as it is to be shown; None for all of it.
    """

    step: Step
    at_s: float
    commands: tuple[object, ...] | None = None


class Selection(Protocol):
    """Which steps are shown."""

    def take(self, step: Step) -> list[Entry]:
        """What is to be shown by now, after one more step."""

    def rest(self) -> list[Entry]:
        """What else is to be shown, after the last step."""


class Differing:
    """Steps that differ or raise, not too many of each machine; or all steps.

    Args:
        everything: Show all steps.
    """

    def __init__(self, *, everything: bool) -> None:
        self._everything = everything

    def take(self, step: Step) -> list[Entry]:
        """The step, if it is to be shown."""
        is_telling = step.differs or step.raised is not None
        if self._everything or (is_telling and step.run.differing <= SHOWN):
            return [Entry(step, step.line.now - step.run.began_at)]
        return []

    def rest(self) -> list[Entry]:
        """Nothing: each step is shown at once."""
        return []


class OfRequest:
    """The steps that concern one request.

    Args:
        request_id: Which.

    Attributes:
        found: There is such a request.
    """

    def __init__(self, request_id: RequestId) -> None:
        self._request_id = request_id
        self._stories: dict[Run, Stories[Step]] = {}
        self.found = False

    def take(self, step: Step) -> list[Entry]:
        """All of the request, once it has ended."""
        if step.run.machine != GATEWAY:
            return []
        stories = self._stories.setdefault(step.run, Stories())
        return self._entries(stories.take(step, step.line))

    def rest(self) -> list[Entry]:
        """The request, if it has not ended."""
        return [entry for stories in self._stories.values() for entry in self._entries(stories.rest())]

    def _entries(self, stories: list[Story[Step]]) -> list[Entry]:
        parts = [part for story in stories if story.request_id == self._request_id for part in story.parts]
        self.found = self.found or bool(parts)
        return [Entry(part.key, part.key.line.now - parts[0].key.line.now, part.commands) for part in parts]


# --- one entry


def entry_lines(entry: Entry) -> Iterator[str]:
    """The step for people: what was told, and below it the commands, `-` as recorded and `+` as they are now."""
    step = entry.step
    yield f"line {step.number}, {run_name(step.run)}, {entry.at_s:.3f} s: {render(step.line.event)}"
    if not step.differs and step.raised is None:
        shown = step.line.commands if entry.commands is None else entry.commands
        yield from (f"    {render(command)}" for command in shown)
        return
    recorded, now = render_apart(step.line.commands, step.commands)
    same_defect = not step.differs
    if step.line.raised is not None:
        recorded.append(f"raises {step.raised if same_defect else step.line.raised}")
    if step.raised is not None:
        now.append(f"raises {step.raised}")
    if same_defect:
        yield from (f"    {line}" for line in now)
        return
    for line in list(unified_diff(recorded, now, n=len(recorded), lineterm=""))[3:]:
        yield f"  {line[0]} {line[1:]}"


def plain_entry(entry: Entry) -> dict[str, Any]:
    """The step for programs."""
    step = entry.step
    recorded = step.line.commands if entry.commands is None else entry.commands
    return {
        "line": step.number,
        "source": step.run.source,
        "machine": step.run.machine,
        "at_s": entry.at_s,
        "differs": step.differs,
        "event": blanked(step.line.event),
        "recorded": [blanked(command) for command in recorded],
        "recorded_raised": step.line.raised,
        "now": [blanked(command) for command in step.commands],
        "raises": step.raised,
    }


def run_name(run: Run) -> str:
    """Which machine it is."""
    return f"{run.source} {run.machine}".strip()
