"""Writing to S3: a small object as one request, a large one in parts while it is written.

Parts go out from a few reused buffers. Nothing appears before the commit, whatever happens:
parts of an upload that was not completed are no object.
"""

import secrets
import threading
from collections import deque
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any, Final

from fda_core.errors import ChangedInput, FdaError, InternalError, NotFound
from fda_core.storage.base import ObjectInfo
from fda_core.storage.s3_connection import Connection
from fda_core.storage.s3_places import Place, tag_of

PART_BYTES: Final = 16 * 2**20
IN_FLIGHT: Final = 3
"""Parts of one object on their way; a writer holds this many buffers and one more."""

_PARTS_OF_A_SIZE: Final = 2000
_MARK: Final = "fda-writer"


def part_bytes(number: int) -> int:
    """Return the length of a part (from 1).

    S3 takes 10,000 parts and 5 TB, and nobody says how long the object will be: lengths
    double every 2,000 parts, which is enough for 1 TB with small buffers for small objects.
    """
    return PART_BYTES * 2 ** ((number - 1) // _PARTS_OF_A_SIZE)


class Mark:
    """A random mark kept with an object, to know one's own after an answer was lost."""

    def __init__(self, connection: Connection, place: Place) -> None:
        self._connection = connection
        self._place = place
        self._mark = secrets.token_hex(16)
        self.metadata = {_MARK: self._mark}

    def find(self) -> dict[str, Any] | None:
        """Return what S3 says of the object that is there now, if it bears this mark."""
        place = self._place
        try:
            found = self._connection.call(
                "head_object", doing="read", uri=place.uri, Bucket=place.bucket, Key=place.key
            )
        except NotFound:
            return None
        return found if found.get("Metadata", {}).get(_MARK) == self._mark else None


def put_object(connection: Connection, place: Place, data: bytes | bytearray) -> str | None:
    """Write an object in one request and return its tag."""
    return tag_of(
        connection.call(
            "put_object",
            doing="write",
            uri=place.uri,
            Bucket=place.bucket,
            Key=place.key,
            Body=data,
        )
    )


def put_if_absent(connection: Connection, place: Place, data: bytes) -> bool:
    """Write an object unless there is one; of many callers exactly one gets True.

    A refusal may be about our own object, if the answer to an earlier try was lost.
    """
    mark = Mark(connection, place)
    try:
        connection.call(
            "put_object",
            doing="write",
            uri=place.uri,
            Bucket=place.bucket,
            Key=place.key,
            Body=data,
            IfNoneMatch="*",
            Metadata=mark.metadata,
        )
    except ChangedInput:
        return mark.find() is not None
    return True


class PartsWriter:
    """An `ObjectWriter`. Memory: `IN_FLIGHT` + 1 buffers of a part's length."""

    def __init__(self, connection: Connection, place: Place) -> None:
        self._connection = connection
        self._place = place
        self._mark = Mark(connection, place)
        self._upload: str | None = None
        self._buffer = bytearray(part_bytes(1))
        self._used = 0
        self._size_bytes = 0
        self._in_flight: deque[tuple[Future[str], bytearray]] = deque()
        self._tags: list[Future[str]] = []
        self._stop = threading.Event()
        self._state = "open"

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes. After an error nothing more can be written or committed."""
        self._check_open()
        rest = memoryview(data).cast("B")
        try:
            while rest:
                if self._used == len(self._buffer):
                    self._send()
                size = min(len(rest), len(self._buffer) - self._used)
                self._buffer[self._used : self._used + size] = rest[:size]
                self._used += size
                rest = rest[size:]
        except BaseException:
            self._state = "failed"
            raise

    def commit(self) -> ObjectInfo:
        """Make the object appear, in one request if it is small."""
        self._check_open()
        self._state = "failed"
        self._size_bytes += self._used
        if self._upload is None:
            tag = put_object(self._connection, self._place, self._taken())
        else:
            self._start_part()
            tag = self._complete()
        self._state = "ended"
        return ObjectInfo(uri=self._place.uri, size_bytes=self._size_bytes, etag=tag or "")

    def discard(self) -> None:
        """Abort what was not committed. If that fails, parts stay, which are no object."""
        if self._state == "ended" or self._upload is None:
            return
        self._state, upload, self._upload = "ended", self._upload, None
        self._stop.set()
        for tag in self._tags:
            tag.cancel()
        wait(self._tags)  # a part that arrives after the abort would stay
        with suppress(FdaError):
            self._call("abort_multipart_upload", UploadId=upload)

    def _send(self) -> None:
        """Let a full buffer go out, and take another: a new one, or that of the oldest part."""
        self._size_bytes += self._used
        self._start_part()
        needed = part_bytes(len(self._tags) + 1)
        free = bytearray()
        if len(self._in_flight) > IN_FLIGHT:
            oldest, free = self._in_flight.popleft()
            oldest.result()
        self._buffer = free if len(free) == needed else bytearray(needed)
        self._used = 0

    def _start_part(self) -> None:
        if self._upload is None:
            answer = self._call("create_multipart_upload", Metadata=self._mark.metadata)
            self._upload = str(answer["UploadId"])
        number, body = len(self._tags) + 1, self._taken()
        tag = self._connection.pool(self._place.uri).submit(
            self._send_part, self._upload, number, body
        )
        self._tags.append(tag)
        self._in_flight.append((tag, self._buffer))

    def _taken(self) -> bytes | bytearray:
        """Return what is in the buffer; boto3 takes whole buffers, but no views of them."""
        full = self._used == len(self._buffer)
        return self._buffer if full else bytes(memoryview(self._buffer)[: self._used])

    def _send_part(self, upload: str, number: int, body: bytes | bytearray) -> str:
        answer = self._connection.persist(
            lambda: self._connection.client(self._place.uri).upload_part(
                Bucket=self._place.bucket,
                Key=self._place.key,
                UploadId=upload,
                PartNumber=number,
                Body=body,
            ),
            doing="write",
            uri=self._place.uri,
            stop=self._stop,
        )
        return str(answer["ETag"])

    def _complete(self) -> str | None:
        parts = [{"PartNumber": n, "ETag": tag.result()} for n, tag in enumerate(self._tags, 1)]
        try:
            answer = self._call(
                "complete_multipart_upload",
                UploadId=self._upload,
                MultipartUpload={"Parts": parts},
            )
        except NotFound:  # so says S3 also of an upload whose completion we did not hear of
            answer = self._mark.find() or {}
            if not answer:
                raise
        return tag_of(answer)

    def _call(self, operation: str, **request: object) -> dict[str, Any]:
        place = self._place
        return self._connection.call(
            operation,
            doing="write",
            uri=place.uri,
            Bucket=place.bucket,
            Key=place.key,
            **request,
        )

    def _check_open(self) -> None:
        if self._state != "open":
            raise InternalError(
                f"{self._place.uri}: its writer has {self._state}; nothing more can be written"
            )
