"""`gw-cli ranking`."""

import click

from gatewright_cli import exits
from gatewright_cli.figures import ranking_sheet
from gatewright_cli.options import Common, common_options
from gatewright_cli.sheets import TEXT, format_options, print_sheet
from gatewright_cli.slices import slice_of, slice_options
from gatewright_cli.spans import Span, span_options
from gatewright_cli.storing import looking


@click.command()
@click.option(
    "--min-calls",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    show_default=True,
    help="Leave out models with fewer calls.",
)
@click.option("--together", is_flag=True, help="Take all tasks together.")
@slice_options
@span_options("all")
@format_options
@common_options
def command(
    common: Common,
    /,
    *,
    min_calls: int,
    together: bool,
    only: dict[str, str],
    span: Span,
    output: str,
) -> int:
    """Show which model does which task best, by what came of the requests.

    The one whose success is the surest comes first: AT LEAST and AT MOST are the bounds between which its rate of
    success lies with 95 %. A call is a success if there was an answer, unless feedback says otherwise (RATED). AWAY
    counts calls that did not reach the provider at all.
    """
    with looking(common) as opened:
        if opened is None:
            print_sheet(None, output, "")
            return exits.DONE
        from gatewright_host.store.analytics_ranking import ranking_rows  # noqa: PLC0415  # loads SQLAlchemy

        within = slice_of(opened.store, span, only)
        rows = ranking_rows(opened.store, min_calls=min_calls, within=within, together=together)
    sheet = ranking_sheet(rows, together=together)
    print_sheet(sheet, output, f"no outcomes ({span.text})" if output == TEXT else "")
    return exits.DONE
