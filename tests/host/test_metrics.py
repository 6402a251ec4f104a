"""Figures of one process and of several, as a scraper reads them."""

import json
import multiprocessing
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from prometheus_client.parser import text_string_to_metric_families

from gatewright.api.facts import Usage
from gatewright.commands import Outcome, RecordRequest
from gatewright.errors import FailedAttempt, UpstreamTimeout
from gatewright.fleet import EngineStatus
from gatewright.ids import RequestId
from gatewright.selection.complexity import TaskComplexity
from gatewright.selection.decision import Decision
from gatewright_host import figure_files
from gatewright_host.figure_files import FigureFiles
from gatewright_host.figures import FIGURES, FigureKind
from gatewright_host.host_status import EngineReport, HostStatus
from gatewright_host.metrics import OTHER, Metrics
from gatewright_host.state_dir import StateDir
from gatewright_host.store.vocabulary import BudgetUse
from tests.support.host import until_blocking

ROOT = Path(__file__).parents[2]
FORK = multiprocessing.get_context("fork")
ANSWERED = RecordRequest(
    request_id=RequestId("req_1"),
    outcome=Outcome.ANSWERED,
    path="/v1/chat/completions",
    model="qwen",
    route="auto",
    status=200,
    attempts=1,
    usage=Usage(prompt_tokens=100, completion_tokens=20, cached_tokens=30),
    cost_usd=0.25,
    wait_s=0.02,
    first_byte_s=0.1,
    total_s=2.0,
    select_s=0.0002,
    decision=Decision(chain=("qwen",), complexity=TaskComplexity.SIMPLE),
)
FAILED = RecordRequest(
    request_id=RequestId("req_2"),
    outcome=Outcome.FAILED,
    path="/v1/chat/completions",
    model="gpt",
    status=504,
    problem=UpstreamTimeout("silent").problem,
    failed_attempts=(
        FailedAttempt(model="qwen", kind="EngineCrashed", message="died"),
        FailedAttempt(model="gpt", kind="UpstreamTimeout", message="silent"),
    ),
)


@pytest.fixture
def metrics(state: StateDir) -> Iterator[Metrics]:
    counting = Metrics(state)
    yield counting
    counting.close()


def samples(metrics: Metrics, accept: str = "") -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    _, body = metrics.render(accept)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, tuple(sorted(labels.items()))))


# --- what is counted


def test_an_answered_request(metrics: Metrics):
    metrics.observe(ANSWERED)
    metrics.observe(ANSWERED)
    found = samples(metrics)

    def of(name: str, **labels: str) -> float:
        return found[f"gatewright_{name}", tuple(sorted(labels.items()))]

    assert of("requests_total", model="qwen", route="auto", status="200", outcome="answered") == 2
    assert of("tokens_total", model="qwen", route="auto", kind="prompt") == 200
    assert of("tokens_total", model="qwen", route="auto", kind="completion") == 40
    assert of("tokens_total", model="qwen", route="auto", kind="cached") == 60
    assert of("cost_usd_total", model="qwen", route="auto") == 0.5
    assert of("complexity_total", route="auto", complexity="simple") == 2
    assert of("request_seconds_sum", model="qwen") == 4.0
    assert of("request_seconds_count", model="qwen") == 2
    assert of("request_seconds_bucket", model="qwen", le="1") == 0
    assert of("request_seconds_bucket", model="qwen", le="2.5") == 2
    assert of("request_seconds_bucket", model="qwen", le="+Inf") == 2
    assert of("first_token_seconds_bucket", model="qwen", le="0.1") == 2  # a bound belongs to its bucket
    assert of("first_token_seconds_bucket", model="qwen", le="0.05") == 0
    assert of("queue_wait_seconds_sum", model="qwen") == pytest.approx(0.04)
    assert of("selection_seconds_count", route="auto") == 2
    assert not [
        name for name, _ in found if name in {"gatewright_errors_total", "gatewright_fallbacks_total"}
    ]


def test_a_failed_request_with_its_attempts(metrics: Metrics):
    metrics.observe(FAILED)
    assert value(metrics, "gatewright_errors_total", model="gpt", kind="UpstreamTimeout") == 1
    assert value(metrics, "gatewright_failed_attempts_total", model="qwen", kind="EngineCrashed") == 1
    assert value(metrics, "gatewright_failed_attempts_total", model="gpt", kind="UpstreamTimeout") == 1
    assert value(metrics, "gatewright_fallbacks_total", route="", outcome="failed") == 1
    assert value(metrics, "gatewright_first_token_seconds_count", model="gpt") is None  # there was none


def test_a_fallback_that_helped(metrics: Metrics):
    metrics.observe(evolve(ANSWERED, failed_attempts=FAILED.failed_attempts[:1], model="gpt"))
    metrics.observe(evolve(ANSWERED, failed_attempts=FAILED.failed_attempts[:1]))  # the same model again
    assert value(metrics, "gatewright_fallbacks_total", route="auto", outcome="answered") == 1


def test_what_is_under_way(metrics: Metrics):
    for number in (1, 2, 3):
        metrics.begin(f"req_{number}")
    assert value(metrics, "gatewright_requests_in_flight") == 3
    metrics.observe(ANSWERED)
    metrics.gone("req_1")
    metrics.gone("req_3")
    assert value(metrics, "gatewright_requests_in_flight") == 1


def test_feedback(metrics: Metrics):
    metrics.observe_feedback("qwen", 1.0)
    metrics.observe_feedback("qwen", 0.0)
    metrics.observe_feedback(None, 0.6)
    assert value(metrics, "gatewright_feedback_score_sum", model="qwen") == 1
    assert value(metrics, "gatewright_feedback_score_bucket", model="qwen", le="0") == 1
    assert value(metrics, "gatewright_feedback_score_bucket", model="", le="0.75") == 1


def test_dropped_records_are_counted_once(state: StateDir):
    dropped = [3]
    metrics = Metrics(state, dropped=lambda: dropped[0])
    assert value(metrics, "gatewright_dropped_records_total") == 3
    dropped[0] = 5
    metrics.observe(ANSWERED)
    assert value(metrics, "gatewright_dropped_records_total") == 5


def test_budgets_those_of_which_most_is_used_first(state: StateDir):
    from gatewright.accounting.spending import Window  # noqa: PLC0415  # beside its one use

    uses = [
        BudgetUse(account=f"a{n}", limit_usd=10.0, window=Window(), spent_usd=n / 100, reserved_usd=0.5)
        for n in range(600)
    ]
    metrics = Metrics(state, budgets=lambda: uses)
    assert value(metrics, "gatewright_budget_spent_usd", account="a599") == 5.99
    assert value(metrics, "gatewright_budget_limit_usd", account="a599") == 10
    assert value(metrics, "gatewright_budget_reserved_usd", account="a599") == 0.5
    assert value(metrics, "gatewright_budget_spent_usd", account="a0") is None
    shown = [name for name, _ in samples(metrics) if name == "gatewright_budget_spent_usd"]
    assert len(shown) == 500


def test_engines_as_their_host_tells(metrics: Metrics, monkeypatch: pytest.MonkeyPatch):
    engines = (
        EngineStatus(model="qwen", context_tokens=2048, state="Ready", slots=4, leases=3, waiting=2),
        EngineStatus(model="qwen", context_tokens=8192, state="Stopped", waiting=5),
    )
    status = HostStatus(
        pid=1,
        version="0",
        uptime_s=1.0,
        detached=False,
        holders=1,
        engines=tuple([EngineReport(engine=engine) for engine in engines]),
    )
    monkeypatch.setattr(metrics, "_host_status", lambda: status)
    small = {"model": "qwen", "context": "2048"}
    assert value(metrics, "gatewright_engine_state", **small, state="Ready") == 1
    assert value(metrics, "gatewright_engine_slots", **small) == 4
    assert value(metrics, "gatewright_engine_slots_busy", **small) == 3
    assert value(metrics, "gatewright_engine_slots", model="qwen", context="8192") is None
    assert value(metrics, "gatewright_queue_length", model="qwen") == 5


# --- how it is shown


def test_both_formats_of_prometheus(metrics: Metrics):
    metrics.observe(ANSWERED)
    headers, body = metrics.render("")
    assert dict(headers)[b"content-type"].startswith(b"text/plain")
    assert b"# TYPE gatewright_requests_total counter" in body
    headers, body = metrics.render("application/openmetrics-text; version=1.0.0")
    assert dict(headers)[b"content-type"].startswith(b"application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_labels_of_one_process_are_bounded(metrics: Metrics):
    for number in range(600):
        metrics.observe(evolve(FAILED, model=f"model {number}"))
    found = {
        dict(labels).get("model") for name, labels in samples(metrics) if name == "gatewright_requests_total"
    }
    assert (
        len(found) == 499
    )  # with the two of the failed attempts there are 500 names, and what stands for the rest
    assert OTHER in found
    total = sum(
        figure for (name, _), figure in samples(metrics).items() if name == "gatewright_requests_total"
    )
    assert total == 600


def test_names_follow_the_conventions_and_the_documents_have_all_of_them():
    for name, figure in FIGURES.items():
        assert re.fullmatch(r"gatewright_[a-z_]+", name)
        assert name.endswith("_total") == (figure.kind is FigureKind.COUNTER)
        assert not re.search(r"_(ms|minutes|milliseconds)(_|$)", name)
    text = (ROOT / "docs" / "operations.md").read_text()
    rows = re.findall(r"^\| `(gatewright_\w+)`(?: \(([^)]*)\))? \|", text, re.MULTILINE)
    documented = {name: tuple(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    assert documented == {name: figure.labels for name, figure in FIGURES.items()}


# --- several processes


def in_child(function: Callable[[], Any], *, die: bool = False) -> None:
    """Run something in a process of its own, which ends in good form or by a signal."""

    def run() -> None:
        function()
        if die:
            os.kill(os.getpid(), signal.SIGKILL)

    child = FORK.Process(target=run)
    child.start()
    child.join(30)
    assert child.exitcode == (-signal.SIGKILL if die else 0)


def files(state: StateDir) -> set[str]:
    return {path.name for path in (state.path / "metrics").iterdir()} - {"lock"}


REQUESTS = {"model": "qwen", "route": "auto", "status": "200", "outcome": "answered"}


def test_every_process_shows_the_sum_of_all(state: StateDir):
    one, other = Metrics(state), Metrics(state)
    one.observe(ANSWERED)
    one.begin("req_8")
    other.observe(ANSWERED)
    other.begin("req_9")
    for metrics in (one, other):
        assert value(metrics, "gatewright_requests_total", **REQUESTS) == 2
        assert value(metrics, "gatewright_request_seconds_bucket", model="qwen", le="2.5") == 2
        assert value(metrics, "gatewright_requests_in_flight") == 2


def test_a_process_that_ends_leaves_its_counts_but_nothing_under_way(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(figure_files, "_MOMENT_S", 0.0)
    metrics = Metrics(state)
    metrics.observe(ANSWERED)

    def work() -> None:
        counting = Metrics(state)
        counting.begin("req_9")
        counting.observe(ANSWERED)
        counting.observe(FAILED)

    for is_killed in (False, True, True):
        in_child(work, die=is_killed)
    assert value(metrics, "gatewright_requests_total", **REQUESTS) == 4
    assert value(metrics, "gatewright_requests_in_flight") == 0
    assert value(metrics, "gatewright_errors_total", model="gpt", kind="UpstreamTimeout") == 3
    assert len(files(state)) == 2  # its own, and what is kept of the dead
    assert value(metrics, "gatewright_requests_total", **REQUESTS) == 4  # and not once more


def test_what_changes_within_a_moment_is_written_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    writes = []
    pwrite = os.pwrite

    def counted(fd: int, data: bytes, offset: int) -> int:
        writes.append(data)
        return pwrite(fd, data, offset)

    monkeypatch.setattr(figure_files.os, "pwrite", counted)
    one, other = FigureFiles(tmp_path), FigureFiles(tmp_path)
    for _ in range(1000):
        one.add([(("a",), ((0, 1.0),), 1)], {("b",): 5.0})
    until_blocking(lambda: other.totals() == {("a",): [1000.0], ("b",): [5.0]})
    assert len(writes) < 500
    one.set(("b",), 6.0)
    one.add([(("a",), ((0, 1.0),), 1)])
    one.close()
    assert other.totals() == {("a",): [1001.0], ("b",): [6.0]}, "nothing is left behind at the end"


def test_files_do_not_pile_up_where_nobody_asks(state: StateDir):
    def work() -> None:
        Metrics(state).observe(ANSWERED)

    for _ in range(5):
        in_child(work, die=True)
    assert len(files(state)) <= 2
    assert value(Metrics(state), "gatewright_requests_total", **REQUESTS) == 5


def test_a_forked_child_counts_for_itself(state: StateDir):
    metrics = Metrics(state)
    metrics.observe(ANSWERED)
    in_child(lambda: metrics.observe(ANSWERED))
    assert value(metrics, "gatewright_requests_total", **REQUESTS) == 2


def test_many_processes_at_once_lose_nothing(state: StateDir):
    def work() -> None:
        counting = Metrics(state)
        for _ in range(50):
            counting.observe(ANSWERED)
            counting.render()

    children = [FORK.Process(target=work) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert value(Metrics(state), "gatewright_requests_total", **REQUESTS) == 200


def test_whoever_dies_between_counting_the_dead_and_removing_their_files_counts_none_twice(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
):
    in_child(lambda: Metrics(state).observe(ANSWERED))
    with monkeypatch.context() as patch:

        def die(*_args: Any, **_others: Any) -> None:
            raise SystemExit

        patch.setattr(Path, "unlink", die)
        with pytest.raises(SystemExit):
            Metrics(state).render()
    assert value(Metrics(state), "gatewright_requests_total", **REQUESTS) == 1
    assert value(Metrics(state), "gatewright_requests_total", **REQUESTS) == 1


# --- files


def test_a_file_that_cannot_be_written_stops_nothing(state: StateDir, caplog: pytest.LogCaptureFixture):
    (state.path / "metrics").write_text("no directory")
    metrics = Metrics(state)
    metrics.observe(ANSWERED)
    assert value(metrics, "gatewright_requests_total", **REQUESTS) == 1
    assert "may be missing" in caplog.text


def test_a_full_disk_stops_nothing_and_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(figure_files, "_MOMENT_S", 0.0)
    one, other = FigureFiles(tmp_path), FigureFiles(tmp_path)
    with monkeypatch.context() as patch:

        def full(*_: Any) -> int:
            raise OSError(28, "No space left on device")

        patch.setattr(figure_files.os, "pwrite", full)
        one.add([(("a",), ((0, 1.0),), 1)])
        one.add([(("a",), ((0, 1.0),), 1), (("b",), ((0, 1.0),), 1)])
    assert caplog.text.count("No space left") == 1, "one line says it for all of them"
    assert other.totals() == {}
    one.add([(("a",), ((0, 1.0),), 1)])
    assert other.totals() == {("a",): [3.0]}


def test_half_an_entry_and_a_damaged_sum_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(figure_files, "_MOMENT_S", 0.0)
    one, other = FigureFiles(tmp_path), FigureFiles(tmp_path)
    one.add([(("a", "é\n"), ((0, 1.0), (2, 2.5)), 3)])
    one.add([(("b",), ((0, 7.0),), 1)])
    path = next(tmp_path.glob("*.figures"))
    whole = path.read_bytes()
    for cut in range(len(whole)):
        found = dict(figure_files._read(_copy(tmp_path, whole[:cut])))
        assert set(found) <= {("a", "é\n"), ("b",)}
        assert found.get(("a", "é\n"), [1.0, 0.0, 2.5]) == [1.0, 0.0, 2.5]
    (tmp_path / "kept").write_text("{")
    assert other.totals() == {("a", "é\n"): [1.0, 0.0, 2.5], ("b",): [7.0]}
    assert "cannot be read" in caplog.text


def _copy(directory: Path, data: bytes) -> Path:
    path = directory / "copy"
    path.write_bytes(data)
    return path


def test_asking_once_on_the_command_line_loads_no_prometheus():
    import subprocess  # noqa: PLC0415  # beside its one use
    import sys  # noqa: PLC0415  # the same

    program = (
        "import sys, json, gatewright_host.back_office; "
        "print(json.dumps([name for name in sys.modules if name.startswith('prometheus')]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
