"""Storage on a local or mounted file system.

Addresses are absolute paths. As on an object store there are files only: an empty folder
does not exist, a folder is never an object, folders are made as files need them. Links to
files are read through; linked folders are not listed or removed through.

With allow-listed roots, reads resolve every link and must end inside a root; writes and
removals resolve the folder and act on the name itself. This guards against recipes, not
against a local user who swaps folders for links between the check and the use.
"""

import errno
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from fda_core.contract import uris
from fda_core.errors import BadParameter, ChangedInput, FdaError, Forbidden, NotFound, OutputExists
from fda_core.storage import folders
from fda_core.storage.aside import AsideFile, etag_of, is_temporary, make_folders, sync_folder
from fda_core.storage.base import FreeSpace, ObjectInfo, ObjectWriter
from fda_core.storage.os_errors import translated

_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR}


class LocalStorage:
    """Files under absolute paths, within `roots` if any are given. Safe to share by threads.

    `roots=None` allows the whole disk; an empty sequence allows nothing.
    """

    def __init__(self, roots: Sequence[str] | None = None) -> None:
        for root in roots or ():
            if not root.startswith("/"):
                raise BadParameter(f"storage root {root!r} is not an absolute path")
        self._roots = None if roots is None else tuple(os.path.realpath(root) for root in roots)

    def stat(self, uri: str) -> ObjectInfo:
        """Return a file's length and tag, or raise `NotFound`; a folder is not found."""
        with translated("read", uri):
            return _info(uri, self._to_read(uri).stat())

    def exists(self, uri: str) -> bool:
        """Say whether a file is there, or any file below the address."""
        try:
            self.stat(uri)
        except NotFound:
            return next(self.list(uri), None) is not None
        return True

    def list(self, uri: str) -> Iterator[ObjectInfo]:
        """Yield every file below a folder, sorted by address; none if there is no folder.

        Our own temporary files, dangling links and files that vanish meanwhile are no
        objects. A link that leads outside the roots is `Forbidden`.
        """
        with translated("list", uri):
            try:
                entries = folders.sorted_entries(self._to_read(uri))
            except (FileNotFoundError, NotADirectoryError):
                return
        for entry in entries:
            child = uris.join(uri, entry.name)
            if is_temporary(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self.list(child)
            else:
                with suppress(NotFound):
                    yield self.stat(child)

    def read(
        self, uri: str, *, start: int = 0, end: int | None = None, etag: str | None = None
    ) -> bytes:
        """Return bytes [start, end), as a slice does: what lies beyond the end is left out."""
        with translated("read", uri), self._opened(uri, etag) as (fd, size_bytes):
            stop = size_bytes if end is None else min(end, size_bytes)
            parts: list[bytes] = []
            while start < stop:
                parts.append(os.pread(fd, stop - start, start) or _cut_off(uri, start, stop))
                start += len(parts[-1])
            return b"".join(parts)

    def read_into(
        self, uri: str, buffer: memoryview, *, start: int, etag: str | None = None
    ) -> None:
        """Fill the whole of `buffer` from `start` on, without another copy."""
        rest = buffer.cast("B")
        with translated("read", uri), self._opened(uri, etag) as (fd, _):
            while rest:
                count = os.preadv(fd, [rest], start)
                if count == 0:
                    _cut_off(uri, start, start + len(rest))
                start += count
                rest = rest[count:]

    @contextmanager
    def create(self, uri: str) -> Iterator[ObjectWriter]:
        """Open a writer for a file that replaces any of that address on commit."""
        with self._aside(uri) as writer:
            yield writer

    def put(self, uri: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Write a small file whole; with `if_absent`, return False if there was one.

        Free of races: of many callers exactly one gets True, and nobody reads a part.
        """
        if if_absent and self._is_file(uri):
            return False
        with self._aside(uri) as writer:
            writer.write(data)
            if not if_absent:
                return bool(writer.commit())
            written = writer.commit_if_absent() is not None
        if not written and self._to_write(uri).is_dir():
            raise Forbidden(f"{uri}: cannot write: a folder is in the way", uri=uri)
        return written

    def delete(self, uri: str) -> None:
        """Remove a file; nothing there, or a folder, is no error."""
        with translated("remove", uri), suppress(FileNotFoundError, NotADirectoryError):
            path = self._to_write(uri)
            if not stat.S_ISDIR(path.lstat().st_mode):
                path.unlink()

    def delete_below(self, uri: str) -> None:
        """Remove every file below an address, and the folders; a root itself stays."""
        with translated("remove", uri):
            folder = Path(os.path.realpath(self._to_read(uri)))
            if folder == Path("/"):
                raise Forbidden("/: the whole disk is not removed", uri=uri)
            folders.empty(folder)
            if str(folder) not in (self._roots or ()):
                with suppress(OSError):  # an empty folder left behind is no object
                    folder.rmdir()

    def move_into_place(self, staging: str, target: str) -> None:
        """Make the folder `staging` appear at `target` in one step, durable.

        An empty folder at the target counts as none. From another disk the files are copied
        beside the target first, so that they still appear at once.
        """
        with translated("publish", target):
            source, goal = self._to_read(staging), self._to_write(target)
            if not source.is_dir():
                raise NotFound(f"{staging}: there is no folder to publish", uri=staging)
            if self.exists(target):
                raise _exists(target)
            make_folders(goal.parent, uri=target)
            folders.remove_temporary(source)
            folders.sync_all(source)
            try:
                folders.rename(source, goal)
            except OSError as problem:
                raise (_exists(target) if problem.errno in _TAKEN else problem) from problem
            sync_folder(goal.parent)

    def free_space(self, uri: str) -> FreeSpace:
        """Return the space left on the disk where the address lies or would lie."""
        with translated("look at", uri):
            at = self._to_read(uri)
            while not at.exists() and at != at.parent:
                at = at.parent
            return FreeSpace(disk=str(at.stat().st_dev), free_bytes=shutil.disk_usage(at).free)

    def signed_url(self, uri: str, *, seconds: int) -> str | None:  # noqa: ARG002
        """Return None: a file system has no web server."""
        self._to_read(uri)
        return None

    @contextmanager
    def _aside(self, uri: str) -> Iterator[AsideFile]:
        with translated("write", uri):
            writer = AsideFile(uri, self._to_write(uri))
        try:
            yield writer
        finally:
            writer.discard()

    @contextmanager
    def _opened(self, uri: str, etag: str | None) -> Iterator[tuple[int, int]]:
        """Open a regular file; yield descriptor and length; check the tag before and after."""
        fd = os.open(self._to_read(uri), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            info = _info(uri, os.fstat(fd))
            _check_tag(info, etag)
            yield fd, info.size_bytes
            if etag is not None:
                _check_tag(_info(uri, os.fstat(fd)), etag)
        finally:
            os.close(fd)

    def _is_file(self, uri: str) -> bool:
        try:
            self.stat(uri)
        except NotFound:
            return False
        return True

    def _to_read(self, uri: str) -> Path:
        """Return the path with links resolved if there are roots, or raise `Forbidden`."""
        _check_path(uri)
        return Path(uri) if self._roots is None else self._inside(uri, os.path.realpath(uri))

    def _to_write(self, uri: str) -> Path:
        """Return the path with the folder's links resolved: the name itself is acted on."""
        _check_path(uri)
        if self._roots is None:
            return Path(uri)
        folder, _, name = uri.rpartition("/")
        return self._inside(uri, os.path.normpath(f"{os.path.realpath(folder or '/')}/{name}"))

    def _inside(self, uri: str, path: str) -> Path:
        if not any(uris.inside(path, root) for root in self._roots or ()):
            raise Forbidden(
                f"{uri}: outside the folders that may be used here",
                hint="Use a folder below one of the allowed storage roots.",
                uri=uri,
            )
        return Path(path)


def _check_path(uri: str) -> None:
    try:
        usable = uri.startswith("/") and b"\0" not in os.fsencode(uri)
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise Forbidden(f"{uri!r} is not an absolute path", uri=ascii(uri))


def _info(uri: str, status: os.stat_result) -> ObjectInfo:
    if not stat.S_ISREG(status.st_mode):
        kind = "folder" if stat.S_ISDIR(status.st_mode) else "device or pipe"
        raise NotFound(f"{uri}: a {kind}, not a file", uri=uri)
    return ObjectInfo(uri=uri, size_bytes=status.st_size, etag=etag_of(status))


def _check_tag(info: ObjectInfo, etag: str | None) -> None:
    if etag is not None and info.etag != etag:
        raise ChangedInput(
            f"{info.uri}: no longer the file that was planned with "
            f"(tag {info.etag}, was {etag}; now {info.size_bytes} bytes)",
            hint="Plan again, and leave inputs alone while a job runs.",
            uri=info.uri,
        )


def _cut_off(uri: str, start: int, stop: int) -> bytes:
    raise ChangedInput(
        f"{uri}: ends at byte {start}, but bytes up to {stop} were asked for",
        hint="The file was cut off or replaced; fetch it again and plan again.",
        uri=uri,
    )


def _exists(target: str) -> FdaError:
    return OutputExists(
        f"{target}: there is something already",
        hint="Give another output, or remove this one first.",
        uri=target,
    )
