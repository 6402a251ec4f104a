"""Machines whose steps are kept, as a driver would trace them."""

import random
from typing import Any

from gatewright.config import Config
from gatewright.events import FleetStarted, GatewayStarted
from gatewright.fleet import Fleet
from gatewright.gateway import Gateway
from gatewright.selection.beliefs import Chance
from gatewright.tracing.trace import TraceLine, handle_traced, read_line, write_line


def make_chance(seed: int) -> Chance:
    return random.Random(seed)


class Recorded:
    """A machine and its trace."""

    def __init__(self, machine: Any, name: str, started: object, now: float, source: str) -> None:
        self._machine = machine
        self._name = name
        self._source = source
        self.lines: list[TraceLine] = []
        self._keep(TraceLine(machine=name, now=now, event=started, commands=()))

    @classmethod
    def gateway(
        cls, config: Config, *, seed: int = 7, source: str = "1", chance: Chance | None = None
    ) -> "Recorded":
        started = GatewayStarted(config=config, seed=seed)
        return cls(Gateway(config, chance or make_chance(seed)), "gateway", started, 0.0, source)

    @classmethod
    def fleet(cls, *, linger_s: float | None = None, now: float = 0.0, source: str = "1") -> "Recorded":
        started = FleetStarted(linger_s=linger_s, now=now)
        return cls(Fleet(linger_s=linger_s, now=now), "fleet", started, now, source)

    def _keep(self, line: TraceLine) -> None:
        self.lines.append(read_line(write_line(line, self._source)))

    def handle(self, event: Any, now: float) -> list[Any]:
        return handle_traced(self._machine, self._name, event, now, self._keep)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._machine, name)
