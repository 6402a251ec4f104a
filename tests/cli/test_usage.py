"""`gw-cli usage` and `gw-cli ranking`: figures for a terminal and for programs."""

import csv
import io
import json
import time
from datetime import UTC, datetime

import pytest

from gatewright_cli import usage
from gatewright_cli.exits import Misuse
from gatewright_cli.sheets import Column, Sheet, csv_text
from gatewright_cli.spans import expiry, moment
from gatewright_host.store.analytics_sql import By
from tests.cli.conftest import InProcess
from tests.cli.figures import fill, open_store


def rows(quick: InProcess, *args: str) -> list[dict[str, object]]:
    done = quick.run(*args, "--json")
    assert done.code == 0, done.err
    found: list[dict[str, object]] = json.loads(done.out)
    return found


def total(found: list[dict[str, object]], name: str) -> float:
    return sum(float(str(row[name])) for row in found)


def test_everything_that_can_be_told_apart_can_be_said() -> None:
    assert set(usage.GROUPS) == {each.value for each in By}


def test_usage_adds_up_however_it_is_told_apart(quick: InProcess) -> None:
    fill(quick, 120)
    by_model = rows(quick, "usage", "--since", "all")
    assert total(by_model, "requests") == 120
    assert {row["model"] for row in by_model} == {"small", "medium", "large"}
    for group in usage.GROUPS:
        found = rows(quick, "usage", "--since", "all", "--by", group)
        assert total(found, "requests") == 120
        assert total(found, "cost_usd") == pytest.approx(total(by_model, "cost_usd"))
    assert rows(quick, "usage", "--since", "all", "--by", "model", "--by", "day", "-n", "3")[2]["day"]


def test_conditions_narrow_it_down(quick: InProcess) -> None:
    fill(quick, 120)
    assert {row["task"] for row in rows(quick, "usage", "--by", "task", "--task", "code")} == {"code"}
    small = rows(quick, "usage", "--model", "small", "--route", "auto", "--user", "ann", "--since", "all")
    assert 0 < total(small, "requests") < 30
    today = total(rows(quick, "usage", "--since", "1d"), "requests")
    assert today in {3, 4}
    assert total(rows(quick, "usage", "--since", "30d", "--until", "1d"), "requests") + today in {119, 120}


def test_a_key_is_named_and_shown_by_its_name(quick: InProcess) -> None:
    quick.run("keys", "create", "ci")
    fill(quick, 40)
    with open_store(quick) as store:
        (key,) = store.keys()
        with store._database.writing() as connection:
            connection.exec_driver_sql(f"UPDATE requests SET key_id = '{key.id}' WHERE key_id = 'key_a'")
    by_key = {str(row["key"]): row for row in rows(quick, "usage", "--by", "key", "--since", "all")}
    assert set(by_key) == {"ci", "key_b", ""}
    for named in ("ci", key.id, key.prefix):
        (row,) = rows(quick, "usage", "--by", "key", "--key", named, "--since", "all")
        assert row == by_key["ci"]
    done = quick.run("usage", "--key", "cx")
    assert (done.code, done.err) == (2, "gw-cli: there is no key 'cx' (gw-cli keys list shows them)\n")


def test_a_table_and_csv_have_the_same_rows(quick: InProcess) -> None:
    fill(quick, 60)
    table = quick.run("usage").out.splitlines()
    assert table[0].split()[:5] == ["MODEL", "REQUESTS", "ERRORS", "IN", "CACHED"]
    read = list(csv.DictReader(io.StringIO(quick.run("usage", "--csv").out)))
    assert [line.split()[:2] for line in table[1:]] == [[row["model"], row["requests"]] for row in read]
    assert "select_p95_ms" in read[0]


def test_ranking_puts_the_surest_first(quick: InProcess) -> None:
    fill(quick, 400)
    together = rows(quick, "ranking", "--together")
    assert together[0]["model"] == "large"
    lows = [float(str(row["low"])) for row in together]
    assert lows == sorted(lows, reverse=True)
    by_task = rows(quick, "ranking", "--task", "code")
    assert {row["task"] for row in by_task} == {"code"}
    assert rows(quick, "ranking", "--min-calls", "100000") == []
    assert quick.run("ranking").out.splitlines()[0].split()[:3] == ["TASK", "MODEL", "CALLS"]


@pytest.mark.parametrize("command", [("usage",), ("ranking",), ("report",)])
def test_an_empty_store_and_none_at_all_have_a_friendly_line(
    quick: InProcess, command: tuple[str, ...]
) -> None:
    done = quick.run(*command)
    assert (done.code, done.out, done.err) == (0, "", "nothing is recorded yet\n")
    assert json.loads(quick.run(*command, "--json").out) in ([], {})
    assert list((quick.directory / "state").iterdir()) == [], "looking makes nothing"
    open_store(quick).close()
    done = quick.run(*command)
    assert (done.code, done.out) == (0, "")
    assert done.err.startswith("no ")


def test_a_store_that_is_none_is_said_in_a_line(quick: InProcess) -> None:
    open_store(quick).close()
    (path,) = [path for path in (quick.directory / "state").iterdir() if path.suffix == ".db"]
    path.write_bytes(b"something else" * 100)
    done = quick.run("usage")
    assert (done.code, done.out, len(done.err.splitlines())) == (1, "", 1)
    assert str(path) in done.err


def test_a_store_that_is_switched_off_is_said(quick: InProcess) -> None:
    path = quick.write_config('{ name = "x", engine = "openai", connect = "http://127.0.0.1:1" }')
    path.write_text(path.read_text() + "store = { enabled = false }\n")
    done = quick.run("usage")
    assert (done.code, "`store.enabled` is false" in done.err) == (2, True)


@pytest.mark.parametrize("text", ["yesterday", "7", "7y", "2026-13-01", ""])
def test_what_is_no_moment_is_refused(quick: InProcess, text: str) -> None:
    done = quick.run("usage", f"--since={text}")
    assert (done.code, done.out) == (2, "")
    assert "--since" in done.err


def test_moments() -> None:
    now = time.time()
    assert moment("all", "--since") is None
    for text, seconds in (("90s", 90), ("30min", 1800), ("12h", 43_200), ("7d", 604_800), ("1.5w", 907_200)):
        at = moment(text, "--since")
        assert at is not None
        assert abs(now - seconds - at) < 60
    assert moment("2026-01-31", "--since") == datetime(2026, 1, 31, tzinfo=UTC).timestamp()
    assert moment("2026-01-31T12:00+02:00", "--since") == datetime(2026, 1, 31, 10, tzinfo=UTC).timestamp()
    assert abs(expiry("1d") - now - 86_400) < 60
    with pytest.raises(Misuse):
        expiry("soon")


def test_only_one_format_at_a_time(quick: InProcess) -> None:
    done = quick.run("usage", "--json", "--csv")
    assert (done.code, done.err) == (2, "gw-cli: --json or --csv, not both\n")


def test_names_that_clients_choose_do_nothing_to_terminals_and_spreadsheets() -> None:
    names = (
        "=1+1",
        "@SUM(A1)",
        "-1+cmd|' /C calc'!A0",
        "\t=1",
        "@cf/meta/llama-3",
        "-quick",
        ["\x1b[2J", "b"],
    )
    sheet = Sheet(
        name="s", title="S", columns=(Column("task", "TASK"),), rows=tuple((name,) for name in names)
    )
    _, *shown = csv.reader(io.StringIO(csv_text(sheet)))
    assert [field for (field,) in shown[:4]] == [f"'{name}" for name in names[:4]]
    assert [field for (field,) in shown[4:6]] == list(names[4:6])
    assert sheet.text_rows()[1][-1] == (r"\x1b[2J,b",)
