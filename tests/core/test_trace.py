import random

import pytest

from gatewright.codec import CodecError
from gatewright.commands import ProbeEngine, SpawnEngine
from gatewright.config import Config, ServerConfig, Tokenization
from gatewright.engines.spec import EngineSpec, ProcessSpec
from gatewright.events import (
    ConfigReplaced,
    EngineExited,
    EngineProbed,
    EngineSpawned,
    FleetEvent,
    Health,
    HolderAttached,
    LeaseAsked,
    Woke,
)
from gatewright.fleet import Fleet
from gatewright.ids import EngineId, HolderId, LeaseId
from gatewright.leases import LeaseEngine, ReleaseLease
from gatewright.trace import TraceLine, read_line, replay, write_line


def spec(context: int, *, secret: str = "hunter2") -> EngineSpec:
    process = ProcessSpec(
        binary="llama-server",
        args=("--api-key", secret, f"--hf-token={secret}", "-c", str(context)),
        env=(("HF_TOKEN", secret),),
    )
    return EngineSpec(model="m", context_tokens=context, connect="http://x:${PORT}", process=process)


def recorded_fleet() -> list[TraceLine]:
    """A Fleet with two engines that takes turns, seen by a driver that answers at random."""
    dice, fleet, lines = random.Random(4), Fleet(), []
    now, pending = 0.0, list[FleetEvent]()

    def tell(event: FleetEvent) -> None:
        commands = fleet.handle(event, now)
        lines.append(TraceLine(machine="fleet", now=now, event=event, commands=tuple(commands)))
        for command in commands:
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
        tell(
            dice.choice(
                [
                    LeaseAsked(
                        holder=HolderId(1), request=LeaseEngine(lease_id=LeaseId(number), variants=(chosen,))
                    ),
                    LeaseAsked(holder=HolderId(1), request=ReleaseLease(lease_id=LeaseId(number // 2))),
                    EngineExited(engine_id=EngineId(1), reason="exit code 1"),
                    Woke(),
                ]
            )
        )
        while pending:
            tell(pending.pop())
    return lines


def test_a_recorded_run_replays_equal_without_its_secrets() -> None:
    lines = recorded_fleet()
    text = b"".join(map(write_line, lines))
    assert b"hunter2" not in text
    again = [read_line(line) for line in text.splitlines()]
    assert len(again) == len(lines)
    assert [line.now for line in again] == [line.now for line in lines]
    assert sum(len(line.commands) for line in again) > 20
    assert replay(again, Fleet()) == []


def test_a_run_replays_equal_without_having_been_written() -> None:
    """What was never blanked is blanked for the comparison."""
    plain = [read_line(write_line(line)) for line in recorded_fleet()]
    assert replay(plain, Fleet()) == []


def test_differences_name_their_line() -> None:
    lines = [read_line(write_line(line)) for line in recorded_fleet()]
    number = next(at for at, line in enumerate(lines, 1) if line.commands)
    del lines[number - 1]
    differences = replay(lines, Fleet())
    assert differences
    assert all(found.commands != found.line.commands for found in differences)
    assert lines[differences[0].number - 1] == differences[0].line


def test_secrets_of_a_configuration_are_blanked() -> None:
    config = Config(server=ServerConfig(api_keys=("hunter2", "hunter3")), models=())
    line = write_line(TraceLine(machine="gateway", now=1.5, event=ConfigReplaced(config=config), commands=()))
    assert b"hunter" not in line
    event = read_line(line).event
    assert isinstance(event, ConfigReplaced)
    first, second = event.config.server.api_keys
    assert first != second
    assert first.startswith("sha256:")


def test_ordinary_arguments_stay_readable() -> None:
    asked = LeaseAsked(holder=HolderId(1), request=LeaseEngine(lease_id=LeaseId(1), variants=(spec(512),)))
    line = write_line(TraceLine(machine="fleet", now=0, event=asked, commands=()))
    assert b'"-c","512"' in line
    assert b'"--api-key","sha256:' in line
    assert b'"--hf-token=sha256:' in line
    assert Tokenization(binary="x").args == ()  # the other class with a field of that name


@pytest.mark.parametrize("line", [b"", b"{}", b'{"machine":"fleet","now":1,"event":{"X":{}},"commands":[]}'])
def test_what_is_no_line_is_refused(line: bytes) -> None:
    with pytest.raises(CodecError):
        read_line(line)
