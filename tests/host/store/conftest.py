"""Databases: every test that takes `url` or `store` runs on SQLite and on a real PostgreSQL server."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from gatewright_host.store import Store
from tests.host.store.stored import Clock
from tests.support.postgres import Postgres, find_programs, running_postgres

MakeUrl = Callable[[], str]
_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    programs = find_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed (Debian: apt-get install postgresql)")
    with running_postgres(programs) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def make_url(request: pytest.FixtureRequest, tmp_path: Path) -> MakeUrl:
    """Makes an empty database each time that it is called."""
    if request.param == "sqlite":
        return lambda: f"sqlite:///{tmp_path}/{next(_numbers)}.db"
    server: Postgres = request.getfixturevalue("postgres")

    def make() -> str:
        name = f"test_{next(_numbers)}"
        engine = create_engine(server.url(), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            # Quicker than WAL for everything that is in the template.
            connection.execute(text(f"CREATE DATABASE {name} STRATEGY FILE_COPY"))
        engine.dispose()
        return server.url(name)

    return make


@pytest.fixture
def url(make_url: MakeUrl) -> str:
    return make_url()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(url: str, clock: Clock) -> Iterator[Store]:
    with Store.open(url, now=clock) as opened:
        yield opened
