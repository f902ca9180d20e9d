"""The service on SQLite, and on Postgres too where it starts."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.rest import Rest


@pytest.fixture
def rest(tmp_path: Path, sqlite_url: str) -> Iterator[Rest]:
    """The service on SQLite, with no broker: what works without one is tested without."""
    made = Rest(tmp_path, sqlite_url)
    with made.client:
        yield made
    made.database.close()


@pytest.fixture
def either(either_url: str, tmp_path: Path) -> Iterator[Rest]:
    """The service on each kind of database."""
    made = Rest(tmp_path, either_url)
    with made.client:
        yield made
    made.database.close()
