"""The service on SQLite with nobody signed in."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.rest import Rest
from tests.support.web import Browser


@pytest.fixture
def rest(tmp_path: Path, sqlite_url: str) -> Iterator[Rest]:
    made = Rest(tmp_path, sqlite_url)
    with made.client:
        yield made
    made.database.close()


@pytest.fixture
def browser(rest: Rest) -> Browser:
    return Browser(rest)


@pytest.fixture
def signed_in(browser: Browser) -> Browser:
    return browser.sign_in()
