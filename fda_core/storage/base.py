"""The Storage protocol: the only way anything here reads or writes bytes."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

CLAIM: Final = ".fda-publishing"
"""Name of the object that an object store keeps at a target while it moves things there."""


@dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    """One file or object: its address, length and a tag that changes with its content."""

    uri: str
    size_bytes: int
    etag: str


@dataclass(frozen=True, kw_only=True)
class FreeSpace:
    """The space left on a disk; `disk` is the same for all addresses that share it."""

    disk: str
    free_bytes: int


class ObjectWriter(Protocol):
    """A new object under way. It appears when the writer is committed, whole, or never."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes."""
        ...

    def commit(self) -> ObjectInfo:
        """Make the object appear, durable. Leaving the context without this discards it."""
        ...


class Storage(Protocol):
    """Objects under addresses. All addresses are normalised (`contract.uris.normalise`).

    Every method raises `NotFound`, `Forbidden`, `OutOfDisk` or `Unavailable` and nothing
    of the operating system's or a client library's.
    """

    def stat(self, uri: str) -> ObjectInfo:
        """Return an object's length and tag, or raise `NotFound`."""
        ...

    def exists(self, uri: str) -> bool:
        """Say whether an object is there, or any object below the address."""
        ...

    def list(self, uri: str) -> Iterator[ObjectInfo]:
        """Yield every object below an address, recursively, sorted by address."""
        ...

    def read(
        self, uri: str, *, start: int = 0, end: int | None = None, etag: str | None = None
    ) -> bytes:
        """Return bytes [start, end). With `etag`, raise `ChangedInput` if it is another."""
        ...

    def read_into(
        self, uri: str, buffer: memoryview, *, start: int, etag: str | None = None
    ) -> None:
        """Fill the whole of a caller's buffer from `start` on. Short objects are `ChangedInput`."""
        ...

    def create(self, uri: str) -> AbstractContextManager[ObjectWriter]:
        """Open a writer for an object that replaces any of that address on commit."""
        ...

    def put(self, uri: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Write a small object whole; with `if_absent`, return False if there was one."""
        ...

    def delete(self, uri: str) -> None:
        """Remove an object; nothing there is no error."""
        ...

    def delete_below(self, uri: str) -> None:
        """Remove every object below an address."""
        ...

    def move_into_place(self, staging: str, target: str) -> None:
        """Make everything below `staging` appear at `target`, which must not exist.

        On a file system in one step. On object stores index files last, under a claim at
        the target that holds the staging's address; a move that was killed can be repeated.
        """
        ...

    def free_space(self, uri: str) -> FreeSpace | None:
        """Return the space left where the address lies, or None if nobody can say."""
        ...

    def signed_url(self, uri: str, *, seconds: int) -> str | None:
        """Return an address that lets anybody read an object for so long, if there is a way.

        Asks nobody, so the object need not be there. None where storage has no web server.
        """
        ...
