"""SQL of schedules and their fire times."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from api.db.tables import FireRow, ScheduleRow
from api.db.teams import find_owned, page_of_owned

WAITING = "waiting"


def add(session: Session, row: ScheduleRow) -> None:
    """Insert a schedule."""
    session.add(row)
    session.flush()


def find(session: Session, schedule_id: str, team: str | None) -> ScheduleRow | None:
    """Return a schedule of a team (None: of any), as it is now, if there is one."""
    return find_owned(session, ScheduleRow, schedule_id, team)


def page(
    session: Session, team: str | None, *, cursor: str | None, limit: int
) -> Sequence[ScheduleRow]:
    """Return up to `limit` schedules, newest first, that come after the one of id `cursor`."""
    return page_of_owned(session, ScheduleRow, team, cursor=cursor, limit=limit)


def change(session: Session, row: ScheduleRow, **changes: Any) -> bool:
    """Change a schedule if it is still in the version that was read; say whether it was."""
    changed = session.execute(
        update(ScheduleRow)
        .where(ScheduleRow.id == row.id, ScheduleRow.version == row.version)
        .values(version=ScheduleRow.version + 1, **changes)
        .returning(ScheduleRow.id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    return changed is not None


def note_fire(
    session: Session, schedule_id: str, *, last: datetime | None, upcoming: datetime | None
) -> None:
    """Note when a schedule fires next; its version is for what people change, and stays."""
    values: dict[str, Any] = {"next_fire_at": upcoming}
    if last is not None:
        values["last_fire_at"] = last
    session.execute(
        update(ScheduleRow)
        .where(ScheduleRow.id == schedule_id)
        .values(values)
        .execution_options(synchronize_session=False)
    )


def remove(session: Session, schedule_id: str) -> None:
    """Delete a schedule and its fire times; its batches and jobs stay."""
    session.execute(delete(FireRow).where(FireRow.schedule_id == schedule_id))
    session.execute(delete(ScheduleRow).where(ScheduleRow.id == schedule_id))


def due(session: Session, *, moment: datetime, limit: int) -> Sequence[str]:
    """Return schedules whose fire time has come, the longest due first."""
    return session.scalars(
        select(ScheduleRow.id)
        .where(ScheduleRow.paused.is_(False), ScheduleRow.next_fire_at <= moment)
        .order_by(ScheduleRow.next_fire_at)
        .limit(limit)
    ).all()


def with_waiting(session: Session, *, limit: int) -> Sequence[str]:
    """Return schedules that have queued fire times."""
    return session.scalars(
        select(FireRow.schedule_id)
        .join(ScheduleRow, ScheduleRow.id == FireRow.schedule_id)
        .where(FireRow.outcome == WAITING, ScheduleRow.paused.is_(False))
        .distinct()
        .order_by(FireRow.schedule_id)
        .limit(limit)
    ).all()


def lock(session: Session, schedule_id: str) -> ScheduleRow | None:
    """Return a schedule, held until the end of the transaction; None if somebody has it.

    On SQLite the transaction holds the whole database anyway.
    """
    return session.scalars(
        select(ScheduleRow).where(ScheduleRow.id == schedule_id).with_for_update(skip_locked=True)
    ).one_or_none()


def add_fire(
    session: Session,
    schedule_id: str,
    fire_at: datetime,
    *,
    outcome: str,
    created_at: datetime,
    detail: str | None = None,
) -> bool:
    """Insert a fire time; say whether it was new. Two processes: one of them is told no."""
    values = {
        "schedule_id": schedule_id,
        "fire_at": fire_at,
        "outcome": outcome,
        "detail": detail,
        "created_at": created_at,
    }
    if session.get_bind().dialect.name == "postgresql":
        done = session.execute(
            postgresql.insert(FireRow)
            .values(values)
            .on_conflict_do_nothing()
            .returning(FireRow.fire_at)
        )
    else:
        done = session.execute(
            sqlite.insert(FireRow)
            .values(values)
            .on_conflict_do_nothing()
            .returning(FireRow.fire_at)
        )
    return done.one_or_none() is not None


def set_fire(
    session: Session,
    schedule_id: str,
    fire_at: datetime,
    *,
    outcome: str,
    batch_id: str | None = None,
    detail: str | None = None,
) -> None:
    """Say what became of a fire time."""
    session.execute(
        update(FireRow)
        .where(FireRow.schedule_id == schedule_id, FireRow.fire_at == fire_at)
        .values(outcome=outcome, batch_id=batch_id, detail=detail)
        .execution_options(synchronize_session=False)
    )


def waiting(session: Session, schedule_id: str) -> Sequence[datetime]:
    """Return a schedule's queued fire times, the earliest first."""
    return session.scalars(
        select(FireRow.fire_at)
        .where(FireRow.schedule_id == schedule_id, FireRow.outcome == WAITING)
        .order_by(FireRow.fire_at)
    ).all()


def fires(
    session: Session, schedule_id: str, *, before: datetime | None, limit: int
) -> Sequence[FireRow]:
    """Return what became of fire times, the latest first."""
    query = (
        select(FireRow)
        .where(FireRow.schedule_id == schedule_id)
        .order_by(FireRow.fire_at.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(FireRow.fire_at < before)
    return session.scalars(query).all()


def sweep(session: Session, *, before: datetime) -> int:
    """Forget fire times from before a moment that wait for nothing; return how many."""
    gone = session.execute(
        delete(FireRow)
        .where(FireRow.fire_at < before, FireRow.outcome != WAITING)
        .returning(FireRow.fire_at)
        .execution_options(synchronize_session=False)
    )
    return len(gone.all())


def find_fire(session: Session, schedule_id: str, fire_at: datetime) -> FireRow | None:
    """Return what became of one fire time."""
    return session.scalars(
        select(FireRow).where(FireRow.schedule_id == schedule_id, FireRow.fire_at == fire_at),
        execution_options={"populate_existing": True},
    ).one_or_none()
