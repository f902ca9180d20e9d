"""One process at a time runs a job on a file system; the kernel frees the lock of the dead.

On object stores there is no such lock: two processes do work twice there, which is harmless
for units, and agree on the documents when they publish (`engine.publishing`).
"""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

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
    if scheme(plan.workspace) != "file":
        yield
        return
    path = Path(join(layout.job_folder(plan.workspace, plan.job_id), "lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as problem:
        raise Forbidden(
            f"{path.parent} cannot be written: {problem.strerror}",
            hint="Give another --workspace or output.",
            uri=str(path.parent),
        ) from problem
    with file:
        if not _taken(file.fileno()):
            on_wait()
            while not _taken(file.fileno()):
                if is_cancelled():
                    raise Cancelled
                time.sleep(POLL_SECONDS)
        yield


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
