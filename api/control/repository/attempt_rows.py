"""Tries at units, by their tokens."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from api.control.repository.statements import changed
from api.db.tables import AttemptRow


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


def close_tries(session: Session, job_id: str, moment: datetime) -> None:
    """Count tries as lost that never said how they ended, though nothing of the job runs."""
    changed(
        session,
        update(AttemptRow)
        .where(AttemptRow.job_id == job_id, AttemptRow.outcome == "running")
        .values(outcome="lost", finished_at=moment),
    )
