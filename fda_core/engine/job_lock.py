"""One process at a time runs a job on a file system; the kernel frees the lock of the dead.

The lock is in the workspace, or beside the output if only that is on a file system: two who
put one output together there would write into one another's. Where neither is, there is none:
two processes do work twice, which is harmless for units, and agree on the documents when they
publish (`engine.publishing`).
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from fda_core.contract.plan import Plan
from fda_core.contract.uris import join, scheme
from fda_core.engine import layout
from fda_core.errors import Cancelled, Forbidden

POLL_SECONDS = 0.5


@contextmanager
def job_lock(
    plan: Plan, *, on_wait: Callable[[], None], is_cancelled: Callable[[], bool]
) -> Iterator[None]:
    """Hold the job's lock; while another process has it, say so once and wait.

    Raises `Cancelled` when told to stop while waiting, `Forbidden` where nothing may be
    written.
    """
    if scheme(plan.workspace) == "file":
        path = Path(join(layout.job_folder(plan.workspace, plan.job_id), "lock"))
    elif scheme(plan.output) == "file":
        path = Path(layout.lock(plan))
    else:
        yield
        return
    held = _taken(path)
    if held is None:
        on_wait()
        while (held := _taken(path)) is None:
            if is_cancelled():
                raise Cancelled
            time.sleep(POLL_SECONDS)
    with held:
        yield
        if scheme(plan.workspace) != "file":  # it stays in a workspace, but not by an output
            path.unlink(missing_ok=True)


def _taken(path: Path) -> TextIO | None:
    """Return the lock's file, locked; None if another process has it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as problem:
        raise Forbidden(
            f"{path.parent} cannot be written: {problem.strerror}",
            hint="Give another --workspace or output.",
            uri=str(path.parent),
        ) from problem
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
    except (BlockingIOError, FileNotFoundError):
        pass  # somebody has it, or has just removed it
    except BaseException:
        file.close()
        raise
    file.close()
    return None
