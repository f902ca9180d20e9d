"""What happens because time passes: deadlines, and whatever else hooks in (schedules)."""

from collections.abc import Callable, Sequence
from datetime import datetime

from api.control import repository
from api.control.outcome import end_job
from api.db.session import Database
from fda_core.contract.service.messages import ErrorReport
from fda_core.contract.service.states import JobState

Hook = Callable[[datetime], None]
"""Called with the time at every step, by one leader; must stand being called twice."""


class Clock:
    """The loop of time. Hooks run after the deadlines, in their order."""

    def __init__(
        self, database: Database, *, clock: Callable[[], datetime], hooks: Sequence[Hook] = ()
    ) -> None:
        self._database = database
        self._clock = clock
        self._hooks = tuple(hooks)

    def step(self) -> int:
        """Expire what is due, run the hooks, and return how many jobs expired."""
        moment = self._clock()
        with self._database.read() as session:
            due = repository.due_jobs(session, moment)
        expired = sum(self._expire(job) for job in due)
        for hook in self._hooks:
            hook(moment)
        return expired

    def _expire(self, job_id: str) -> bool:
        error = ErrorReport(
            code="deadline_passed",
            message="the deadline passed before the job was begun",
            hint="Retry it, or submit it with a later deadline.",
            blame="system",
        )
        with self._database.write() as session:
            job = repository.lock_job(session, job_id)
            return job is not None and end_job(
                session, job, JobState.EXPIRED, error=error, only_from=[JobState.QUEUED]
            )
