"""Publishing on S3, which has no rename: server-side copies, what makes loadable last.

A claim is written at the target first, only if there is none. It keeps two jobs from mixing
their files, and names the staging it is for, so that a move that was killed can be repeated
and goes on. Until the last step but one, no loader takes what is at the target for a model.
"""

from collections.abc import Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any, Final

from fda_core.contract import uris
from fda_core.errors import FdaError, Forbidden, NotFound, OutputExists
from fda_core.storage.base import CLAIM, ObjectInfo
from fda_core.storage.s3_connection import Connection
from fda_core.storage.s3_objects import (
    abort_uploads,
    delete_object,
    delete_objects,
    list_objects,
)
from fda_core.storage.s3_places import Place
from fda_core.storage.s3_read import RangeReader
from fda_core.storage.s3_write import put_if_absent

WHOLE_BYTES: Final = 2**30
"""Larger objects are copied in parts. S3 must, above 5 GB; parts also go side by side."""

_PART_BYTES: Final = 256 * 2**20
_MOST_PARTS: Final = 10_000

_LAST: Final = ("config.json", "*.index.json", "*_manifest.json")
"""Copied after everything else, in this order: without them there is no model to load."""


class Mover:
    """Moves everything below one place to another, once."""

    def __init__(self, connection: Connection, staging: Place, target: Place) -> None:
        self._connection = connection
        self._staging = staging
        self._target = target

    def move(self) -> None:
        """Copy, then remove the staging. Raises `OutputExists` if anything else is there."""
        self._check_apart()
        found = list(list_objects(self._connection, self._staging))
        if not found:
            raise NotFound(
                f"{self._staging.uri}: there is nothing to publish", uri=self._staging.uri
            )
        claim = self._target.below(f"{self._target.prefix}{CLAIM}")
        self._take(claim)
        for group in _in_order(found, self._staging):
            self._copy_all(group)
        abort_uploads(self._connection, self._target)  # of an earlier try that was killed
        delete_objects(self._connection, self._staging)
        delete_object(self._connection, claim)

    def _check_apart(self) -> None:
        staging, target = self._staging.uri, self._target.uri
        if uris.inside(staging, target) or uris.inside(target, staging):
            raise Forbidden(
                f"{staging} cannot be moved to {target}: one lies in the other",
                hint="Give an output below the bucket, s3://bucket/output.",
                uri=target,
            )

    def _take(self, claim: Place) -> None:
        """Claim the target, which must be empty unless the claim was ours before."""
        mine = self._staging.uri.encode()
        if put_if_absent(self._connection, claim, mine):
            if not self._is_empty(claim):
                delete_object(self._connection, claim)
                raise _exists(self._target.uri, "there is something already")
            return
        theirs = self._claimed_by(claim)
        if theirs != mine:
            raise _exists(self._target.uri, f"{theirs.decode(errors='replace')} is published there")

    def _claimed_by(self, claim: Place) -> bytes:
        try:
            return RangeReader(self._connection).read(claim, 0, None, etag=None)
        except NotFound:
            return b"another merge"

    def _is_empty(self, claim: Place) -> bool:
        found = list_objects(self._connection, self._target)
        if any(info.uri != claim.uri for info in found):
            return False
        place = self._target
        if not place.key:
            return True
        try:
            self._connection.call(
                "head_object", doing="read", uri=place.uri, Bucket=place.bucket, Key=place.key
            )
        except NotFound:
            return True
        return False

    def _copy_all(self, group: Sequence[ObjectInfo]) -> None:
        """Copy some objects side by side; large ones one by one, their parts side by side."""
        pool = self._connection.pool(self._target.uri)
        small = [info for info in group if info.size_bytes <= WHOLE_BYTES]
        _all([pool.submit(self._copy, info) for info in small])
        for info in group:
            if info.size_bytes > WHOLE_BYTES:
                self._copy_in_parts(info)

    def _copy(self, info: ObjectInfo) -> None:
        self._call("copy_object", info)

    def _copy_in_parts(self, info: ObjectInfo) -> None:
        upload = self._ask("create_multipart_upload", info)["UploadId"]
        size = max(_PART_BYTES, -(-info.size_bytes // _MOST_PARTS))
        ranges = [
            (number, f"bytes={start}-{min(start + size, info.size_bytes) - 1}")
            for number, start in enumerate(range(0, info.size_bytes, size), 1)
        ]

        def part(number: int, range_: str) -> dict[str, Any]:
            answer = self._call(
                "upload_part_copy",
                info,
                UploadId=upload,
                PartNumber=number,
                CopySourceRange=range_,
            )
            return {"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]}

        pool = self._connection.pool(self._target.uri)
        try:
            parts = _all([pool.submit(part, *given) for given in ranges])
            self._ask(
                "complete_multipart_upload", info, UploadId=upload, MultipartUpload={"Parts": parts}
            )
        except BaseException:
            with suppress(FdaError):
                self._ask("abort_multipart_upload", info, UploadId=upload)
            raise

    def _call(self, operation: str, info: ObjectInfo, **request: object) -> dict[str, Any]:
        """Make a copying request; the source must still be what was listed."""
        source = {"Bucket": self._staging.bucket, "Key": _key(info, self._staging)}
        return self._ask(
            operation, info, CopySource=source, CopySourceIfMatch=f'"{info.etag}"', **request
        )

    def _ask(self, operation: str, info: ObjectInfo, **request: object) -> dict[str, Any]:
        path = info.uri[len(self._staging.uri) + 1 :]
        goal = self._target.below(self._target.prefix + path)
        return self._connection.call(
            operation, doing="publish", uri=goal.uri, Bucket=goal.bucket, Key=goal.key, **request
        )


def _in_order(found: Sequence[ObjectInfo], staging: Place) -> list[list[ObjectInfo]]:
    """Return what may be copied at once, group after group; in subfolders nothing is last."""
    groups: list[list[ObjectInfo]] = [[] for _ in range(len(_LAST) + 1)]
    for info in found:
        path = info.uri[len(staging.uri) + 1 :]
        ranks = [rank for rank, last in enumerate(_LAST, 1) if fnmatchcase(path, last)]
        groups[0 if "/" in path or not ranks else ranks[0]].append(info)
    return groups


def _key(info: ObjectInfo, staging: Place) -> str:
    return staging.prefix + info.uri[len(staging.uri) + 1 :]


def _all(work: Sequence[Future[Any]]) -> list[Any]:
    """Return every result; after the first error nothing more is begun or under way."""
    try:
        return [piece.result() for piece in work]
    finally:
        for piece in work:
            piece.cancel()
        wait(work)


def _exists(target: str, why: str) -> OutputExists:
    return OutputExists(
        f"{target}: {why}",
        hint="Give another output, or remove this one first.",
        uri=target,
    )
