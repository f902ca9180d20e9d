"""Keep every active job going: notice the lost, trust the journal, send what is ready.

A pass costs one query and two round trips to Redis for all jobs together. A close look at
one job (all its units, what was sent, maybe one listing of its records) is taken when there is
a reason: it was never looked at, something of it finished or came back, Redis was emptied, its
messages seem lost, or a minute has passed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog

from api.control import repository, unit_changes
from api.control.cancelling import Cancelling
from api.control.losses import Losses
from api.control.metrics import ControlMetrics
from api.control.outcome import Outcomes, end_job
from api.control.plans import Plans
from api.control.pokes import Pokes
from api.control.queue import UnitQueue
from api.control.redis_state import Look, RedisState
from api.control.repository import JobFacts
from api.control.sending import RESEND_SECONDS, Sending
from api.control.telling import locked
from api.control.unit_changes import OPEN
from api.db.session import Database
from fda_core.contract.artifacts import UnitRecord
from fda_core.contract.plan import Plan
from fda_core.contract.service.messages import ErrorReport
from fda_core.contract.service.states import JobState, UnitState
from fda_core.engine.journal import Journal
from fda_core.engine.plan import finish_if_published
from fda_core.errors import FdaError, InternalError

PASS_SECONDS = 1.0
SOON_SECONDS = 0.1
LOOK_SECONDS = 60.0
SUSPECT_SECONDS = 6.0
"""A unit that runs by the database and of which Redis knows nothing is given so long."""
RECORDS_SECONDS = 10.0
"""While units run, the journal is listed at least so often."""

_log = structlog.get_logger("fda.control.dispatcher")


@dataclass
class Memory:
    """What was seen of a job; it may be lost without harm."""

    attempt: int
    looked: datetime
    records_listed: datetime
    units_done: int = -1
    suspects: dict[tuple[str, str | None], datetime] = field(default_factory=dict)


class Dispatcher:
    """The loop that reconciles active jobs with Redis and the journal."""

    def __init__(
        self,
        database: Database,
        redis: RedisState,
        queue: UnitQueue,
        plans: Plans,
        outcomes: Outcomes,
        *,
        clock: Callable[[], datetime],
        pokes: Pokes,
        metrics: ControlMetrics,
    ) -> None:
        self._database = database
        self._redis = redis
        self._queue = queue
        self._plans = plans
        self._outcomes = outcomes
        self._clock = clock
        self._pokes = pokes
        self._metrics = metrics
        self._cancelling = Cancelling(database, redis, plans, clock=clock)
        self._losses = Losses(database, clock=clock)
        self._sending = Sending(
            database, redis, queue, workspace=plans.workspace, clock=clock, metrics=metrics
        )
        self._memory: dict[str, Memory] = {}
        self._epoch: str | None = None

    def step(self) -> int:
        """Look at every active job once; return how many got a close look."""
        poked = self._pokes.take()
        try:
            return self._pass(poked)
        except BaseException:
            self._pokes.add(poked)
            raise

    def _pass(self, poked: set[str]) -> int:
        moment = self._clock()
        with self._database.read() as session:
            jobs = repository.active_jobs(session)
            retries = repository.waiting_retries(session, moment) if jobs else set()
        self._memory = {
            job.id: self._memory[job.id]
            for job in jobs
            if job.id in self._memory and self._memory[job.id].attempt == job.attempt
        }
        closely = 0
        if jobs:
            self._notice_emptied()
            looks = self._redis.look([job.id for job in jobs])
            held = self._redis.leases(
                [(job, unit) for job, look in looks.items() for unit in look.taken]
            )
            lengths = self._queue.lengths()
            for job in jobs:
                closely += self._tend(
                    job,
                    looks[job.id],
                    held=held,
                    lengths=lengths,
                    wanted=job.id in poked or job.id in retries,
                )
        self._outcomes.step()
        return closely

    def _notice_emptied(self) -> None:
        """Look at everything anew if Redis was emptied since the last pass."""
        epoch = self._redis.epoch()
        if self._epoch not in (None, epoch):
            _log.warning("redis_was_emptied")
            self._memory.clear()
        self._epoch = epoch

    def _tend(
        self,
        job: JobFacts,
        look: Look,
        *,
        held: Mapping[tuple[str, str], str],
        lengths: Mapping[str, int],
        wanted: bool,
    ) -> bool:
        """Look after one job. What goes wrong with it is no other job's business."""
        try:
            if job.state is JobState.CANCELLING:
                self._cancelling.step(job, look)
                return True
            lost = {u: t for u, t in look.taken.items() if (job.id, u) not in held}
            for unit, token in lost.items():
                self._lost_worker(job, unit, token)
            if not self._is_due(job, look, wanted=wanted or bool(lost)):
                return False
            self._look(job, look, lengths=lengths)
        except FdaError as problem:
            _log.warning("job_not_tended", job=job.id, code=problem.code, problem=problem.message)
        return True

    def _lost_worker(self, job: JobFacts, unit: str, token: str) -> None:
        """See to a unit that was taken and whose lease ran out."""
        if not self._redis.is_lost(job.id, unit, token):
            return
        plan = self._plan(job)
        if unit == "publish":
            if finish_if_published(plan, self._plans.storage):
                self._succeed(job)
                return
        elif found := Journal(plan, self._plans.storage).find_all(among=[unit]):
            self._finish(job, found)
            self._redis.give_up(job.id, unit, token)
            return
        self._losses.note(job.id, unit, token, outcome="lost")
        self._redis.give_up(job.id, unit, token)
        self._metrics.leases_expired.inc()
        _log.warning("lease_expired", job=job.id, unit=unit, attempt=job.attempt, token=token)

    def _is_due(self, job: JobFacts, look: Look, *, wanted: bool) -> bool:
        seen = self._memory.get(job.id)
        moment = self._clock()
        return (
            seen is None
            or wanted
            or look.stopping
            or seen.units_done != job.units_done
            or moment - seen.looked >= timedelta(seconds=LOOK_SECONDS)
            or (not look.taken and moment - seen.looked >= timedelta(seconds=RESEND_SECONDS))
            or (
                bool(look.taken)
                and moment - seen.records_listed >= timedelta(seconds=RECORDS_SECONDS)
            )
            or bool(seen.suspects)
        )

    def _look(self, job: JobFacts, look: Look, *, lengths: Mapping[str, int]) -> None:
        """Compare a job's units with the journal and with what was sent; put right what differs."""
        moment = self._clock()
        if look.stopping:
            self._allow(job)
        with self._database.read() as session:
            lines = repository.unit_lines(session, job.id)
        seen = self._memory.get(job.id)
        first = seen is None
        if seen is None:
            seen = self._memory[job.id] = Memory(job.attempt, moment, moment)
        if self._read_journal(job, look, lines=lines, seen=seen, anyway=first):
            with self._database.read() as session:
                lines = repository.unit_lines(session, job.id)
        done = {line.id for line in lines if line.state == UnitState.DONE.value}
        if first:
            self._redis.mark_done(job.id, sorted(done))
        if "publish" in done:
            self._succeed(job)
            return
        self._notice_forgotten(job, look, lines=lines, seen=seen)
        again = self._sending.step(job, look, lines=lines, done=done, lengths=lengths)
        seen.looked, seen.units_done = moment, len(done)
        # A message may be gone because its unit is done, which was told to an earlier attempt.
        if again and self._read_journal(job, look, lines=lines, seen=seen, anyway=True):
            self._pokes.add([job.id])

    def _allow(self, job: JobFacts) -> None:
        """Remove an order to stop that is none of this job's any more."""
        with self._database.write() as session:
            now = repository.lock_job(session, job.id)
            if now is not None and now.state in OPEN and now.attempt == job.attempt:
                self._redis.allow(job.id)

    def _read_journal(
        self,
        job: JobFacts,
        look: Look,
        *,
        lines: Sequence[Any],
        seen: Memory,
        anyway: bool,
    ) -> bool:
        """Finish units whose record is there and whose report is not; say if there were any."""
        moment = self._clock()
        busy = any(line.state == UnitState.RUNNING.value for line in lines) or bool(look.taken)
        due = moment - seen.records_listed >= timedelta(seconds=RECORDS_SECONDS)
        if not (anyway or (busy and due) or seen.suspects):
            return False
        seen.records_listed = moment
        plan = self._plan(job)
        open_units = {line.id for line in lines if line.state != UnitState.DONE.value}
        found = Journal(plan, self._plans.storage).find_all(among=open_units)
        if found:
            self._finish(job, found)
        # Publishing takes the shards away, and with them their records' worth.
        may_be = anyway or open_units - set(found) <= {"publish"}
        if may_be and finish_if_published(plan, self._plans.storage):
            self._succeed(job)
            return True
        return bool(found)

    def _finish(self, job: JobFacts, found: Mapping[str, UnitRecord]) -> None:
        with self._database.write() as session, locked(session, job.id) as now:
            if now is None or now.state not in OPEN or now.attempt != job.attempt:
                return
            rows = repository.units(session, {job.id: list(found)})
            for unit in sorted(rows.values(), key=lambda row: row.place):
                if unit.state == UnitState.DONE.value:
                    continue
                record = found[unit.id]
                unit.device = record.device
                unit_changes.finish(
                    now,
                    unit,
                    source="journal",
                    seconds=record.cost.seconds,
                    worker=record.worker,
                    at=self._clock(),
                )
            job.units_done = now.units_done
        self._redis.mark_done(job.id, list(found))

    def _succeed(self, job: JobFacts) -> None:
        with self._database.write() as session:
            now = repository.lock_job(session, job.id)
            if now is not None and now.attempt == job.attempt and now.state in OPEN:
                unit_changes.succeed(session, now, at=self._clock())
                job.state = now.state

    def _notice_forgotten(
        self, job: JobFacts, look: Look, *, lines: Sequence[Any], seen: Memory
    ) -> None:
        """See to units that run by the database and of which Redis knows nothing, for a while."""
        moment = self._clock()
        running = [
            line
            for line in lines
            if line.state == UnitState.RUNNING.value and line.id not in look.taken
        ]
        held = self._redis.leases([(job.id, line.id) for line in running]) if running else {}
        suspects = {
            (line.id, line.token): seen.suspects.get((line.id, line.token), moment)
            for line in running
            if (job.id, line.id) not in held
        }
        for (unit, token), since in list(suspects.items()):
            if moment - since >= timedelta(seconds=SUSPECT_SECONDS) and token is not None:
                self._losses.note(job.id, unit, token, outcome="returned")
                del suspects[unit, token]
                self._pokes.add([job.id])
        seen.suspects = suspects

    def _plan(self, job: JobFacts) -> Plan:
        plan = self._plans.find(job.id, job.plan_digest)
        if plan is None:
            error = InternalError(
                f"the plan of job {job.id} is gone from the workspace",
                hint="Retry the job: it is planned again.",
            )
            with self._database.write() as session:
                now = repository.lock_job(session, job.id)
                if now is not None and now.attempt == job.attempt and now.state in OPEN:
                    end_job(
                        session,
                        now,
                        JobState.FAILED,
                        error=ErrorReport.model_validate(error.as_dict()),
                        only_from=OPEN,
                    )
            raise error
        return plan
