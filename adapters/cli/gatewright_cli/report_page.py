"""The report as one page of HTML that needs nothing else: no network, no second file."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from plotly.offline import get_plotlyjs

from gatewright_cli.report_plots import Plot, plots_of
from gatewright_cli.report_sections import Section
from gatewright_cli.sheets import Sheet, as_count, as_money, as_ms, as_share
from gatewright_cli.spans import date_text

_POLICY: Final = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
"""Whatever the plotting library may have in mind, the browser fetches nothing."""

_PLOT_CONFIG: Final = {"displaylogo": False, "responsive": True, "displayModeBar": False}

_STYLE: Final = """
:root { color-scheme: light; --ink: #1d2733; --soft: #5b6875; --line: #dfe4ea; --paper: #ffffff; --ground: #f4f6f8; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
header, main { max-width: 1180px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 32px; }
h1 { margin: 0; font-size: 28px; }
h2 { margin: 0 0 12px; font-size: 19px; }
h3 { margin: 8px 0 4px; font-size: 14px; font-weight: 600; color: var(--soft); }
p { margin: 4px 0; color: var(--soft); }
nav { margin: 12px 0 4px; display: flex; flex-wrap: wrap; gap: 4px 16px; }
nav a { color: #2b5bb5; text-decoration: none; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px; margin: 18px 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(132px, 1fr)); gap: 12px; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; }
.card b { display: block; font-size: 22px; font-variant-numeric: tabular-nums; white-space: nowrap; }
.card span { color: var(--soft); font-size: 13px; }
.plots { display: grid; grid-template-columns: minmax(0, 1fr); gap: 8px 24px; }
.plots.two { grid-template-columns: repeat(2, minmax(0, 1fr)); }
@media (max-width: 900px) { .plots.two { grid-template-columns: minmax(0, 1fr); } }
.plots > div { min-width: 0; }
.table { overflow-x: auto; margin-top: 8px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 10px; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; font-size: 11px; }
.number { text-align: right; }
td:last-child:not(.number) { white-space: normal; min-width: 170px; }
@media print { body { background: none; } section { break-inside: avoid; } nav { display: none; } }
"""


def page(sections: Sequence[Section], span: str, only: Mapping[str, str], now_s: float) -> str:
    """The whole page.

    Args:
        sections: What is in it; those without figures say so.
        span: The time that it is about, for people.
        only: Conditions on the requests, by name.
        now_s: Unix time.
    """
    drawn = [(section, plots_of(section)) for section in sections]
    about = ", ".join([span, *[f"{name} {value}" for name, value in only.items()]])
    links = "".join(
        f'<a href="#{section.sheet.name}">{escape(section.sheet.title)}</a>' for section in sections
    )
    script = f"<script>{get_plotlyjs()}</script>" if any(plots for _, plots in drawn) else ""
    body = "".join(_section(section, plots) for section, plots in drawn)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Gatewright report</title>\n<style>{_STYLE}</style>\n{script}\n</head>\n<body>\n"
        f"<header><h1>Gatewright report</h1><p>{escape(about)}; made {date_text(now_s)} UTC</p>"
        f"<nav>{links}</nav></header>\n<main>{body}</main>\n</body>\n</html>\n"
    )


def _section(section: Section, plots: Sequence[Plot]) -> str:
    sheet = section.sheet
    inner = f'<section id="{sheet.name}"><h2>{escape(sheet.title)}</h2>'
    if not sheet.rows:
        return f"{inner}<p>Nothing is recorded.</p></section>\n"
    if sheet.name == "overview":
        return f"{inner}{_cards(sheet)}</section>\n"
    if plots:
        # Each plot is drawn while the next one is not there yet: the number of columns must not depend on that.
        kind = "plots two" if len(plots) > 1 else "plots"
        inner += f'<div class="{kind}">' + "".join(_plot(plot) for plot in plots) + "</div>"
    note = f"<p>{escape(sheet.note)}</p>" if sheet.note else ""
    return f"{inner}{_table(sheet)}{note}</section>\n"


def _plot(plot: Plot) -> str:
    title, figure = plot
    drawn = figure.to_html(full_html=False, include_plotlyjs=False, config=_PLOT_CONFIG)
    return f"<div><h3>{escape(title)}</h3>{drawn}</div>"


def _table(sheet: Sheet) -> str:
    columns, rows = sheet.text_rows()
    kinds = [' class="number"' if column.right else "" for column in columns]
    heads = "".join(
        f"<th{kind}>{escape(column.head)}</th>" for kind, column in zip(kinds, columns, strict=True)
    )
    lines = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{escape(text or '-')}</td>" for kind, text in zip(kinds, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return f'<div class="table"><table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>'


def _cards(sheet: Sheet) -> str:
    (row,) = sheet.plain()
    requests = row["requests"]
    cards = {
        "requests": as_count(requests),
        "canceled": as_count(row["canceled"]),
        "failed": as_share(row["errors"] / requests),
        "spent": as_money(row["cost_usd"]),
        "estimated": as_money(row["estimated_cost_usd"]),
        "tokens in": _large(row["prompt_tokens"]),
        "of these cached": as_share(
            row["cached_tokens"] / row["prompt_tokens"] if row["prompt_tokens"] else 0.0
        ),
        "tokens out": _large(row["completion_tokens"]),
        "fell back": as_share(row["fallbacks"] / requests),
        "of these saved": as_share(row["fallback_successes"] / row["fallbacks"]) if row["fallbacks"] else "",
        "latency, median": as_ms(row["latency_p50_ms"]),
        "latency, 95th percentile": as_ms(row["latency_p95_ms"]),
        "first token, median": as_ms(row["first_byte_p50_ms"]),
        "time to choose, mean": as_ms(row["select_mean_ms"]),
    }
    shown = "".join(
        f'<div class="card"><b>{escape(text or "-")}</b><span>{escape(name)}</span></div>'
        for name, text in cards.items()
    )
    return f'<div class="cards">{shown}</div>'


def _large(number: int) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)
