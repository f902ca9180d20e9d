"""Errors of the operating system that reach the command's end: shortages, not bugs of ours."""

import errno

from fda_core.errors import FdaError, Forbidden, OutOfDisk, OutOfHostMemory, ResourceError

_SHORTAGES: dict[int, tuple[type[FdaError], str]] = {
    **dict.fromkeys(
        (errno.EMFILE, errno.ENFILE),
        (ResourceError, "Allow more open files (ulimit -n), or use fewer --workers."),
    ),
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
        (OutOfDisk, "Free some space, or send the output elsewhere."),
    ),
    **dict.fromkeys(
        (errno.EROFS, errno.EACCES, errno.EPERM),
        (Forbidden, "See that this process may write there, and to /dev/shm and /tmp."),
    ),
    errno.ENOMEM: (OutOfHostMemory, "Use a larger machine, or close other programs."),
    errno.EAGAIN: (ResourceError, "Allow more processes (ulimit -u), or use fewer --workers."),
}


def shortage(problem: Exception) -> FdaError | None:
    """Return the error of ours that stands for one of the system's; None if it may be a bug."""
    if not isinstance(problem, OSError) or problem.errno not in _SHORTAGES:
        return None
    kind, hint = _SHORTAGES[problem.errno]
    where = f"{problem.filename}: " if isinstance(problem.filename, str) else ""
    return kind(f"{where}{problem.strerror}", hint=hint)
