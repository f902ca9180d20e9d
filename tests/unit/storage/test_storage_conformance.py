"""Every storage of this installation keeps the protocol's promises."""

from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.unit.storage.storage_conformance")

from fda_core.storage.base import Storage  # noqa: E402
from fda_core.storage.local import LocalStorage  # noqa: E402
from fda_core.storage.resolve import storages  # noqa: E402
from tests.unit.storage.storage_conformance import StorageConformance  # noqa: E402


class TestLocalStorage(StorageConformance):
    @pytest.fixture(params=["anywhere", "within roots", "through a linked root"])
    def storage(self, request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        if request.param == "anywhere":
            return LocalStorage()
        root = "real" if request.param == "within roots" else "link"
        return LocalStorage([str(tmp_path / root)])

    @pytest.fixture
    def root(self, storage: Storage, tmp_path: Path) -> str:
        assert storage
        return str(tmp_path / "real" / "place")


class TestRouter(StorageConformance):
    @pytest.fixture
    def storage(self) -> Storage:
        return storages()

    @pytest.fixture
    def root(self, tmp_path: Path) -> str:
        return str(tmp_path / "place")
