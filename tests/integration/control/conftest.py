"""Real servers once per test process; a fresh database and an empty Redis per test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from api.db.migrate import migrate
from api.db.session import Database, open_engine
from tests.support.control import Bench, Folder
from tests.support.postgres import PostgresServer, postgres_server
from tests.support.valkey import ValkeyServer, valkey_server


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    with valkey_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    try:
        opened = postgres_server()
        server = opened.__enter__()
    except Exception as problem:
        pytest.skip(f"no Postgres here: {problem}")
    yield server
    opened.__exit__(None, None, None)


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
def postgres_database(postgres: PostgresServer) -> Iterator[Database]:
    with postgres.database() as url:
        database = Database(open_engine(url))
        migrate(database.engine)
        yield database
        database.close()


@pytest.fixture
def bench(folder: Folder, database: Database, valkey: ValkeyServer) -> Iterator[Bench]:
    with valkey.client() as client:
        client.flushall()
    bench = Bench(folder, database, valkey)
    yield bench
    bench.close()


@pytest.fixture
def postgres_bench(
    folder: Folder, postgres_database: Database, valkey: ValkeyServer
) -> Iterator[Bench]:
    with valkey.client() as client:
        client.flushall()
    bench = Bench(folder, postgres_database, valkey)
    yield bench
    bench.close()


@pytest.fixture(params=["sqlite", "postgres"])
def any_bench(request: pytest.FixtureRequest) -> Bench:
    """Run the test on both databases."""
    name = "bench" if request.param == "sqlite" else "postgres_bench"
    bench: Bench = request.getfixturevalue(name)
    return bench
