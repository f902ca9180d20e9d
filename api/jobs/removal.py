"""Remove a job that is over: its rows and workspace, and its output only if asked."""

from collections.abc import Callable

from api.control.records import remove_job
from api.db.session import Database
from api.jobs import repository
from api.jobs.service import visible
from api.jobs.submitting import Caller
from fda_core.contract.artifacts import Manifest
from fda_core.contract.service.states import TERMINAL, JobState
from fda_core.engine.publishing import manifest_at
from fda_core.errors import IllegalTransition
from fda_core.storage.base import Storage


def remove(
    database: Database,
    storage: Storage,
    caller: Caller,
    job_id: str,
    *,
    workspace: str,
    with_output: bool,
    last_look: Callable[[str], None],
) -> None:
    """Remove a job. Files go first: if this is cut short, it can be done again.

    Whoever watches it gets a `last_look` before its rows go.
    """
    with database.read() as session:
        row = visible(session, caller, job_id)
        if row.state not in TERMINAL:
            raise _not_over(job_id, row.state)
        output = row.output
    if with_output and output and manifest_of(storage, output, job_id) is not None:
        storage.delete_below(output)
    remove_job(workspace, job_id, storage)
    last_look(job_id)
    with database.write() as session:
        if not repository.remove(session, job_id):
            raise _not_over(job_id, JobState(visible(session, caller, job_id).state))


def _not_over(job_id: str, state: str) -> IllegalTransition:
    return IllegalTransition(
        f"job {job_id} is {state}; only jobs that are over are removed",
        hint="Cancel it first.",
        job=job_id,
        state=state,
    )


def manifest_of(storage: Storage, output: str, job_id: str) -> Manifest | None:
    """Return the manifest of an output, if it is there and this very job made it."""
    found = manifest_at(output, storage)
    return found if found is not None and found.job_id == job_id else None
