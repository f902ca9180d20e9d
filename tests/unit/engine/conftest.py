"""Models that several files of tests plan with."""

from pathlib import Path

import pytest

from tests.support.workers import save_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_models(tmp_path_factory.mktemp("models"))
