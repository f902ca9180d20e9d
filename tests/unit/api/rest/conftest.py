"""The service on SQLite, and on Postgres too where it starts."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.rest import Rest


@pytest.fixture
def rest(tmp_path: Path) -> Iterator[Rest]:
    """The service on SQLite, with no broker: what works without one is tested without."""
    made = Rest(tmp_path, f"sqlite:///{tmp_path / 'fda.db'}")
    with made.client:
        yield made
    made.database.close()


@pytest.fixture(params=["sqlite", "postgres"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rest]:
    """The service on each kind of database."""
    url = f"sqlite:///{tmp_path / 'fda.db'}"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres").new_database()
    made = Rest(tmp_path, url)
    with made.client:
        yield made
    made.database.close()
