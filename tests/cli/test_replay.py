"""`gw-cli replay` on traces that were made here, and on one of a real question."""

import json
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from gatewright.events import ClientGone, FleetStarted, HolderAttached, RequestReceived, Woke
from gatewright.leases import LeaseGranted
from gatewright.tracing.trace import TraceLine, write_line
from tests.cli.conftest import Cli, InProcess, model_lua
from tests.core.machines import build
from tests.core.machines.recorded import Recorded


def gateway(source: str = "41") -> Recorded:
    """Two requests: one has its engine, and the client of the other has gone."""
    recorded = Recorded.gateway(build.config(), source=source)
    for number in (1, 2):
        event = RequestReceived(request_id=build.rid(f"r{number}"), facts=build.chat(given=10))
        recorded.handle(event, float(number))
    granted = LeaseGranted(lease_id=build.lid(1), context_tokens=4096, base_url="http://engine")
    recorded.handle(granted, 3.25)
    recorded.handle(ClientGone(request_id=build.rid("r2")), 4.0)
    recorded.handle(ClientGone(request_id=build.rid("r2")), 5.5)
    return recorded


def fleet() -> Recorded:
    recorded = Recorded.fleet(linger_s=10.0, now=100.0, source="41")
    recorded.handle(HolderAttached(holder=build.HOLDER), 101.0)
    return recorded


def write(cli: Cli, *lines: TraceLine, name: str = "trace.jsonl") -> Path:
    path = cli.directory / name
    path.write_bytes(b"".join(map(write_line, lines)))
    return path


def changed(lines: list[TraceLine], number: int, **fields: Any) -> list[TraceLine]:
    """The trace with another line of that number."""
    return [*lines[: number - 1], evolve(lines[number - 1], **fields), *lines[number:]]


def test_an_equal_replay_is_told_in_a_table(quick: InProcess) -> None:
    done = quick.run("replay", write(quick, *gateway().lines, *fleet().lines))
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        "SOURCE  MACHINE  STEPS  SECONDS  STALE  DIFFERENT\n"
        "41      gateway      5      5.5      1          0\n"
        "41      fleet        1      1.0      0          0\n"
    )


def test_a_step_that_differs_is_shown_line_by_line(quick: InProcess) -> None:
    lines = gateway().lines
    call = lines[3].commands[0]
    lines = changed(lines, 4, commands=(evolve(call, base_url="http://other"), *lines[2].commands))
    done = quick.run("replay", write(quick, *lines))
    assert (done.code, done.err) == (1, "")
    assert done.out == (
        "line 4, 41 gateway, 3.250 s: LeaseGranted lease=1 context=4096 at=http://engine\n"
        "  - CallUpstream r1 command=3 at=http://other\n"
        "  - LeaseEngine lease=2 variants=[qwen@4096] need=142\n"
        "  + CallUpstream r1 command=3 at=http://engine\n"
        "SOURCE  MACHINE  STEPS  SECONDS  STALE  DIFFERENT\n"
        "41      gateway      5      5.5      1          1\n"
    )


def test_what_did_not_change_stands_beside_what_did(quick: InProcess) -> None:
    lines = gateway().lines
    kept = lines[4].commands[0]
    done = quick.run("replay", write(quick, *changed(lines, 5, commands=(kept,))))
    assert "    ReleaseLease lease=2\n  + RecordRequest r2 outcome=canceled" in done.out


def test_a_defect_is_shown_with_its_text(quick: InProcess) -> None:
    recorded = gateway()
    with pytest.raises(AssertionError):
        recorded.handle(RequestReceived(request_id=build.rid("r1"), facts=build.chat()), 6.0)
    done = quick.run("replay", write(quick, *recorded.lines))
    assert done.code == 0  # nothing differs
    assert done.out.startswith(
        "line 7, 41 gateway, 6.000 s: RequestReceived r1 facts=(format=chat model=qwen messages=1)\n"
        "    raises AssertionError: r1 is under way already\n"
    )
    mended = quick.run("replay", write(quick, *changed(recorded.lines, 6, raised="KeyError", commands=())))
    assert mended.code == 1
    assert "  - raises KeyError\n" in mended.out


def test_of_many_differences_the_first_ones_are_shown(quick: InProcess) -> None:
    lines = fleet().lines
    woke = [evolve(lines[1], event=Woke(), now=200.0, commands=(Woke(),)) for _ in range(30)]
    trace = write(quick, *lines, *woke)
    done = quick.run("replay", trace)
    assert done.code == 1
    assert done.out.count("  - Woke") == 10
    assert done.err == "gw-cli: 41 fleet: 20 more steps differ; -v shows all\n"
    verbose = quick.run("replay", "-v", trace)
    assert verbose.out.count("  - Woke") == 30
    assert "line 2, 41 fleet, 1.000 s: HolderAttached holder=1\n" in verbose.out


def test_the_steps_of_one_request(quick: InProcess) -> None:
    trace = write(quick, *gateway().lines)
    done = quick.run("replay", "--request", "r2", trace)
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        "line 3, 41 gateway, 0.000 s: RequestReceived r2 facts=(format=chat model=qwen prompt_tokens_given=10 messages=1)\n"
        "    LeaseEngine lease=2 variants=[qwen@4096] need=142\n"
        "line 5, 41 gateway, 2.000 s: ClientGone r2\n"
        "    ReleaseLease lease=2\n"
        "    RecordRequest r2 outcome=canceled model=qwen wait_s=2 total_s=2\n"
    )
    unfinished = quick.run("replay", "--request", "r1", trace)
    assert unfinished.out.count("line ") == 2
    assert "    CallUpstream r1 command=3 at=http://engine\n" in unfinished.out


def test_differences_elsewhere_are_not_passed_over(quick: InProcess) -> None:
    trace = write(quick, *changed(gateway().lines, 2, commands=()))
    done = quick.run("replay", "--request", "r2", trace)
    assert done.code == 1
    assert done.err == "gw-cli: 41 gateway: 1 of all its steps differ; without --request they are shown\n"


def test_a_request_that_is_not_there(quick: InProcess) -> None:
    trace = write(quick, *gateway().lines)
    done = quick.run("replay", "--request", "r3", trace)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"gw-cli: {trace}: there is no request r3 in it\n"


def test_json(quick: InProcess) -> None:
    trace = write(quick, *changed(gateway().lines, 2, commands=()))
    done = quick.run("replay", "--json", trace)
    assert done.code == 1
    document = json.loads(done.out)
    assert document["cut_off"] is False
    assert document["machines"] == [
        {
            "source": "41",
            "machine": "gateway",
            "first_line": 1,
            "steps": 5,
            "duration_s": 5.5,
            "replayed": True,
            "stale": 1,
            "differing": 1,
            "raised": 0,
        }
    ]
    (step,) = document["steps"]
    assert (step["line"], step["at_s"], step["differs"], step["recorded"]) == (2, 1.0, True, [])
    assert list(step["event"]) == ["RequestReceived"]
    assert [list(command) for command in step["now"]] == [["LeaseEngine"]]
    of_request = json.loads(quick.run("replay", "--json", "--request", "r2", trace).out)
    assert [each["line"] for each in of_request["steps"]] == [3, 5]


# --- files that are not as they should be


def test_a_cut_off_line_at_the_end_is_tolerated(quick: InProcess) -> None:
    trace = write(quick, *gateway().lines)
    trace.write_bytes(trace.read_bytes()[:-20])
    done = quick.run("replay", trace)
    assert done.code == 0
    assert done.out.splitlines()[1].split()[2] == "4"
    assert done.err == f"gw-cli: {trace}: the last line is cut off: whoever wrote it was killed\n"
    assert json.loads(quick.run("replay", "--json", trace).out)["cut_off"] is True


def test_a_last_line_without_its_end_counts(quick: InProcess) -> None:
    trace = write(quick, *gateway().lines)
    trace.write_bytes(trace.read_bytes()[:-1])
    done = quick.run("replay", trace)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[1].split()[2] == "5"


def test_a_broken_line_elsewhere_is_named(quick: InProcess) -> None:
    trace = write(quick, *gateway().lines)
    first, second, *rest = trace.read_bytes().splitlines(keepends=True)
    trace.write_bytes(b"".join((first, second[:40] + b"\n", *rest)))
    done = quick.run("replay", trace)
    assert done.code == 2
    assert done.err.startswith(f"gw-cli: {trace}: line 2 is no step of a trace: ")


def test_a_message_of_another_version_is_named(quick: InProcess) -> None:
    trace = write(quick, *gateway().lines)
    trace.write_bytes(trace.read_bytes().replace(b'"ClientGone"', b'"ClientVanished"'))
    done = quick.run("replay", trace)
    assert done.code == 2
    assert done.err == (
        f"gw-cli: {trace}: line 5 is no step of a trace: unknown class ClientVanished; "
        "was it recorded by another version?\n"
    )


def test_a_trace_without_its_beginning(quick: InProcess) -> None:
    """Somebody emptied the file while it was written to."""
    done = quick.run("replay", write(quick, *gateway().lines[2:], *fleet().lines))
    assert done.code == 2
    assert done.out.splitlines()[1:] == [
        "41      gateway      4      3.5      -          -",
        "41      fleet        1      1.0      0          0",
    ]
    assert done.err == (
        "gw-cli: 41 gateway: its beginning is not in the trace, so its 4 steps from line 1 on were not replayed\n"
    )


def test_an_empty_file(quick: InProcess) -> None:
    trace = write(quick)
    done = quick.run("replay", trace)
    assert (done.code, done.out, done.err) == (0, "", f"gw-cli: {trace}: no step is in it\n")


def test_no_file(quick: InProcess) -> None:
    done = quick.run("replay", "nowhere.jsonl")
    assert (done.code, done.out) == (2, "")
    assert "nowhere.jsonl" in done.err
    assert quick.run("replay", quick.directory).code == 2


def test_something_else_altogether(quick: InProcess) -> None:
    path = quick.directory / "picture"
    path.write_bytes(bytes(range(256)) * 10)
    done = quick.run("replay", path)
    assert done.code == 2
    assert done.err.count("\n") == 1


def test_control_characters_do_not_reach_the_terminal(quick: InProcess) -> None:
    started = TraceLine(source="\x1b[2J", machine="fleet", now=0.0, event=FleetStarted(now=0.0), commands=())
    woke = evolve(started, event=Woke(), commands=(Woke(),))
    done = quick.run("replay", write(quick, started, woke))
    assert done.code == 1
    assert "\x1b[2J" not in done.out
    assert r"\x1b[2J" in done.out


# --- a real one


@pytest.mark.engine
def test_a_question_and_its_host_record_one_trace(cli: Cli, tiny_model: Path) -> None:
    cli.write_config(model_lua("tiny", tiny_model, 4096))
    trace = cli.directory / "trace.jsonl"
    cli.env["GATEWRIGHT_TRACE"] = str(trace)
    assert cli.run("ask", "--max-tokens", "4", "a secret question").code == 0
    assert cli.run("ask", "--max-tokens", "4", "another secret").code == 0
    assert trace.stat().st_mode & 0o777 == 0o600
    assert b"secret" not in trace.read_bytes()
    done = cli.run("replay", "--json", trace)
    assert (done.code, done.err) == (0, "")
    document = json.loads(done.out)
    machines = [(each["machine"], each["differing"]) for each in document["machines"]]
    assert sorted(machines) == [("fleet", 0), ("gateway", 0), ("gateway", 0)]
    assert len({each["source"] for each in document["machines"]}) == 3
    assert document["steps"] == []
