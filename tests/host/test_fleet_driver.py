import asyncio
import logging
import time
from collections.abc import Callable
from typing import cast

import pytest
from attrs import evolve

from gatewright.commands import (
    ExitHost,
    FleetCommand,
    Log,
    ProbeEngine,
    Severity,
    SignalEngine,
    SpawnEngine,
    StopSignal,
    TellHolder,
)
from gatewright.events import (
    EngineExited,
    EngineProbed,
    EngineSpawned,
    EngineSpawnFailed,
    FleetEvent,
    Health,
    HolderAttached,
    HolderGone,
    StopAsked,
    Woke,
)
from gatewright.fleet import Fleet
from gatewright.ids import CommandId, EngineId, HolderId, LeaseId
from gatewright.leases import LeaseNews, LeaseProgress
from gatewright.timers import Deadline
from gatewright.tracing.trace import TraceLine
from gatewright_host import fleet_driver, probe
from gatewright_host.engine_log import EnginesLogFile
from gatewright_host.fleet_driver import FleetDriver
from gatewright_host.process import EngineProcess
from gatewright_host.records import Records
from gatewright_host.state_dir import StateDir
from tests.host.conftest import Run
from tests.support.host import fake_spec, is_running, until

STOP = StopAsked()
SPEC = fake_spec()


class ScriptedFleet:
    """Answers each event as it was told to, and remembers all."""

    def __init__(self) -> None:
        self.events: list[FleetEvent] = []
        self.answers: dict[FleetEvent, list[FleetCommand]] = {}
        self.wake_at: Deadline | None = None
        self.is_busy = False
        self.on_event: Callable[[FleetEvent], None] = lambda _: None

    def handle(self, event: FleetEvent, now: float) -> list[FleetCommand]:
        assert not self.is_busy, "handle was entered again"
        assert abs(now - time.monotonic()) < 5
        self.is_busy = True
        self.events.append(event)
        self.on_event(event)
        self.is_busy = False
        return self.answers.pop(event, [])

    def of(self, kind: type) -> list[FleetEvent]:
        return [event for event in self.events if isinstance(event, kind)]


def driver_of(fleet: ScriptedFleet, state: StateDir, **options: Callable[[TraceLine], None]) -> FleetDriver:
    records, file = Records(state.records_dir), EnginesLogFile(state.engines_log)
    return FleetDriver(cast("Fleet", fleet), records, file, **options)


def spawn(number: int = 1, spec=SPEC) -> SpawnEngine:
    return SpawnEngine(command_id=CommandId(number), engine_id=EngineId(number), spec=spec)


def progress(number: int) -> LeaseProgress:
    return LeaseProgress(lease_id=LeaseId(number), position=1, engine="m@1", phase="ready")


def test_news_reach_their_holder_before_feed_returns(run: Run, state: StateDir) -> None:
    async def main() -> None:
        fleet, heard = ScriptedFleet(), list[LeaseNews]()
        driver = driver_of(fleet, state)
        first, second = driver.attach(lambda _: None), driver.attach(heard.append)
        assert driver.holders == 2
        fleet.answers[STOP] = [
            TellHolder(holder=second, news=progress(1)),
            TellHolder(holder=HolderId(99), news=progress(2)),
        ]
        driver.feed(STOP)
        assert heard == [progress(1)]
        driver.detach(second)
        driver.detach(second)
        fleet.answers[STOP] = [TellHolder(holder=second, news=progress(3))]
        driver.feed(STOP)
        assert heard == [progress(1)]
        assert fleet.events == [
            HolderAttached(holder=first),
            HolderAttached(holder=second),
            STOP,
            HolderGone(holder=second),
            STOP,
        ]
        driver.close()

    run(main())


def test_handle_is_never_entered_again(run: Run, state: StateDir) -> None:
    """What is fed while a command is carried out waits until all commands of that event are."""

    async def main() -> None:
        fleet, order = ScriptedFleet(), list[str]()
        driver = driver_of(fleet, state)

        def deliver(news: LeaseNews) -> None:
            order.append(f"news {news.lease_id}")
            if news.lease_id == 1:
                driver.feed(Woke())
                order.append("fed")

        fleet.on_event = lambda event: order.append(type(event).__name__)
        holder = driver.attach(deliver)
        fleet.answers[STOP] = [TellHolder(holder=holder, news=progress(number)) for number in (1, 2)]
        driver.feed(STOP)
        assert order == ["HolderAttached", "StopAsked", "news 1", "fed", "news 2", "Woke"]
        driver.close()

    run(main())


def test_a_holder_that_raises_harms_nobody(
    run: Run, state: StateDir, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        fleet, heard = ScriptedFleet(), list[LeaseNews]()
        driver = driver_of(fleet, state)

        def deliver(_: LeaseNews) -> None:
            raise LookupError

        bad, good = driver.attach(deliver), driver.attach(heard.append)
        fleet.answers[STOP] = [TellHolder(holder=holder, news=progress(1)) for holder in (bad, good)]
        driver.feed(STOP)
        assert heard == [progress(1)]
        assert "a bug" in caplog.text
        driver.close()

    run(main())


def test_a_machine_that_raises_is_heard_of_and_driven_on(run: Run, state: StateDir) -> None:
    async def main() -> None:
        fleet = ScriptedFleet()
        driver = driver_of(fleet, state)

        def fail(event: FleetEvent) -> None:
            fleet.is_busy = False
            if event == STOP:
                driver._inbox.append(StopAsked(model="later"))
                raise AssertionError("wrong use")

        fleet.on_event = fail
        with pytest.raises(AssertionError, match="wrong use"):
            driver.feed(STOP)
        await until(lambda: fleet.events == [STOP, StopAsked(model="later")])
        driver.close()

    run(main())


def test_it_wakes_the_machine_in_time(run: Run, state: StateDir) -> None:
    async def main() -> None:
        fleet = ScriptedFleet()
        driver = driver_of(fleet, state)
        fleet.wake_at = Deadline(time.monotonic() + 600, "later")
        driver.start()
        fleet.wake_at = Deadline(time.monotonic() + 0.02, "soon")
        driver.feed(STOP)
        due = fleet.wake_at.at

        def sleep_on(event: FleetEvent) -> None:
            # One that comes too early is followed by another.
            if event == Woke() and time.monotonic() >= due:
                fleet.wake_at = None

        fleet.on_event = sleep_on
        await until(lambda: fleet.wake_at is None)
        count = len(fleet.events)
        await asyncio.sleep(0.05)
        assert len(fleet.events) == count
        driver.close()

    run(main())


def test_an_engine_is_spawned_probed_signalled_and_gone(run: Run, state: StateDir) -> None:
    async def main() -> None:
        fleet, records = ScriptedFleet(), Records(state.records_dir)
        driver = driver_of(fleet, state)
        fleet.answers[STOP] = [spawn()]
        driver.feed(STOP)
        (spawned,) = fleet.of(EngineSpawned)
        assert isinstance(spawned, EngineSpawned)
        assert is_running(spawned.pid)
        assert [(record.pid, record.label) for record in records.all()] == [(spawned.pid, "fake@1024")]

        number = 10
        while not [event for event in fleet.of(EngineProbed) if cast("EngineProbed", event).slots]:
            number += 1
            fleet.answers[STOP] = [
                ProbeEngine(
                    command_id=CommandId(number),
                    engine_id=EngineId(1),
                    base_url=spawned.base_url,
                    timeout_s=20,
                    ask_properties=True,
                )
            ]
            driver.feed(STOP)
            await until(lambda: len(fleet.of(EngineProbed)) == number - 10)  # noqa: B023  # awaited at once
        last = fleet.of(EngineProbed)[-1]
        assert last == EngineProbed(
            command_id=CommandId(number), health=Health.READY, slots=2, context_tokens=1024
        )

        fleet.answers[STOP] = [
            SignalEngine(engine_id=EngineId(1), signal=StopSignal.TERMINATE),
            SignalEngine(engine_id=EngineId(2), signal=StopSignal.KILL),
        ]
        driver.feed(STOP)
        await until(lambda: fleet.of(EngineExited))
        assert fleet.events[-1] == EngineExited(engine_id=EngineId(1), reason="killed by SIGTERM")
        assert not is_running(spawned.pid)
        assert records.all() == []
        assert driver.processes == {}
        driver.close()
        await driver.settle_tasks()

    run(main())


def test_a_spawn_that_fails_is_told(run: Run, state: StateDir) -> None:
    async def main() -> None:
        fleet = ScriptedFleet()
        driver = driver_of(fleet, state)
        assert SPEC.process is not None
        fleet.answers[STOP] = [
            spawn(spec=evolve(SPEC, process=evolve(SPEC.process, binary="no-such-engine")))
        ]
        driver.feed(STOP)
        assert fleet.events[1:] == [
            EngineSpawnFailed(command_id=CommandId(1), reason="no-such-engine is not on PATH")
        ]
        driver.close()

    run(main())


def test_even_a_bug_completes_a_command(
    run: Run, state: StateDir, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise LookupError("oops")

    monkeypatch.setattr(EngineProcess, "spawn", fail)
    monkeypatch.setattr(probe, "probe_engine", fail)

    async def main() -> None:
        fleet = ScriptedFleet()
        driver = driver_of(fleet, state)
        ask = ProbeEngine(command_id=CommandId(2), engine_id=EngineId(1), base_url="http://x", timeout_s=1)
        fleet.answers[STOP] = [spawn(), ask]
        driver.feed(STOP)
        await until(lambda: fleet.of(EngineProbed))
        failed, probed = fleet.events[1:]
        assert failed == EngineSpawnFailed(command_id=CommandId(1), reason="LookupError: oops")
        assert probed == EngineProbed(
            command_id=CommandId(2), health=Health.WRONG, detail="LookupError: oops"
        )
        assert caplog.text.count("a bug") == 2
        driver.close()
        await driver.settle_tasks()

    run(main())


def test_an_engine_that_cannot_be_recorded_runs(
    run: Run, state: StateDir, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        state.records_dir.touch()
        fleet = ScriptedFleet()
        driver = driver_of(fleet, state)
        fleet.answers[STOP] = [spawn()]
        driver.feed(STOP)
        assert fleet.of(EngineSpawned)
        assert "is not recorded" in caplog.text
        driver.close()

    run(main())


def test_log_lines_keep_their_severity(run: Run, state: StateDir, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "gatewright.fleet")

    async def main() -> None:
        fleet = ScriptedFleet()
        driver = driver_of(fleet, state)
        fleet.answers[STOP] = [Log(severity=severity, text=f"100 % {severity}") for severity in Severity]
        driver.feed(STOP)
        assert [(record.levelname.lower(), record.message) for record in caplog.records] == [
            (severity.value, f"100 % {severity}") for severity in Severity
        ]
        driver.close()

    run(main())


def test_the_end_has_a_reason(run: Run, state: StateDir) -> None:
    async def main() -> None:
        fleet = ScriptedFleet()
        driver = driver_of(fleet, state)
        fleet.answers[STOP] = [ExitHost(reason="done")] * 2
        driver.feed(STOP)
        assert await driver.exit_reason == "done"
        driver.close()

    run(main())


def test_closing_kills_what_runs_and_hears_nothing_more(run: Run, state: StateDir) -> None:
    async def main() -> None:
        fleet = ScriptedFleet()
        driver = driver_of(fleet, state)
        fleet.wake_at = Deadline(time.monotonic() + 600, "later")
        silent = ProbeEngine(
            command_id=CommandId(9), engine_id=EngineId(1), base_url="http://192.0.2.1", timeout_s=60
        )
        fleet.answers[STOP] = [spawn(), silent]
        driver.feed(STOP)
        (spawned,) = fleet.of(EngineSpawned)
        assert isinstance(spawned, EngineSpawned)
        count = len(fleet.events)
        driver.close()
        driver.feed(STOP)
        driver.close()
        await driver.settle_tasks()
        assert not is_running(spawned.pid)
        assert len(fleet.events) == count
        assert await driver.exit_reason == "closed"
        assert Records(state.records_dir).all() == []

    run(main())


def test_the_trace_has_every_step(run: Run, state: StateDir) -> None:
    async def main() -> None:
        fleet, lines = ScriptedFleet(), list[TraceLine]()
        driver = driver_of(fleet, state, trace=lines.append)
        said = Log(severity=Severity.DEBUG, text="hello")
        fleet.answers[STOP] = [said]
        driver.feed(STOP)
        driver.feed(Woke())
        assert [(line.machine, line.event, line.commands) for line in lines] == [
            (fleet_driver.MACHINE, STOP, (said,)),
            (fleet_driver.MACHINE, Woke(), ()),
        ]
        driver.close()

    run(main())
