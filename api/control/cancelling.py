"""Ending jobs that were told to stop."""

from collections.abc import Callable
from datetime import datetime

from api.control import repository, unit_changes
from api.control.outcome import end_job
from api.control.plans import Plans
from api.control.records import clean_staging
from api.control.redis_state import Look, RedisState
from api.control.repository import JobFacts
from api.db.session import Database
from fda_core.contract.service.states import JobState
from fda_core.engine.plan import finish_if_published

STOP_GRACE_SECONDS = 1.0
"""Between a worker's look for the order to stop and its lease."""


class Cancelling:
    """Ends a job that is being cancelled: as cancelled, or as succeeded if it was published."""

    def __init__(
        self, database: Database, redis: RedisState, plans: Plans, *, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._redis = redis
        self._plans = plans
        self._clock = clock

    def step(self, job: JobFacts, look: Look) -> None:
        """Tell its workers to stop; once nobody works on it, end it."""
        if not look.stopping:
            self._redis.stop(job.id)
            return
        with self._database.read() as session:
            units = [line.id for line in repository.unit_lines(session, job.id)]
        if units:
            asked = datetime.fromisoformat(job.timestamps[JobState.CANCELLING.value])
            if (self._clock() - asked).total_seconds() < STOP_GRACE_SECONDS:
                return
            if self._redis.leases([(job.id, unit) for unit in units]):
                return
        plan = self._plans.find(job.id, job.plan_digest)
        won = plan is not None and finish_if_published(plan, self._plans.storage)
        if plan is not None and not won:
            clean_staging(plan, self._plans.storage)
        with self._database.write() as session:
            now = repository.lock_job(session, job.id)
            if now is None or now.state is not JobState.CANCELLING:
                return
            if won:
                unit_changes.succeed(session, now, at=self._clock())
            else:
                end_job(session, now, JobState.CANCELLED)
