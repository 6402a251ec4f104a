"""The drivers agree: their traces of the same day replay equal, and tell the same of every request."""

from pathlib import Path

import pytest

from gatewright.commands import RecordRequest
from gatewright.events import SpendRefused, SpendReserved
from gatewright.tracing.projection import Step, project
from gatewright.tracing.rendering import render
from gatewright.tracing.replay import replay
from gatewright.tracing.trace import TraceLine, read_line
from gatewright_host.driving import make_chance
from tests.parity.scenario import ALL, CHOICES, SECRET, Scenario
from tests.support.gateway import Gateway
from tests.support.gunicorn import GunicornGateway

TRANSPORTS = ("async", "blocking")


def record(transport: str, trace: Path) -> bytes:
    """A day of a gateway, as it recorded it."""
    env = {"GATEWRIGHT_TRACE": str(trace)}
    with Scenario(trace) as scenario:
        gateway = (
            Gateway(*scenario.models, env=env, more=CHOICES)
            if transport == "async"
            else GunicornGateway(*scenario.models, workers=1, env=env, more=CHOICES)
        )
        with gateway:
            scenario.play(gateway)
    return trace.read_bytes()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    directory = tmp_path_factory.mktemp("traces")
    return {transport: record(transport, directory / f"{transport}.jsonl") for transport in TRANSPORTS}


@pytest.fixture(scope="module")
def traces(files: dict[str, bytes]) -> dict[str, list[TraceLine]]:
    return {
        transport: [read_line(line) for line in content.splitlines()] for transport, content in files.items()
    }


def told(steps: tuple[Step, ...]) -> list[str]:
    """A request's story as text: what pytest compares line by line."""
    return [f"{render(step.event)} -> {', '.join(map(render, step.commands))}" for step in steps]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_trace_replays_equal(traces: dict[str, list[TraceLine]], transport: str) -> None:
    steps = list(replay(traces[transport], make_chance))
    assert [step for step in steps if step.differs or step.raised] == []
    assert {step.run.machine for step in steps} == {"gateway", "fleet"}
    assert all(step.run.again is not None for step in steps)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_day_went_as_planned(traces: dict[str, list[TraceLine]], transport: str) -> None:
    records = [steps[-1].commands[-1] for steps in project(traces[transport]).values()]
    assert all(isinstance(record, RecordRequest) for record in records)
    outcomes = [record.outcome for record in records if isinstance(record, RecordRequest)]
    assert outcomes == [question.outcome for question in ALL]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_route_went_where_its_budget_allowed(traces: dict[str, list[TraceLine]], transport: str) -> None:
    stories = [
        steps
        for question, steps in zip(ALL, project(traces[transport]).values(), strict=True)
        if question.model == "auto"
    ]
    kinds = [
        [type(step.event) for step in steps if type(step.event) in {SpendReserved, SpendRefused}]
        for steps in stories
    ]
    assert kinds[:3] == [[SpendReserved], [SpendRefused, SpendReserved], [SpendReserved]]
    records = [steps[-1].commands[-1] for steps in stories]
    assert [record.model for record in records if isinstance(record, RecordRequest)] == [
        "fine",
        "plain",
        "fine",
        "plain",
    ]


def test_the_drivers_tell_the_same_of_every_request(traces: dict[str, list[TraceLine]]) -> None:
    one, other = (list(project(traces[transport]).values()) for transport in TRANSPORTS)
    assert [told(steps) for steps in one] == [told(steps) for steps in other]
    assert one == other


def test_the_machines_are_not_in_one_process_behind_gunicorn(traces: dict[str, list[TraceLine]]) -> None:
    def sources(transport: str) -> set[tuple[str, str]]:
        return {(line.source, line.machine) for line in traces[transport]}

    assert len({source for source, _ in sources("async")}) == 1
    assert len({source for source, _ in sources("blocking")}) == 2


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_no_trace_holds_a_prompt(files: dict[str, bytes], transport: str) -> None:
    assert files[transport]
    assert SECRET.encode() not in files[transport]
