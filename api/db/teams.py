"""Looking for what teams own: one of it by id, or a page of it, newest first."""

from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from api.db.tables import BatchRow, ScheduleRow, WebhookRow

Owned = TypeVar("Owned", BatchRow, ScheduleRow, WebhookRow)


def find_owned(session: Session, kind: type[Owned], row_id: str, team: str | None) -> Owned | None:
    """Return a row of a team (None: of any), as it is now, if there is one."""
    query = select(kind).where(kind.id == row_id)
    if team is not None:
        query = query.where(kind.team == team)
    return session.scalars(query, execution_options={"populate_existing": True}).one_or_none()


def page_of_owned(
    session: Session,
    kind: type[Owned],
    team: str | None,
    *conditions: ColumnElement[bool],
    cursor: str | None,
    limit: int,
) -> Sequence[Owned]:
    """Return up to `limit` rows, newest first, that come after the one of id `cursor`."""
    query = select(kind).where(*conditions).order_by(kind.id.desc()).limit(limit)
    if team is not None:
        query = query.where(kind.team == team)
    if cursor is not None:
        query = query.where(kind.id < cursor)
    return session.scalars(query).all()
