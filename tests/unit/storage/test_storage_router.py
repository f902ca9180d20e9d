"""Addresses go to the storage of their scheme."""

from pathlib import Path

import pytest

from fda_core.errors import Forbidden, UnsupportedScheme
from fda_core.storage.base import Storage
from fda_core.storage.local import LocalStorage
from fda_core.storage.resolve import Storages, storages


def test_paths_go_to_the_local_storage() -> None:
    assert isinstance(storages().storage_for("/a/b"), LocalStorage)


@pytest.mark.parametrize("uri", ["gs://bucket/key", "http://host/x"])
def test_other_schemes_are_refused_by_name(uri: str) -> None:
    with pytest.raises(UnsupportedScheme, match=uri):
        storages().stat(uri)


def test_a_storage_is_made_on_first_use_and_once(tmp_path: Path) -> None:
    made: list[Storage] = []

    def make() -> Storage:
        made.append(LocalStorage())
        return made[-1]

    router = Storages({"file": make})
    assert made == []
    for name in ("a", "b"):
        router.put(f"{tmp_path}/{name}", b"x")
    assert len(made) == 1


def test_moving_between_storages_is_refused(tmp_path: Path) -> None:
    router = Storages({"file": LocalStorage, "s3": LocalStorage})
    router.put(f"{tmp_path}/staging/a", b"x")
    with pytest.raises(UnsupportedScheme, match="different storages"):
        router.move_into_place(f"{tmp_path}/staging", "s3://bucket/out")


def test_roots_fence_the_local_storage(tmp_path: Path) -> None:
    router = storages([str(tmp_path), "s3://bucket"])
    router.put(f"{tmp_path}/a", b"x")
    with pytest.raises(Forbidden):
        router.exists("/etc/passwd")


def test_roots_elsewhere_close_the_local_storage(tmp_path: Path) -> None:
    with pytest.raises(Forbidden):
        storages(["s3://bucket"]).exists(str(tmp_path))
