"""The only way a job's row changes state, and the only way it gets an event.

Every change is one guarded UPDATE: `WHERE state IN (…)`. No row changed means that somebody
else was first, which callers must take as an answer. The event is written in the same
transaction, numbered under the row's lock, so that no reader ever sees event 7 before 6.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from api.db.tables import EventRow, JobRow, LogRow, NoteRow
from api.db.types import now
from api.jobs import views
from api.webhooks.outbox import EVENTS, announce_state
from fda_core.contract.rest.base import utc
from fda_core.contract.service.states import CANCELLABLE, NEXT, TERMINAL, JobState
from fda_core.errors import InternalError

STATE_EVENT = "job.state"
OUTCOME = "outcome:"
"""What the note of a job that ended is called, before its id: the controller tidies up after it."""


def move(
    session: Session,
    job_id: str,
    to: JobState,
    *,
    only_from: Iterable[JobState] | None = None,
    data: Mapping[str, Any] | None = None,
    **changes: Any,
) -> bool:
    """Move a job to a state, if it is in one that leads there; say whether it did.

    `only_from` narrows the states it may be in, `changes` are more columns to set, `data`
    goes into the event beside the state.
    """
    leading = {state for state, after in NEXT.items() if to in after}
    sources = leading if only_from is None else set(only_from)
    if not sources <= leading:
        raise InternalError(f"no way leads from {sorted(sources - leading)} to {to}")
    moment = now()
    found = session.execute(
        update(JobRow)
        .where(JobRow.id == job_id, JobRow.state.in_(sorted(sources)))
        .values(
            state=to.value,
            version=JobRow.version + 1,
            last_seq=JobRow.last_seq + 1,
            updated_at=moment,
            **changes,
        )
        .returning(JobRow.last_seq, JobRow.timestamps, JobRow.attempt)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if found is None:
        return False
    seq, timestamps, attempt = found
    session.execute(
        update(JobRow)
        .where(JobRow.id == job_id)
        .values(timestamps={**timestamps, to.value: utc(moment)})
        .execution_options(synchronize_session=False)
    )
    body = {"state": to.value, "attempt": attempt, **(data or {})}
    session.add(EventRow(job_id=job_id, seq=seq, at=moment, kind=STATE_EVENT, data=body))
    if f"job.{to.value}" in EVENTS:
        announce_state(session, job_id, view=_view)
    if to in TERMINAL:
        session.merge(NoteRow(name=OUTCOME + job_id, value={"attempt": attempt}))
    return True


def ask_to_stop(session: Session, job_id: str, data: Mapping[str, Any] | None = None) -> bool:
    """Cancel a job that waits, and ask one that runs to stop; say whether it was not over yet.

    The controller tells its workers.
    """
    return move(
        session, job_id, JobState.CANCELLED, only_from={JobState.QUEUED}, data=data
    ) or move(
        session,
        job_id,
        JobState.CANCELLING,
        only_from=CANCELLABLE - {JobState.QUEUED},
        data=data,
    )


def _view(row: JobRow) -> dict[str, Any]:
    """Return a job as webhooks tell it: the resource of lists and details."""
    return views.job(row, base_url="").model_dump(mode="json")


def add_event(
    session: Session,
    job_id: str,
    kind: str,
    data: Mapping[str, Any],
    *,
    at: datetime | None = None,
    **changes: Any,
) -> int:
    """Append an event to a job, with more columns of the job to set; return its number."""
    return add_events(session, job_id, [(kind, data)], at=at, **changes)


def add_events(
    session: Session,
    job_id: str,
    events: Sequence[tuple[str, Mapping[str, Any]]],
    *,
    at: datetime | None = None,
    **changes: Any,
) -> int:
    """Append events of a job in one go, and set more of its columns; return the last number."""
    moment = at or now()
    last = session.execute(
        update(JobRow)
        .where(JobRow.id == job_id)
        .values(
            version=JobRow.version + 1,
            last_seq=JobRow.last_seq + len(events),
            updated_at=moment,
            **changes,
        )
        .returning(JobRow.last_seq)
        .execution_options(synchronize_session=False)
    ).scalar_one()
    session.add_all(
        EventRow(job_id=job_id, seq=seq, at=moment, kind=kind, data=dict(data))
        for seq, (kind, data) in enumerate(events, start=last - len(events) + 1)
    )
    return last


def add_log(
    session: Session,
    job_id: str,
    text: str,
    *,
    level: str = "info",
    unit: str | None = None,
    worker: str | None = None,
    fields: Mapping[str, Any] | None = None,
    at: datetime | None = None,
) -> None:
    """Append a line to a job's log."""
    seq = session.execute(
        update(JobRow)
        .where(JobRow.id == job_id)
        .values(last_log=JobRow.last_log + 1)
        .returning(JobRow.last_log)
        .execution_options(synchronize_session=False)
    ).scalar_one_or_none()
    if seq is None:
        return
    session.add(
        LogRow(
            job_id=job_id,
            seq=seq,
            at=at or now(),
            level=level,
            unit=unit,
            worker=worker,
            text=text,
            fields=dict(fields or {}),
        )
    )
