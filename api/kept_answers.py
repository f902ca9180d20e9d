"""The Idempotency-Key of one request, for services that commit their answer with their work."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from api import idempotency
from api.jobs.submitting import Answer


@dataclass(frozen=True, kw_only=True)
class KeptAnswer:
    """The Idempotency-Key of one request."""

    scope: str
    key: str
    body_hash: str
    moment: datetime
    keep_for: timedelta

    def replay(self, session: Session, /) -> Answer | None:
        """Return the answer given before, or None if this request is the first."""
        found = idempotency.begin(
            session,
            self.scope,
            self.key,
            body_hash=self.body_hash,
            moment=self.moment,
            keep=self.keep_for,
        )
        if found is None:
            return None
        return Answer(
            status=found.status, headers=dict(found.headers), body=found.body, replayed=True
        )

    def keep(self, session: Session, answer: Answer, /) -> None:
        """Keep the answer for the next time."""
        kept = idempotency.Answer(status=answer.status, headers=answer.headers, body=answer.body)
        idempotency.finish(session, self.scope, self.key, kept)
