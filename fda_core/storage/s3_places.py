"""Addresses on S3: bucket and key, within allow-listed roots; and what S3 says of objects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fda_core.contract import uris
from fda_core.errors import BadParameter, Forbidden

_SCHEME = "s3://"


@dataclass(frozen=True)
class Place:
    """One address taken apart. The key of a bare bucket is empty."""

    uri: str
    bucket: str
    key: str

    @property
    def prefix(self) -> str:
        """Return what the keys of everything below begin with."""
        return f"{self.key}/" if self.key else ""

    def below(self, key: str) -> "Place":
        """Return the place of another key in this bucket."""
        return Place(f"{_SCHEME}{self.bucket}/{key}", self.bucket, key)


class Fence:
    """The places that may be used: below the roots, or all of S3 if `roots` is None."""

    def __init__(self, roots: Sequence[str] | None) -> None:
        for root in roots or ():
            if not root.startswith(_SCHEME) or uris.normalise(root, cwd="/") != root:
                raise BadParameter(
                    f"storage root {root!r} is not s3://bucket or s3://bucket/prefix"
                )
        self._roots = None if roots is None else tuple(roots)

    def place(self, uri: str) -> Place:
        """Return the place of an address, or raise `Forbidden`; a bare bucket is one."""
        bucket, _, key = uri.removeprefix(_SCHEME).partition("/")
        parts = key.split("/") if key else []
        if not uri.startswith(_SCHEME) or not bucket or {"", ".", ".."} & set(parts):
            raise Forbidden(f"{uri!r} is not an address of the form s3://bucket/key", uri=uri)
        if self._roots is not None and not any(uris.inside(uri, root) for root in self._roots):
            raise Forbidden(
                f"{uri}: outside the buckets and prefixes that may be used here",
                hint="Use an address below one of the allowed storage roots.",
                uri=uri,
            )
        return Place(uri, bucket, key)

    def object_place(self, uri: str, *, doing: str) -> Place:
        """Return the place of an object to be written or removed: a bucket is `Forbidden`."""
        place = self.place(uri)
        if not place.key:
            raise Forbidden(
                f"{uri}: cannot {doing}: this is a bucket", hint="Give s3://bucket/key.", uri=uri
            )
        return place


def tag_of(answer: Mapping[str, Any]) -> str | None:
    """Return the tag in an answer, without the quotes HTTP puts around it."""
    return str(answer.get("ETag") or "").strip('"') or None
