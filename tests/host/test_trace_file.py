from pathlib import Path

from gatewright.events import Woke
from gatewright.trace import TraceLine, read_line
from gatewright_host.trace_file import TraceFile


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text("an older one\n")
    lines = [TraceLine(machine="fleet", now=float(now), event=Woke(), commands=()) for now in range(3)]
    with TraceFile(path) as trace:
        for line in lines:
            trace(line)
    assert [read_line(line) for line in path.read_bytes().splitlines()] == lines


def test_it_is_for_its_owner_only(tmp_path: Path) -> None:
    with TraceFile(tmp_path / "new.jsonl"):
        assert (tmp_path / "new.jsonl").stat().st_mode & 0o777 == 0o600
