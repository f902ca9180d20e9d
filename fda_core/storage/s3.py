"""Storage on S3 and what speaks its language.

Addresses are s3://bucket/key; what is below one has keys that begin with its key and a slash.
Credentials, region, profile and endpoint come the way boto3 always takes them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fda_core.errors import Forbidden, NotFound
from fda_core.storage.base import ObjectInfo, ObjectWriter
from fda_core.storage.s3_connection import Connection, S3Settings
from fda_core.storage.s3_errors import changed, no_bucket
from fda_core.storage.s3_move import Mover
from fda_core.storage.s3_objects import delete_object, delete_objects, list_objects
from fda_core.storage.s3_places import Fence, Place, tag_of
from fda_core.storage.s3_read import PIECE_BYTES, RangeReader
from fda_core.storage.s3_write import PART_BYTES, PartsWriter, put_if_absent, put_object


class S3Storage:
    """Objects on S3, within `roots` if any are given. Safe to share by threads and forks.

    `roots=None` allows every bucket; an empty sequence allows nothing. Nothing is imported,
    read or connected to before the first request.
    """

    def __init__(
        self, roots: Sequence[str] | None = None, *, settings: S3Settings | None = None
    ) -> None:
        self._fence = Fence(roots)
        self._connection = Connection(settings or S3Settings())
        self._reader = RangeReader(self._connection)
        self._buckets: set[str] = set()

    def stat(self, uri: str) -> ObjectInfo:
        """Return an object's length and tag, or raise `NotFound`, naming a missing bucket."""
        place = self._fence.place(uri)
        try:
            return self._head(place)
        except NotFound:
            self._require_bucket(place)
            raise

    def exists(self, uri: str) -> bool:
        """Say whether an object is there, or any below; a missing bucket is `NotFound`."""
        place = self._fence.place(uri)
        try:
            self._head(place)
        except NotFound:
            return next(list_objects(self._connection, place), None) is not None
        return True

    def list(self, uri: str) -> Iterator[ObjectInfo]:
        """Yield every object below an address, sorted; all are listed before the first.

        Not every service sorts by whole keys, and some do not sort at all.
        """
        found = list_objects(self._connection, self._fence.place(uri))
        yield from sorted(found, key=lambda info: info.uri)

    def read(
        self, uri: str, *, start: int = 0, end: int | None = None, etag: str | None = None
    ) -> bytes:
        """Return bytes [start, end), as a slice does: what lies beyond the end is left out."""
        place = self._fence.object_place(uri, doing="read")
        if end is not None and end <= start:
            self._check_tag(place, etag)
            return b""
        return self._reader.read(place, start, end, etag=etag)

    def read_into(
        self, uri: str, buffer: memoryview, *, start: int, etag: str | None = None
    ) -> None:
        """Fill the whole of `buffer` from `start` on; a large one over several connections."""
        place, view = self._fence.object_place(uri, doing="read"), buffer.cast("B")
        if not view:
            self._check_tag(place, etag)
            return
        if etag is None and len(view) > PIECE_BYTES:
            etag = self.stat(uri).etag
        self._reader.read_into(place, view, start, etag=etag)

    @contextmanager
    def create(self, uri: str) -> Iterator[ObjectWriter]:
        """Open a writer for an object that replaces any of that address on commit."""
        writer = PartsWriter(self._connection, self._fence.object_place(uri, doing="write"))
        try:
            yield writer
        finally:
            writer.discard()

    def put(self, uri: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Write an object whole; with `if_absent`, return False if there was one."""
        place = self._fence.object_place(uri, doing="write")
        if if_absent:
            return put_if_absent(self._connection, place, data)
        if len(data) <= PART_BYTES:
            put_object(self._connection, place, data)
            return True
        with self.create(uri) as writer:
            writer.write(data)
            writer.commit()
        return True

    def delete(self, uri: str) -> None:
        """Remove an object; nothing there is no error."""
        delete_object(self._connection, self._fence.object_place(uri, doing="remove"))

    def delete_below(self, uri: str) -> None:
        """Remove every object below an address, and what killed writers left there."""
        delete_objects(self._connection, self._fence.place(uri))

    def move_into_place(self, staging: str, target: str) -> None:
        """Copy everything below `staging` to `target`, index files last; remove `staging`.

        A move that was killed may be repeated, and goes on.
        """
        Mover(self._connection, self._fence.place(staging), self._fence.place(target)).move()

    def free_space(self, uri: str) -> None:
        """Return None: nobody says how much there is."""
        self._fence.place(uri)

    def signed_url(self, uri: str, *, seconds: int) -> str | None:
        """Return an address signed with this process's credentials (SigV4)."""
        place = self._fence.object_place(uri, doing="sign")
        return self._connection.sign_read(place.uri, place.bucket, place.key, seconds=seconds)

    def close(self) -> None:
        """Close this process's connections; later calls make new ones."""
        self._connection.close()

    def _head(self, place: Place) -> ObjectInfo:
        if not place.key:
            raise NotFound(f"{place.uri}: a bucket, not an object", uri=place.uri)
        found = self._connection.call(
            "head_object", doing="read", uri=place.uri, Bucket=place.bucket, Key=place.key
        )
        return ObjectInfo(
            uri=place.uri, size_bytes=int(found["ContentLength"]), etag=tag_of(found) or ""
        )

    def _require_bucket(self, place: Place) -> None:
        """Say so if the whole bucket is missing, which the answer to a HEAD does not tell."""
        if place.bucket in self._buckets:
            return
        try:
            self._connection.call("head_bucket", doing="read", uri=place.uri, Bucket=place.bucket)
        except NotFound:
            raise no_bucket(place.uri) from None
        except Forbidden:  # without the right to list it, but it is there
            pass
        self._buckets.add(place.bucket)

    def _check_tag(self, place: Place, etag: str | None) -> None:
        found = self.stat(place.uri)
        if etag is not None and found.etag != etag:
            raise changed(place.uri)
