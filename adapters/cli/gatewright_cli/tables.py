"""What commands print: tables for people and for programs that read columns, JSON for all others."""

from collections.abc import Sequence
from typing import Final

import click
import msgspec

_GAP: Final = "  "


def print_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()
) -> None:
    """Print rows below their heads, nothing shortened; an empty field is shown as "-", so that columns can be counted.

    Args:
        heads: Names of the columns.
        rows: As many fields each.
        right: Columns, from 0, whose fields are numbers.
    """
    filled = [[field or "-" for field in row] for row in rows]
    widths = [max(len(line[column]) for line in [heads, *filled]) for column in range(len(heads))]
    click.secho(_line(heads, widths, right), bold=True)
    for row in filled:
        click.echo(_line(row, widths, right))


def _line(fields: Sequence[str], widths: Sequence[int], right: frozenset[int]) -> str:
    padded = [
        field.rjust(width) if column in right else field.ljust(width)
        for column, (field, width) in enumerate(zip(fields, widths, strict=True))
    ]
    return _GAP.join(padded).rstrip()


def print_json(value: object) -> None:
    """Print a value as JSON, indented."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def seconds_text(seconds: float) -> str:
    """A duration in its largest fitting unit: `35 s`, `12 min`, `3 h`."""
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"


def bytes_text(number: int) -> str:
    """A size in its largest fitting unit: `34.0 MiB`, `5.2 GiB`."""
    size = number / 1024**2
    return f"{size:.1f} MiB" if size < 1024 else f"{size / 1024:.1f} GiB"  # noqa: PLR2004  # MiB in a GiB
