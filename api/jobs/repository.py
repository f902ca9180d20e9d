"""SQL about jobs and what belongs to them. Changes of state are in `transitions`."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, delete, exists, func, or_, select, update
from sqlalchemy.orm import Session

from api.db.tables import AttemptRow, EventRow, JobRow, LabelRow, LogRow, UnitRow
from api.db.types import now
from api.jobs.filters import JobFilter
from fda_core.contract.service.states import TERMINAL, JobState

UNFINISHED = sorted(set(JobState) - TERMINAL)


def add(session: Session, row: JobRow) -> None:
    """Insert a job with its labels."""
    session.add(row)
    session.flush()
    _add_labels(session, row.id, row.labels)


def _add_labels(session: Session, job_id: str, labels: Mapping[str, str]) -> None:
    session.add_all(LabelRow(job_id=job_id, name=k, value=v) for k, v in labels.items())


def find(session: Session, job_id: str) -> JobRow | None:
    """Return a job."""
    return session.get(JobRow, job_id, populate_existing=True)


def page(
    session: Session,
    wanted: JobFilter,
    *,
    team: str | None,
    after: tuple[datetime, str] | None,
    count: int,
) -> Sequence[JobRow]:
    """Return a team's jobs (every team's for None), newest first, those behind `after`."""
    query = _filtered(select(JobRow), wanted)
    if team is not None:
        query = query.where(JobRow.team == team)
    if after is not None:
        moment, job_id = after
        query = query.where(
            or_(
                JobRow.created_at < moment,
                (JobRow.created_at == moment) & (JobRow.id < job_id),
            )
        ).where(JobRow.created_at <= moment)
    query = query.order_by(JobRow.created_at.desc(), JobRow.id.desc()).limit(count)
    return session.scalars(query).all()


def _filtered(query: Select[JobRow], wanted: JobFilter) -> Select[JobRow]:
    columns = {
        JobRow.base: wanted.base,
        JobRow.method: wanted.method,
        JobRow.owner: wanted.owner,
        JobRow.team: wanted.team,
        JobRow.schedule_id: wanted.schedule,
        JobRow.batch_id: wanted.batch,
    }
    for column, value in columns.items():
        if value is not None:
            query = query.where(column == value)
    if wanted.states:
        query = query.where(JobRow.state.in_([state.value for state in wanted.states]))
    if wanted.created_after is not None:
        query = query.where(JobRow.created_at >= wanted.created_after)
    if wanted.created_before is not None:
        query = query.where(JobRow.created_at < wanted.created_before)
    for label in wanted.labels:
        name, sign, value = label.partition("=")
        having = exists().where(LabelRow.job_id == JobRow.id, LabelRow.name == name)
        query = query.where(having.where(LabelRow.value == value) if sign else having)
    if wanted.text is not None:
        query = query.where(_mentions(wanted.text))
    return query


def _mentions(text: str) -> Any:
    labelled = exists().where(
        LabelRow.job_id == JobRow.id, LabelRow.value.icontains(text, autoescape=True)
    )
    texts = (JobRow.base, JobRow.output, JobRow.method, JobRow.owner)
    return or_(
        JobRow.id.startswith(text.lower(), autoescape=True),
        *(column.icontains(text, autoescape=True) for column in texts),
        labelled,
    )


def unfinished(session: Session, team: str) -> int:
    """Return how many of a team's jobs are not over."""
    return session.execute(
        select(func.count())
        .select_from(JobRow)
        .where(JobRow.state.in_([state.value for state in UNFINISHED]), JobRow.team == team)
    ).scalar_one()


def change(
    session: Session,
    job_id: str,
    *,
    version: int,
    labels: Mapping[str, str] | None,
    priority: int | None,
) -> bool:
    """Set labels and priority of a job at a version; say whether it still was at it."""
    values: dict[str, Any] = {"version": JobRow.version + 1, "updated_at": now()}
    if labels is not None:
        values["labels"] = dict(labels)
    if priority is not None:
        values["priority"] = priority
    found = session.execute(
        update(JobRow)
        .where(JobRow.id == job_id, JobRow.version == version)
        .values(**values)
        .returning(JobRow.id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if found is not None and labels is not None:
        session.execute(delete(LabelRow).where(LabelRow.job_id == job_id))
        _add_labels(session, job_id, labels)
    return found is not None


def remove(session: Session, job_id: str) -> bool:
    """Delete a job that is over, and all that belongs to it; say whether it was."""
    found = session.execute(
        delete(JobRow)
        .where(JobRow.id == job_id, JobRow.state.in_([state.value for state in TERMINAL]))
        .returning(JobRow.id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    return found is not None


def units(
    session: Session,
    job_id: str,
    *,
    states: Sequence[str],
    kinds: Sequence[str],
    after: int,
    count: int,
) -> Sequence[UnitRow]:
    """Return units in the plan's order, those at places behind `after`."""
    query = select(UnitRow).where(UnitRow.job_id == job_id, UnitRow.place > after)
    if states:
        query = query.where(UnitRow.state.in_(states))
    if kinds:
        query = query.where(UnitRow.kind.in_(kinds))
    return session.scalars(query.order_by(UnitRow.place).limit(count)).all()


def attempts(
    session: Session, job_id: str, *, unit: str | None, after: str | None, count: int
) -> Sequence[AttemptRow]:
    """Return tries at a job's units, oldest first, those behind `after`."""
    query = select(AttemptRow).where(AttemptRow.job_id == job_id)
    if unit is not None:
        query = query.where(AttemptRow.unit == unit)
    if after is not None:
        query = query.where(AttemptRow.id > after)
    return session.scalars(query.order_by(AttemptRow.id).limit(count)).all()


def unlucky_attempts(session: Session, job_id: str, *, count: int) -> Sequence[AttemptRow]:
    """Return tries that did not end well, newest first."""
    query = select(AttemptRow).where(
        AttemptRow.job_id == job_id, AttemptRow.outcome.in_(("failed", "lost", "returned"))
    )
    return session.scalars(query.order_by(AttemptRow.id.desc()).limit(count)).all()


def logs(
    session: Session,
    job_id: str,
    *,
    levels: Sequence[str],
    unit: str | None,
    after: int,
    count: int,
) -> Sequence[LogRow]:
    """Return lines of a job's log, oldest first, those behind `after`."""
    query = select(LogRow).where(LogRow.job_id == job_id, LogRow.seq > after)
    if levels:
        query = query.where(LogRow.level.in_(levels))
    if unit is not None:
        query = query.where(LogRow.unit == unit)
    return session.scalars(query.order_by(LogRow.seq).limit(count)).all()


def events(session: Session, job_id: str, *, after: int, count: int) -> Sequence[EventRow]:
    """Return a job's events, oldest first, those behind `after`."""
    query = select(EventRow).where(EventRow.job_id == job_id, EventRow.seq > after)
    return session.scalars(query.order_by(EventRow.seq).limit(count)).all()


def by_state(session: Session) -> Mapping[str, int]:
    """Return how many jobs are in each state."""
    rows = session.execute(select(JobRow.state, func.count()).group_by(JobRow.state))
    return {state: count for state, count in rows}  # noqa: C416 - rows are no pairs to mypy
