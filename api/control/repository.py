"""The controller's SQL. Every transaction that changes a job's units locks the job first."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import CursorResult
from sqlalchemy.orm import Session

from api.db.tables import (
    AttemptRow,
    Base,
    EventRow,
    IdempotencyRow,
    JobRow,
    LabelRow,
    LeaderRow,
    LogRow,
    NoteRow,
    UnitRow,
)
from api.jobs.transitions import OUTCOME
from fda_core.contract.service.states import ACTIVE, JobState, UnitState

UNFINISHED = (UnitState.PENDING.value, UnitState.READY.value, UnitState.RUNNING.value)


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


def _changed(session: Session, statement: Any) -> int:
    """Run a statement that writes and return how many rows it met."""
    options = {"synchronize_session": False, "preserve_rowcount": True}
    result = session.execute(statement.execution_options(**options))
    assert isinstance(result, CursorResult)
    return result.rowcount


def _insert_new(session: Session, table: type[Base], values: Mapping[str, Any]) -> bool:
    """Insert a row unless its key is there; say whether it was inserted."""
    dialect = session.get_bind().dialect.name
    kind = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return _changed(session, kind(table).values(**values).on_conflict_do_nothing()) == 1


# Leaders and notes


def take_lead(
    session: Session, name: str, *, holder: str, moment: datetime, until: datetime
) -> bool:
    """Lead a loop until a time, if it is led by nobody else now."""
    free = (LeaderRow.holder == holder) | (LeaderRow.until <= moment)
    changed = _changed(
        session,
        update(LeaderRow).where(LeaderRow.name == name, free).values(holder=holder, until=until),
    )
    if changed:
        return True
    return _insert_new(session, LeaderRow, {"name": name, "holder": holder, "until": until})


def holders(session: Session, moment: datetime) -> set[str]:
    """Return who leads anything now."""
    return set(session.scalars(select(LeaderRow.holder).where(LeaderRow.until > moment)))


def end_lead(session: Session, *, holder: str, moment: datetime) -> None:
    """End all that a holder leads."""
    _changed(session, update(LeaderRow).where(LeaderRow.holder == holder).values(until=moment))


def locked_note(session: Session, name: str, default: Mapping[str, Any]) -> dict[str, Any]:
    """Return a note, making it if need be; others who want it wait for this transaction."""
    _insert_new(session, NoteRow, {"name": name, "value": dict(default)})
    found = session.execute(
        select(NoteRow.value).where(NoteRow.name == name).with_for_update()
    ).scalar_one()
    return dict(found)


def note(session: Session, name: str) -> dict[str, Any] | None:
    """Return a note."""
    found = session.execute(select(NoteRow.value).where(NoteRow.name == name)).scalar_one_or_none()
    return None if found is None else dict(found)


def set_note(session: Session, name: str, value: Mapping[str, Any]) -> None:
    """Write a note, new or known."""
    if not _insert_new(session, NoteRow, {"name": name, "value": dict(value)}):
        _changed(session, update(NoteRow).where(NoteRow.name == name).values(value=dict(value)))


def delete_note(session: Session, name: str) -> bool:
    """Forget a note, and say whether it was there."""
    return bool(_changed(session, delete(NoteRow).where(NoteRow.name == name)))


def ended_jobs(session: Session) -> list[str]:
    """Return the jobs that ended and are not yet tidied up."""
    rows = session.execute(select(NoteRow.name).where(NoteRow.name.startswith(OUTCOME)))
    return [name.removeprefix(OUTCOME) for (name,) in rows]


# Jobs


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


def set_job(session: Session, job_id: str, **changes: Any) -> None:
    """Set columns of a job that make no event and no version."""
    _changed(session, update(JobRow).where(JobRow.id == job_id).values(**changes))


def add_job(session: Session, row: JobRow, labels: Mapping[str, str]) -> None:
    """Add a job with its labels."""
    session.add(row)
    session.flush()
    session.add_all(LabelRow(job_id=row.id, name=n, value=v) for n, v in labels.items())


def add_events(session: Session, rows: Iterable[EventRow]) -> None:
    """Add events whose numbers are already given."""
    session.add_all(rows)


# Units


def replace_units(session: Session, job_id: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Give a job the units of a new plan."""
    _changed(session, delete(UnitRow).where(UnitRow.job_id == job_id))
    if rows:
        session.execute(insert(UnitRow), list(rows))


def units(
    session: Session, wanted: Mapping[str, Collection[str]]
) -> dict[tuple[str, str], UnitRow]:
    """Return some units of some jobs, to be changed. The jobs must be locked."""
    found: dict[tuple[str, str], UnitRow] = {}
    for job_id, ids in wanted.items():
        rows = session.scalars(
            select(UnitRow)
            .where(UnitRow.job_id == job_id, UnitRow.id.in_(ids))
            .execution_options(populate_existing=True)
        )
        found |= {(row.job_id, row.id): row for row in rows}
    return found


def unit(session: Session, job_id: str, unit_id: str) -> UnitRow | None:
    """Return one unit to be changed. The job must be locked."""
    return units(session, {job_id: [unit_id]}).get((job_id, unit_id))


def unit_lines(session: Session, job_id: str) -> Sequence[Any]:
    """Return all units of a job, in plan order, as far as handing them out needs."""
    return session.execute(
        select(
            UnitRow.id,
            UnitRow.kind,
            UnitRow.state,
            UnitRow.needs,
            UnitRow.token,
            UnitRow.queue,
            UnitRow.microbatch,
            UnitRow.not_before,
            UnitRow.tries,
        )
        .where(UnitRow.job_id == job_id)
        .order_by(UnitRow.place)
    ).all()


def tally_lines(session: Session, job_id: str) -> Sequence[Any]:
    """Return all units of a job as far as reckoning progress needs."""
    return session.execute(
        select(
            UnitRow.id,
            UnitRow.state,
            UnitRow.source,
            UnitRow.layer,
            UnitRow.expert,
            UnitRow.step,
            UnitRow.steps,
            UnitRow.loss,
            UnitRow.alignment,
            UnitRow.read_bytes,
            UnitRow.write_bytes,
            UnitRow.moved_bytes,
            UnitRow.flops,
            UnitRow.queue,
        ).where(UnitRow.job_id == job_id)
    ).all()


def mark_ready(session: Session, job_id: str, ids: Collection[str]) -> None:
    """Mark units whose messages were sent, those that nobody took meanwhile."""
    _changed(
        session,
        update(UnitRow)
        .where(
            UnitRow.job_id == job_id,
            UnitRow.id.in_(ids),
            UnitRow.state == UnitState.PENDING.value,
        )
        .values(state=UnitState.READY.value, not_before=None),
    )


def waiting_retries(session: Session, moment: datetime) -> set[str]:
    """Return the jobs with a unit that waited to be tried again and may be now."""
    return set(
        session.scalars(
            select(UnitRow.job_id)
            .where(UnitRow.not_before <= moment, UnitRow.state == UnitState.PENDING.value)
            .distinct()
        )
    )


def rest_units(session: Session, job_id: str) -> None:
    """Put back what ran or was on its way when a job ended."""
    _changed(
        session,
        update(UnitRow)
        .where(
            UnitRow.job_id == job_id,
            UnitRow.state.in_([UnitState.READY.value, UnitState.RUNNING.value]),
        )
        .values(state=UnitState.PENDING.value, token=None, not_before=None),
    )


def close_tries(session: Session, job_id: str, moment: datetime) -> None:
    """Count tries as lost that never said how they ended, though nothing of the job runs."""
    _changed(
        session,
        update(AttemptRow)
        .where(AttemptRow.job_id == job_id, AttemptRow.outcome == "running")
        .values(outcome="lost", finished_at=moment),
    )


def finish_units(session: Session, job_id: str, moment: datetime) -> None:
    """Mark all units done: the output is whole."""
    _changed(
        session,
        update(UnitRow)
        .where(UnitRow.job_id == job_id, UnitRow.state != UnitState.DONE.value)
        .values(
            state=UnitState.DONE.value,
            source="journal",
            token=None,
            not_before=None,
            error=None,
            finished_at=moment,
        ),
    )


# Attempts


def rebuilt_token(job_id: str, unit_id: str) -> str:
    """Return the token of what stands for the try behind a record, after a rebuild."""
    return f"rebuilt:{job_id}:{unit_id}"


def attempts(session: Session, tokens: Collection[str]) -> dict[str, AttemptRow]:
    """Return tries by their tokens, to be changed."""
    rows = session.scalars(
        select(AttemptRow)
        .where(AttemptRow.token.in_(tokens))
        .execution_options(populate_existing=True)
    )
    return {row.token: row for row in rows}


def count_attempts(session: Session, job_id: str, attempt: int, unit_id: str, outcome: str) -> int:
    """Return how many tries at a unit ended in one way, in one attempt of its job."""
    return session.execute(
        select(func.count()).where(
            AttemptRow.job_id == job_id,
            AttemptRow.attempt == attempt,
            AttemptRow.unit == unit_id,
            AttemptRow.outcome == outcome,
        )
    ).scalar_one()


def first_try_at(session: Session, job_id: str, attempt: int) -> datetime | None:
    """Return when the first unit of a job's attempt was begun."""
    return session.execute(
        select(func.min(AttemptRow.started_at)).where(
            AttemptRow.job_id == job_id, AttemptRow.attempt == attempt
        )
    ).scalar_one()


# Sweeping


def sweep_idempotency(session: Session, before: datetime) -> int:
    """Forget old idempotency keys."""
    return _changed(session, delete(IdempotencyRow).where(IdempotencyRow.created_at < before))


def sweep_orphans(session: Session) -> int:
    """Delete events and logs whose job is gone, where the database did not do so itself."""
    jobs = select(JobRow.id)
    return sum(
        _changed(session, delete(table).where(table.job_id.not_in(jobs)))
        for table in (EventRow, LogRow)
    )
