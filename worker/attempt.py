"""One try at one unit. The order of its steps is what makes late and doubled messages harmless.

1. A worker that drains sends the message again. 2. The stop key is there: drop it. 3. Read the
plan. 4. Take the lease, or leave the unit to who has it. 5. The unit's record is in the
journal: say so. 6. Run it; the record is written last. 7. Note that it is done, give the lease
up, report. 8. Send what this made ready.
"""

import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Literal

import structlog
from redis import RedisError

from fda_core.contract.artifacts import UnitRecord
from fda_core.contract.events import UnitFinished, UnitStarted
from fda_core.contract.plan import Plan, Unit
from fda_core.contract.service import names
from fda_core.contract.service.messages import (
    ErrorReport,
    Logged,
    TryUnit,
    UnitFailed,
    UnitReturned,
)
from fda_core.engine.journal import Journal
from fda_core.engine.lowered import lowered, microbatch_of
from fda_core.engine.plan import finish_if_published
from fda_core.errors import Cancelled, FdaError, InternalError, NotFound, OutOfDeviceMemory
from worker.drain import Interrupted
from worker.events import UnitReports
from worker.heartbeat import Reason, Watch
from worker.leases import Lease, new_token
from worker.status import Busy

if TYPE_CHECKING:
    from worker.execute import Executor

Outcome = Literal[
    "done",  # run, and recorded
    "already",  # its record was there
    "failed",
    "returned",  # told to stop, or its lease was lost
    "held",  # another worker runs it
    "stopped",  # the job is being stopped
    "gone",  # the job was deleted, or planned anew without this unit
    "declined",  # this worker drains; sent again
    "unleased",  # Redis is away; the controller sends it again
]
End = Callable[[], Outcome]

log = structlog.stdlib.get_logger("fda.worker.attempt")


class Attempt:
    """A try under a token of its own."""

    def __init__(self, executor: "Executor", message: TryUnit, *, queue: str) -> None:
        self._to = executor
        self._message = message
        self._queue = queue
        self.token = new_token()
        self._lease = Lease(executor.redis, job=message.job, unit=message.unit, token=self.token)
        self._watch = Watch(self._lease, job=message.job, drain=executor.drain)
        self._reports = UnitReports(
            executor.reports,
            message,
            worker=executor.status.worker,
            token=self.token,
            counters=(executor.status, executor.metrics),
            clock=executor.clock,
        )
        self._began = time.monotonic()
        self.kind = "unknown"
        self.error: str | None = None

    @property
    def seconds(self) -> float:
        """Return how long the try has taken."""
        return round(time.monotonic() - self._began, 3)

    def go(self) -> Outcome:
        """Do what the message asks for, if it is still to be done by us."""
        if self._to.drain.begun:
            self._to.sender.send_again(self._message, queue=self._queue)
            return "declined"
        try:
            if self._to.redis.exists(names.stop(self._message.job)):
                return "stopped"
            found = self._planned()
            if found is None:
                return "gone"
            if not self._lease.take():
                return "held"
        except RedisError as problem:
            self.error = f"{type(problem).__name__}: {problem}"
            return "unleased"
        except Exception as problem:
            return self._failed(self._described(problem))
        return self._under_lease(*found)

    def _planned(self) -> tuple[Plan, Unit] | None:
        """Return the plan and the unit, or None for a message about what is no more."""
        try:
            plan = self._to.plans.get(self._message.plan)
        except NotFound:
            return None
        unit = next((u for u in plan.units if u.id == self._message.unit), None)
        if unit is None or plan.job_id != self._message.job:
            return None
        self.kind = unit.kind
        return plan, unit

    def _under_lease(self, plan: Plan, unit: Unit) -> Outcome:
        """Run the unit if need be, and give the lease up however that ends."""
        to = self._to
        to.status.begin(Busy(job=plan.job_id, unit=unit.id, started=to.clock()))
        to.metrics.busy.set(1)
        end: End = partial(self._returned, "drained")  # what a second signal leaves
        try:
            with to.heartbeat.watching(self._watch), to.drain.interruptible():
                end = self._ending(plan, unit)
        except Interrupted:
            log.info("interrupted")
        outcome = end()
        to.devices.end_unit()
        to.status.end()
        to.metrics.busy.set(0)
        return outcome

    def _ending(self, plan: Plan, unit: Unit) -> End:
        """Find the unit done or run it; return what is left to do when nobody watches any more."""
        try:
            seconds = self._seconds_before(plan, unit)
            if seconds is not None:
                return partial(self._already, plan, seconds)
            return partial(self._done, plan, self._run(plan, unit))
        except Cancelled:
            return partial(self._returned, self._watch.reason or "cancelled")
        except Exception as problem:
            if self._watch.reason is not None:
                # Its files may have been taken away meanwhile: no fault of the unit.
                log.info("ended_while_stopping", problem=str(problem))
                return partial(self._returned, self._watch.reason)
            error = self._described(problem)
            if isinstance(problem, OutOfDeviceMemory):
                error = self._with_microbatch(error, plan, unit)
            return partial(self._failed, error)

    def _seconds_before(self, plan: Plan, unit: Unit) -> float | None:
        """Return what an earlier try took, or None if the unit is to be done.

        Once the output is there everything is done: publishing takes the shards away, and a
        record whose files are gone counts as none.
        """
        storage = self._to.storage
        record = Journal(plan, storage).find(unit)
        if record is not None and unit.kind != "publish":
            return record.cost.seconds
        if not finish_if_published(plan, storage):
            return None
        return record.cost.seconds if record is not None else 0.0

    def _run(self, plan: Plan, unit: Unit) -> UnitRecord:
        to = self._to
        self._reports.tell(UnitStarted(unit=unit.id, worker=0))
        if self._message.microbatch is not None:
            unit = lowered(plan, unit, microbatch=self._message.microbatch)
            self._log_line(f"at most {self._message.microbatch} anchors at once")
        to.devices.begin_unit()
        runner = to.runner(
            plan,
            to.storage,
            device=to.devices.of(self._message.device),
            worker=0,
            emit=self._reports.emit,
            is_cancelled=self._watch.must_stop,
        )
        return runner.run(unit)

    def _done(self, plan: Plan, record: UnitRecord) -> Outcome:
        to = self._to
        to.status.count("units_done")
        to.status.add_seconds(record.kind, record.cost.seconds)
        to.metrics.seconds.labels(record.kind).observe(record.cost.seconds)
        if record.source == "cache":
            to.status.count("cache_hits")
            to.metrics.cache_hits.inc()
        self._release(done=True)
        self._tell_finished(record.cost.seconds, record.source)
        to.sender.send_ready(self._message, plan)
        return "done"

    def _already(self, plan: Plan, seconds: float) -> Outcome:
        """Say that it is done, unless that was said, and go on behind it."""
        if self._release(done=True):
            self._tell_finished(seconds, "journal")
        self._to.sender.send_ready(self._message, plan)
        return "already"

    def _failed(self, error: ErrorReport) -> Outcome:
        self.error = error.code
        self._to.status.count("units_failed")
        self._to.metrics.failures.labels(error.code).inc()
        self._release(done=False)
        self._reports.tell(UnitFailed(unit=self._message.unit, error=error))
        return "failed"

    def _returned(self, reason: Reason) -> Outcome:
        self.error = reason
        if reason == "lease_lost":
            self._to.status.count("leases_lost")
            self._to.metrics.leases_lost.inc()
        self._release(done=False)
        if reason == "drained":
            self._to.sender.send_again(self._message, queue=self._queue)
        self._reports.tell(UnitReturned(unit=self._message.unit, reason=reason))
        return "returned"

    def _release(self, *, done: bool) -> bool:
        """Give the lease up; if Redis is away it expires by itself."""
        try:
            return self._lease.release(done=done)
        except RedisError as problem:
            log.warning("lease_left_to_expire", problem=str(problem))
            return done

    def _tell_finished(self, seconds: float, source: Literal["run", "cache", "journal"]) -> None:
        self._reports.tell(
            UnitFinished(unit=self._message.unit, worker=0, seconds=seconds, source=source)
        )

    def _log_line(self, text: str) -> None:
        log.info("unit_says", text=text)
        self._reports.tell(Logged(level="info", text=text, unit=self._message.unit))

    def _with_microbatch(self, error: ErrorReport, plan: Plan, unit: Unit) -> ErrorReport:
        """Add how many anchors were too many, so that fewer can be asked for."""
        held, asked = microbatch_of(plan, unit), self._message.microbatch
        if held is None:
            return error
        context = {**error.context, "microbatch": min(held, asked or held)}
        return error.model_copy(update={"context": context})

    def _described(self, problem: Exception) -> ErrorReport:
        """Return an error as plain data, which keeps no tensor of its traceback alive."""
        trace = None
        if not isinstance(problem, FdaError):
            trace = "".join(traceback.format_exception(problem))
            log.error("unexpected", trace=trace)
            problem = InternalError(f"{type(problem).__name__}: {problem}")
        return ErrorReport.model_validate(
            {**problem.as_dict(), "unit": self._message.unit, "trace": trace}
        )
