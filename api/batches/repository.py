"""SQL of batches."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from api.db.tables import BatchRow, JobRow
from api.db.teams import find_owned, page_of_owned
from fda_core.contract.service.states import TERMINAL, JobState

_OVER = sorted(state.value for state in TERMINAL)


def add(session: Session, row: BatchRow) -> None:
    """Insert a batch."""
    session.add(row)
    session.flush()


def find(session: Session, batch_id: str, team: str | None) -> BatchRow | None:
    """Return a batch of a team (None: of any), if there is one."""
    return find_owned(session, BatchRow, batch_id, team)


def page(
    session: Session,
    team: str | None,
    *,
    cursor: str | None,
    limit: int,
    schedule: str | None = None,
) -> Sequence[BatchRow]:
    """Return up to `limit` batches, newest first, that come after the one of id `cursor`."""
    chosen = [] if schedule is None else [BatchRow.schedule_id == schedule]
    return page_of_owned(session, BatchRow, team, *chosen, cursor=cursor, limit=limit)


def counts(session: Session, batch_ids: Collection[str]) -> dict[str, dict[JobState, int]]:
    """Return for each batch how many jobs are in each state that has any."""
    found: dict[str, dict[JobState, int]] = {batch_id: {} for batch_id in batch_ids}
    rows = session.execute(
        select(JobRow.batch_id, JobRow.state, func.count())
        .where(JobRow.batch_id.in_(batch_ids))
        .group_by(JobRow.batch_id, JobRow.state)
        .order_by(JobRow.state)
    )
    for batch_id, state, count in rows:
        assert batch_id is not None
        found[batch_id][JobState(state)] = count
    return found


def jobs(session: Session, batch_id: str) -> dict[str, JobRow]:
    """Return a batch's jobs by id."""
    rows = session.scalars(select(JobRow).where(JobRow.batch_id == batch_id))
    return {row.id: row for row in rows}


def under_way(session: Session, batch_id: str) -> Sequence[str]:
    """Return the jobs of a batch that are not over, in the order they came."""
    return session.scalars(
        select(JobRow.id)
        .where(JobRow.batch_id == batch_id, JobRow.state.not_in(_OVER))
        .order_by(JobRow.id)
    ).all()


def under_way_of_schedule(session: Session, schedule_id: str) -> Sequence[str]:
    """Return the jobs that a schedule made and that are not over."""
    return session.scalars(
        select(JobRow.id)
        .where(JobRow.schedule_id == schedule_id, JobRow.state.not_in(_OVER))
        .order_by(JobRow.id)
    ).all()


def remove(session: Session, row: BatchRow, *, moment: datetime) -> None:
    """Delete a batch; jobs it still has go on without it."""
    changes: dict[str, Any] = {
        "batch_id": None,
        "updated_at": moment,
        "version": JobRow.version + 1,
    }
    session.execute(
        update(JobRow)
        .where(JobRow.batch_id == row.id)
        .values(changes)
        .execution_options(synchronize_session=False)
    )
    session.delete(row)
