"""A Fleet, its clock, and short ways to say what it is told and what it commands."""

from typing import Any

from gatewright.commands import FleetCommand, ProbeEngine, SignalEngine, SpawnEngine, StopSignal, TellHolder
from gatewright.engines.spec import EngineSpec
from gatewright.errors import Problem
from gatewright.events import (
    EngineExited,
    EngineProbed,
    EngineSpawned,
    EngineSpawnFailed,
    FleetEvent,
    Health,
    HolderAttached,
    LeaseAsked,
    StopAsked,
    Woke,
)
from gatewright.fleet import EngineStatus, Fleet
from gatewright.ids import HolderId, LeaseId
from gatewright.leases import (
    CallResult,
    LeaseEngine,
    LeaseGranted,
    LeaseLost,
    LeaseProgress,
    LeasePurpose,
    LeaseRefused,
    ReleaseLease,
    ReportCall,
)
from tests.core.machines.build import HOLDER


def url(engine_id: int) -> str:
    return f"http://engine-{engine_id}"


def granted(
    lease_id: int, context: int, engine_id: int | str, holder: int = HOLDER, *, is_probe: bool = False
) -> TellHolder:
    base_url = url(engine_id) if isinstance(engine_id, int) else engine_id
    news = LeaseGranted(
        lease_id=LeaseId(lease_id), context_tokens=context, base_url=base_url, is_probe=is_probe
    )
    return TellHolder(holder=HolderId(holder), news=news)


def refused(lease_id: int, problem: Problem, holder: int = HOLDER) -> TellHolder:
    return TellHolder(holder=HolderId(holder), news=LeaseRefused(lease_id=LeaseId(lease_id), problem=problem))


def lost(lease_id: int, problem: Problem, holder: int = HOLDER) -> TellHolder:
    return TellHolder(holder=HolderId(holder), news=LeaseLost(lease_id=LeaseId(lease_id), problem=problem))


def progress(
    lease_id: int, position: int, engine: str, phase: str, expected_s: float | None = None
) -> TellHolder:
    news = LeaseProgress(
        lease_id=LeaseId(lease_id), position=position, engine=engine, phase=phase, expected_s=expected_s
    )
    return TellHolder(holder=HOLDER, news=news)


class FleetTester:
    """Calls `handle` with events that match what the Fleet has commanded last."""

    def __init__(self, *, attached: bool = True, **kwargs: Any) -> None:
        self.fleet = Fleet(**kwargs)
        self.now = 0.0
        self.spawns: dict[str, SpawnEngine] = {}  # the last one, by label
        self.probes: dict[int, ProbeEngine] = {}  # the last one, by engine
        if attached:
            self.tell(0, HolderAttached(holder=HOLDER))

    def tell(self, now: float, event: FleetEvent) -> list[FleetCommand]:
        self.now = now
        commands = self.fleet.handle(event, now)
        for command in commands:
            if isinstance(command, SpawnEngine):
                self.spawns[command.spec.label] = command
            elif isinstance(command, ProbeEngine):
                self.probes[command.engine_id] = command
        return commands

    def ask(
        self, now: float, lease_id: int, *variants: EngineSpec, holder: int = HOLDER, **terms: Any
    ) -> list[FleetCommand]:
        lease = LeaseEngine(lease_id=LeaseId(lease_id), variants=variants, **terms)
        return self.tell(now, LeaseAsked(holder=HolderId(holder), request=lease))

    def count(self, now: float, lease_id: int, *variants: EngineSpec) -> list[FleetCommand]:
        return self.ask(now, lease_id, *variants, purpose=LeasePurpose.COUNT)

    def release(
        self, now: float, lease_id: int, *, holder: int = HOLDER, **learnt: Any
    ) -> list[FleetCommand]:
        request = ReleaseLease(lease_id=LeaseId(lease_id), **learnt)
        return self.tell(now, LeaseAsked(holder=HolderId(holder), request=request))

    def report(
        self, now: float, lease_id: int, result: CallResult, *, holder: int = HOLDER
    ) -> list[FleetCommand]:
        request = ReportCall(lease_id=LeaseId(lease_id), result=result)
        return self.tell(now, LeaseAsked(holder=HolderId(holder), request=request))

    def wake(self, now: float) -> list[FleetCommand]:
        return self.tell(now, Woke())

    def wake_until(self, until: float) -> list[FleetCommand]:
        """Wake whenever it wants that; everything it commands meanwhile."""
        commands: list[FleetCommand] = []
        while (deadline := self.fleet.wake_at) is not None and deadline.at <= until:
            commands += self.wake(max(self.now, deadline.at))
        return commands

    def engine_id(self, spec: EngineSpec) -> int:
        return self.spawns[spec.label].engine_id

    def spawned(self, now: float, spec: EngineSpec) -> list[FleetCommand]:
        spawn = self.spawns[spec.label]
        event = EngineSpawned(command_id=spawn.command_id, pid=77, base_url=url(spawn.engine_id))
        return self.tell(now, event)

    def spawn_failed(self, now: float, spec: EngineSpec) -> list[FleetCommand]:
        command_id = self.spawns[spec.label].command_id
        return self.tell(now, EngineSpawnFailed(command_id=command_id, reason="no such file"))

    def probed(
        self, now: float, spec: EngineSpec, health: Health = Health.READY, **facts: Any
    ) -> list[FleetCommand]:
        probe = self.probes[self.engine_id(spec)]
        return self.tell(now, EngineProbed(command_id=probe.command_id, health=health, **facts))

    def exited(self, now: float, spec: EngineSpec, reason: str = "exit code 0") -> list[FleetCommand]:
        return self.tell(now, EngineExited(engine_id=self.spawns[spec.label].engine_id, reason=reason))

    def bring_up(self, now: float, spec: EngineSpec) -> list[FleetCommand]:
        """The spawn that is under way succeeds, and the engine is ready; what follows from that."""
        self.spawned(now, spec)
        return self.probed(now, spec)

    def stop(self, now: float, model: str | None = None, *, force: bool = False) -> list[FleetCommand]:
        return self.tell(now, StopAsked(model=model, force=force))

    def status(self, spec: EngineSpec) -> EngineStatus:
        (found,) = [
            status
            for status in self.fleet.status(self.now)
            if (status.model, status.context_tokens) == (spec.model, spec.context_tokens)
        ]
        return found


def signals(commands: list[FleetCommand]) -> list[tuple[int, StopSignal]]:
    return [(c.engine_id, c.signal) for c in commands if isinstance(c, SignalEngine)]


def without_progress(commands: list[FleetCommand]) -> list[FleetCommand]:
    return [
        command
        for command in commands
        if not (isinstance(command, TellHolder) and isinstance(command.news, LeaseProgress))
    ]
