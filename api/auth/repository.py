"""SQL about API keys."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from api.db.tables import KeyRow


def by_hash(session: Session, digest: str) -> KeyRow | None:
    """Return the key with this hash, whatever became of it."""
    return session.scalar(select(KeyRow).where(KeyRow.hash == digest))


def touch(session: Session, key_id: str, *, moment: datetime, unless_after: datetime) -> None:
    """Note that a key was used, unless that was noted lately."""
    session.execute(
        update(KeyRow)
        .where(
            KeyRow.id == key_id,
            or_(KeyRow.last_used_at.is_(None), KeyRow.last_used_at < unless_after),
        )
        .values(last_used_at=moment)
        .execution_options(synchronize_session=False)
    )


def add(session: Session, row: KeyRow) -> None:
    """Keep a new key."""
    session.add(row)


def find(session: Session, key_id: str) -> KeyRow | None:
    """Return a key that is not revoked."""
    return session.scalar(select(KeyRow).where(KeyRow.id == key_id, KeyRow.revoked_at.is_(None)))


def page(session: Session, *, after: str | None, count: int) -> Sequence[KeyRow]:
    """Return keys that are not revoked, newest first, those behind `after`."""
    query = select(KeyRow).where(KeyRow.revoked_at.is_(None)).order_by(KeyRow.id.desc())
    if after is not None:
        query = query.where(KeyRow.id < after)
    return session.scalars(query.limit(count)).all()


def other_admins(session: Session, key_id: str, *, moment: datetime) -> int:
    """Return how many other keys of admins work now."""
    return session.execute(
        select(func.count())
        .select_from(KeyRow)
        .where(
            KeyRow.id != key_id,
            KeyRow.role == "admin",
            KeyRow.revoked_at.is_(None),
            or_(KeyRow.expires_at.is_(None), KeyRow.expires_at > moment),
        )
    ).scalar_one()


def change(session: Session, key_id: str, **values: Any) -> None:
    """Set columns of a key."""
    session.execute(
        update(KeyRow)
        .where(KeyRow.id == key_id)
        .values(**values)
        .execution_options(synchronize_session=False)
    )
