"""One Valkey for the session, emptied before every test; workers are real processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.valkey import Valkey, valkey_server
from tests.support.workers import Worker, save_models, workers


@pytest.fixture(scope="session")
def valkey_of_session() -> Iterator[Valkey]:
    with valkey_server() as server:
        yield server


@pytest.fixture
def valkey(valkey_of_session: Valkey) -> Valkey:
    valkey_of_session.empty()
    return valkey_of_session


@pytest.fixture(scope="session")
def shared_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the session's two workers may read and write."""
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="session")
def pair_of_session(valkey_of_session: Valkey, shared_root: Path) -> Iterator[list[Worker]]:
    with workers(valkey_of_session, shared_root, 2) as pair:
        yield pair


@pytest.fixture
def pair(pair_of_session: list[Worker]) -> list[Worker]:
    """Two workers that live as long as the session; Redis was emptied under them."""
    return pair_of_session


@pytest.fixture
def root(shared_root: Path, tmp_path: Path) -> Path:
    """A folder of this test's own with a tiny base and two experts, for the shared workers."""
    folder = shared_root / tmp_path.name
    folder.mkdir()
    return save_models(folder)


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """A Valkey of this test's own: no other workers take from it, and it may be killed."""
    with valkey_server() as server:
        yield server
