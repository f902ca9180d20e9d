"""What is to be told goes into the database with what happened: one transaction, no loss."""

from collections.abc import Callable, Mapping
from typing import Any, get_args

from sqlalchemy.orm import Session

from api.db.tables import DeliveryRow, JobRow
from api.db.types import now
from api.ids import new_id
from api.webhooks import repository
from fda_core.contract.rest.base import utc
from fda_core.contract.rest.jobs import JobWebhook, WebhookEvent
from fda_core.contract.service.states import JobState

EVENTS: frozenset[str] = frozenset(get_args(WebhookEvent))

View = Callable[[JobRow], Mapping[str, Any]]
"""A job as plain JSON."""


def announce_state(session: Session, job_id: str, *, view: View | None = None) -> int:
    """Announce that a job entered its present state, if that is an event of webhooks.

    To be called after `transitions.move`, in its transaction.
    """
    session.flush()
    job = session.get(JobRow, job_id, populate_existing=True)
    if job is None or f"job.{job.state}" not in EVENTS:
        return 0
    return announce(session, job, f"job.{job.state}", view=view)


def announce(session: Session, job: JobRow, type: str, *, view: View | None = None) -> int:
    """Put a message into the outbox for everybody who listens; return how many those are.

    The row must be as it is now: see `announce_state`.
    """
    targets: list[tuple[str | None, str]] = [
        (row.id, row.url) for row in repository.listening(session, job.team) if type in row.events
    ]
    if job.webhook is not None:
        own = JobWebhook.model_validate(job.webhook)
        if type in own.events:
            targets.append((None, own.url))
    if not targets:
        return 0
    moment = now()
    body = {"type": type, "timestamp": utc(moment), "data": dict((view or summary)(job))}
    for webhook_id, url in targets:
        session.add(
            DeliveryRow(
                id=f"msg_{new_id().replace('-', '')}",
                webhook_id=webhook_id,
                job_id=job.id,
                team=job.team,
                url=url,
                type=type,
                payload=body,
                state=repository.WAITING,
                tries=0,
                next_try_at=moment,
                created_at=moment,
            )
        )
    return len(targets)


def summary(job: JobRow) -> dict[str, Any]:
    """Return what a message says of a job; the whole of it is at its address."""
    return {
        "id": job.id,
        "state": JobState(job.state).value,
        "attempt": job.attempt,
        "owner": job.owner,
        "team": job.team,
        "labels": job.labels,
        "method": job.method,
        "base": job.base,
        "experts": job.experts,
        "output": job.output,
        "error": job.error,
        "batch": job.batch_id,
        "schedule": job.schedule_id,
        "created_at": utc(job.created_at),
        "timestamps": job.timestamps,
        "urls": {"self": f"/v1/jobs/{job.id}", "artifacts": f"/v1/jobs/{job.id}/artifacts"},
    }
