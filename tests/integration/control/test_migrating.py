"""Processes of a new version start together, and each would make the tables."""

from sqlalchemy import inspect

from api.db.migrate import migrate
from api.db.session import open_engine
from api.db.tables import Base
from tests.support.control import in_threads
from tests.support.postgres import Postgres


def test_who_comes_second_waits_and_finds_it_done(postgres: Postgres) -> None:
    url = postgres.new_database()
    engines = [open_engine(url) for _ in range(4)]
    in_threads(*(lambda engine=engine: migrate(engine) for engine in engines))
    assert set(inspect(engines[0]).get_table_names()) >= set(Base.metadata.tables)
    for engine in engines:
        engine.dispose()
