"""`gw-cli report`: all figures at once, for a terminal, a program or a browser."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from gatewright_cli import exits
from gatewright_cli.options import Common, common_options
from gatewright_cli.sheets import CSV, JSON, TEXT, format_options, print_sheet, print_text
from gatewright_cli.slices import slice_of, slice_options
from gatewright_cli.spans import Span, span_options
from gatewright_cli.storing import looking
from gatewright_cli.tables import print_json
from gatewright_host.extras import how_to_install

if TYPE_CHECKING:
    from gatewright_cli.report_sections import Section

NAMES: Final = (
    "overview", "models", "keys", "routes", "tasks", "budgets", "fallbacks", "selection", "estimators",
    "calibration", "comparison", "values", "experiments",
)  # fmt: skip
"""Keys of `report_sections.SECTIONS`, which takes SQLAlchemy to load; a test compares them."""

NO_PLOTLY: Final = "report --html draws with plotly, which is missing: "


@click.command()
@click.argument("sections", metavar="[SECTION]...", nargs=-1, type=click.Choice(NAMES))
@click.option(
    "--html",
    "html_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write one page with plots, which needs no network.",
)
@slice_options
@span_options()
@format_options
@common_options
def command(
    common: Common,
    /,
    *,
    sections: tuple[str, ...],
    html_path: Path | None,
    only: dict[str, str],
    span: Span,
    output: str,
) -> int:
    """Report what was used, what it cost, and how well it went.

    Without a SECTION all are shown: overview, models, keys, routes, tasks, budgets, fallbacks, selection, estimators,
    calibration, comparison, values, experiments. CSV has one section. Budgets and experiments are shown as they stand now.
    """
    if output == CSV and len(sections) != 1:
        raise exits.Misuse("CSV holds one table: name one section, such as gw-cli report models --csv")
    if html_path is not None and output != TEXT:
        raise exits.Misuse("--html, --json or --csv, one of them")
    if html_path is not None:
        _expect_plotly()
    with looking(common) as opened:
        if opened is None:
            if output != TEXT:
                _print([], output)
            return exits.DONE
        from gatewright_cli.report_sections import Source, collect  # noqa: PLC0415  # loads SQLAlchemy

        source = Source(opened, slice_of(opened.store, span, only), opened.key_names())
        found = collect(source, sections or NAMES)
    if html_path is None:
        _print(found, output)
        return exits.DONE
    from gatewright_cli.report_page import page  # noqa: PLC0415  # loads plotly

    html_path.write_text(page(found, span.text, only, opened.now_s), encoding="utf-8")
    click.echo(f"wrote {html_path}", err=True)
    return exits.DONE


def _expect_plotly() -> None:
    try:
        import plotly  # noqa: F401, PLC0415  # takes its time to load, and may be missing
    except ImportError:
        raise click.ClickException(NO_PLOTLY + how_to_install("report")) from None


def _print(sections: "list[Section]", output: str) -> None:
    if output == JSON:
        print_json({section.sheet.name: section.sheet.plain() for section in sections})
        return
    if output == CSV:
        print_sheet(sections[0].sheet if sections else None, CSV, "")
        return
    shown = [section.sheet for section in sections if section.sheet.rows]
    if not shown:
        click.echo("no requests", err=True)
    for number, sheet in enumerate(shown):
        if number:
            click.echo()
        click.secho(sheet.title, bold=True)
        print_text(sheet)
