"""The Idempotency-Key of one request, for services that commit their answer with their work."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from sqlalchemy.orm import Session

from api import idempotency
from api.context import Context
from api.idempotency import Answer
from api.jobs.submitting import Caller


@dataclass(frozen=True, kw_only=True)
class KeptAnswer:
    """The Idempotency-Key of one request."""

    scope: str
    key: str
    body_hash: str
    moment: datetime
    keep_for: timedelta

    @classmethod
    def of(cls, context: Context, caller: Caller, *, route: str, key: str, body: bytes) -> Self:
        """Return the key of a request that comes now; `route` is its method and path."""
        return cls(
            scope=f"{caller.team}:{route}",
            key=key,
            body_hash=idempotency.digest_of_text(body),
            moment=context.clock(),
            keep_for=timedelta(hours=context.settings.idempotency_hours),
        )

    def replay(self, session: Session, /) -> Answer | None:
        """Return the answer given before, or None if this request is the first."""
        return idempotency.begin(
            session,
            self.scope,
            self.key,
            body_hash=self.body_hash,
            moment=self.moment,
            keep=self.keep_for,
        )

    def keep(self, session: Session, answer: Answer, /) -> None:
        """Keep the answer for the next time."""
        idempotency.finish(session, self.scope, self.key, answer)
