"""The service on SQLite with nobody signed in."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.rest import Rest
from tests.support.web import Browser


@pytest.fixture
def rest(tmp_path: Path) -> Iterator[Rest]:
    made = Rest(tmp_path, f"sqlite:///{tmp_path / 'fda.db'}")
    with made.client:
        yield made
    made.database.close()


@pytest.fixture
def browser(rest: Rest) -> Browser:
    return Browser(rest)


@pytest.fixture
def signed_in(browser: Browser) -> Browser:
    return browser.sign_in()
