"""Figures in rows and columns: as a table for people, as JSON or as CSV for programs."""

import csv
import io
import re
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Final

import click
from attrs import field, frozen

from gatewright_cli import exits
from gatewright_cli.tables import print_json, print_table
from gatewright_cli.terminal import printable

TEXT: Final = "text"
JSON: Final = "json"
CSV: Final = "csv"
# Clients choose the names of tasks and users, and spreadsheets run what looks like a formula; "@cf/llama" and "-x" are
# none, for want of a call.
_FORMULA: Final = re.compile(r"[=\t\r]|[-+@].*[(|!]", re.DOTALL)


def as_text(value: Any) -> str:
    """A word, a list of words, or nothing."""
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        return printable(",".join(str(item) for item in value))
    return printable(" ".join(str(value).split()))


def as_flag(value: bool | None) -> str:
    """Yes or no."""
    return "" if value is None else "yes" if value else "no"


def as_count(value: int | None) -> str:
    """A number of things: `12 345 678` is hard to compare, so all digits stand."""
    return "" if value is None else str(value)


def as_money(value: float | None) -> str:
    """US dollars, with as many digits as small amounts need."""
    if value is None:
        return ""
    sign, amount = "-" if value < 0 else "", abs(value)
    if amount == 0 or amount >= 1:
        return f"{sign}${amount:.2f}"
    return f"{sign}${amount:.4f}" if amount >= 0.001 else f"{sign}${amount:.7f}"  # noqa: PLR2004  # a tenth of a cent


def as_share(value: float | None) -> str:
    """A share as per cent."""
    return "" if value is None else f"{value * 100:.1f} %"


def as_ms(value: float | None) -> str:
    """A time in milliseconds, or in seconds where these are many."""
    if value is None:
        return ""
    if value < 10:  # noqa: PLR2004  # two digits are enough from there on
        return f"{value:.2f} ms"
    return f"{value:.0f} ms" if value < 10_000 else f"{value / 1000:.1f} s"  # noqa: PLR2004  # ten seconds


def as_ratio(value: float | None) -> str:
    """A number between 0 and 1, or a difference of two."""
    return "" if value is None else f"{value:.3f}"


@frozen
class Column:
    """One column.

    Attributes:
        name: In JSON and CSV.
        head: For people.
        show: How a value looks to people.
        right: It holds numbers.
    """

    name: str
    head: str
    show: Callable[[Any], str] = as_text
    right: bool = True


@frozen(kw_only=True)
class Sheet:
    """A table.

    Attributes:
        name: By which it is asked for, and its name in JSON.
        title: For people.
        columns: Its columns.
        rows: Values, in the columns' order.
        shown: Names of the columns that people are shown; None for all.
        note: What to know about it, for people.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Any, ...], ...]
    shown: tuple[str, ...] | None = None
    note: str = ""
    _places: dict[str, int] = field(init=False, repr=False, eq=False)

    @_places.default
    def _index(self) -> dict[str, int]:
        return {column.name: place for place, column in enumerate(self.columns)}

    def values(self, name: str) -> list[Any]:
        """All values of a column."""
        place = self._places[name]
        return [row[place] for row in self.rows]

    def plain(self) -> list[dict[str, Any]]:
        """The rows as JSON has them."""
        return [dict(zip(self._places, row, strict=True)) for row in self.rows]

    def text_rows(self) -> tuple[tuple[Column, ...], list[tuple[str, ...]]]:
        """The columns that people are shown, and their fields."""
        names = self.shown if self.shown is not None else tuple(self._places)
        places = [self._places[name] for name in names]
        columns = tuple(self.columns[place] for place in places)
        return columns, [tuple(self.columns[place].show(row[place]) for place in places) for row in self.rows]


def sheet_of(
    name: str,
    title: str,
    columns: Sequence[Column],
    rows: Sequence[object],
    *,
    shown: tuple[str, ...] | None = None,
    note: str = "",
) -> Sheet:
    """A sheet of rows that have an attribute for each column."""
    values = tuple(tuple(getattr(row, column.name) for column in columns) for row in rows)
    return Sheet(name=name, title=title, columns=tuple(columns), rows=values, shown=shown, note=note)


def format_options(function: Callable[..., int]) -> Callable[..., int]:
    """Gives a subcommand `--json` and `--csv`, as its argument `output`."""

    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
    @wraps(function)
    def wrapper(*args: Any, as_json: bool, as_csv: bool, **options: Any) -> int:
        if as_json and as_csv:
            raise exits.Misuse("--json or --csv, not both")
        return function(*args, output=JSON if as_json else CSV if as_csv else TEXT, **options)

    return wrapper


def print_sheet(sheet: Sheet | None, output: str, nothing: str) -> None:
    """Print one sheet.

    Args:
        sheet: The sheet; None as one without rows, of which nobody knows the columns.
        output: `TEXT`, `JSON` or `CSV`.
        nothing: What people are told if it has no rows; empty where they were told already.
    """
    if output == JSON:
        print_json(sheet.plain() if sheet is not None else [])
    elif output == CSV:
        text = csv_text(sheet) if sheet is not None else ""
        if sys.stdout.isatty():
            text = "".join(f"{printable(line)}\n" for line in text.splitlines())
        click.echo(text, nl=False)
    elif sheet is None or not sheet.rows:
        if nothing:
            click.echo(nothing, err=True)
    else:
        print_text(sheet)
        if sheet.note:
            click.echo(sheet.note, err=True)


def print_text(sheet: Sheet) -> None:
    """Print a sheet as a table."""
    columns, rows = sheet.text_rows()
    numbers = frozenset(place for place, column in enumerate(columns) if column.right)
    print_table([column.head for column in columns], rows, right=numbers)


def csv_text(sheet: Sheet) -> str:
    """A sheet as RFC 4180 has it, with names of columns in the first line."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([column.name for column in sheet.columns])
    writer.writerows([[_plain(value) for value in row] for row in sheet.rows])
    return text.getvalue()


def _plain(value: Any) -> Any:
    text = " ".join(str(item) for item in value) if isinstance(value, (list, tuple)) else value
    return f"'{text}" if isinstance(text, str) and _FORMULA.match(text) else text
