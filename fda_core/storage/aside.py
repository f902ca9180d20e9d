"""Local files that appear whole or not at all: write aside, sync, then rename."""

import os
import re
import secrets
from pathlib import Path

from fda_core.errors import Forbidden, InternalError
from fda_core.storage.base import ObjectInfo
from fda_core.storage.os_errors import as_ours, translated

_TEMPORARY = re.compile(r"^\.fda-[0-9a-f]{16}\.part$")


def temporary_name() -> str:
    """Return a new hidden name that `is_temporary` knows."""
    return f".fda-{secrets.token_hex(8)}.part"


def is_temporary(name: str) -> bool:
    """Say whether a file or folder is one of ours under way, or left by a killed process."""
    return _TEMPORARY.match(name) is not None


def etag_of(status: os.stat_result) -> str:
    """Return the tag of a file: it changes when the file is replaced, resized or touched."""
    return f"{status.st_size:x}-{status.st_mtime_ns:x}-{status.st_ino:x}"


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folders(folder: Path, *, uri: str) -> None:
    """Create a folder and its parents, durable; a file in the way is `Forbidden`."""
    missing: list[Path] = []
    at = folder
    while not at.is_dir() and at != at.parent:
        missing.append(at)
        at = at.parent
    try:
        for new in reversed(missing):
            new.mkdir(exist_ok=True)
            sync_folder(new.parent)
    except (FileExistsError, NotADirectoryError) as problem:
        raise Forbidden(f"{uri}: cannot write: a file is in the way", uri=uri) from problem


class AsideFile:
    """An `ObjectWriter` beside its target, under a temporary name in the same folder."""

    def __init__(self, uri: str, target: Path) -> None:
        self._uri = uri
        self._target = target
        self._temporary = target.with_name(temporary_name())
        self._broken = False
        with translated("write", uri):
            make_folders(target.parent, uri=uri)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._fd: int | None = os.open(self._temporary, flags, 0o666)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes. After an error nothing more can be written or committed."""
        fd = self._open_fd()
        rest = memoryview(data).cast("B")
        try:
            while rest:
                rest = rest[os.write(fd, rest) :]
        except BaseException as problem:
            self._broken = True
            if isinstance(problem, OSError):
                raise as_ours(problem, doing="write", uri=self._uri) from problem
            raise

    def commit(self) -> ObjectInfo:
        """Sync, replace the target in one step and sync the folder."""
        info = self._sync_and_close()
        with translated("write", self._uri):
            self._temporary.replace(self._target)
            sync_folder(self._target.parent)
        return info

    def commit_if_absent(self) -> ObjectInfo | None:
        """Appear only if nothing is at the target; return None if something is.

        A hard link fails where the name is taken, so of many writers exactly one wins.
        """
        info = self._sync_and_close()
        with translated("write", self._uri):
            try:
                self._target.hardlink_to(self._temporary)
            except FileExistsError:
                return None
            finally:
                self._temporary.unlink(missing_ok=True)
            sync_folder(self._target.parent)
        return info

    def discard(self) -> None:
        """Remove what was written, unless committed. Never raises for a missing file."""
        with translated("remove", self._uri):
            if self._fd is not None:
                fd, self._fd = self._fd, None
                os.close(fd)
            self._temporary.unlink(missing_ok=True)

    def _sync_and_close(self) -> ObjectInfo:
        fd = self._open_fd()
        with translated("write", self._uri):
            os.fsync(fd)
            status = os.fstat(fd)
            self._fd = None
            os.close(fd)
        return ObjectInfo(uri=self._uri, size_bytes=status.st_size, etag=etag_of(status))

    def _open_fd(self) -> int:
        if self._fd is None or self._broken:
            state = "failed" if self._broken else "ended"
            raise InternalError(f"{self._uri}: its writer has {state}; nothing more can be written")
        return self._fd
