"""Full disks, refused permissions, broken disks and files that change under the reader."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fda_core.errors import (
    ChangedInput,
    FdaError,
    Forbidden,
    InternalError,
    NotFound,
    OutOfDisk,
    Unavailable,
)
from fda_core.storage.local import LocalStorage
from fda_core.storage.os_errors import as_ours

storage = LocalStorage()


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, NotFound),
        (errno.ENOTDIR, NotFound),
        (errno.EACCES, Forbidden),
        (errno.EPERM, Forbidden),
        (errno.EROFS, Forbidden),
        (errno.EISDIR, Forbidden),
        (errno.ENOSPC, OutOfDisk),
        (errno.EDQUOT, OutOfDisk),
        (errno.EFBIG, OutOfDisk),
        (errno.EIO, Unavailable),
        (errno.ESTALE, Unavailable),
        (errno.EMFILE, Unavailable),
        (errno.ENOMEM, Unavailable),
        (None, Unavailable),
    ],
)
def test_each_errno_has_its_class(number: int | None, kind: type[FdaError]) -> None:
    problem = OSError("odd") if number is None else OSError(number, os.strerror(number))
    ours = as_ours(problem, doing="read", uri="/a/b")
    assert type(ours) is kind
    assert "/a/b" in ours.message
    assert ours.retryable == (kind is Unavailable)


Fail = Callable[..., None]


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Let a call to the operating system fail, after some that work."""

    def install(name: str, number: int, *, after: int = 0) -> None:
        real, left = getattr(os, name), [after]

        def call(*args: object, **named: object) -> object:
            if left[0] > 0:
                left[0] -= 1
                return real(*args, **named)
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, name, call)

    return install


def only(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, OutOfDisk), (errno.EDQUOT, OutOfDisk), (errno.EIO, Unavailable)],
)
@pytest.mark.parametrize("call", ["write", "fsync"])
def test_failed_write_keeps_the_old_file_and_leaves_nothing(
    tmp_path: Path, fail: Fail, *, call: str, number: int, kind: type[FdaError]
) -> None:
    storage.put(f"{tmp_path}/a", b"old")
    fail(call, number)
    with pytest.raises(kind, match=str(tmp_path)):
        storage.put(f"{tmp_path}/a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert only(tmp_path) == ["a"]


def test_half_written_file_cannot_be_committed(tmp_path: Path, fail: Fail) -> None:
    with storage.create(f"{tmp_path}/a") as writer:
        writer.write(b"fine")
        fail("write", errno.ENOSPC)
        with pytest.raises(OutOfDisk):
            writer.write(b"not fine")
        with pytest.raises(InternalError):
            writer.commit()
    assert only(tmp_path) == []


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:3]))
    storage.put(f"{tmp_path}/a", b"0123456789")
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_short_reads_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.put(f"{tmp_path}/a", b"0123456789")
    pread, preadv = os.pread, os.preadv
    monkeypatch.setattr(os, "pread", lambda fd, n, at: pread(fd, min(n, 3), at))
    monkeypatch.setattr(os, "preadv", lambda fd, parts, at: preadv(fd, [parts[0][:3]], at))
    buffer = bytearray(10)
    storage.read_into(f"{tmp_path}/a", memoryview(buffer), start=0)
    assert buffer == storage.read(f"{tmp_path}/a") == b"0123456789"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_refused_permission_is_forbidden(tmp_path: Path, fail: Fail, number: int) -> None:
    storage.put(f"{tmp_path}/a", b"x")
    fail("open", number)
    for call in (
        lambda: storage.read(f"{tmp_path}/a"),
        lambda: storage.put(f"{tmp_path}/b", b"x"),
        lambda: storage.create(f"{tmp_path}/b").__enter__(),
    ):
        with pytest.raises(Forbidden, match=str(tmp_path)):
            call()


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs /sys")
def test_the_kernel_refuses_files_in_sys() -> None:
    with pytest.raises(Forbidden, match="/sys/kernel/fda"):
        storage.put("/sys/kernel/fda", b"x")


@pytest.mark.parametrize("name", ["pread", "preadv"])
def test_unreadable_disk_is_unavailable_and_retryable(
    tmp_path: Path, fail: Fail, name: str
) -> None:
    where = f"{tmp_path}/a"
    storage.put(where, b"x")
    calls: dict[str, Callable[[], object]] = {
        "pread": lambda: storage.read(where),
        "preadv": lambda: storage.read_into(where, memoryview(bytearray(1)), start=0),
    }
    fail(name, errno.EIO)
    with pytest.raises(Unavailable) as caught:
        calls[name]()
    assert caught.value.retryable


def test_failed_replace_leaves_nothing(tmp_path: Path, fail: Fail) -> None:
    fail("replace", errno.EIO)
    with pytest.raises(Unavailable):
        storage.put(f"{tmp_path}/a", b"x")
    assert only(tmp_path) == []


def test_failed_link_leaves_nothing(tmp_path: Path, fail: Fail) -> None:
    fail("link", errno.EPERM)
    with pytest.raises(Forbidden):
        storage.put(f"{tmp_path}/a", b"x", if_absent=True)
    assert only(tmp_path) == []


def test_failed_sync_publishes_nothing(tmp_path: Path, fail: Fail) -> None:
    storage.put(f"{tmp_path}/staging/a", b"x")
    fail("fsync", errno.EIO)
    with pytest.raises(Unavailable):
        storage.move_into_place(f"{tmp_path}/staging", f"{tmp_path}/out")
    assert only(tmp_path) == ["staging"]


def test_the_real_limit_on_file_sizes_is_out_of_disk(tmp_path: Path) -> None:
    script = f"""
import resource
from fda_core.errors import OutOfDisk
from fda_core.storage.local import LocalStorage
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    LocalStorage().put({str(tmp_path / "a")!r}, b"x" * 5000)
except OutOfDisk as problem:
    print(problem.code)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "out_of_disk\n"
    assert only(tmp_path) == []


def change_during_read(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Change the file after it was opened and checked, just before its first bytes are read."""
    real, todo = os.preadv, [change]

    def call(fd: int, parts: list[memoryview], at: int) -> int:
        if todo:
            todo.pop()()
        return real(fd, parts, at)

    monkeypatch.setattr(os, "preadv", call)


def test_file_replaced_while_it_is_read_still_gives_the_old_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.put(f"{tmp_path}/a", b"old")
    etag = storage.stat(f"{tmp_path}/a").etag
    change_during_read(monkeypatch, lambda: storage.put(f"{tmp_path}/a", b"new"))
    buffer = bytearray(3)
    storage.read_into(f"{tmp_path}/a", memoryview(buffer), start=0, etag=etag)
    assert buffer == b"old"
    with pytest.raises(ChangedInput):
        storage.read_into(f"{tmp_path}/a", memoryview(buffer), start=0, etag=etag)


def test_file_cut_off_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.put(f"{tmp_path}/a", b"0123456789")
    change_during_read(monkeypatch, lambda: os.truncate(tmp_path / "a", 4))
    with pytest.raises(ChangedInput, match="byte 4"):
        storage.read_into(f"{tmp_path}/a", memoryview(bytearray(10)), start=0)


def test_file_overwritten_in_place_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.put(f"{tmp_path}/a", b"0123456789")
    etag = storage.stat(f"{tmp_path}/a").etag
    os.utime(tmp_path / "a", ns=(1, 1))
    etag = storage.stat(f"{tmp_path}/a").etag
    change_during_read(monkeypatch, lambda: (tmp_path / "a").write_bytes(b"9876543210"))
    with pytest.raises(ChangedInput):
        storage.read_into(f"{tmp_path}/a", memoryview(bytearray(10)), start=0, etag=etag)
