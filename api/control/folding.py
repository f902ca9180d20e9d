"""What one batch of reports means for jobs, units and tries: one transaction's worth.

Reports may come twice, late, in any order, or of jobs that are gone. A token names one try:
the first report under it opens the try, whatever it tells. A try counts for its unit if it is
the newest of the job's present attempt; all others are kept as tries and change nothing. Only
a finished unit is finished under whatever token: its record is in the journal.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from api.control import repository, unit_changes
from api.control.memory import after_out_of_memory
from api.control.repository import JobFacts
from api.control.unit_changes import OPEN
from api.db.tables import AttemptRow, UnitRow
from api.ids import new_id
from api.jobs.transitions import add_log
from fda_core.contract.events import (
    BytesMoved,
    StepReported,
    UnitFinished,
    UnitRetried,
    UnitStarted,
)
from fda_core.contract.service.messages import (
    ErrorReport,
    Logged,
    Report,
    UnitFailed,
    UnitReturned,
)
from fda_core.contract.service.states import JobState, UnitState
from fda_core.errors import LostResult, OutOfDeviceMemory, OutputCorrupt

FAILURES = 5
"""A unit may fail so often in ways that may pass, in one attempt of its job."""

FINISHABLE = OPEN | {JobState.CANCELLING}
LONGEST_WAIT_SECONDS = 60.0


@dataclass(kw_only=True)
class Fold:
    """Folds reports into rows that it loads once; the session flushes them at the end."""

    session: Session
    moment: datetime
    published: Mapping[str, bool]
    """Whether the outputs of jobs are in their place, where it could be seen."""
    device_of: Callable[[str], str | None]
    served_queues: Callable[[], set[str]]
    chance: random.Random
    jobs: Mapping[str, JobFacts] = field(default_factory=dict)
    units: Mapping[tuple[str, str], UnitRow] = field(default_factory=dict)
    attempts: dict[str, AttemptRow] = field(default_factory=dict)
    touched: dict[str, dict[str, UnitRow]] = field(default_factory=dict)
    """Units that changed, by job: their progress is to be told."""
    pokes: set[str] = field(default_factory=set)
    """Jobs that the dispatcher should look at soon."""
    done: dict[str, list[str]] = field(default_factory=dict)
    undone: dict[str, list[str]] = field(default_factory=dict)
    """Units that were done, and whose results are gone."""

    def load(self, reports: Sequence[Report]) -> None:
        """Lock the jobs that reports speak of, and load what they may change."""
        self.jobs = repository.lock_jobs(self.session, {report.job for report in reports})
        wanted: dict[str, set[str]] = {}
        for report in reports:
            unit = report.event.unit
            if report.job in self.jobs and unit is not None:
                wanted.setdefault(report.job, set()).add(unit)
        self.units = repository.units(self.session, wanted)
        stand_ins = {repository.rebuilt_token(*unit) for unit in self.units}
        tokens = {report.token for report in reports}
        self.attempts = repository.attempts(self.session, tokens | stand_ins)

    def fold(self, report: Report) -> None:
        """Fold one report."""
        job = self.jobs.get(report.job)
        if job is None:
            return
        event = report.event
        if isinstance(event, Logged):
            self._log(report, event)
            return
        unit = self.units.get((report.job, event.unit))
        if unit is None:
            return
        if isinstance(event, UnitRetried):
            self._say(report, event.reason, unit=unit.id)
            return
        if isinstance(event, UnitFinished) and event.source == "journal":
            self._finished(report, event, job=job, unit=unit)
            return
        tried = self._try(report, job, unit)
        if isinstance(event, UnitFinished):
            believed = unit.kind != "publish" or self.published.get(job.id, True)
            self._close(tried, "done" if believed else "failed", report)
            self._drop_stand_in(unit)
            self._finished(report, event, job=job, unit=unit)
        elif isinstance(event, UnitFailed):
            self._failed(report, event, job=job, unit=unit, tried=tried)
        elif isinstance(event, UnitReturned):
            self._returned(report, event, job=job, unit=unit, tried=tried)
        elif not isinstance(event, UnitStarted) and self._counts(report, job, unit):
            self._moved(event, unit)
            self._touch(unit)

    def _try(self, report: Report, job: JobFacts, unit: UnitRow) -> AttemptRow:
        """Return the report's try, opening it if nothing was heard of it yet."""
        tried = self.attempts.get(report.token)
        if tried is not None:
            return tried
        at = _time(report.at)
        tried = AttemptRow(
            id=new_id(),
            job_id=report.job,
            attempt=report.attempt,
            unit=unit.id,
            token=report.token,
            worker=report.worker,
            outcome="running",
            started_at=at,
        )
        self.session.add(tried)
        self.attempts[report.token] = tried
        if self._is_newest(report, job, unit):
            unit_changes.begin(
                self.session,
                job,
                unit,
                token=report.token,
                worker=report.worker,
                device=self.device_of(report.worker),
                at=at,
            )
            self._touch(unit)
        return tried

    def _is_newest(self, report: Report, job: JobFacts, unit: UnitRow) -> bool:
        """Say whether a try that was just opened is the one that counts."""
        if report.attempt != job.attempt or job.state not in OPEN:
            return False
        if unit.state in (UnitState.DONE.value, UnitState.FAILED.value):
            return False
        return unit.started_at is None or unit.started_at <= _time(report.at)

    def _counts(self, report: Report, job: JobFacts, unit: UnitRow) -> bool:
        return (
            report.attempt == job.attempt
            and job.state in FINISHABLE
            and unit.state == UnitState.RUNNING.value
            and unit.token == report.token
        )

    def _moved(self, event: StepReported | BytesMoved, unit: UnitRow) -> None:
        if isinstance(event, StepReported):
            unit.step, unit.steps = event.step, event.steps
            unit.loss, unit.alignment = event.loss, event.alignment
        else:
            most = unit.read_bytes + unit.write_bytes
            moved = unit.moved_bytes + event.read_bytes + event.write_bytes
            unit.moved_bytes = min(moved, most)

    def _finished(
        self, report: Report, event: UnitFinished, *, job: JobFacts, unit: UnitRow
    ) -> None:
        """Finish a unit. One that was found in the journal was no try of whoever found it."""
        if report.attempt != job.attempt:
            self.pokes.add(job.id)
            return
        if unit.state == UnitState.DONE.value or job.state not in FINISHABLE:
            return
        if unit.kind == "publish":
            self._published(report, event, job=job, unit=unit)
            return
        self._finish(report, event, job=job, unit=unit)

    def _finish(self, report: Report, event: UnitFinished, *, job: JobFacts, unit: UnitRow) -> None:
        unit_changes.finish(
            job,
            unit,
            source=event.source,
            seconds=event.seconds,
            worker=report.worker,
            at=_time(report.at),
        )
        self.done.setdefault(job.id, []).append(unit.id)
        self._touch(unit)
        self.pokes.add(job.id)

    def _published(
        self, report: Report, event: UnitFinished, *, job: JobFacts, unit: UnitRow
    ) -> None:
        """Believe it when the output is seen; else have it done again, a few times."""
        seen = self.published.get(job.id)
        if seen is None:
            self.pokes.add(job.id)
        elif seen:
            self._finish(report, event, job=job, unit=unit)
            unit_changes.succeed(self.session, job, at=self.moment)
        elif unit.token == report.token and job.state in OPEN:
            problem = OutputCorrupt(
                f"{job.output}: publishing was reported, but the output is not whole",
                hint="See that nothing else writes there, then retry the job.",
                output=job.output,
            )
            self._try_again(job, unit, ErrorReport.model_validate(problem.as_dict()))

    def _failed(
        self, report: Report, event: UnitFailed, *, job: JobFacts, unit: UnitRow, tried: AttemptRow
    ) -> None:
        counts = self._counts(report, job, unit)
        self._close(tried, "failed", report, error=event.error)
        self._say(
            report,
            f"{event.error.code}: {event.error.message}",
            unit=unit.id,
            level="warning" if event.error.retryable else "error",
        )
        if not counts:
            return
        if job.state is JobState.CANCELLING:
            self._back(job, unit, reason="stopped", wait_seconds=0.0, error=event.error)
        elif event.error.code == OutOfDeviceMemory.code:
            self._out_of_memory(job, unit, event.error)
        elif event.error.code == LostResult.code:
            self._done_again(job, event.error)
            self._try_again(job, unit, event.error)
        elif event.error.retryable:
            self._try_again(job, unit, event.error)
        else:
            self._fail(job, unit, event.error)

    def _done_again(self, job: JobFacts, error: ErrorReport) -> None:
        """Have units done again whose results someone removed."""
        lost = error.context.get("units")
        if not isinstance(lost, list):
            return
        self.session.flush()
        for unit in repository.units(self.session, {job.id: lost}).values():
            if unit.state == UnitState.DONE.value:
                unit_changes.undo(job, unit, reason="its result is gone", not_before=self.moment)
                self.undone.setdefault(job.id, []).append(unit.id)
                self._touch(unit)

    def _out_of_memory(self, job: JobFacts, unit: UnitRow, error: ErrorReport) -> None:
        self.session.flush()
        row = repository.job_row(self.session, job.id)
        change = after_out_of_memory(
            unit, resolved=row.resolved if row else None, served=self.served_queues
        )
        if change is None or self._failures(job, unit) >= FAILURES:
            self._fail(job, unit, error)
            return
        unit.microbatch, unit.queue = change.microbatch, change.queue
        self._back(job, unit, reason=change.reason, wait_seconds=0.0, error=error)

    def _try_again(self, job: JobFacts, unit: UnitRow, error: ErrorReport) -> None:
        failures = self._failures(job, unit)
        if failures >= FAILURES:
            self._fail(job, unit, error)
            return
        longest = min(LONGEST_WAIT_SECONDS, 2.0**failures)
        wait = longest * (0.5 + 0.5 * self.chance.random())
        self._back(
            job,
            unit,
            reason=f"failed {failures} of {FAILURES} times, tried again in {wait:.1f} s",
            wait_seconds=wait,
            error=error,
        )

    def _failures(self, job: JobFacts, unit: UnitRow) -> int:
        """Return how often a unit failed in this attempt, the present time included."""
        self.session.flush()
        return repository.count_attempts(self.session, job.id, job.attempt, unit.id, "failed")

    def _fail(self, job: JobFacts, unit: UnitRow, error: ErrorReport) -> None:
        unit_changes.fail(self.session, job, unit, error=error, at=self.moment)
        self.pokes.add(job.id)

    def _returned(
        self,
        report: Report,
        event: UnitReturned,
        *,
        job: JobFacts,
        unit: UnitRow,
        tried: AttemptRow,
    ) -> None:
        counts = self._counts(report, job, unit)
        self._close(tried, "returned", report)
        if counts:
            self._back(job, unit, reason=event.reason, wait_seconds=0.0)

    def _back(
        self,
        job: JobFacts,
        unit: UnitRow,
        *,
        reason: str,
        wait_seconds: float,
        error: ErrorReport | None = None,
    ) -> None:
        unit_changes.put_back(
            job,
            unit,
            reason=reason,
            not_before=self.moment + timedelta(seconds=wait_seconds),
            error=error,
        )
        self._touch(unit)
        self.pokes.add(job.id)

    def _close(
        self, tried: AttemptRow, outcome: str, report: Report, *, error: ErrorReport | None = None
    ) -> None:
        """Note how a try ended. What its worker says is better than that it seemed lost."""
        if tried.outcome in ("running", "lost"):
            tried.outcome = outcome
            tried.finished_at = _time(report.at)
            tried.error = None if error is None else error.model_dump(mode="json")

    def _drop_stand_in(self, unit: UnitRow) -> None:
        """Forget what a rebuild put in the place of a try that was now heard of again."""
        token = repository.rebuilt_token(unit.job_id, unit.id)
        stand_in = self.attempts.pop(token, None)
        if stand_in is not None:
            self.session.delete(stand_in)

    def _touch(self, unit: UnitRow) -> None:
        self.touched.setdefault(unit.job_id, {})[unit.id] = unit

    def _log(self, report: Report, event: Logged) -> None:
        add_log(
            self.session,
            report.job,
            event.text,
            level=event.level,
            unit=event.unit,
            worker=report.worker,
            fields=event.fields,
            at=_time(report.at),
        )

    def _say(self, report: Report, text: str, *, unit: str, level: str = "info") -> None:
        add_log(
            self.session,
            report.job,
            text,
            level=level,
            unit=unit,
            worker=report.worker,
            at=_time(report.at),
        )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
