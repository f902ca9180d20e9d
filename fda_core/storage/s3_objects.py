"""Many objects on S3 at once: list what is below a prefix, and remove it."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

from fda_core.errors import FdaError
from fda_core.storage.base import ObjectInfo
from fda_core.storage.s3_connection import Connection
from fda_core.storage.s3_places import Place, tag_of

_MOST_DELETED: Final = 1000
"""What one request may remove; S3 lists no more on a page, either."""


def list_objects(connection: Connection, place: Place) -> Iterator[ObjectInfo]:
    """Yield every object below a place, in whatever order the service has.

    Keys that end in a slash are no objects: consoles make such empty ones to show folders.
    """
    for page in _pages(connection, place):
        for found in page:
            if not found["Key"].endswith("/"):
                yield ObjectInfo(
                    uri=place.below(found["Key"]).uri,
                    size_bytes=int(found["Size"]),
                    etag=tag_of(found) or "",
                )


def delete_object(connection: Connection, place: Place) -> None:
    """Remove an object; nothing there is no error."""
    connection.call(
        "delete_object", doing="remove", uri=place.uri, Bucket=place.bucket, Key=place.key
    )


def delete_objects(connection: Connection, place: Place) -> None:
    """Remove everything below a place, and the parts that killed writers left there."""
    for page in _pages(connection, place):
        keys = [found["Key"] for found in page]
        for first in range(0, len(keys), _MOST_DELETED):
            _delete(connection, place, keys[first : first + _MOST_DELETED])
    abort_uploads(connection, place)


def _pages(connection: Connection, place: Place) -> Iterator[Sequence[dict[str, Any]]]:
    more: dict[str, str] = {}
    while True:
        page = connection.call(
            "list_objects_v2",
            doing="list",
            uri=place.uri,
            Bucket=place.bucket,
            Prefix=place.prefix,
            **more,
        )
        yield page.get("Contents", [])
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}


def _delete(connection: Connection, place: Place, keys: Sequence[str]) -> None:
    def attempt() -> None:
        from botocore.exceptions import ClientError

        answer = connection.client(place.uri).delete_objects(
            Bucket=place.bucket,
            Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True},
        )
        # Refusals of single keys come in an answer of success.
        for error in answer.get("Errors", []):
            raise ClientError({"Error": error}, "DeleteObjects")

    if keys:
        connection.persist(attempt, doing="remove everything", uri=place.uri)


def abort_uploads(connection: Connection, place: Place) -> None:
    """Remove the parts that killed writers left below a place, if that is allowed.

    Parts are no objects, and listing them is a right of its own.
    """
    with suppress(FdaError):
        found = connection.call(
            "list_multipart_uploads",
            doing="list uploads",
            uri=place.uri,
            Bucket=place.bucket,
            Prefix=place.prefix,
        )
        for upload in found.get("Uploads", []):
            connection.call(
                "abort_multipart_upload",
                doing="remove",
                uri=place.uri,
                Bucket=place.bucket,
                Key=upload["Key"],
                UploadId=upload["UploadId"],
            )
