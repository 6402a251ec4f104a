"""`gw-cli usage`."""

from typing import Final

import click

from gatewright_cli import exits
from gatewright_cli.figures import usage_sheet
from gatewright_cli.options import Common, common_options
from gatewright_cli.sheets import TEXT, format_options, print_sheet
from gatewright_cli.slices import slice_of, slice_options
from gatewright_cli.spans import Span, span_options
from gatewright_cli.storing import looking

GROUPS: Final = ("model", "key", "route", "task", "user", "complexity", "estimator", "hour", "day", "month")
"""Values of `analytics_sql.By`, which takes SQLAlchemy to load; a test compares them."""


@click.command()
@click.option(
    "--by",
    "by",
    type=click.Choice(GROUPS),
    multiple=True,
    help="What is told apart; it can be given several times.  [default: model]",
)
@click.option(
    "-n", "--limit", type=click.IntRange(min=1), metavar="N", help="Most rows.  [default and most: 10000]"
)
@slice_options
@span_options()
@format_options
@common_options
def command(
    common: Common,
    /,
    *,
    by: tuple[str, ...],
    limit: int | None,
    only: dict[str, str],
    span: Span,
    output: str,
) -> int:
    """Show requests, tokens, money and time by model, key, route, task, user and time.

    The most expensive comes first; times come in their order, in UTC. JSON and CSV have more columns.
    """
    told_apart = tuple(dict.fromkeys(by)) or ("model",)
    with looking(common) as opened:
        if opened is None:
            print_sheet(None, output, "")
            return exits.DONE
        from gatewright_host.store.analytics import usage_rows  # noqa: PLC0415  # loads SQLAlchemy
        from gatewright_host.store.analytics_sql import By  # noqa: PLC0415  # the same

        within = slice_of(opened.store, span, only)
        rows = usage_rows(opened.store, [By(each) for each in told_apart], within=within, limit=limit)
        sheet = usage_sheet("usage", "Usage", told_apart, rows, opened.key_names())
    print_sheet(sheet, output, f"no requests ({span.text})" if output == TEXT else "")
    return exits.DONE
