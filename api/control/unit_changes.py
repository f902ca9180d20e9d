"""What can happen to a unit, and what follows for its job.

Every function runs inside a transaction that has locked the job, changes the unit's row and
gathers the event that tells it (`telling`). Whoever learns of a fact twice finds it so.
"""

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from api.control import repository, telling
from api.control.outcome import end_job
from api.control.repository import JobFacts
from api.db.tables import JobRow, UnitRow
from api.jobs.transitions import move
from fda_core.contract.service.messages import ErrorReport
from fda_core.contract.service.states import JobState, UnitState

UNIT_EVENT = "unit.state"
STAGES = ("construct", "merge", "publish")

OPEN = frozenset({JobState.RUNNING, JobState.PUBLISHING})
"""States of a job whose units may begin."""


def begin(
    session: Session,
    job: JobFacts,
    unit: UnitRow,
    *,
    token: str,
    worker: str,
    device: str | None,
    at: datetime,
) -> None:
    """Note that a try at a unit began, and counts from now on."""
    unit.state = UnitState.RUNNING.value
    unit.tries += 1
    unit.token = token
    unit.worker = worker
    unit.device = device
    unit.started_at = at
    unit.finished_at = None
    unit.not_before = None
    unit.error = None
    unit.step = unit.moved_bytes = 0
    unit.loss = unit.alignment = None
    changes: dict[str, Any] = {}
    if job.stage is None or STAGES.index(unit.kind) > STAGES.index(job.stage):
        job.stage = changes["stage"] = unit.kind
    if unit.kind == "publish" and job.state is JobState.RUNNING:
        telling.tell_all(session, [job])
        if move(session, job.id, JobState.PUBLISHING, only_from=[JobState.RUNNING]):
            job.state = JobState.PUBLISHING
    _tell(job, unit, **changes)


def finish(
    job: JobFacts,
    unit: UnitRow,
    *,
    source: str,
    seconds: float | None,
    worker: str | None,
    at: datetime,
) -> None:
    """Note that a unit's record is there."""
    unit.state = UnitState.DONE.value
    unit.source = source
    unit.seconds = seconds
    unit.worker = worker or unit.worker
    unit.token = None
    unit.not_before = None
    unit.error = None
    unit.step = unit.steps
    unit.moved_bytes = unit.read_bytes + unit.write_bytes
    unit.finished_at = at
    unit.started_at = unit.started_at or at
    job.units_done += 1
    data = {"source": source, **({} if seconds is None else {"seconds": seconds})}
    _tell(job, unit, data=data, units_done=job.units_done)


def put_back(
    job: JobFacts,
    unit: UnitRow,
    *,
    reason: str,
    not_before: datetime,
    error: ErrorReport | None = None,
    **changes: Any,
) -> None:
    """Note that a try ended without a result and that the unit will be sent again."""
    unit.state = UnitState.PENDING.value
    unit.token = None
    unit.step = unit.moved_bytes = 0
    unit.not_before = not_before
    unit.error = None if error is None else error.model_dump(mode="json")
    _tell(job, unit, data={"reason": reason}, **changes)


def undo(job: JobFacts, unit: UnitRow, *, reason: str, not_before: datetime) -> None:
    """Note that what a finished unit left is gone, and that it will be sent again."""
    unit.source = None
    unit.seconds = None
    unit.finished_at = None
    job.units_done -= 1
    put_back(job, unit, reason=reason, not_before=not_before, units_done=job.units_done)


def fail(
    session: Session, job: JobFacts, unit: UnitRow, *, error: ErrorReport, at: datetime
) -> None:
    """Note that a unit cannot be done, and with it its job."""
    error = error.model_copy(update={"unit": unit.id})
    unit.state = UnitState.FAILED.value
    unit.token = None
    unit.not_before = None
    unit.error = error.model_dump(mode="json")
    unit.finished_at = at
    _tell(job, unit)
    end_job(session, job, JobState.FAILED, error=error, only_from=OPEN)


def succeed(session: Session, job: JobFacts, *, at: datetime) -> bool:
    """Note that the output is whole and in its place."""
    session.flush()
    repository.finish_units(session, job.id, at)
    return end_job(
        session,
        job,
        JobState.SUCCEEDED,
        units_done=job.units_total,
        bytes_done=JobRow.bytes_total,
    )


def _tell(
    job: JobFacts, unit: UnitRow, *, data: dict[str, Any] | None = None, **changes: Any
) -> None:
    """Tell how a unit is now."""
    body: dict[str, Any] = {
        "unit": unit.id,
        "state": unit.state,
        "kind": unit.kind,
        "layer": unit.layer,
        "expert": unit.expert,
        "worker": unit.worker,
        "try": unit.tries,
        **(data or {}),
    }
    if unit.error is not None:
        body["error"] = unit.error
    telling.tell(job, UNIT_EVENT, body, **changes)
