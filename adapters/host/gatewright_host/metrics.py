"""What `/metrics` shows Prometheus: the figures of all processes that share a state directory.

Servers have one of these, and `gw-cli feedback`; `gw-cli ask` neither counts nor pays for it.
"""

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from gatewright.commands import Outcome, RecordRequest
from gatewright.wire.fields import Headers
from gatewright_host import figures
from gatewright_host.figure_files import Addition, FigureFiles, Key
from gatewright_host.figures import FIGURES, Figure, FigureKind
from gatewright_host.host_client import BlockingHostClient
from gatewright_host.host_protocol import HostLost, HostRefused
from gatewright_host.host_status import HostStatus
from gatewright_host.state_dir import StateDir
from gatewright_host.store.vocabulary import BudgetUse

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

_MOST_VALUES: Final = 500
"""Of one label, in one process. What comes after them is counted as `OTHER`: a series for each would fill memories."""
OTHER: Final = "other"
_MOST_ACCOUNTS: Final = 500

Asked = tuple[Figure, tuple[str, ...], float]
"""A figure, the values of its labels, and its value."""


class Metrics:
    """The figures of a serving process. Any thread may call it.

    Args:
        state: State directory, whose other servers are counted too.
        dropped: Tells how many requests this process could not write down so far.
        budgets: Tells how much of each budget is used; it may take its time, and may fail.
    """

    def __init__(
        self,
        state: StateDir,
        *,
        dropped: Callable[[], int] | None = None,
        budgets: Callable[[], Iterable[BudgetUse]] | None = None,
    ) -> None:
        live = [name for name, figure in FIGURES.items() if figure.kind is FigureKind.GAUGE]
        self._state = state
        self._dropped = dropped
        self._budgets = budgets
        self._files = FigureFiles(state.path / "metrics", live)
        self._lock = threading.Lock()
        self._under_way: set[str] = set()
        self._dropped_before = 0
        self._values: dict[str, set[str]] = defaultdict(set)
        self._keys: set[Key] = set()

    # --- what happens

    def begin(self, request_id: str) -> None:
        """A request is under way."""
        with self._lock:
            self._under_way.add(request_id)
            self._files.set((figures.IN_FLIGHT.name,), len(self._under_way))

    def gone(self, request_id: str) -> None:
        """It is no longer; for requests that end without a record, and harmless for others."""
        with self._lock:
            self._under_way.discard(request_id)
            self._files.set((figures.IN_FLIGHT.name,), len(self._under_way))

    def observe(self, record: RecordRequest) -> None:
        """A request has ended."""
        with self._lock:
            self._under_way.discard(record.request_id)
            under_way = len(self._under_way)
        model, route = record.model or "", record.route or ""
        count, measure = self._counted, self._measured
        additions = [
            count(figures.REQUESTS, model, route, str(record.status), record.outcome.value),
            measure(figures.TOTAL, record.total_s, model),
            measure(figures.WAIT, record.wait_s, model),
        ]
        if record.first_byte_s is not None:
            additions.append(measure(figures.FIRST_TOKEN, record.first_byte_s, model))
        if record.usage is not None:
            tokens = record.usage
            for kind, amount in (
                ("prompt", tokens.prompt_tokens),
                ("completion", tokens.completion_tokens),
                ("cached", tokens.cached_tokens),
            ):
                if amount > 0:
                    additions.append(count(figures.TOKENS, model, route, kind, amount=amount))
        if record.cost_usd > 0:
            additions.append(count(figures.COST, model, route, amount=record.cost_usd))
        if record.decision is not None:
            additions.append(measure(figures.SELECTION, record.select_s, route))
            if record.decision.complexity is not None:
                additions.append(count(figures.COMPLEXITY, route, record.decision.complexity.value))
        if record.failed_attempts or record.outcome in _FAILED:
            additions.extend(self._failures(record, model, route))
        self._files.add(additions, {(figures.IN_FLIGHT.name,): under_way})
        self._look_at_dropped()

    def _failures(self, record: RecordRequest, model: str, route: str) -> Iterator[Addition]:
        if record.outcome in _FAILED:
            kind = record.problem.kind if record.problem is not None else record.outcome.value
            yield self._counted(figures.ERRORS, model, kind)
        for failed in record.failed_attempts:
            yield self._counted(figures.FAILED_ATTEMPTS, failed.model, failed.kind)
        if any(failed.model != record.model for failed in record.failed_attempts):
            yield self._counted(figures.FALLBACKS, route, record.outcome.value)

    def observe_feedback(self, model: str | None, score: float) -> None:
        """Somebody has said how good an answer is."""
        self._files.add([self._measured(figures.FEEDBACK, score, model or "")])

    def _counted(self, figure: Figure, *labels: str, amount: float = 1) -> Addition:
        return self._key(figure, labels), ((0, amount),), 1

    def _measured(self, figure: Figure, size: float, *labels: str) -> Addition:
        bucket, cells = bisect_left(figure.bounds, size), figure.cells
        return self._key(figure, labels), ((bucket, 1.0), (cells - 1, max(size, 0.0))), cells

    def _key(self, figure: Figure, labels: tuple[str, ...]) -> Key:
        wanted = (figure.name, *labels)
        if wanted in self._keys:
            return wanted
        with self._lock:
            bounded = [self._bounded(name, value) for name, value in zip(figure.labels, labels, strict=True)]
        key = (figure.name, *bounded)
        if key == wanted:
            self._keys.add(key)
        return key

    def _bounded(self, name: str, value: str) -> str:
        values = self._values[name]
        if value not in values:
            if len(values) >= _MOST_VALUES:
                return OTHER
            values.add(value)
        return value

    def _look_at_dropped(self) -> None:
        if self._dropped is None:
            return
        with self._lock:
            dropped = self._dropped()
            new, self._dropped_before = dropped - self._dropped_before, dropped
        if new > 0:
            self._files.add([self._counted(figures.DROPPED, amount=new)])

    # --- what is shown

    def render(self, accept: str = "") -> tuple[Headers, bytes]:
        """All figures, in the text format of Prometheus or in OpenMetrics; blocks for a few milliseconds.

        Args:
            accept: What the client takes, its `Accept` header.
        """
        # Those who are not asked for it need not wait for its import.
        from prometheus_client.exposition import choose_encoder  # noqa: PLC0415

        self._look_at_dropped()
        encode, content_type = choose_encoder(accept)
        body = encode(_Collected(self._collect()))
        return ((b"content-type", content_type.encode("latin-1")),), body

    def close(self) -> None:
        """This process counts no more; what it has counted stays."""
        self._files.close()

    def _collect(self) -> "list[Metric]":
        found: dict[str, list[tuple[tuple[str, ...], list[float]]]] = defaultdict(list)
        for (name, *labels), cells in sorted(self._files.totals().items()):
            figure = FIGURES.get(name)
            if figure is not None and len(labels) == len(figure.labels) and len(cells) == figure.cells:
                found[name].append((tuple(labels), cells))
        for figure, labels_asked, value in self._ask():
            found[figure.name].append((labels_asked, [value]))
        return [_family(figure, found[name]) for name, figure in FIGURES.items()]

    def _ask(self) -> Iterator[Asked]:
        yield from _budget_figures(self._budgets() if self._budgets is not None else ())
        status = self._host_status()
        if status is not None:
            yield from _engine_figures(status)

    def _host_status(self) -> HostStatus | None:
        """What the engine host says, if one runs."""
        try:
            with BlockingHostClient.connect(self._state, start=False, watch=True) as client:
                return client.status()
        except (HostLost, HostRefused, OSError):
            return None


_FAILED: Final = frozenset((Outcome.FAILED, Outcome.BROKE_OFF, Outcome.UPSTREAM_ERROR))


class _Collected:
    """What an encoder takes for a registry."""

    def __init__(self, metrics: "list[Metric]") -> None:
        self._metrics = metrics

    def collect(self) -> "list[Metric]":
        return self._metrics


def _budget_figures(budgets: Iterable[BudgetUse]) -> Iterator[Asked]:
    # Where each key has a budget of its own, those that matter are those of which most is used.
    most = sorted(
        budgets, key=lambda use: (use.left_usd / use.limit_usd if use.limit_usd else 0.0, use.account)
    )
    for use in sorted(most[:_MOST_ACCOUNTS], key=lambda use: use.account):
        yield figures.BUDGET_LIMIT, (use.account,), use.limit_usd
        yield figures.BUDGET_SPENT, (use.account,), use.spent_usd
        yield figures.BUDGET_RESERVED, (use.account,), use.reserved_usd


def _engine_figures(status: HostStatus) -> Iterator[Asked]:
    waiting: dict[str, int] = {}
    for report in status.engines:
        engine = report.engine
        context = str(engine.context_tokens)
        # A request in the queue suits several variants of its model: it is the longest of these numbers that waits.
        waiting[engine.model] = max(waiting.get(engine.model, 0), engine.waiting)
        yield figures.ENGINE_STATE, (engine.model, context, engine.state), 1
        yield figures.ENGINE_BUSY, (engine.model, context), engine.leases
        if engine.slots is not None:
            yield figures.ENGINE_SLOTS, (engine.model, context), engine.slots
    for model, number in waiting.items():
        yield figures.QUEUE, (model,), number


def _family(figure: Figure, rows: list[tuple[tuple[str, ...], list[float]]]) -> "Metric":
    from prometheus_client.metrics_core import (  # noqa: PLC0415  # see `render`
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    match figure.kind:
        case FigureKind.COUNTER:
            counter = CounterMetricFamily(figure.name, figure.text, labels=figure.labels)
            for labels, cells in rows:
                counter.add_metric(labels, cells[0])
            return counter
        case FigureKind.GAUGE:
            gauge = GaugeMetricFamily(figure.name, figure.text, labels=figure.labels)
            for labels, cells in rows:
                gauge.add_metric(labels, cells[0])
            return gauge
        case FigureKind.HISTOGRAM:
            histogram = HistogramMetricFamily(figure.name, figure.text, labels=figure.labels)
            for labels, (*counts, total) in rows:
                histogram.add_metric(labels, _buckets(figure.bounds, counts), total)
            return histogram


def _buckets(bounds: tuple[float, ...], counts: list[float]) -> list[tuple[str, float]]:
    """Prometheus counts in each bucket what is in the smaller ones too."""
    sums = []
    so_far = 0.0
    for bound, count in zip((*(f"{each:g}" for each in bounds), "+Inf"), counts, strict=True):
        so_far += count
        sums.append((bound, so_far))
    return sums
