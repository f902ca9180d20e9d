"""The operating system's errors as ours: the one table of what an errno means here."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from fda_core.errors import FdaError, Forbidden, NotFound, OutOfDisk, Unavailable

_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FOLDER = {errno.EISDIR}


@contextmanager
def translated(doing: str, uri: str) -> Iterator[None]:
    """Turn an `OSError` inside the block into one of ours that names the address."""
    try:
        yield
    except OSError as problem:
        raise as_ours(problem, doing=doing, uri=uri) from problem


def as_ours(problem: OSError, *, doing: str, uri: str) -> FdaError:
    """Return the error of ours that an `OSError` amounts to.

    What is in no table is `Unavailable`: a disk or network file system that errs may do
    better the next time.
    """
    said = problem.strerror or str(problem)
    message = f"{uri}: cannot {doing}: {said}"
    if problem.errno in _MISSING:
        return NotFound(message, hint="Check the path.", uri=uri)
    if problem.errno in _REFUSED:
        return Forbidden(message, hint="Check who may read and write there.", uri=uri)
    if problem.errno in _FULL:
        return OutOfDisk(message, hint="Free some space or choose another disk.", uri=uri)
    if problem.errno in _FOLDER:
        return Forbidden(f"{uri}: cannot {doing}: a folder is in the way", uri=uri)
    return Unavailable(message, hint="Check the disk; then try again.", uri=uri)
