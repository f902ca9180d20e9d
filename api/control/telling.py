"""Events of jobs, gathered in a transaction and numbered in one statement for each job.

A thousand reports make two statements for a job's events and not two thousand. Whoever
gathers events writes them before the transaction ends, and before the job changes its state.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy.orm import Session

from api.control import repository
from api.control.repository import JobFacts
from api.jobs.transitions import add_events


def tell(job: JobFacts, kind: str, data: Mapping[str, Any], **changes: Any) -> None:
    """Gather an event of a job, with columns of the job to set."""
    job.untold.append((kind, data))
    job.unset |= changes


def tell_all(session: Session, jobs: Iterable[JobFacts]) -> None:
    """Write what was gathered."""
    for job in jobs:
        if job.untold:
            add_events(session, job.id, job.untold, **job.unset)
            job.untold, job.unset = [], {}


@contextmanager
def locked(session: Session, job_id: str) -> Iterator[JobFacts | None]:
    """Yield a job, locked, None if it was deleted; write what is gathered of it at the end."""
    job = repository.lock_job(session, job_id)
    yield job
    if job is not None:
        tell_all(session, [job])
