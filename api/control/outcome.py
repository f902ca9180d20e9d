"""The end of a job: one transition, then outcome.json, staging and Redis are seen to.

The transition leaves a note in the same transaction. Whoever finds the note tidies up, as
often as it takes; so a controller that dies in between leaves nothing behind.
"""

from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy.orm import Session

from api.control import records, repository
from api.control.plans import Plans
from api.control.redis_state import RedisState
from api.control.repository import JobFacts
from api.control.telling import tell_all
from api.db.session import Database
from api.db.tables import JobRow
from api.db.types import now
from api.jobs.transitions import OUTCOME, move
from fda_core.contract.artifacts import UnitRecord
from fda_core.contract.rest.base import utc
from fda_core.contract.service import names
from fda_core.contract.service.jobfile import JobFile, Outcome
from fda_core.contract.service.messages import ErrorReport
from fda_core.contract.service.states import TERMINAL, JobState
from fda_core.engine.journal import Journal
from fda_core.errors import FdaError

_log = structlog.get_logger("fda.control.outcome")


def end_job(
    session: Session,
    job: JobFacts,
    state: JobState,
    *,
    error: ErrorReport | None = None,
    only_from: Collection[JobState] | None = None,
    **changes: Any,
) -> bool:
    """Move a job to a terminal state and leave the note; say whether this was who did it."""
    report = None if error is None else error.model_dump(mode="json")
    data = {} if report is None else {"error": report}
    tell_all(session, [job])
    moved = move(session, job.id, state, only_from=only_from, data=data, error=report, **changes)
    if moved:
        job.state = state
        session.flush()
        repository.rest_units(session, job.id)
        if state is not JobState.FAILED:  # whose other units are still being told to stop
            repository.close_tries(session, job.id, now())
    return moved


class Outcomes:
    """Tidies up after jobs that ended."""

    def __init__(
        self,
        database: Database,
        redis: RedisState,
        plans: Plans,
        *,
        clock: Callable[[], datetime],
        on_end: Callable[[str, str | None], None] = lambda _state, _code: None,
    ) -> None:
        self._database = database
        self._redis = redis
        self._plans = plans
        self._clock = clock
        self._on_end = on_end

    def step(self) -> int:
        """Tidy up after every job that ended since; return how many."""
        with self._database.read() as session:
            jobs = repository.ended_jobs(session)
        return sum(self._tidy(job) for job in jobs)

    def _tidy(self, job_id: str) -> bool:
        with self._database.read() as session:
            job = repository.job_row(session, job_id)
        if job is not None and JobState(job.state) in TERMINAL:
            stopped = job.state != JobState.SUCCEEDED
            if stopped:
                self._redis.stop(job_id)
            try:
                self._write(job)
            except FdaError as problem:
                _log.warning("outcome_not_written", job=job_id, **_words(problem))
                if problem.retryable:
                    return False
            self._redis.forget(job_id, stopped=stopped)
        with self._database.write() as session:
            is_mine = repository.delete_note(session, OUTCOME + job_id)
        if is_mine and job is not None and JobState(job.state) in TERMINAL:
            self._tell(job)
        return True

    def _tell(self, job: JobRow) -> None:
        """Say once, in the log and to whoever counts, how a job ended."""
        code = (job.error or {}).get("code")
        _log.info("job_ended", job=job.id, attempt=job.attempt, state=job.state, code=code)
        self._on_end(job.state, code)

    def _write(self, job: JobRow) -> None:
        storage, workspace = self._plans.storage, self._plans.workspace
        plan = self._plans.find(job.id, job.plan_digest)
        if plan is not None and job.state != JobState.SUCCEEDED:
            kept: Collection[UnitRecord] = ()
            if job.state == JobState.FAILED:
                kept = Journal(plan, storage).find_all().values()
            records.clean_staging(plan, storage, keep=kept)
        if not storage.exists(names.job_file(workspace, job.id)):
            storage.put(names.job_file(workspace, job.id), job_file(job).model_dump_json().encode())
        storage.put(
            names.outcome_file(workspace, job.id), _outcome(job).model_dump_json(indent=1).encode()
        )


def job_file(job: JobRow, *, plan_digest: str | None = None, device: str | None = None) -> JobFile:
    """Return a job as its workspace keeps it."""
    return JobFile(
        id=job.id,
        owner=job.owner,
        team=job.team,
        created=utc(job.created_at),
        attempt=job.attempt,
        priority=job.priority,
        labels=job.labels,
        recipe=job.recipe,
        batch=job.batch_id,
        schedule=job.schedule_id,
        plan_digest=plan_digest or job.plan_digest or "",
        device=device or job.device or "",
    )


def _outcome(job: JobRow) -> Outcome:
    return Outcome.model_validate(
        {
            "state": job.state,
            "finished": job.timestamps.get(job.state) or utc(job.updated_at),
            "attempt": job.attempt,
            "error": job.error,
            "timestamps": job.timestamps,
        }
    )


def _words(problem: FdaError) -> dict[str, Any]:
    return {"code": problem.code, "problem": problem.message}
