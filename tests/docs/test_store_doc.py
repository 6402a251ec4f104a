"""docs/store.md says what is: its settings, its tables, its examples."""

import re
import shlex
import sqlite3
from pathlib import Path

import pytest
from attrs import fields

from gatewright.configuration.schema import read_config
from gatewright.route_config import StoreConfig
from gatewright_host.lua_config import load_lua
from gatewright_host.store import Store, backlog, migrating, owners, tables
from gatewright_host.store.sharing import Pace

DOC = (Path(__file__).parents[2] / "docs" / "store.md").read_text(encoding="utf-8")


def first_column(heading: str) -> set[str]:
    """Names in the first column of the first table that begins with a heading."""
    table = DOC.partition(f"| {heading} |")[2].partition("\n\n")[0]
    cells = [line.split(" | ")[0] for line in table.splitlines()[2:]]
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


@pytest.mark.parametrize("text", re.findall(r"```lua\n(.*?)```", DOC, re.DOTALL))
def test_configurations_are_valid(tmp_path: Path, text: str) -> None:
    path = tmp_path / "gatewright.lua"
    path.write_text(
        "server = {}\n"
        + text
        + 'models = { { name = "m", engine = presets.engines.openai, connect = "http://127.0.0.1:1" } }\n'
    )
    store = read_config(load_lua(path)).store
    assert store.url == "postgresql+psycopg://gatewright@db.example.com/gatewright"
    assert (store.retention_days, store.when_unavailable) == (30.0, "closed")


def test_every_field_is_in_the_table() -> None:
    assert first_column("Field") == {each.name for each in fields(StoreConfig)}


def test_every_table_is_in_the_table() -> None:
    assert first_column("Table") == {*tables.metadata.tables, migrating.VERSION_TABLE}


def test_numbers_are_those_of_the_program() -> None:
    pace = Pace()
    assert f"{backlog.MOST:,} records wait" in DOC
    assert f"up to {backlog.MOST_AT_ALL:,} records" in DOC
    assert f"every {pace.heartbeat_s:.0f} s; {owners.EXPIRY_S:.0f} s after the last one" in DOC
    assert f"waits at most {pace.reserve_s:.0f} s" in DOC
    assert f"| {StoreConfig().retention_days:.0f} |" in DOC


def test_the_backup_is_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (line,) = [line for line in DOC.splitlines() if line.startswith("sqlite3 ")]
    program, path, statement = shlex.split(line)
    assert (program, Path(path).name) == ("sqlite3", "gatewright.db")
    with Store.open(f"sqlite:///{tmp_path}/gatewright.db") as store:
        store.heartbeat()
        connection = sqlite3.connect(tmp_path / "gatewright.db")
        connection.execute(statement)
        connection.close()
    with Store.open(f"sqlite:///{tmp_path}/backup.db") as copy:
        assert copy.keys() == ()
