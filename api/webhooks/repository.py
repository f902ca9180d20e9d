"""SQL of webhooks and deliveries."""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from api.db.tables import DeliveryRow, NoteRow, WebhookRow
from api.db.teams import find_owned, page_of_owned
from api.webhooks.signing import new_secret

WAITING = "waiting"


def add(session: Session, row: WebhookRow | DeliveryRow) -> None:
    """Insert a webhook or a delivery."""
    session.add(row)
    session.flush()


def find(session: Session, webhook_id: str, team: str | None) -> WebhookRow | None:
    """Return a webhook of a team (None: of any), if there is one."""
    return find_owned(session, WebhookRow, webhook_id, team)


def page(
    session: Session, team: str | None, *, cursor: str | None, limit: int
) -> Sequence[WebhookRow]:
    """Return up to `limit` webhooks, newest first, that come after the one of id `cursor`."""
    return page_of_owned(session, WebhookRow, team, cursor=cursor, limit=limit)


def listening(session: Session, team: str) -> Sequence[WebhookRow]:
    """Return a team's webhooks that are not disabled."""
    return session.scalars(
        select(WebhookRow)
        .where(WebhookRow.team == team, WebhookRow.disabled_at.is_(None))
        .order_by(WebhookRow.id)
    ).all()


def disable(session: Session, webhook_id: str, *, moment: datetime, reason: str) -> None:
    """Switch a webhook off and cancel what still waits for it."""
    session.execute(
        update(WebhookRow)
        .where(WebhookRow.id == webhook_id, WebhookRow.disabled_at.is_(None))
        .values(disabled_at=moment, disabled_reason=reason)
        .execution_options(synchronize_session=False)
    )
    cancel_waiting(session, DeliveryRow.webhook_id == webhook_id, reason=reason)


def move_waiting(session: Session, webhook_id: str, *, url: str) -> None:
    """Let what waits for a webhook go to its new address."""
    session.execute(
        update(DeliveryRow)
        .where(DeliveryRow.webhook_id == webhook_id, DeliveryRow.state == WAITING)
        .values(url=url)
        .execution_options(synchronize_session=False)
    )


def cancel_waiting(session: Session, which: Any, *, reason: str) -> None:
    """Cancel deliveries that wait, those that a condition is true of."""
    session.execute(
        update(DeliveryRow)
        .where(which, DeliveryRow.state == WAITING)
        .values(state="cancelled", next_try_at=None, last_error=reason)
        .execution_options(synchronize_session=False)
    )


def remove(session: Session, row: WebhookRow) -> None:
    """Delete a webhook; what still waits for it is cancelled, what was sent stays."""
    cancel_waiting(session, DeliveryRow.webhook_id == row.id, reason="the webhook was deleted")
    session.delete(row)


def deliveries(
    session: Session, webhook_id: str, *, cursor: str | None, limit: int, state: str | None
) -> Sequence[DeliveryRow]:
    """Return a webhook's deliveries, newest first."""
    query = (
        select(DeliveryRow)
        .where(DeliveryRow.webhook_id == webhook_id)
        .order_by(DeliveryRow.id.desc())
        .limit(limit)
    )
    if cursor is not None:
        query = query.where(DeliveryRow.id < cursor)
    if state is not None:
        query = query.where(DeliveryRow.state == state)
    return session.scalars(query).all()


def delivery(session: Session, delivery_id: str) -> DeliveryRow | None:
    """Return a delivery as it is now."""
    return session.scalars(
        select(DeliveryRow).where(DeliveryRow.id == delivery_id),
        execution_options={"populate_existing": True},
    ).one_or_none()


def sweep(session: Session, *, before: datetime) -> int:
    """Forget deliveries from before a moment that wait for nothing; return how many."""
    gone = session.execute(
        delete(DeliveryRow)
        .where(DeliveryRow.created_at < before, DeliveryRow.state != WAITING)
        .returning(DeliveryRow.id)
        .execution_options(synchronize_session=False)
    )
    return len(gone.all())


def due(
    session: Session,
    *,
    moment: datetime,
    limit: int,
    limit_per_url: int,
    but_for: Sequence[str] = (),
) -> Sequence[DeliveryRow]:
    """Return deliveries whose time has come, the longest due first; of one address only a few.

    Those to the addresses `but_for` are left out. However many wait for a receiver that is
    away, they take no place of another's.
    """
    in_turn = (
        select(
            DeliveryRow.id,
            func.row_number()
            .over(partition_by=DeliveryRow.url, order_by=(DeliveryRow.next_try_at, DeliveryRow.id))
            .label("turn"),
        )
        .where(
            DeliveryRow.state == WAITING,
            DeliveryRow.next_try_at <= moment,
            DeliveryRow.url.not_in(but_for),
        )
        .subquery()
    )
    return session.scalars(
        select(DeliveryRow)
        .join(in_turn, in_turn.c.id == DeliveryRow.id)
        .where(in_turn.c.turn <= limit_per_url)
        .order_by(DeliveryRow.next_try_at, DeliveryRow.id)
        .limit(limit)
    ).all()


def claim(session: Session, row: DeliveryRow, *, until: datetime) -> bool:
    """Take a delivery for one try, if nobody took it since it was read.

    A courier that dies with it leaves it to others: it is due again at `until`.
    """
    taken = session.execute(
        update(DeliveryRow)
        .where(
            DeliveryRow.id == row.id,
            DeliveryRow.state == WAITING,
            DeliveryRow.tries == row.tries,
            DeliveryRow.next_try_at == row.next_try_at,
        )
        .values(tries=DeliveryRow.tries + 1, next_try_at=until)
        .returning(DeliveryRow.id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    return taken is not None


def conclude(session: Session, row: DeliveryRow, *, claimed: datetime, **changes: Any) -> bool:
    """Write down how a try went, if its claim still stands; say whether it did."""
    written = session.execute(
        update(DeliveryRow)
        .where(
            DeliveryRow.id == row.id,
            DeliveryRow.next_try_at == claimed,
            DeliveryRow.state == WAITING,
        )
        .values(**changes)
        .returning(DeliveryRow.id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    return written is not None


def job_secret(session: Session, team: str) -> str | None:
    """Return what a team's messages to jobs' own webhooks are signed with, if it was made."""
    note = session.get(NoteRow, _secret_note(team))
    return None if note is None else str(note.value["secret"])


def make_job_secret(session: Session, team: str) -> str:
    """Return the secret of `job_secret`, made now unless somebody was first."""
    _put_note(session, _secret_note(team), new_secret(), replace=False)
    return str(session.get_one(NoteRow, _secret_note(team)).value["secret"])


def replace_job_secret(session: Session, team: str) -> str:
    """Return a new secret in place of the team's last one."""
    secret = new_secret()
    _put_note(session, _secret_note(team), secret, replace=True)
    return secret


def _secret_note(team: str) -> str:
    return f"webhook-secret:{hashlib.sha256(team.encode()).hexdigest()[:40]}"


def _put_note(session: Session, name: str, secret: str, *, replace: bool) -> None:
    values = {"name": name, "value": {"secret": secret}}
    postgres = session.get_bind().dialect.name == "postgresql"
    statement: Any = (postgresql if postgres else sqlite).insert(NoteRow).values(values)
    if replace:
        statement = statement.on_conflict_do_update(
            index_elements=[NoteRow.name], set_={"value": values["value"]}
        )
    else:
        statement = statement.on_conflict_do_nothing()
    session.execute(statement)
