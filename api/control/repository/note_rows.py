"""Notes: small facts by name that the controller leaves for itself."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from api.control.repository.statements import changed, insert_new
from api.db.tables import NoteRow
from api.jobs.transitions import OUTCOME


def locked_note(session: Session, name: str, default: Mapping[str, Any]) -> dict[str, Any]:
    """Return a note, making it if need be; others who want it wait for this transaction."""
    insert_new(session, NoteRow, {"name": name, "value": dict(default)})
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
    if not insert_new(session, NoteRow, {"name": name, "value": dict(value)}):
        changed(session, update(NoteRow).where(NoteRow.name == name).values(value=dict(value)))


def delete_note(session: Session, name: str) -> bool:
    """Forget a note, and say whether it was there."""
    return bool(changed(session, delete(NoteRow).where(NoteRow.name == name)))


def ended_jobs(session: Session) -> list[str]:
    """Return the jobs that ended and are not yet tidied up."""
    rows = session.execute(select(NoteRow.name).where(NoteRow.name.startswith(OUTCOME)))
    return [name.removeprefix(OUTCOME) for (name,) in rows]
