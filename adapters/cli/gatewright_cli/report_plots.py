"""The plots of a report, by section. The only module that draws."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from plotly import graph_objects as go

from gatewright_cli.report_sections import Section
from gatewright_host.store.analytics import UsageRow

_MOST_GROUPS: Final = 8
"""More colours cannot be told apart; the rest is drawn together."""
_REST: Final = "all others"
_COLOURS: Final = (
    "#3366cc", "#e07b39", "#2a9d6f", "#b8457d", "#7a5bc0", "#c2a021", "#3aa6b9", "#8d6048", "#9aa0a6",
)  # fmt: skip
_RED: Final = "#c5402f"
_GREY: Final = "#9aa0a6"
_HEIGHT: Final = 340
_ROW_HEIGHT: Final = 30

Plot = tuple[str, go.Figure]


def plots_of(section: Section) -> list[Plot]:
    """Titles and figures of a section; none where there is nothing to draw."""
    draw = _DRAWN.get(section.sheet.name)
    return draw(section) if draw is not None and section.sheet.rows else []


# --- over time


def _over_time(section: Section) -> list[Plot]:
    rows, labels = section.over_time, section.labels()
    return [
        ("Cost", _stacked(rows, labels, lambda row: row.cost_usd, "US dollars", "$,.4~f")),
        (
            "Tokens",
            _stacked(rows, labels, lambda row: row.prompt_tokens + row.completion_tokens, "tokens", ",d"),
        ),
    ]


def _stacked(
    rows: Sequence[UsageRow],
    labels: Sequence[str],
    value: Callable[[UsageRow], float],
    unit: str,
    number_format: str,
) -> go.Figure:
    """Bars over time, one colour for each group, the largest group at the bottom."""
    totals: dict[str, float] = {}
    for row, label in zip(rows, labels, strict=True):
        totals[label] = totals.get(label, 0.0) + value(row)
    kept = sorted(totals, key=lambda label: (-totals[label], label))[:_MOST_GROUPS]
    by_group: dict[str, dict[str, float]] = {label: {} for label in kept}
    for row, label in zip(rows, labels, strict=True):
        group = by_group.setdefault(label if label in kept else _REST, {})
        group[row.group[0]] = group.get(row.group[0], 0.0) + value(row)
    figure = _figure(unit)
    for number, (label, values) in enumerate(by_group.items()):
        figure.add_bar(
            name=_short(label),
            x=list(values),
            y=list(values.values()),
            marker_color=_COLOURS[number % len(_COLOURS)],
            hovertemplate=f"%{{x}}<br>{_safe(label)}: %{{y:{number_format}}}<extra></extra>",
        )
    figure.update_layout(barmode="stack")
    return _with_time(figure, rows)


def _fallbacks(section: Section) -> list[Plot]:
    rows = section.over_time
    figure = _figure("share of requests")
    times = [row.group[0] for row in rows]
    saved = [row.fallback_successes / row.requests for row in rows]
    lost = [(row.fallbacks - row.fallback_successes) / row.requests for row in rows]
    for name, values, colour in (("saved by it", saved, _COLOURS[2]), ("failed all the same", lost, _RED)):
        figure.add_bar(name=name, x=times, y=values, marker_color=colour)
    figure.update_layout(barmode="stack")
    figure.update_yaxes(tickformat=".1%")
    return [("Requests that fell back", _with_time(figure, rows))]


def _selection(section: Section) -> list[Plot]:
    figure = _figure("milliseconds, 95th percentile")
    by_estimator: dict[str, list[UsageRow]] = {}
    for row, label in zip(section.over_time, section.labels(), strict=True):
        if row.select_p95_ms is not None:
            by_estimator.setdefault(label, []).append(row)
    for number, (label, rows) in enumerate(by_estimator.items()):
        figure.add_scatter(
            name=_short(label),
            x=[row.group[0] for row in rows],
            y=[row.select_p95_ms for row in rows],
            mode="lines+markers",
            line_color=_COLOURS[number % len(_COLOURS)],
        )
    # The estimators' times lie a thousandfold apart.
    figure.update_yaxes(type="log")
    drawn = [row for rows in by_estimator.values() for row in rows]
    return [("Time to choose, by estimator", _with_time(figure, drawn))] if drawn else []


def _with_time(figure: go.Figure, rows: Sequence[UsageRow]) -> go.Figure:
    times = sorted({row.group[0] for row in rows})
    if len(times) == 1:
        # A bar alone on an axis of dates is as wide as the plot, and its labels are milliseconds.
        figure.update_xaxes(type="category")
    else:
        figure.update_xaxes(type="date")
    return figure


# --- by group


def _tasks(section: Section) -> list[Plot]:
    sheet = section.sheet
    names = [
        _pair(task, model) for task, model in zip(sheet.values("task"), sheet.values("model"), strict=True)
    ]
    success = _intervals(names, sheet.values("success_rate"), sheet.values("low"), sheet.values("high"))
    success.update_xaxes(tickformat=".0%", range=[0, 1.02])
    latency = _rows_figure(len(names))
    for name, column, colour in (
        ("median", "latency_p50_ms", _COLOURS[0]),
        ("95th percentile", "latency_p95_ms", _COLOURS[1]),
    ):
        latency.add_scatter(
            name=name,
            x=sheet.values(column),
            y=names,
            mode="markers",
            marker={"size": 11, "color": colour},
        )
    latency.update_xaxes(title="milliseconds", rangemode="tozero")
    return [("Success, with its 95 % interval", success), ("Latency of successes", latency)]


def _budgets(section: Section) -> list[Plot]:
    rows = [row for row in section.sheet.plain() if row["configured"]]
    if not rows:
        return []
    names = [_short(row["account"]) for row in rows]
    figure = _rows_figure(len(names))
    for name, column, colour in (
        ("spent", "spent_usd", _COLOURS[0]),
        ("reserved", "reserved_usd", _COLOURS[5]),
    ):
        shares = [row[column] / row["limit_usd"] if row["limit_usd"] else None for row in rows]
        figure.add_bar(name=name, x=shares, y=names, orientation="h", marker_color=colour)
    figure.update_layout(barmode="stack")
    figure.update_xaxes(tickformat=".0%", rangemode="tozero")
    figure.add_vline(x=1.0, line_color=_RED, line_width=2)
    return [("Use of each budget in its present window", figure)]


def _estimators(section: Section) -> list[Plot]:
    sheet = section.sheet
    known = [row for row in sheet.plain() if row["auroc"] is not None]
    if not known:
        return []
    names = [_short(row["estimator"]) for row in known]
    figure = _intervals(
        names, [row["auroc"] for row in known], [row["low"] for row in known], [row["high"] for row in known],
        name="estimator",
    )  # fmt: skip
    figure.add_scatter(
        name="length of the prompt alone",
        x=[row["length_auroc"] for row in known],
        y=names,
        mode="markers",
        marker={"size": 11, "symbol": "diamond-open", "color": _COLOURS[1], "line": {"width": 2}},
    )
    figure.update_xaxes(range=[0, 1.02], title="AUROC")
    figure.update_layout(showlegend=True)
    figure.add_vline(x=0.5, line_color=_GREY, line_dash="dash")
    return [("Failures told from successes; 0.5 is chance", figure)]


def _calibration(section: Section) -> list[Plot]:
    figure = _figure("success")
    by_estimator: dict[str, list[dict[str, Any]]] = {}
    for row in section.sheet.plain():
        by_estimator.setdefault(row["estimator"], []).append(row)
    for number, (estimator, rows) in enumerate(by_estimator.items()):
        figure.add_scatter(
            name=_short(estimator),
            x=[row["complexity"] for row in rows],
            y=[row["success_rate"] for row in rows],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [row["high"] - row["success_rate"] for row in rows],
                "arrayminus": [row["success_rate"] - row["low"] for row in rows],
            },
            mode="lines+markers",
            line_color=_COLOURS[number % len(_COLOURS)],
        )
    order = ["trivial", "simple", "moderate", "complex", "expert"]
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=order)
    figure.update_yaxes(tickformat=".0%", range=[0, 1.05])
    return [("Success by estimated complexity", figure)]


def _comparison(section: Section) -> list[Plot]:
    rows = section.sheet.plain()
    names = [f"{_short(row['first'])} against {_short(row['second'])}" for row in rows]
    figure = _intervals(
        names,
        [row["difference"] for row in rows],
        [row["low"] for row in rows],
        [row["high"] for row in rows],
    )
    figure.update_xaxes(tickformat="+.0%", zeroline=False)
    figure.add_vline(x=0.0, line_color=_GREY, line_dash="dash")
    return [("Difference in success on work of the same kind, with its 95 % interval", figure)]


def _values(section: Section) -> list[Plot]:
    sheet = section.sheet
    names = [_short(name) for name in sheet.values("model")]
    figure = _intervals(
        names, sheet.values("success"), sheet.values("low"), sheet.values("high"), name="all requests"
    )
    figure.add_scatter(
        name="the requests that it had",
        x=sheet.values("observed"),
        y=names,
        mode="markers",
        marker={"size": 11, "symbol": "diamond-open", "color": _COLOURS[1], "line": {"width": 2}},
    )
    figure.update_xaxes(tickformat=".0%", range=[0, 1.02])
    figure.update_layout(showlegend=True)
    return [("Success, with its 95 % interval", figure)]


def _experiments(section: Section) -> list[Plot]:
    rows = [row for row in section.sheet.plain() if row["success"] is not None]
    if not rows:
        return []
    names = [_pair(row["experiment"], row["arm"]) for row in rows]
    figure = _intervals(
        names,
        [row["success"] for row in rows],
        [row["success_low"] for row in rows],
        [row["success_high"] for row in rows],
    )
    figure.update_xaxes(tickformat=".0%", range=[0, 1.02])
    return [("Success of each arm; bounds that hold however often one looks", figure)]


# --- shapes


def _figure(unit: str) -> go.Figure:
    figure = go.Figure()
    figure.update_layout(
        template="plotly_white",
        height=_HEIGHT,
        margin={"l": 64, "r": 16, "t": 12, "b": 40},
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        showlegend=True,
    )
    figure.update_yaxes(title=unit, rangemode="tozero")
    return figure


def _rows_figure(rows: int) -> go.Figure:
    """For one row of marks or bars for each name, the first at the top."""
    figure = _figure("")
    figure.update_layout(
        height=max(180, 110 + _ROW_HEIGHT * rows), margin={"l": 16, "r": 16, "t": 12, "b": 48}
    )
    figure.update_yaxes(autorange="reversed", automargin=True, type="category", title=None)
    return figure


def _intervals(
    names: Sequence[str],
    values: Sequence[float],
    lows: Sequence[float],
    highs: Sequence[float],
    *,
    name: str = "",
) -> go.Figure:
    figure = _rows_figure(len(names))
    figure.add_scatter(
        name=name,
        x=list(values),
        y=list(names),
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [high - value for value, high in zip(values, highs, strict=True)],
            "arrayminus": [value - low for value, low in zip(values, lows, strict=True)],
            "thickness": 2,
            "width": 5,
        },
        mode="markers",
        marker={"size": 11, "color": _COLOURS[0]},
        customdata=list(zip(lows, highs, strict=True)),
        hovertemplate="%{y}: %{x:.3f} (%{customdata[0]:.3f} to %{customdata[1]:.3f})<extra></extra>",
    )
    figure.update_layout(showlegend=False)
    return figure


def _pair(first: str, second: str) -> str:
    return f"{_short(first)} / {_short(second)}" if first else _short(second)


_LONGEST_LABEL: Final = 40


def _short(text: str) -> str:
    """A label that leaves room for the plot, without the HTML that the plotting library would take for its own."""
    label = text or "none"
    return _safe(label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…")


def _safe(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("%{", "% {")


_DRAWN: Final[Mapping[str, Callable[[Section], list[Plot]]]] = {
    "models": _over_time,
    "keys": _over_time,
    "routes": _over_time,
    "tasks": _tasks,
    "budgets": _budgets,
    "fallbacks": _fallbacks,
    "selection": _selection,
    "estimators": _estimators,
    "calibration": _calibration,
    "comparison": _comparison,
    "values": _values,
    "experiments": _experiments,
}
