import logging
import multiprocessing
import os
import threading
from pathlib import Path

import pytest

from gatewright.commands import Log, Severity
from gatewright.events import Woke
from gatewright.tracing.trace import TraceLine, read_line
from gatewright_host import trace_file
from gatewright_host.trace_file import TRACE_VARIABLE, TraceFile, open_trace


def steps(number: int, text: str = "") -> list[TraceLine]:
    commands = (Log(severity=Severity.INFO, text=text),) if text else ()
    return [
        TraceLine(machine="fleet", now=float(now), event=Woke(), commands=commands) for now in range(number)
    ]


def written(path: Path) -> list[TraceLine]:
    data = path.read_bytes()
    assert data.endswith(b"\n")
    return [read_line(line) for line in data.splitlines()]


def test_what_is_written_is_read_and_says_by_whom(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    with TraceFile(path) as trace:
        for step in steps(3):
            trace(step)
    lines = written(path)
    assert [line.now for line in lines] == [0.0, 1.0, 2.0]
    (source,) = {line.source for line in lines}
    assert source.partition(".")[0] == str(os.getpid())


def test_what_is_there_stays_there(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    for _ in range(2):
        with TraceFile(path) as trace:
            trace(steps(1)[0])
    first, second = written(path)
    assert first.source != second.source


def test_it_is_for_its_owner_only(tmp_path: Path) -> None:
    with TraceFile(tmp_path / "new.jsonl"):
        assert (tmp_path / "new.jsonl").stat().st_mode & 0o777 == 0o600


def test_it_is_not_handed_down_to_engines(tmp_path: Path) -> None:
    with TraceFile(tmp_path / "new.jsonl") as trace:
        assert trace._fd is not None
        assert not os.get_inheritable(trace._fd)


def _write_many(path: Path, number: int) -> None:
    with TraceFile(path) as trace:
        threads = [
            threading.Thread(target=lambda: [trace(step) for step in steps(number, "x" * 20_000)])
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def test_threads_and_processes_do_not_get_into_each_others_way(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(path, 50)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
        assert writer.exitcode == 0
    lines = written(path)
    assert len(lines) == 3 * 2 * 50
    assert len({line.source for line in lines}) == 3
    for source in {line.source for line in lines}:
        assert sorted(line.now for line in lines if line.source == source) == sorted([*range(50)] * 2)


# --- what cannot be written


def test_a_place_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        TraceFile(tmp_path / "nowhere" / "trace.jsonl")


def test_a_full_disk_ends_the_trace_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    with TraceFile(Path("/dev/full")) as trace, caplog.at_level(logging.ERROR, "gatewright.trace"):
        for step in steps(3):
            trace(step)
    (record,) = caplog.records
    assert "/dev/full: No space left on device; nothing more of this process is recorded" in record.message


def test_half_a_line_is_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "trace.jsonl"
    write = os.write
    with TraceFile(path) as trace, caplog.at_level(logging.ERROR, "gatewright.trace"):
        trace(steps(1)[0])
        monkeypatch.setattr(trace_file.os, "write", lambda fd, data: write(fd, data[:10]))
        for step in steps(3):
            trace(step)
        monkeypatch.undo()
    assert len(caplog.records) == 1
    first, rest = path.read_bytes().split(b"\n")
    assert read_line(first)
    assert len(rest) == 10


def test_after_its_end_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    with TraceFile(path) as trace:
        pass
    trace.close()
    trace(steps(1)[0])
    assert path.read_bytes() == b""


# --- the environment


def test_the_environment_says_whether_to_trace(tmp_path: Path) -> None:
    assert open_trace({}) is None
    assert open_trace({TRACE_VARIABLE: ""}) is None
    path = tmp_path / "trace.jsonl"
    trace = open_trace({TRACE_VARIABLE: str(path)})
    assert trace is not None
    with trace:
        trace(steps(1)[0])
    assert len(written(path)) == 1
