"""One Storage for every address: each call goes to the storage that serves its scheme."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

from fda_core.contract import uris
from fda_core.errors import UnsupportedScheme
from fda_core.storage.base import FreeSpace, ObjectInfo, ObjectWriter, Storage
from fda_core.storage.local import LocalStorage
from fda_core.storage.s3 import S3Storage

StorageFactory = Callable[[], Storage]


class Storages:
    """A Storage that dispatches by scheme. Safe to share by threads.

    Each storage is made on first use and kept, so an unused one costs nothing: no client,
    no import. Schemes without a factory are `UnsupportedScheme`.
    """

    def __init__(self, factories: Mapping[str, StorageFactory]) -> None:
        self._factories = dict(factories)
        self._made: dict[str, Storage] = {}
        self._lock = threading.Lock()

    def storage_for(self, uri: str) -> Storage:
        """Return the storage that serves an address, or raise `UnsupportedScheme`."""
        kind = uris.scheme(uri)
        with self._lock:
            if kind not in self._made:
                self._made[kind] = self._factory(kind, uri)()
            return self._made[kind]

    def _factory(self, kind: str, uri: str) -> StorageFactory:
        if kind not in self._factories:
            known = ", ".join(f"{name}://" for name in sorted(self._factories))
            raise UnsupportedScheme(
                f"{uri}: no storage serves {kind}:// here", hint=f"Served here: {known}.", uri=uri
            )
        return self._factories[kind]

    def stat(self, uri: str) -> ObjectInfo:
        """Return an object's length and tag, or raise `NotFound`."""
        return self.storage_for(uri).stat(uri)

    def exists(self, uri: str) -> bool:
        """Say whether an object is there, or any object below the address."""
        return self.storage_for(uri).exists(uri)

    def list(self, uri: str) -> Iterator[ObjectInfo]:
        """Yield every object below an address, recursively, sorted by address."""
        return self.storage_for(uri).list(uri)

    def read(
        self, uri: str, *, start: int = 0, end: int | None = None, etag: str | None = None
    ) -> bytes:
        """Return bytes [start, end)."""
        return self.storage_for(uri).read(uri, start=start, end=end, etag=etag)

    def read_into(
        self, uri: str, buffer: memoryview, *, start: int, etag: str | None = None
    ) -> None:
        """Fill the whole of a caller's buffer from `start` on."""
        self.storage_for(uri).read_into(uri, buffer, start=start, etag=etag)

    def create(self, uri: str) -> AbstractContextManager[ObjectWriter]:
        """Open a writer for an object that replaces any of that address on commit."""
        return self.storage_for(uri).create(uri)

    def put(self, uri: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Write a small object whole; with `if_absent`, return False if there was one."""
        return self.storage_for(uri).put(uri, data, if_absent=if_absent)

    def delete(self, uri: str) -> None:
        """Remove an object; nothing there is no error."""
        self.storage_for(uri).delete(uri)

    def delete_below(self, uri: str) -> None:
        """Remove every object below an address."""
        self.storage_for(uri).delete_below(uri)

    def move_into_place(self, staging: str, target: str) -> None:
        """Make everything below `staging` appear at `target`, on the same kind of storage."""
        storage = self.storage_for(target)
        if self.storage_for(staging) is not storage:
            raise UnsupportedScheme(
                f"{staging} cannot be moved to {target}: they are on different storages",
                hint="Put the workspace on the storage of the output.",
                uri=staging,
            )
        storage.move_into_place(staging, target)

    def free_space(self, uri: str) -> FreeSpace | None:
        """Return the space left where the address lies, or None if nobody can say."""
        return self.storage_for(uri).free_space(uri)

    def signed_url(self, uri: str, *, seconds: int) -> str | None:
        """Return an address that lets anybody read an object for so long, if there is a way."""
        return self.storage_for(uri).signed_url(uri, seconds=seconds)


def storages(roots: Sequence[str] | None = None) -> Storages:
    """Return the storages of this installation, within allow-listed roots if any are given.

    Each storage takes the roots of its own scheme.
    """
    return Storages(
        {
            "file": lambda: LocalStorage(_of_scheme(roots, "file")),
            "s3": lambda: S3Storage(_of_scheme(roots, "s3")),
        }
    )


def _of_scheme(roots: Sequence[str] | None, kind: str) -> Sequence[str] | None:
    return None if roots is None else [root for root in roots if uris.scheme(root) == kind]
