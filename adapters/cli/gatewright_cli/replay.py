"""`gw-cli replay`: a recorded trace, told again to fresh machines."""

from collections.abc import Iterator
from typing import Any, BinaryIO, Final

import click

from gatewright.codec import CodecError
from gatewright.ids import RequestId
from gatewright.tracing.replay import Replay, Run
from gatewright.tracing.trace import TraceLine, read_line
from gatewright_cli import exits
from gatewright_cli.options import Common, common_options
from gatewright_cli.replay_entries import (
    SHOWN,
    Differing,
    Entry,
    OfRequest,
    entry_lines,
    plain_entry,
    run_name,
)
from gatewright_cli.tables import print_json, print_table
from gatewright_cli.terminal import printable
from gatewright_host.driving import make_chance

HEADS: Final = ("SOURCE", "MACHINE", "STEPS", "SECONDS", "STALE", "DIFFERENT")
_NUMBERS: Final = frozenset((2, 3, 4, 5))
LONGEST_LINE_BYTES: Final = 64 * 1024 * 1024
"""No step is so long: what has such lines is no trace."""


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option("--request", metavar="ID", help="Show the steps of one request, by its x-request-id.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common_options
def command(common: Common, /, *, file: BinaryIO, request: str | None, as_json: bool) -> int:
    """Replay a trace that was recorded with GATEWRIGHT_TRACE, and show where this version decides otherwise.

    Below a step that differs, lines with "-" are the commands that were recorded, lines with "+" those of this
    version. Exits with 1 if there is such a step, with 2 if the file cannot be read or replayed.
    """
    trace, replaying = TraceReader(file), Replay(make_chance)
    selection = OfRequest(RequestId(request)) if request is not None else Differing(everything=common.verbose)
    documents: list[dict[str, Any]] = []

    def show(entries: list[Entry]) -> None:
        for entry in entries:
            if as_json:
                documents.append(plain_entry(entry))
            else:
                click.echo("\n".join(printable(line) for line in entry_lines(entry)))

    for number, line in trace:
        step = replaying.take(number, line)
        if step is not None:
            show(selection.take(step))
    show(selection.rest())
    if isinstance(selection, OfRequest) and not selection.found:
        raise exits.Misuse(f"{trace.name}: there is no request {request} in it")
    if as_json:
        machines = [_plain_run(run) for run in replaying.runs]
        print_json({"machines": machines, "steps": documents, "cut_off": trace.is_cut_off})
    else:
        _conclude(replaying.runs, trace, request=request, everything=common.verbose)
    return _status(replaying.runs)


class TraceReader:
    """The lines of a file, one at a time, with their numbers.

    Args:
        file: Opened for reading.

    Attributes:
        name: Of the file.
        is_cut_off: Its last line is not complete, because the process that wrote it was killed.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.name = file.name
        self.is_cut_off = False
        self._file = file

    def __iter__(self) -> Iterator[tuple[int, TraceLine]]:
        number = 0
        while data := self._file.readline(LONGEST_LINE_BYTES):
            number += 1
            try:
                line = read_line(data)
            except CodecError as error:
                if not data.endswith(b"\n") and len(data) < LONGEST_LINE_BYTES:
                    self.is_cut_off = True
                    return
                raise exits.Misuse(self._refusal(number, error)) from None
            yield number, line

    def _refusal(self, number: int, error: CodecError) -> str:
        hint = "; was it recorded by another version?" if "unknown class" in str(error) else ""
        return f"{self.name}: line {number} is no step of a trace: {error}{hint}"


def _conclude(runs: list[Run], trace: TraceReader, *, request: str | None, everything: bool) -> None:
    """Say how it went, after the steps."""
    if request is None and runs:
        print_table(HEADS, [_as_row(run) for run in runs], right=_NUMBERS)
    elif not runs:
        _note(f"{trace.name}: no step is in it")
    for run in runs:
        if run.again is None:
            _note(
                f"{run_name(run)}: its beginning is not in the trace, so its {run.steps} steps from line "
                f"{run.first_line} on were not replayed"
            )
        elif request is None and not everything and run.differing > SHOWN:
            _note(f"{run_name(run)}: {run.differing - SHOWN} more steps differ; -v shows all")
        elif request is not None and run.differing:
            _note(
                f"{run_name(run)}: {run.differing} of all its steps differ; without --request they are shown"
            )
    if trace.is_cut_off:
        _note(f"{trace.name}: the last line is cut off: whoever wrote it was killed")


def _note(text: str) -> None:
    click.echo(f"gw-cli: {printable(text)}", err=True)


def _as_row(run: Run) -> tuple[str, ...]:
    outcome = ("", "") if run.again is None else (str(run.stale), str(run.differing))
    return (
        printable(run.source),
        printable(run.machine),
        str(run.steps),
        f"{run.ended_at - run.began_at:.1f}",
        *outcome,
    )


def _plain_run(run: Run) -> dict[str, Any]:
    return {
        "source": run.source,
        "machine": run.machine,
        "first_line": run.first_line,
        "steps": run.steps,
        "duration_s": run.ended_at - run.began_at,
        "replayed": run.again is not None,
        "stale": run.stale,
        "differing": run.differing,
        "raised": run.raised,
    }


def _status(runs: list[Run]) -> int:
    if any(run.differing for run in runs):
        return exits.FAILED
    return exits.USAGE if any(run.again is None for run in runs) else exits.DONE
