"""Idempotency-Key: one request done once, however often it is sent.

The row and what the request makes are written in one transaction: of many at once the primary
key lets one through, the others wait for its commit and then get its answer again. A route
that cannot do all its work in one transaction commits the row without an answer first;
meanwhile others are told to wait, and after a minute of silence the next one takes over.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import Header
from fastapi.responses import JSONResponse
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api.db.tables import IdempotencyRow
from api.errors import IdempotencyConflict, IdempotencyInFlight

IN_FLIGHT = timedelta(minutes=1)
REPLAYED = "Idempotent-Replayed"

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Send the same again with the same key, and it is done once.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What was answered to a request, to be given again when it is repeated."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    replayed: bool = field(default=False, compare=False)
    """Whether it was given before."""

    def response(self) -> JSONResponse:
        """Return it as a response, marked if it is one given before."""
        marks = {REPLAYED: "true"} if self.replayed else {}
        return JSONResponse(self.body, self.status, {**self.headers, **marks})


def digest(request: Any) -> str:
    """Return what tells two requests apart: their content, whatever its spelling as JSON."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def digest_of_text(body: bytes) -> str:
    """Return the digest of a body as it came; its own bytes' if it is no JSON."""
    try:
        return digest(json.loads(body))
    except ValueError:
        return hashlib.sha256(body).hexdigest()


def begin(
    session: Session,
    scope: str,
    key: str,
    *,
    body_hash: str,
    moment: datetime,
    keep: timedelta,
) -> Answer | None:
    """Claim a key, or return what its first request was answered.

    Raises `IdempotencyConflict` for another body, `IdempotencyInFlight` for one under way.
    """
    try:
        with session.begin_nested():
            session.add(
                IdempotencyRow(scope=scope, key=key, body_hash=body_hash, created_at=moment)
            )
        return None
    except IntegrityError:
        session.expunge_all()
    row = session.get_one(IdempotencyRow, (scope, key))
    silent = row.status is None and row.created_at < moment - IN_FLIGHT
    if row.created_at < moment - keep or (silent and row.body_hash == body_hash):
        if _take_over(session, row, body_hash=body_hash, moment=moment):
            return None
        session.refresh(row)
    if row.body_hash != body_hash:
        raise IdempotencyConflict(
            f"the Idempotency-Key {key!r} was used for another request",
            hint="Use a new key for each request, and the same only to repeat one.",
            key=key,
        )
    if row.status is None:
        raise IdempotencyInFlight(
            f"the first request with the Idempotency-Key {key!r} is still under way",
            hint="Send it again in a second.",
            key=key,
        )
    return Answer(status=row.status, headers=row.headers, body=row.body, replayed=True)


def _take_over(session: Session, row: IdempotencyRow, *, body_hash: str, moment: datetime) -> bool:
    taken = session.execute(
        update(IdempotencyRow)
        .where(
            IdempotencyRow.scope == row.scope,
            IdempotencyRow.key == row.key,
            IdempotencyRow.created_at == row.created_at,
        )
        .values(body_hash=body_hash, status=None, headers={}, body=None, created_at=moment)
        .returning(IdempotencyRow.key)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    return taken is not None


def finish(session: Session, scope: str, key: str, answer: Answer) -> None:
    """Keep the answer, for the same request coming again."""
    session.execute(
        update(IdempotencyRow)
        .where(IdempotencyRow.scope == scope, IdempotencyRow.key == key)
        .values(status=answer.status, headers=dict(answer.headers), body=answer.body)
        .execution_options(synchronize_session=False)
    )
