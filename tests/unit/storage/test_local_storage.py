"""What only a file system can do wrong: links, folders, pipes, other disks, temporary files."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fda_core.errors import BadParameter, Forbidden, NotFound, OutputExists
from fda_core.storage.aside import is_temporary, temporary_name
from fda_core.storage.local import LocalStorage

storage = LocalStorage()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file beside the allowed root `tmp_path/root`."""
    (tmp_path / "root").mkdir()
    (tmp_path / "beside").mkdir()
    file = tmp_path / "beside" / "secret"
    file.write_bytes(b"secret")
    return file


@pytest.fixture
def fenced(tmp_path: Path, secret: Path) -> LocalStorage:
    assert secret.exists()
    return LocalStorage([str(tmp_path / "root")])


def every_call(fenced: LocalStorage, uri: str) -> list[str]:
    """Return the names of the methods that did not refuse the address."""
    allowed = []
    calls: dict[str, Callable[[], object]] = {
        "stat": lambda: fenced.stat(uri),
        "exists": lambda: fenced.exists(uri),
        "list": lambda: list(fenced.list(uri)),
        "read": lambda: fenced.read(uri),
        "read_into": lambda: fenced.read_into(uri, memoryview(bytearray(1)), start=0),
        "create": lambda: fenced.create(uri).__enter__(),
        "put": lambda: fenced.put(uri, b"x"),
        "put_if_absent": lambda: fenced.put(uri, b"x", if_absent=True),
        "delete": lambda: fenced.delete(uri),
        "delete_below": lambda: fenced.delete_below(uri),
        "move_from": lambda: fenced.move_into_place(uri, uri + "-2"),
        "free_space": lambda: fenced.free_space(uri),
        "signed_url": lambda: fenced.signed_url(uri, seconds=9),
    }
    for name, call in calls.items():
        try:
            call()
        except Forbidden:
            continue
        allowed.append(name)
    return allowed


@pytest.mark.parametrize(
    "spelling", ["beside/secret", "root/../beside/secret", "rooted/secret", "beside", ""]
)
def test_outside_the_roots_everything_is_forbidden(
    fenced: LocalStorage, tmp_path: Path, secret: Path, spelling: str
) -> None:
    assert every_call(fenced, f"{tmp_path}/{spelling}".rstrip("/")) == []
    assert secret.read_bytes() == b"secret"


def test_linked_folder_does_not_lead_out(
    fenced: LocalStorage, tmp_path: Path, secret: Path
) -> None:
    (tmp_path / "root" / "way").symlink_to(secret.parent)
    assert every_call(fenced, f"{tmp_path}/root/way/secret") == []
    assert every_call(fenced, f"{tmp_path}/root/way/../beside/secret") == []
    assert secret.read_bytes() == b"secret"


def test_linked_file_does_not_lead_out(fenced: LocalStorage, tmp_path: Path, secret: Path) -> None:
    link = tmp_path / "root" / "file"
    link.symlink_to(secret)
    for call in (fenced.stat, fenced.read, fenced.exists):
        with pytest.raises(Forbidden, match=str(link)):
            call(str(link))
    with pytest.raises(Forbidden):
        list(fenced.list(str(link.parent)))


def test_writing_over_a_link_replaces_the_link(
    fenced: LocalStorage, tmp_path: Path, secret: Path
) -> None:
    link = tmp_path / "root" / "file"
    link.symlink_to(secret)
    fenced.put(str(link), b"mine")
    assert not link.is_symlink()
    assert link.read_bytes() == b"mine"
    assert secret.read_bytes() == b"secret"


def test_removing_a_link_keeps_what_it_leads_to(
    fenced: LocalStorage, tmp_path: Path, secret: Path
) -> None:
    (tmp_path / "root" / "job").mkdir()
    (tmp_path / "root" / "job" / "file").symlink_to(secret)
    (tmp_path / "root" / "job" / "folder").symlink_to(secret.parent)
    fenced.delete_below(f"{tmp_path}/root/job")
    assert not (tmp_path / "root" / "job").exists()
    assert secret.read_bytes() == b"secret"


def test_file_links_inside_the_roots_are_read_through(fenced: LocalStorage, tmp_path: Path) -> None:
    blob = tmp_path / "root" / "blobs" / "1234"
    blob.parent.mkdir()
    blob.write_bytes(b"weights")
    (tmp_path / "root" / "snapshot").mkdir()
    (tmp_path / "root" / "snapshot" / "model").symlink_to("../blobs/1234")
    (found,) = fenced.list(f"{tmp_path}/root/snapshot")
    assert found.uri == f"{tmp_path}/root/snapshot/model"
    assert fenced.read(found.uri, etag=found.etag) == b"weights"


def test_the_root_itself_stays(fenced: LocalStorage, tmp_path: Path) -> None:
    fenced.put(f"{tmp_path}/root/a/b", b"x")
    fenced.delete_below(f"{tmp_path}/root")
    assert list((tmp_path / "root").iterdir()) == []


def test_no_roots_at_all_allow_nothing(tmp_path: Path) -> None:
    with pytest.raises(Forbidden):
        LocalStorage([]).exists(str(tmp_path))


def test_relative_roots_are_refused() -> None:
    with pytest.raises(BadParameter, match="some/where"):
        LocalStorage(["some/where"])


def test_the_whole_disk_is_not_removed() -> None:
    with pytest.raises(Forbidden):
        storage.delete_below("/")


@pytest.mark.parametrize("uri", ["relative/path", "", "/nul\0byte", "/lone\ud800surrogate"])
def test_what_is_no_absolute_path_is_forbidden(uri: str) -> None:
    for call in (storage.stat, storage.read, storage.delete, storage.free_space, storage.exists):
        with pytest.raises(Forbidden):
            call(uri)
    with pytest.raises(Forbidden):
        storage.put(uri, b"x")


def test_too_long_a_name_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        storage.stat(f"{tmp_path}/{'x' * 300}")


def test_links_in_a_circle_are_not_found(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(NotFound):
        storage.read(f"{tmp_path}/a")
    assert list(storage.list(str(tmp_path))) == []


def test_a_pipe_is_no_file_and_reading_it_does_not_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotFound, match="pipe"):
        storage.read(f"{tmp_path}/pipe")
    assert list(storage.list(str(tmp_path))) == []


def test_empty_folders_do_not_exist(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert not storage.exists(f"{tmp_path}/a")


def test_a_folder_is_not_overwritten_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for if_absent in (False, True):
        with pytest.raises(Forbidden, match="folder is in the way"):
            storage.put(f"{tmp_path}/a", b"x", if_absent=if_absent)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_is_not_overwritten_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    for below in ("a/b", "a/b/c"):
        with pytest.raises(Forbidden, match="file is in the way"):
            storage.put(f"{tmp_path}/{below}", b"x")


def test_writing_leaves_no_temporary_file(tmp_path: Path) -> None:
    storage.put(f"{tmp_path}/a", b"x")
    storage.put(f"{tmp_path}/b", b"x", if_absent=True)
    storage.put(f"{tmp_path}/b", b"x", if_absent=True)
    with storage.create(f"{tmp_path}/c") as writer:
        assert sum(is_temporary(path.name) for path in tmp_path.iterdir()) == 1
        writer.write(b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_what_a_killed_writer_left_is_no_object_and_is_not_published(tmp_path: Path) -> None:
    staging = tmp_path / "staging"
    storage.put(f"{staging}/deep/a", b"x")
    (staging / temporary_name()).write_bytes(b"half")
    (staging / "deep" / temporary_name()).write_bytes(b"half")
    assert [info.uri for info in storage.list(str(staging))] == [f"{staging}/deep/a"]
    storage.move_into_place(str(staging), f"{tmp_path}/out")
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["deep", "a"]


def test_an_empty_folder_at_the_target_counts_as_none(tmp_path: Path) -> None:
    storage.put(f"{tmp_path}/staging/a", b"x")
    (tmp_path / "out").mkdir()
    storage.move_into_place(f"{tmp_path}/staging", f"{tmp_path}/out")
    assert storage.read(f"{tmp_path}/out/a") == b"x"


def test_a_folder_with_anything_at_the_target_is_kept(tmp_path: Path) -> None:
    storage.put(f"{tmp_path}/staging/a", b"x")
    (tmp_path / "out" / "empty").mkdir(parents=True)
    with pytest.raises(OutputExists):
        storage.move_into_place(f"{tmp_path}/staging", f"{tmp_path}/out")
    assert storage.read(f"{tmp_path}/staging/a") == b"x"


@pytest.fixture
def other_disk(tmp_path: Path) -> Path:
    there = Path("/dev/shm")
    if not there.is_dir() or there.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    return there / f"fda-test-{os.getpid()}-{threading.get_ident()}"


def test_moving_to_another_disk_copies_and_then_appears_at_once(
    tmp_path: Path, other_disk: Path
) -> None:
    storage.put(f"{tmp_path}/staging/deep/a", b"x" * 1000)
    try:
        storage.move_into_place(f"{tmp_path}/staging", f"{other_disk}/out")
        assert storage.read(f"{other_disk}/out/deep/a") == b"x" * 1000
        assert not (tmp_path / "staging").exists()
        assert [path.name for path in other_disk.iterdir()] == ["out"]
    finally:
        storage.delete_below(str(other_disk))


def test_delete_below_copes_with_others_who_delete(tmp_path: Path) -> None:
    for number in range(200):
        storage.put(f"{tmp_path}/job/{number % 10}/{number}", b"")
    threads = [
        threading.Thread(target=storage.delete_below, args=(f"{tmp_path}/job",)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not storage.exists(f"{tmp_path}/job")


def test_tag_changes_when_a_file_is_written_in_place(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"one")
    before = storage.stat(str(file)).etag
    time.sleep(0.02)
    file.write_bytes(b"two")
    assert storage.stat(str(file)).etag != before


def test_free_space_is_of_the_nearest_folder_there_is(tmp_path: Path) -> None:
    stats = os.statvfs(tmp_path)
    found = storage.free_space(f"{tmp_path}/not/yet/there")
    assert found.disk == str(tmp_path.stat().st_dev)
    assert found.disk != storage.free_space("/proc/not/there").disk
    assert abs(found.free_bytes - stats.f_bavail * stats.f_frsize) < 2**30
