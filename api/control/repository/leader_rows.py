"""Who leads which of the controller's loops, and until when."""

from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from api.control.repository.statements import changed, insert_new
from api.db.tables import LeaderRow


def take_lead(
    session: Session, name: str, *, holder: str, moment: datetime, until: datetime
) -> bool:
    """Lead a loop until a time, if it is led by nobody else now."""
    free = (LeaderRow.holder == holder) | (LeaderRow.until <= moment)
    renewed = changed(
        session,
        update(LeaderRow).where(LeaderRow.name == name, free).values(holder=holder, until=until),
    )
    if renewed:
        return True
    return insert_new(session, LeaderRow, {"name": name, "holder": holder, "until": until})


def holders(session: Session, moment: datetime) -> set[str]:
    """Return who leads anything now."""
    return set(session.scalars(select(LeaderRow.holder).where(LeaderRow.until > moment)))


def end_lead(session: Session, *, holder: str, moment: datetime) -> None:
    """End all that a holder leads."""
    changed(session, update(LeaderRow).where(LeaderRow.holder == holder).values(until=moment))
