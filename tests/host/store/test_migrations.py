"""Databases are made, brought up to date and refused; by many at once."""

import os
import re
import sqlite3
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text

from gatewright_host.store import Store, StoreError, migrating
from gatewright_host.store.tables import metadata

ROOT = Path(__file__).parents[3]


def execute(url: str, *statements: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def test_the_migrations_make_exactly_the_tables(url: str) -> None:
    Store.open(url).close()
    engine = create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": migrating.VERSION_TABLE, "compare_type": True}
        )
        assert compare_metadata(context, metadata) == []
        assert migrating.version_of(connection) == migrating.HEAD
        assert set(inspect(connection).get_table_names()) == {*metadata.tables, migrating.VERSION_TABLE}
    engine.dispose()


def test_the_head_that_is_known_without_alembic_is_the_latest() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrating.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [migrating.HEAD]


def test_a_database_is_opened_again_as_it_was_left(url: str) -> None:
    with Store.open(url) as store:
        store.heartbeat()
    with Store.open(url) as store:
        assert store.keys() == ()


def test_opening_a_known_database_does_not_load_alembic(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    Store.open(url).close()
    program = f"import sys; from gatewright_host.store import Store; Store.open({url!r}).close(); print('alembic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_many_processes_open_a_new_database_at_once(url: str) -> None:
    # Forked from a process without other threads, so that they begin together.
    program = (
        "import os, sys\n"
        "from gatewright_host.store import Store\n"
        "import alembic.command, gatewright_host.store.store\n"
        "children = []\n"
        "for _ in range(6):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        with Store.open(sys.argv[1]) as store:\n"
        "            store.heartbeat()\n"
        "        os._exit(0)\n"
        "    children.append(child)\n"
        "sys.exit(max(os.waitpid(child, 0)[1] for child in children) != 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    with Store.open(url) as store:
        assert store.keys() == ()


def test_a_database_of_a_newer_version_is_refused(url: str) -> None:
    Store.open(url).close()
    execute(url, f"UPDATE {migrating.VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(
        StoreError, match=r"newer Gatewright has changed its tables \(to 9999\); install that"
    ):
        Store.open(url)


def test_tables_of_somebody_else_are_left_alone(url: str) -> None:
    execute(url, "CREATE TABLE requests (id INTEGER)", "CREATE TABLE others (id INTEGER)")
    with pytest.raises(StoreError, match="tables of somebody else by the names requests; name a database"):
        Store.open(url)
    engine = create_engine(url)
    with engine.connect() as connection:
        assert set(inspect(connection).get_table_names()) == {"requests", "others"}
    engine.dispose()


def test_other_tables_of_the_database_do_not_matter(url: str) -> None:
    execute(url, "CREATE TABLE alembic_version (version_num VARCHAR(32))")
    Store.open(url).close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"This is no database, but long enough to look at. " * 100)
    with pytest.raises(
        StoreError, match="file is not a database; restore the file from a backup, or move it"
    ):
        Store.open(f"sqlite:///{path}")


def test_a_damaged_database_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with Store.open(f"sqlite:///{path}") as store:
        store.heartbeat()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(StoreError, match="malformed"), Store.open(f"sqlite:///{path}") as store:
        store.keys()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (sqlite3.OperationalError("database or disk is full"), "database or disk is full"),
        (sqlite3.OperationalError("database is locked"), "others keep it busy"),
        (OSError(28, "No space left on device"), "No space left on device; its directory must"),
    ],
)
def test_what_fails_while_a_file_is_prepared_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def fail(_path: Path) -> None:
        raise error

    with monkeypatch.context() as patch:
        # What is done outside of transactions is asked of SQLite itself, so that its errors come as they are.
        patch.setattr(migrating, "_file_lock", fail)
        with pytest.raises(StoreError, match=message):
            Store.open(f"sqlite:///{tmp_path}/a.db")
    Store.open(f"sqlite:///{tmp_path}/a.db").close()


def test_a_new_file_is_the_user_s_alone(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/a.db") as store:
        store.heartbeat()
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("a.db", "a.db-wal", "a.db-shm", "a.db.lock"), 0o600)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "`store.url` cannot be read; expected sqlite:"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("mysql://localhost/x", "`store.url` names mysql; expected sqlite:"),
        ("sqlite:////nowhere/at/all/a.db", "No such file or directory; its directory must exist"),
        (
            "postgresql://u:hush@127.0.0.1:1/x",
            r"postgresql\+psycopg://u:\*\*\*@127.0.0.1:1/x: .*see whether the server",
        ),
    ],
)
def test_what_cannot_be_opened_says_why_and_what_to_do(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as raised:
        Store.open(url)
    assert "hush" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_store_is_of_the_process_that_opened_it(url: str) -> None:
    with Store.open(url) as store:
        receive, send = os.pipe()
        with warnings.catch_warnings():
            # The child does nothing with the threads that others of this process have.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if not child:
            try:
                store.keys()
            except StoreError as error:
                os.write(send, str(error).encode())
            store.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert re.search("opened before a fork; each process opens its own", os.read(receive, 1000).decode())
        os.close(receive)
        os.close(send)
        # The child has not closed the parent's connections.
        assert store.keys() == ()
