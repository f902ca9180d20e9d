"""Jobs as the controller sees them: which there are, locked, changed, added."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from api.db.tables import EventRow, JobRow, LabelRow
from fda_core.contract.service.states import ACTIVE, JobState


@dataclass(kw_only=True)
class JobFacts:
    """What the controller needs to know of a job; `state` follows what is done in a step."""

    id: str
    state: JobState
    attempt: int
    priority: int
    stage: str | None
    device: str | None
    output: str | None
    plan_digest: str | None
    units_total: int
    units_done: int
    bytes_total: int
    timestamps: Mapping[str, str] = field(default_factory=dict)
    trace: Mapping[str, str] = field(default_factory=dict)
    untold: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    """Events of this transaction that `telling.tell_all` has yet to write."""
    unset: dict[str, Any] = field(default_factory=dict)
    """Columns to set with them."""


_FACTS = tuple(
    getattr(JobRow, name)
    for name in JobFacts.__dataclass_fields__  # the columns go by the same names
    if name not in ("untold", "unset")
)


def _facts(row: Row[Any]) -> JobFacts:
    values = dict(row._mapping)
    return JobFacts(**{**values, "state": JobState(values["state"])})


def jobs_in(
    session: Session, states: Collection[JobState], *, limit: int | None = None
) -> list[JobFacts]:
    """Return the jobs in some states, urgent and old ones first."""
    rows = session.execute(
        select(*_FACTS)
        .where(JobRow.state.in_([state.value for state in states]))
        .order_by(JobRow.priority.desc(), JobRow.created_at, JobRow.id)
        .limit(limit)
    )
    return [_facts(row) for row in rows]


def active_jobs(session: Session) -> list[JobFacts]:
    """Return the jobs that the dispatcher looks after."""
    return jobs_in(session, ACTIVE - {JobState.VALIDATING})


def lock_jobs(session: Session, ids: Iterable[str]) -> dict[str, JobFacts]:
    """Return jobs by id, kept from changing by others until the transaction ends."""
    rows = session.execute(
        select(*_FACTS).where(JobRow.id.in_(sorted(set(ids)))).order_by(JobRow.id).with_for_update()
    )
    return {facts.id: facts for facts in map(_facts, rows)}


def lock_job(session: Session, job_id: str) -> JobFacts | None:
    """Return one job, locked, or None if it was deleted."""
    return lock_jobs(session, [job_id]).get(job_id)


def job_row(session: Session, job_id: str) -> JobRow | None:
    """Return everything about a job, for reading."""
    return session.get(JobRow, job_id)


def outputs_claimed(session: Session, *, but: str) -> dict[str, str]:
    """Return the outputs of other jobs that were begun and have not ended, and whose they are."""
    claiming = ACTIVE - {JobState.VALIDATING}
    rows = session.execute(
        select(JobRow.output, JobRow.id).where(
            JobRow.state.in_([state.value for state in claiming]), JobRow.id != but
        )
    )
    return {output: job for output, job in rows if output}


def due_jobs(session: Session, moment: datetime) -> list[str]:
    """Return queued jobs whose deadline has passed."""
    rows = session.execute(
        select(JobRow.id).where(
            JobRow.state == JobState.QUEUED.value,
            JobRow.deadline.is_not(None),
            JobRow.deadline <= moment,
        )
    )
    return [job for (job,) in rows]


def known_jobs(session: Session, ids: Collection[str]) -> set[str]:
    """Return which of some jobs there are."""
    return set(session.scalars(select(JobRow.id).where(JobRow.id.in_(ids))))


def add_job(session: Session, row: JobRow, labels: Mapping[str, str]) -> None:
    """Add a job with its labels."""
    session.add(row)
    session.flush()
    session.add_all(LabelRow(job_id=row.id, name=n, value=v) for n, v in labels.items())


def add_events(session: Session, rows: Iterable[EventRow]) -> None:
    """Add events whose numbers are already given."""
    session.add_all(rows)
