"""The figures of the store as sheets: what `usage`, `ranking` and `report` have in common."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from gatewright_cli.sheets import (
    Column,
    Sheet,
    as_count,
    as_flag,
    as_money,
    as_ms,
    as_ratio,
    as_share,
    sheet_of,
)
from gatewright_cli.spans import date_text

if TYPE_CHECKING:
    from gatewright.accounting.offpolicy import ModelValue
    from gatewright_host.store.analytics import UsageRow
    from gatewright_host.store.analytics_comparison import ComparisonRow
    from gatewright_host.store.analytics_estimators import CalibrationRow, EstimatorRow
    from gatewright_host.store.analytics_ranking import RankingRow
    from gatewright_host.store.vocabulary import BudgetUse


def _window_end(at_s: float) -> str:
    """Of a budget on which nothing was charged yet nobody has worked out the window."""
    return date_text(at_s or None)


USAGE_COLUMNS: Final = (
    Column("requests", "REQUESTS", as_count),
    Column("errors", "ERRORS", as_count),
    Column("canceled", "CANCELED", as_count),
    Column("prompt_tokens", "IN", as_count),
    Column("cached_tokens", "CACHED", as_count),
    Column("completion_tokens", "OUT", as_count),
    Column("cost_usd", "COST", as_money),
    Column("estimated_cost_usd", "ESTIMATED", as_money),
    Column("fallbacks", "FALLBACKS", as_count),
    Column("fallback_successes", "SAVED", as_count),
    Column("decided", "DECIDED", as_count),
    Column("select_mean_ms", "SELECT", as_ms),
    Column("select_p95_ms", "SELECT95", as_ms),
    Column("latency_p50_ms", "P50", as_ms),
    Column("latency_p95_ms", "P95", as_ms),
    Column("first_byte_p50_ms", "TTFT50", as_ms),
    Column("first_byte_p95_ms", "TTFT95", as_ms),
)
USAGE_SHOWN: Final = (
    "requests", "errors", "prompt_tokens", "cached_tokens", "completion_tokens", "cost_usd", "estimated_cost_usd",
    "fallbacks", "latency_p50_ms", "latency_p95_ms", "first_byte_p50_ms",
)  # fmt: skip
"""What fits a terminal; JSON and CSV have all."""

_RANKING: Final = (
    Column("task", "TASK", right=False),
    Column("model", "MODEL", right=False),
    Column("calls", "CALLS", as_count),
    Column("success_rate", "SUCCESS", as_share),
    Column("low", "AT LEAST", as_share),
    Column("high", "AT MOST", as_share),
    Column("rated", "RATED", as_count),
    Column("unavailable", "AWAY", as_count),
    Column("latency_p50_ms", "P50", as_ms),
    Column("latency_p95_ms", "P95", as_ms),
    Column("latency_mean_ms", "MEAN", as_ms),
    Column("first_token_p50_ms", "TTFT50", as_ms),
    Column("cost_usd", "COST", as_money),
    Column("cost_per_call_usd", "PER CALL", as_money),
)
_RANKING_SHOWN: Final = (
    "task", "model", "calls", "success_rate", "low", "high", "rated", "unavailable", "latency_p50_ms",
    "latency_p95_ms", "cost_per_call_usd",
)  # fmt: skip

_COMPARISON: Final = (
    Column("first", "MODEL", right=False),
    Column("second", "AGAINST", right=False),
    Column("kinds", "KINDS", as_count),
    Column("first_calls", "CALLS", as_count),
    Column("second_calls", "CALLS", as_count),
    Column("first_success", "SUCCESS", as_share),
    Column("second_success", "SUCCESS", as_share),
    Column("difference", "DIFFERENCE", as_ratio),
    Column("low", "AT LEAST", as_ratio),
    Column("high", "AT MOST", as_ratio),
    Column("first_cost_usd", "PER CALL", as_money),
    Column("second_cost_usd", "PER CALL", as_money),
    Column("first_latency_ms", "LATENCY", as_ms),
    Column("second_latency_ms", "LATENCY", as_ms),
    Column("is_weighed", "WEIGHED", as_flag, right=False),
)

_VALUES: Final = (
    Column("model", "MODEL", right=False),
    Column("requests", "REQUESTS", as_count),
    Column("effective_requests", "WORTH", lambda number: f"{number:.0f}"),
    Column("observed", "OBSERVED", as_share),
    Column("success", "SUCCESS", as_share),
    Column("low", "AT LEAST", as_share),
    Column("high", "AT MOST", as_share),
    Column("cost_usd", "PER CALL", as_money),
    Column("latency_ms", "LATENCY", as_ms),
    Column("coverage", "COVERAGE", as_share),
    Column("is_comparable", "COMPARABLE", as_flag, right=False),
)

_ESTIMATORS: Final = (
    Column("estimator", "ESTIMATOR", right=False),
    Column("requests", "REQUESTS", as_count),
    Column("failures", "FAILURES", as_count),
    Column("pairs", "PAIRS", as_count),
    Column("auroc", "AUROC", as_ratio),
    Column("low", "AT LEAST", as_ratio),
    Column("high", "AT MOST", as_ratio),
    Column("length_auroc", "LENGTH ALONE", as_ratio),
)

_CALIBRATION: Final = (
    Column("estimator", "ESTIMATOR", right=False),
    Column("complexity", "COMPLEXITY", right=False),
    Column("requests", "REQUESTS", as_count),
    Column("mean_score", "SCORE", as_ratio),
    Column("success_rate", "SUCCESS", as_share),
    Column("low", "AT LEAST", as_share),
    Column("high", "AT MOST", as_share),
)

_BUDGETS: Final = (
    Column("account", "ACCOUNT", right=False),
    Column("key_name", "KEY", right=False),
    Column("limit_usd", "LIMIT", as_money),
    Column("spent_usd", "SPENT", as_money),
    Column("reserved_usd", "RESERVED", as_money),
    Column("left_usd", "LEFT", as_money),
    Column("used", "USED", as_share),
    Column("hard", "HARD", as_flag, right=False),
    Column("window", "WINDOW", right=False),
    Column("starts_s", "FROM", _window_end, right=False),
    Column("ends_s", "TO", _window_end, right=False),
    Column("requests", "REQUESTS", as_count),
    Column("tokens", "TOKENS", as_count),
    Column("configured", "CONFIGURED", as_flag, right=False),
)


def usage_sheet(
    name: str,
    title: str,
    by: Sequence[str],
    rows: Sequence["UsageRow"],
    key_names: Mapping[str, str],
    *,
    shown: Sequence[str] = USAGE_SHOWN,
    note: str = "",
) -> Sheet:
    """Usage by group; keys by their names."""
    groups = tuple(Column(each, each.upper(), right=False) for each in by)
    values = []
    for row in rows:
        labels = [
            key_names.get(label, label) if each == "key" else label
            for each, label in zip(by, row.group, strict=True)
        ]
        figures = [getattr(row, column.name) for column in USAGE_COLUMNS]
        values.append((*labels, *figures))
    return Sheet(
        name=name,
        title=title,
        columns=groups + USAGE_COLUMNS,
        rows=tuple(values),
        shown=(*by, *shown),
        note=note,
    )


def ranking_sheet(rows: Sequence["RankingRow"], *, together: bool = False) -> Sheet:
    """Who does which task best."""
    first = 1 if together else 0
    return sheet_of(
        "tasks", "Success and latency by task", _RANKING[first:], rows, shown=_RANKING_SHOWN[first:]
    )


def comparison_sheet(rows: Sequence["ComparisonRow"]) -> Sheet:
    """One model against another."""
    return sheet_of(
        "comparison",
        "One model against another, on work of the same kind",
        _COMPARISON,
        rows,
        note="Compared within the same task and complexity; a difference whose bounds have 0 between them is none.",
    )


def values_sheet(rows: Sequence["ModelValue"]) -> Sheet:
    """Each model as if it had had all requests."""
    return sheet_of(
        "values",
        "Each model as if it had had all requests",
        _VALUES,
        rows,
        note="Outcomes weigh by the inverse of the probability with which their model was chosen. Where COVERAGE is far "
        "from 100 %, a model had no chance with some requests, and its figures stand for the others only.",
    )


def estimators_sheet(rows: Sequence["EstimatorRow"]) -> Sheet:
    """Whether the estimators are worth anything."""
    return sheet_of(
        "estimators",
        "Accuracy of the estimators",
        _ESTIMATORS,
        rows,
        note="AUROC: the chance that of a failure and a success of the same model the failure was thought to be harder; "
        "0.5 is worth nothing, and one that does not beat the prompt's length alone is not worth its time.",
    )


def calibration_sheet(rows: Sequence["CalibrationRow"]) -> Sheet:
    """What came of what was thought to be hard."""
    return sheet_of("calibration", "Success by estimated complexity", _CALIBRATION, rows)


def budgets_sheet(uses: Sequence["BudgetUse"]) -> Sheet:
    """How much of each budget is used."""
    rows: list[tuple[Any, ...]] = []
    for use in uses:
        extra = {
            "used": (use.spent_usd + use.reserved_usd) / use.limit_usd if use.limit_usd else None,
            "window": f"{use.window.kind.value} {use.window.period}",
        }
        rows.append(
            tuple(
                extra[column.name] if column.name in extra else getattr(use, column.name)
                for column in _BUDGETS
            )
        )
    note = ""
    if not all(use.configured for use in uses):
        note = (
            "What is not CONFIGURED limits nothing any more; it is forgotten a month after its last request."
        )
    return Sheet(name="budgets", title="Budgets", columns=_BUDGETS, rows=tuple(rows), note=note)
