"""Addresses of files: local paths and `scheme://bucket/key`, in one normal form."""

import posixpath
import re
from pathlib import PurePosixPath

from fda_core.errors import BadParameter, UnsupportedScheme

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


def scheme(uri: str) -> str:
    """Return the scheme in lower case; a bare path is `file`."""
    match = _SCHEME.match(uri)
    return match.group(1).lower() if match else "file"


def normalise(uri: str, *, cwd: str) -> str:
    """Return the one spelling of an address: absolute path, or scheme://bucket/key.

    Relative paths are taken from `cwd`. No trailing slash, no `.` or `..` left. Raises
    `UnsupportedScheme` for `~user` forms and unknown schemes.
    """
    if not uri or "\0" in uri:
        raise BadParameter(
            f"{uri!r} is not an address", hint="Give a folder or s3://bucket/prefix."
        )
    kind = scheme(uri)
    if kind == "file":
        path = uri[len("file://") :] if _SCHEME.match(uri) else uri
        if path is not uri and not path.startswith(("/", "~")):
            raise UnsupportedScheme(
                f"{uri}: file:// names a host before the third slash, and files are read here only",
                hint="Write file:///path, or the path alone.",
                uri=uri,
            )
        if path.startswith("~"):
            raise UnsupportedScheme(
                f"{uri}: '~' is the shell's and is not expanded here",
                hint="Write the whole path, or leave it unquoted.",
                uri=uri,
            )
        return posixpath.normpath(posixpath.join(cwd, path))
    if kind != "s3":
        raise UnsupportedScheme(
            f"{uri}: no storage serves {kind}://",
            hint="Use a local folder, file:// or s3://bucket/prefix.",
            uri=uri,
        )
    rest = uri[len("s3://") :]
    bucket, _, key = rest.partition("/")
    parts = [part for part in key.split("/") if part]
    if not bucket or any(part in (".", "..") for part in parts):
        raise UnsupportedScheme(
            f"{uri}: an S3 address is s3://bucket/prefix, without '.' or '..'", uri=uri
        )
    return "s3://" + "/".join([bucket, *parts])


def join(uri: str, *parts: str) -> str:
    """Return the address of something below `uri`."""
    return "/".join([uri.rstrip("/") if uri != "/" else "", *(p.strip("/") for p in parts)])


def parent(uri: str) -> str:
    """Return the address one level up; the root of a bucket or of the disk is its own parent."""
    if scheme(uri) == "file":
        return str(PurePosixPath(uri).parent)
    head, _, _ = uri.rpartition("/")
    return head if head.count("/") >= 2 else uri


def basename(uri: str) -> str:
    """Return the last part of the address."""
    return uri.rstrip("/").rpartition("/")[2]


def inside(uri: str, folder: str) -> bool:
    """Say whether `uri` is `folder` or lies below it. Both must be normalised."""
    return uri == folder or uri.startswith(folder.rstrip("/") + "/")
