"""Telling fresh machines what a trace says that others were told, to see whether they answer the same."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from attrs import define, field, frozen

from gatewright.events import FleetStarted, GatewayStarted
from gatewright.fleet import Fleet
from gatewright.gateway import Gateway
from gatewright.selection.beliefs import Chance
from gatewright.tracing.trace import TraceLine, as_recorded

MakeChance = Callable[[int], Chance]
"""Gives the random numbers of a seed, as the driver of the recorded Gateway had them."""


@define(eq=False)
class Run:
    """One machine of a trace, and its like in the replay.

    Attributes:
        source: Whose trace it is.
        machine: Which: "fleet" or "gateway".
        again: Its like; None where the trace does not have its beginning, so that it cannot be made.
        first_line: Number of its first line.
        began_at: Seconds, on its clock.
        ended_at: The same, of its last step so far.
        steps: What it was told.
        differing: How many of these came out differently.
        raised: How many of these made it raise, in the recording or now.
    """

    source: str
    machine: str
    again: Gateway | Fleet | None
    first_line: int
    began_at: float
    ended_at: float
    steps: int = 0
    differing: int = 0
    raised: int = 0

    @property
    def stale(self) -> int:
        """Completions and news that matched nothing in state and were ignored."""
        return 0 if self.again is None else self.again.stale


@frozen
class Step:
    """A step, told again.

    Attributes:
        number: Of the line, from 1.
        line: What was recorded.
        run: Whose it is.
        commands: What the machine answers now; as recorded where it could not be asked.
        raised: What it raises now instead, with the exception's text; None if it does not.
        differs: It came out differently.
    """

    number: int
    line: TraceLine
    run: Run
    commands: tuple[object, ...]
    raised: str | None
    differs: bool


@define
class Replay:
    """Replays a trace line by line, and keeps nothing of it but its machines.

    Args:
        make_chance: Gives the numbers of a Gateway's seed.

    Attributes:
        runs: Machines so far, in the order of their beginnings.
    """

    _make_chance: MakeChance
    runs: list[Run] = field(factory=list, init=False)
    _current: dict[tuple[str, str], Run] = field(factory=dict, init=False)

    def take(self, number: int, line: TraceLine) -> Step | None:
        """Replay one line; None where it only says how its machine was made.

        Args:
            number: Of the line, from 1.
            line: The line.
        """
        again = self._make(line.event)
        key = (line.source, line.machine)
        run = self._current.get(key)
        if run is None or again is not None:  # a process may have the number of one that is gone
            run = Run(line.source, line.machine, again, number, line.now, line.now)
            self._current[key] = run
            self.runs.append(run)
        return None if again is not None else _tell(run, number, line)

    def _make(self, event: object) -> Gateway | Fleet | None:
        match event:
            case GatewayStarted(config=config, seed=seed):
                return Gateway(config, self._make_chance(seed))
            case FleetStarted(linger_s=linger_s, now=now):
                return Fleet(linger_s=linger_s, now=now)
            case _:
                return None


def replay(lines: Iterable[TraceLine], make_chance: MakeChance) -> Iterator[Step]:
    """All steps of a trace, told again.

    Args:
        lines: The whole trace.
        make_chance: Gives the numbers of a Gateway's seed.
    """
    replaying = Replay(make_chance)
    for number, line in enumerate(lines, 1):
        step = replaying.take(number, line)
        if step is not None:
            yield step


def _tell(run: Run, number: int, line: TraceLine) -> Step:
    run.steps += 1
    run.ended_at = line.now
    if run.again is None:
        return Step(number, line, run, line.commands, None, differs=False)
    commands, error = _handle(run.again, line)
    kind = None if error is None else type(error).__name__
    differs = commands != line.commands or kind != line.raised
    run.differing += differs
    run.raised += error is not None or line.raised is not None
    return Step(number, line, run, commands, None if error is None else f"{kind}: {error}", differs)


def _handle(machine: Any, line: TraceLine) -> tuple[tuple[object, ...], Exception | None]:
    try:
        answered = machine.handle(line.event, line.now)
    except Exception as error:  # noqa: BLE001  # whatever it is, it is what was looked for
        return (), error
    return tuple(as_recorded(command) for command in answered), None
