"""Ranged reads from S3 into memory the caller owns.

A body that is cut or stands still is asked for again from the byte where it ended, with
If-Match on the tag it began with: boto3 itself retries no bodies. Large reads go over several
connections, each straight into its part of the buffer.
"""

import math
import re
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from fda_core.errors import FdaError, Unavailable
from fda_core.storage.s3_connection import Connection
from fda_core.storage.s3_errors import as_ours, code_of, cut_off, failures, may_pass
from fda_core.storage.s3_places import Place, tag_of

PIECE_BYTES: Final = 8 * 2**20
"""Reads above this are split over several connections."""

LARGE_PIECE_BYTES: Final = 16 * 2**20
"""Pieces of reads of more than two of these: every request costs the server some milliseconds.
A writer's parts are as long."""

_CHUNK_BYTES: Final = 256 * 2**10
"""urllib3 reads into memory of its own first; chunks this small stay in the cache. What came
of a chunk before a reset or a stall is lost, too."""

_PROGRESS_BYTES: Final = 64 * 2**10
"""A try that brought so much counts as none: only those that bring nothing use up patience."""

_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """A body under way: `size_bytes` of the object, from where it was asked for."""

    body: Any
    size_bytes: int
    tag: str | None


class RangeReader:
    """Reads ranges of objects."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def read(self, place: Place, start: int, end: int | None, *, etag: str | None) -> bytes:
        """Return bytes [start, end), as a slice does. `end`, if any, is beyond `start`."""

        def first() -> _Answer | None:
            try:
                return self._ask(place, start, end, etag=etag)
            except failures() as problem:
                if code_of(problem) in ("InvalidRange", "416"):
                    return None
                raise

        answer = self._connection.persist(first, doing="read", uri=place.uri)
        if answer is None:
            return b""
        buffer = bytearray(answer.size_bytes)
        self._fill(place, memoryview(buffer), start, answer.tag, answer=answer)
        return bytes(buffer)

    def read_into(self, place: Place, view: memoryview, start: int, *, etag: str | None) -> None:
        """Fill a view of bytes. When this returns or raises, nothing writes to it any more.

        Several pieces are of one object only if there is a tag to hold them to.
        """
        if len(view) <= PIECE_BYTES:
            self._fill(place, view, start, etag)
            return
        cuts = _cuts(start, start + len(view))
        stop = threading.Event()
        pool = self._connection.pool(place.uri)
        pieces = [
            pool.submit(self._fill, place, view[at - start : end - start], at, etag, stop=stop)
            for at, end in pairwise(cuts)
        ]
        _finish(pieces, stop)

    def _fill(
        self,
        place: Place,
        view: memoryview,
        start: int,
        tag: str | None,
        *,
        answer: _Answer | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        done = 0
        patience = self._connection.patience(stop=stop)
        while done < len(view):
            before = done
            try:
                with self._body(place, view[done:], start + done, tag, answer) as current:
                    tag = current.tag
                    for size in _chunks(current.body, view[done:]):
                        done += size
                        if stop is not None and stop.is_set():
                            return
            except failures() as problem:
                ours = _as_ours(problem, place, start + len(view))
                if not may_pass(problem):
                    raise ours from problem
                if done - before >= _PROGRESS_BYTES:
                    patience.progressed()
                patience.bear(ours, cause=problem)
            answer = None

    @contextmanager
    def _body(
        self, place: Place, view: memoryview, start: int, tag: str | None, given: _Answer | None
    ) -> Iterator[_Answer]:
        """Open the body that fills a view, or take the one that is open already."""
        answer = given or self._ask(place, start, start + len(view), etag=tag)
        with closing(answer.body):
            if answer.size_bytes != len(view):
                raise cut_off(
                    place.uri, size_bytes=start + answer.size_bytes, stop=start + len(view)
                )
            yield answer

    def _ask(self, place: Place, start: int, end: int | None, *, etag: str | None) -> _Answer:
        """Send one request and check what its head promises; nothing is tried again."""
        request = {
            "Bucket": place.bucket,
            "Key": place.key,
            # Of whole objects, too: the answer to a range tells the length a second time.
            "Range": f"bytes={start}-{'' if end is None else end - 1}",
        }
        if etag is not None:
            request["IfMatch"] = f'"{etag}"'
        answer = self._connection.client(place.uri).get_object(**request)
        try:
            size = _promised_bytes(place.uri, answer, start, end)
        except BaseException:
            answer["Body"].close()
            raise
        return _Answer(body=answer["Body"], size_bytes=size, tag=tag_of(answer))


def _cuts(start: int, end: int) -> list[int]:
    """Return where to cut a range, its ends included: at multiples of a piece in the object.

    Objects lie in parts on servers; a piece that lies in one of them is cheaper to serve than
    one across two. None is shorter than half of it or longer than two.
    """
    piece = LARGE_PIECE_BYTES if end - start > 2 * LARGE_PIECE_BYTES else PIECE_BYTES
    first = math.ceil((start + piece / 2) / piece) * piece
    return [start, *range(first, int(end - piece / 2) + 1, piece), end]


def _promised_bytes(uri: str, answer: dict[str, Any], start: int, end: int | None) -> int:
    """Return the length of a body, which must be what range and object make it."""
    length = answer.get("ContentLength")
    given = _CONTENT_RANGE.fullmatch(answer.get("ContentRange") or "")
    if given is None:
        if start or (end is not None and length is not None and length > end):
            raise Unavailable(
                f"{uri}: cannot read: the server does not serve ranges",
                hint="Use an S3 service that does.",
                uri=uri,
            )
        wanted = length
    else:
        first, last, total = given.groups()
        stop = int(last) + 1 if total == "*" else int(total)
        wanted = (stop if end is None else min(stop, end)) - start
        if int(first) != start:
            raise ConnectionError(f"asked for bytes from {start}, got them from {first}")
    if length is None or length != wanted:
        raise ConnectionError(f"the answer promises {length} bytes, not {wanted}")
    return int(length)


def _chunks(body: Any, view: memoryview) -> Iterator[int]:
    """Read a body into a view and yield how many bytes have come each time."""
    done = 0
    while done < len(view):
        size = body.readinto(view[done : done + _CHUNK_BYTES])
        if size == 0:
            raise ConnectionError(f"the body ended after {done} of {len(view)} bytes")
        done += size
        yield size


def _as_ours(problem: Exception, place: Place, stop: int) -> FdaError:
    if code_of(problem) in ("InvalidRange", "416"):
        return cut_off(place.uri, size_bytes=None, stop=stop)
    return as_ours(problem, doing="read", uri=place.uri)


def _finish(pieces: list[Future[None]], stop: threading.Event) -> None:
    """Wait for all pieces; the first to fail ends the others, and its error is raised.

    Those it ends may say that they were cut short: an error that would last goes before theirs.
    """
    try:
        wait(pieces, return_when=FIRST_EXCEPTION)
    finally:
        stop.set()
        for piece in pieces:
            piece.cancel()
        wait(pieces)
    problems = [piece.exception() for piece in pieces if not piece.cancelled()]
    found = [problem for problem in problems if problem is not None]
    if found:
        raise min(found, key=lambda problem: bool(getattr(problem, "retryable", False)))
