"""Take queued jobs, plan them from their inputs' headers, and hand out their first units.

Planning can be done twice: a job that its planner left `validating` is planned again by the
next. What a job claims (its output) is settled in the transaction that makes it `running`.
"""

import random
import traceback
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from time import perf_counter

import structlog
from sqlalchemy.orm import Session

from api.control import records, repository, unit_changes
from api.control.devices import Devices
from api.control.metrics import DROPPED, PLANNED, PUT_OFF, REFUSED, ControlMetrics
from api.control.outcome import end_job, job_file
from api.control.planned_rows import planned_columns, unit_rows
from api.control.plans import Plans
from api.control.queue import UnitQueue, message_of
from api.control.redis_state import RedisState
from api.control.repository import JobFacts
from api.db.session import Database
from api.db.tables import JobRow
from api.jobs.transitions import add_event, add_log, move
from api.plans.estimate import seconds_of, speeds
from api.tracing import Tracing
from fda_core.contract.artifacts import UnitRecord
from fda_core.contract.plan import Plan
from fda_core.contract.service import names
from fda_core.contract.service.messages import ErrorReport
from fda_core.contract.service.states import JobState
from fda_core.contract.uris import inside, scheme
from fda_core.engine.journal import Journal
from fda_core.engine.plan import check_can_write, finish_if_published, make_plan
from fda_core.engine.recipes import read_recipe, recipe_of
from fda_core.errors import FdaError, InternalError, OutputExists, RecipeError
from fda_core.processes.tracing import note_error

AT_ONCE = 20
"""Jobs begun in one step, so that a long queue does not keep urgent newcomers waiting."""
TRIES = 5
OUTPUTS = "outputs"
"""Note whose lock settles who gets an output."""

_log = structlog.get_logger("fda.control.planner")


class _NotMine(Exception):
    """The job changed while it was planned: nothing of the plan is kept."""


class Planner:
    """The loop that turns queued jobs into running ones."""

    def __init__(
        self,
        database: Database,
        redis: RedisState,
        queue: UnitQueue,
        plans: Plans,
        *,
        devices: Devices,
        clock: Callable[[], datetime],
        chance: random.Random,
        metrics: ControlMetrics,
        tracing: Tracing,
    ) -> None:
        self._database = database
        self._redis = redis
        self._queue = queue
        self._plans = plans
        self._devices = devices
        self._clock = clock
        self._chance = chance
        self._metrics = metrics
        self._tracing = tracing
        self._waits: dict[tuple[str, int], tuple[int, datetime]] = {}

    def step(self) -> int:
        """Plan what is queued, and what was left half planned; return how many were looked at."""
        with self._database.read() as session:
            jobs = repository.jobs_in(session, {JobState.VALIDATING})
            jobs += repository.jobs_in(session, {JobState.QUEUED}, limit=AT_ONCE)
            ended = set(repository.ended_jobs(session)) if jobs else set()
        moment = self._clock()
        present = {(job.id, job.attempt) for job in jobs}
        self._waits = {key: wait for key, wait in self._waits.items() if key in present}
        looked = 0
        for job in jobs:
            _, until = self._waits.get((job.id, job.attempt), (0, moment))
            if until <= moment and job.id not in ended:
                looked += 1
                with structlog.contextvars.bound_contextvars(job=job.id, attempt=job.attempt):
                    self._begin(job)
        return looked

    def _begin(self, job: JobFacts) -> None:
        if job.state is JobState.QUEUED:
            with self._database.write() as session:
                if not move(session, job.id, JobState.VALIDATING):
                    return
            job.state = JobState.VALIDATING
        began = perf_counter()
        attributes: dict[str, str | int] = {"fda.job": job.id, "fda.attempt": job.attempt}
        with self._tracing.span("plan", job.trace, attributes) as span:
            outcome = self._try(job)
            if span is not None:
                span.set_attribute("fda.outcome", outcome)
            if outcome == REFUSED:
                note_error(span, outcome)
        seconds = perf_counter() - began
        self._metrics.planning_seconds.labels(outcome).observe(seconds)
        _log.info("job_planned", outcome=outcome, seconds=round(seconds, 3))

    def _try(self, job: JobFacts) -> str:
        """Plan a job and return how that ended."""
        try:
            self._plan(job)
        except _NotMine:
            return DROPPED
        except FdaError as problem:
            if problem.retryable and self._wait(job, problem):
                return PUT_OFF
            self._refuse(job, ErrorReport.model_validate(problem.as_dict()))
            return REFUSED
        return PLANNED

    def _wait(self, job: JobFacts, problem: FdaError) -> bool:
        """Put a job off for a while; say no when that was done often enough."""
        tries, _ = self._waits.get((job.id, job.attempt), (0, None))
        tries += 1
        if tries >= TRIES:
            return False
        seconds = 2.0**tries * (0.5 + 0.5 * self._chance.random())
        self._waits[job.id, job.attempt] = (tries, self._clock() + timedelta(seconds=seconds))
        with self._database.write() as session:
            add_log(
                session,
                job.id,
                f"planning failed {tries} of {TRIES} times, tried again in {seconds:.1f} s: "
                f"{problem.message}",
                level="warning",
            )
        return True

    def _refuse(self, job: JobFacts, error: ErrorReport) -> None:
        _log.info("job_refused", code=error.code)
        with self._database.write() as session:
            end_job(session, job, JobState.FAILED, error=error, only_from=[JobState.VALIDATING])

    def _plan(self, job: JobFacts) -> None:
        with self._database.read() as session:
            row = repository.job_row(session, job.id)
        if row is None or row.state != JobState.VALIDATING or row.attempt != job.attempt:
            return
        plan = self._made(row)
        storage = self._plans.storage
        if finish_if_published(plan, storage):
            self._already_published(job)
            return
        if not self._may_start_over(row, plan):
            return
        done = Journal(plan, storage).find_all()
        device = self._device(row, plan, done)
        check_can_write(plan, storage, done=done)
        storage.put(
            names.plan_file(plan.workspace, job.id), plan.model_dump_json(by_alias=True).encode()
        )
        found = job_file(row, plan_digest=plan.digest, device=device)
        storage.put(names.job_file(plan.workspace, job.id), found.model_dump_json().encode())
        self._plans.keep(plan)
        self._redis.forget(job.id, stopped=False)
        self._redis.mark_done(job.id, list(done))
        estimate = self._seconds_estimate(plan)
        with self._database.write() as session:
            self._run(session, job, plan, done=done, device=device, estimate=estimate)
        self._send_first(job, plan, done=done, device=device)

    def _made(self, row: JobRow) -> Plan:
        """Return the plan of what was submitted; our own mistakes become errors of the job."""
        try:
            recipe = (
                read_recipe(row.recipe) if isinstance(row.recipe, str) else recipe_of(row.recipe)
            )
            addresses = [recipe.base, *(e.model for e in recipe.experts), recipe.output]
            for address in addresses:
                _check_absolute(address)
            return make_plan(
                recipe,
                self._plans.storage,
                cwd="/",
                workspace=self._plans.workspace,
                job_id=row.id,
            )
        except FdaError:
            raise
        except Exception as problem:
            _log.exception("planning_broke")
            raise InternalError(
                f"planning broke: {type(problem).__name__}: {problem}",
                hint="This is our mistake; please report it with the job's recipe.",
                trace="".join(traceback.format_exception(problem))[-4000:],
            ) from problem

    def _may_start_over(self, row: JobRow, plan: Plan) -> bool:
        """Throw away what an earlier attempt made of other inputs, once nobody works on it."""
        if row.plan_digest in (None, plan.digest):
            return True
        with self._database.read() as session:
            units = [line.id for line in repository.unit_lines(session, row.id)]
        self._redis.stop(row.id)
        if self._redis.leases([(row.id, unit) for unit in units]):
            self._waits[row.id, row.attempt] = (0, self._clock() + timedelta(seconds=0.5))
            return False
        old = self._plans.find(row.id, row.plan_digest)
        for made in [plan, *([old] if old else [])]:
            records.forget_records(made, self._plans.storage)
        with self._database.write() as session:
            add_log(
                session,
                row.id,
                "the inputs or the recipe changed since the last attempt: its units are redone",
                level="warning",
            )
        return True

    def _device(self, row: JobRow, plan: Plan, done: Mapping[str, UnitRecord]) -> str:
        """Return the queue of the layers: units that are kept decide it, if there are any."""
        if done and row.device:
            return row.device
        return self._devices.choose(plan, self._redis.served_queues)

    def _seconds_estimate(self, plan: Plan) -> float | None:
        """Return how long a plan will take; looked up before the transaction that needs it."""
        with self._database.read() as session:
            known = speeds(session)
        return seconds_of(plan, known, workers=self._redis.count_workers())

    def _already_published(self, job: JobFacts) -> None:
        with self._database.write() as session:
            if repository.lock_job(session, job.id) is None:
                return
            unit_changes.succeed(session, job, at=self._clock())

    def _run(
        self,
        session: Session,
        job: JobFacts,
        plan: Plan,
        *,
        done: Mapping[str, UnitRecord],
        device: str,
        estimate: float | None,
    ) -> None:
        """Make the job running with its units, or nothing at all if it was cancelled."""
        repository.locked_note(session, OUTPUTS, {})
        now = repository.lock_job(session, job.id)
        if now is None or now.state is not JobState.VALIDATING or now.attempt != job.attempt:
            raise _NotMine
        self._check_claims(session, plan)
        rows = unit_rows(plan, done=done, device=device, moment=self._clock())
        repository.replace_units(session, job.id, rows)
        for text in plan.warnings:
            add_event(session, job.id, "warning", {"text": text})
        move(
            session,
            job.id,
            JobState.RUNNING,
            only_from=[JobState.VALIDATING],
            **planned_columns(plan, done=done, device=device, seconds_estimate=estimate),
        )
        add_log(
            session,
            job.id,
            f"planned: {len(plan.units)} units, {len(done)} of them done before, on {device}",
        )
        job.state = JobState.RUNNING

    @staticmethod
    def _check_claims(session: Session, plan: Plan) -> None:
        for output, other in repository.outputs_claimed(session, but=plan.job_id).items():
            if inside(plan.output, output) or inside(output, plan.output):
                raise OutputExists(
                    f"{plan.output}: job {other} is writing to {output}",
                    hint="Choose another output, or wait for that job to end.",
                    output=plan.output,
                    job=other,
                )

    def _send_first(
        self, job: JobFacts, plan: Plan, *, done: Mapping[str, UnitRecord], device: str
    ) -> None:
        ready = [
            unit
            for unit in plan.units
            if unit.id not in done and all(need in done for need in unit.needs)
        ]
        self._queue.send(
            [
                message_of(
                    job,
                    unit.id,
                    device=device,
                    queue=names.queue_of(unit, device=device),
                    workspace=plan.workspace,
                )
                for unit in ready
            ]
        )
        with self._database.write() as session:
            repository.lock_job(session, job.id)
            repository.mark_ready(session, job.id, [unit.id for unit in ready])


def _check_absolute(address: str | None) -> None:
    """Refuse an address that hangs on a working directory: the service has none."""
    if address is None or scheme(address) != "file" or address.startswith(("/", "file:///")):
        return
    raise RecipeError(
        f"{address!r} is a relative path, and the service has no working directory",
        hint="Give an absolute path or s3://bucket/prefix.",
        address=address,
    )
