"""Tries at units that came to nothing, because their worker died or Redis forgot them."""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy.orm import Session

from api.control import repository, unit_changes
from api.control.repository import JobFacts
from api.control.telling import locked
from api.control.unit_changes import OPEN
from api.db.session import Database
from api.db.tables import AttemptRow, UnitRow
from api.ids import new_id
from api.jobs.transitions import add_log
from fda_core.contract.service.messages import ErrorReport
from fda_core.contract.service.states import UnitState
from fda_core.errors import WorkerDied

LOSSES = 5
"""A unit that takes so many workers with it is given up. Where machines are taken away at any
moment, three of one long unit are lost by chance now and then."""


class Losses:
    """Notes lost tries, puts their units back, ends a job whose unit is lost again and again."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def note(self, job_id: str, unit_id: str, token: str, *, outcome: str) -> None:
        """Note that a try is over: `lost` with its worker, or `returned`, as Redis forgot it."""
        with self._database.write() as session, locked(session, job_id) as job:
            unit = repository.unit(session, job_id, unit_id)
            if job is not None and unit is not None and job.state in OPEN:
                self._count(session, job, unit, token=token, outcome=outcome)

    def _count(
        self, session: Session, job: JobFacts, unit: UnitRow, *, token: str, outcome: str
    ) -> None:
        moment = self._clock()
        tried = repository.attempts(session, [token]).get(token)
        if tried is None:
            if unit.state == UnitState.DONE.value:
                return
            tried = AttemptRow(
                id=new_id(),
                job_id=job.id,
                attempt=job.attempt,
                unit=unit.id,
                token=token,
                worker="unknown",
                outcome="running",
                started_at=moment,
            )
            session.add(tried)
        elif tried.outcome != "running":
            return
        tried.outcome, tried.finished_at = outcome, moment
        session.flush()
        if unit.state == UnitState.DONE.value or unit.token not in (None, token):
            return
        losses = repository.count_attempts(session, job.id, job.attempt, unit.id, "lost")
        worker = tried.worker
        reason = "Redis forgot who runs it"
        if outcome == "lost":
            reason = f"worker {worker} was lost ({losses} of {LOSSES} times)"
        add_log(session, job.id, reason, level="warning", unit=unit.id, worker=worker)
        if losses >= LOSSES:
            problem = WorkerDied(
                f"unit {unit.id}: {losses} workers ended without a word while they ran it",
                hint=f"It needs {unit.memory_bytes} bytes by the plan: see whether the machines "
                "ran out of memory, then retry the job.",
                memory_bytes=unit.memory_bytes,
            )
            error = ErrorReport.model_validate(problem.as_dict())
            unit_changes.fail(session, job, unit, error=error, at=moment)
            return
        unit_changes.put_back(job, unit, reason=reason, not_before=moment)
