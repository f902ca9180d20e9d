"""Rows that nobody needs any more."""

from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from api.control.repository.statements import changed
from api.db.tables import EventRow, IdempotencyRow, JobRow, LogRow


def sweep_idempotency(session: Session, before: datetime) -> int:
    """Forget old idempotency keys."""
    return changed(session, delete(IdempotencyRow).where(IdempotencyRow.created_at < before))


def sweep_orphans(session: Session) -> int:
    """Delete events and logs whose job is gone, where the database did not do so itself."""
    jobs = select(JobRow.id)
    return sum(
        changed(session, delete(table).where(table.job_id.not_in(jobs)))
        for table in (EventRow, LogRow)
    )
