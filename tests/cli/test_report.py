"""`gw-cli report`: all figures, as tables, for programs, and as a page that needs no network."""

import csv
import io
import json
import re
import sys
from html.parser import HTMLParser

import pytest

from gatewright_cli import report
from gatewright_cli.report_sections import SECTIONS
from gatewright_cli.sheets import as_money, as_ms, as_share
from gatewright_host.extras import how_to_install
from tests.cli.conftest import InProcess
from tests.cli.figures import configure, fill, open_store

VOID = frozenset(("meta", "br", "link", "img"))


class Page(HTMLParser):
    """Reads a page: which elements it has, whether they are closed, and where it points."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pointers: list[str] = []
        self.ids: list[str] = []
        self.plots = 0
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.pointers += [str(values[name]) for name in ("src", "href", "action", "data") if name in values]
        self.plots += "plotly-graph-div" in str(values.get("class"))
        if "id" in values:
            self.ids.append(str(values["id"]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" not in self.open and "style" not in self.open:
            self.text.append(data)


def page(quick: InProcess, *args: str) -> tuple[Page, str]:
    path = quick.directory / "report.html"
    done = quick.run("report", "--html", path, *args)
    assert (done.code, done.out, done.err) == (0, "", f"wrote {path}\n")
    text = path.read_text(encoding="utf-8")
    return Page(text), text


def test_the_sections_that_can_be_named_are_those_that_there_are() -> None:
    assert tuple(SECTIONS) == report.NAMES


def test_the_page_has_all_sections_with_plots_and_figures(quick: InProcess) -> None:
    configure(quick)
    fill(quick, 400)
    read, _ = page(quick)
    assert read.open == []
    assert set(report.NAMES) <= set(read.ids)
    # Two each of models, keys, routes and tasks; one each of all others but the overview.
    assert read.plots == 16
    shown = " ".join(read.text)
    (figures,) = json.loads(quick.run("report", "overview", "--json").out)["overview"]
    assert f"{figures['requests']} requests" in shown
    assert as_money(figures["cost_usd"]) in shown
    assert as_share(figures["fallbacks"] / figures["requests"]) in shown
    assert as_ms(figures["latency_p95_ms"]) in shown
    assert "no difference from control shown yet" in shown


def test_the_page_needs_no_network(quick: InProcess) -> None:
    fill(quick, 60)
    read, text = page(quick)
    assert all(pointer.startswith("#") for pointer in read.pointers)
    assert "default-src 'none'" in text
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=", text)
    assert not re.search(r"@import|url\(\s*['\"]?http", text.partition("</style>")[0])
    assert len(re.findall(r"plotly\.js v\d", text)) == 1, "the library is in it once"


def test_names_cannot_break_out_of_the_page(quick: InProcess) -> None:
    fill(quick, 40)
    bad = "</script><script>alert(1)</script><b>"
    with open_store(quick) as store, store._database.writing() as connection:
        connection.exec_driver_sql(f"UPDATE requests SET model = '{bad}', task = '{bad}', route = '{bad}'")
        connection.exec_driver_sql(f"UPDATE outcomes SET model = '{bad}', task = '{bad}'")
    read, text = page(quick)
    assert read.open == []
    assert "<script>alert" not in text


def test_a_page_of_an_empty_store_says_so(quick: InProcess) -> None:
    open_store(quick).close()
    read, text = page(quick)
    assert read.plots == 0
    assert " ".join(read.text).count("Nothing is recorded.") == len(report.NAMES)
    assert len(text) < 50_000, "nothing is drawn, so nothing that draws is in it"


def test_sections_and_conditions_narrow_it_down(quick: InProcess) -> None:
    fill(quick, 60)
    read, _ = page(quick, "models", "tasks", "--route", "auto", "--since", "2d")
    assert {each for each in read.ids if each in report.NAMES} == {"models", "tasks"}
    assert "since 2d ago, route auto" in " ".join(read.text)


def test_tables_json_and_csv(quick: InProcess) -> None:
    configure(quick)
    fill(quick, 200)
    text = quick.run("report").out
    for title in ("Overview", "Models", "Budgets", "Fallbacks", "Accuracy of the estimators", "Experiments"):
        assert f"{title}\n" in text
    plain = json.loads(quick.run("report", "--json").out)
    assert list(plain) == list(report.NAMES)
    assert plain["budgets"][0]["account"] == "monthly"
    assert {row["estimator"] for row in plain["estimators"]} == {"heuristic", "model"}
    read = list(csv.DictReader(io.StringIO(quick.run("report", "calibration", "--csv").out)))
    assert len(read) == len(plain["calibration"])
    done = quick.run("report", "--csv")
    assert (done.code, done.err.startswith("gw-cli: CSV holds one table")) == (2, True)


def test_a_budget_that_nobody_has_touched_is_shown(quick: InProcess) -> None:
    configure(quick)
    open_store(quick).close()
    (row,) = json.loads(quick.run("report", "budgets", "--json").out)["budgets"]
    assert (row["account"], row["limit_usd"], row["left_usd"], row["used"]) == ("monthly", 10.0, 10.0, 0.0)
    assert quick.run("report", "budgets").out.splitlines()[-1].split()[:4] == [
        "monthly",
        "-",
        "$10.00",
        "$0.00",
    ]


def test_a_budget_that_was_removed_is_told_apart(quick: InProcess) -> None:
    configure(quick)
    fill(quick, 60)
    (row,) = json.loads(quick.run("report", "budgets", "--json").out)["budgets"]
    assert (row["account"], row["configured"]) == ("monthly", True)
    configure(quick, 'budgets = { { name = "weekly", limit = 1, window = "week" } }')
    rows = json.loads(quick.run("report", "budgets", "--json").out)["budgets"]
    assert [(row["account"], row["configured"]) for row in rows] == [("weekly", True), ("monthly", False)]
    *_, weekly, monthly = quick.run("report", "budgets").out.splitlines()
    assert (weekly.split()[0], weekly.split()[-1]) == ("weekly", "yes")
    assert (monthly.split()[0], monthly.split()[-1]) == ("monthly", "no")
    assert "is not CONFIGURED" in page(quick, "budgets")[1]


def test_without_plotly_it_says_what_to_install(quick: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    done = quick.run("report", "--html", quick.directory / "report.html")
    assert (done.code, done.out, done.err) == (
        1,
        "",
        f"gw-cli: {report.NO_PLOTLY}{how_to_install('report')}\n",
    )
    assert not (quick.directory / "report.html").exists()


def test_a_page_that_cannot_be_written_is_said(quick: InProcess) -> None:
    open_store(quick).close()
    done = quick.run("report", "--html", quick.directory / "no" / "report.html")
    assert (done.code, len(done.err.splitlines())) == (1, 1)


@pytest.mark.parametrize(
    ("usd", "shown"),
    [
        (None, ""),
        (0.0, "$0.00"),
        (2.5, "$2.50"),
        (0.0088, "$0.0088"),
        (-0.0000235, "-$0.0000235"),
        (-3.0, "-$3.00"),
    ],
)
def test_money_has_its_sign_before_the_currency(usd: float | None, shown: str) -> None:
    assert as_money(usd) == shown
