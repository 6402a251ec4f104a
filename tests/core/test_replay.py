import random
from pathlib import Path

import pytest
from attrs import evolve

from gatewright.commands import ProbeEngine, SpawnEngine
from gatewright.config import Config
from gatewright.engines.spec import EngineSpec, ProcessSpec
from gatewright.events import (
    EngineExited,
    EngineProbed,
    EngineSpawned,
    FleetEvent,
    Health,
    HolderAttached,
    LeaseAsked,
    RequestReceived,
    Woke,
)
from gatewright.ids import EngineId, HolderId, LeaseId
from gatewright.leases import LeaseEngine, ReleaseLease
from gatewright.selection.beliefs import Certain, Chance
from gatewright.tracing.replay import Replay, Step, replay
from gatewright.tracing.trace import TraceLine
from tests.core.machines import build, world
from tests.core.machines.recorded import Recorded, make_chance
from tests.golden import script


def spec(context: int, *, secret: str) -> EngineSpec:
    process = ProcessSpec(binary="llama-server", args=("--api-key", secret), env=(("HF_TOKEN", secret),))
    return EngineSpec(model="m", context_tokens=context, connect="http://x:${PORT}", process=process)


def recorded_fleet() -> list[TraceLine]:
    """A Fleet with two engines that takes turns, seen by a driver that answers at random."""
    dice, fleet = random.Random(4), Recorded.fleet()
    now, pending = 0.0, list[FleetEvent]()

    def tell(event: FleetEvent) -> None:
        for command in fleet.handle(event, now):
            match command:
                case SpawnEngine():
                    pending.append(EngineSpawned(command_id=command.command_id, pid=1, base_url="http://x:1"))
                case ProbeEngine():
                    pending.append(
                        EngineProbed(command_id=command.command_id, health=dice.choice(list(Health)))
                    )

    tell(HolderAttached(holder=HolderId(1)))
    for number in range(60):
        now += dice.random() * 20
        chosen = spec(dice.choice((512, 1024)), secret=dice.choice(("one", "other")))
        lease = LeaseEngine(lease_id=LeaseId(number), variants=(chosen,))
        release = ReleaseLease(lease_id=LeaseId(number // 2))
        events: list[FleetEvent] = [
            LeaseAsked(holder=HolderId(1), request=lease),
            LeaseAsked(holder=HolderId(1), request=release),
            EngineExited(engine_id=EngineId(1), reason="exit code 1"),
            Woke(),
        ]
        tell(dice.choice(events))
        while pending:
            tell(pending.pop())
    return fleet.lines


def replayed(lines: list[TraceLine]) -> list[Step]:
    return list(replay(lines, make_chance))


def test_a_recorded_run_replays_equal_without_its_secrets() -> None:
    lines = recorded_fleet()
    steps = replayed(lines)
    assert [step.number for step in steps] == list(range(2, len(lines) + 1))
    assert sum(len(step.commands) for step in steps) > 20
    assert not any(step.differs for step in steps)
    run = steps[-1].run
    assert (run.source, run.machine, run.first_line, run.differing) == ("1", "fleet", 1, 0)
    assert run.steps == len(lines) - 1
    assert run.ended_at - run.began_at == lines[-1].now
    assert run.stale > 0


@pytest.mark.parametrize(
    "story", sorted(Path(script.__file__).parent.glob("*.txt")), ids=lambda path: path.stem
)
def test_every_golden_story_replays_equal(story: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machines can do is told there."""
    recorded: list[Recorded] = []

    def keep(machine: Recorded) -> Recorded:
        recorded.append(machine)
        return machine

    def gateway_of(config: Config, chance: Chance | None = None) -> Recorded:
        return keep(Recorded.gateway(config, chance=chance or Certain()))

    monkeypatch.setattr(world, "Gateway", gateway_of)
    monkeypatch.setattr(world, "Fleet", lambda linger_s: keep(Recorded.fleet(linger_s=linger_s)))
    script.run_script(story.read_text())
    gateway, fleet = recorded
    lines = sorted((*gateway.lines, *fleet.lines), key=lambda line: line.now)
    steps = list(replay(lines, lambda _: Certain()))
    assert [step for step in steps if step.differs] == []
    assert {step.run.machine for step in steps} == {"gateway", "fleet"}


def asked_gateway(**options: object) -> Recorded:
    """A Gateway that two requests came to."""
    gateway = Recorded.gateway(build.config(), **options)  # type: ignore[arg-type]  # seed and source
    for number in (1, 2):
        event = RequestReceived(request_id=build.rid(f"r{number}"), facts=build.chat(given=10))
        assert gateway.handle(event, float(number))
    return gateway


def test_differences_name_their_line() -> None:
    lines = recorded_fleet()
    number = next(at for at, line in enumerate(lines, 1) if line.commands)
    del lines[number - 1]
    differing = [step for step in replayed(lines) if step.differs]
    assert differing
    assert all(step.commands != step.line.commands for step in differing)
    assert lines[differing[0].number - 1] == differing[0].line
    assert differing[0].run.differing == len(differing)


def test_a_changed_recording_differs_in_that_step_only() -> None:
    lines = asked_gateway().lines
    lines[1] = evolve(lines[1], commands=())
    first, second = replayed(lines)
    assert first.differs
    assert first.commands
    assert not second.differs


def test_lines_of_several_machines_may_be_mixed() -> None:
    one, other, fleet = asked_gateway(source="1"), asked_gateway(source="2"), Recorded.fleet(source="1")
    fleet.handle(HolderAttached(holder=HolderId(1)), 1.0)
    mixed = [line for three in zip(one.lines, other.lines, fleet.lines, strict=False) for line in three]
    steps = replayed([*mixed, one.lines[2], other.lines[2]])
    assert not any(step.differs for step in steps)
    names = {(step.run.source, step.run.machine) for step in steps}
    assert names == {("1", "gateway"), ("2", "gateway"), ("1", "fleet")}


def test_a_source_that_begins_again_is_another_machine() -> None:
    """The process is gone, and its id belongs to another one."""
    replaying = Replay(make_chance)
    lines = asked_gateway().lines * 2
    steps = [replaying.take(number, line) for number, line in enumerate(lines, 1)]
    assert not any(step.differs for step in steps if step is not None)
    assert [(run.first_line, run.steps) for run in replaying.runs] == [(1, 2), (4, 2)]


def test_a_machine_without_its_beginning_cannot_be_made_again() -> None:
    (first, second) = replayed(asked_gateway().lines[1:])
    assert first.run.again is None
    assert first.commands == first.line.commands
    assert not second.differs
    assert (second.run.first_line, second.run.steps, second.run.stale) == (1, 2, 0)


def test_a_defect_that_was_recorded_shows_again() -> None:
    gateway = asked_gateway()
    twice = RequestReceived(request_id=build.rid("r1"), facts=build.chat())
    with pytest.raises(AssertionError):
        gateway.handle(twice, 3.0)
    *_, step = replayed(gateway.lines)
    assert step.raised == "AssertionError: r1 is under way already"
    assert not step.differs
    assert (step.run.raised, step.run.differing) == (1, 0)


def test_a_defect_that_was_mended_is_a_difference_and_so_is_a_new_one() -> None:
    lines = asked_gateway().lines
    lines[1] = evolve(lines[1], commands=(), raised="KeyError")
    lines[2] = evolve(lines[2], event=lines[1].event)
    mended, new = replayed(lines)
    assert (mended.differs, mended.raised) == (True, None)
    assert (new.differs, new.raised) == (True, "AssertionError: r1 is under way already")
    assert new.run.raised == 2


def test_a_gateway_is_given_the_numbers_that_it_had() -> None:
    given: list[int] = []

    def chance(seed: int) -> Chance:
        given.append(seed)
        return make_chance(seed)

    lines = [*asked_gateway(seed=5).lines, *asked_gateway(seed=6, source="2").lines]
    assert not any(step.differs for step in replay(lines, chance))
    assert given == [5, 6]
