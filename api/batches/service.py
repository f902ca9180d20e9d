"""The rules of batches: all jobs or none, in one transaction."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from api.batches import repository
from api.batches.expanding import Entry, expand, refusal, trouble_with
from api.batches.results import Results
from api.batches.views import batch_view, table_view
from api.db.session import Database
from api.db.tables import BatchRow
from api.db.types import now
from api.idempotency import Answer
from api.ids import new_id
from api.jobs.submitting import (
    Caller,
    Cancel,
    Once,
    Submit,
    Submitter,
    Wake,
    team_seen,
)
from fda_core.contract.rest.base import Page
from fda_core.contract.rest.batches import Batch, BatchRequest
from fda_core.contract.rest.jobs import JobRequest
from fda_core.contract.service.states import TERMINAL, JobState
from fda_core.errors import (
    BatchNotOver,
    BatchOver,
    CheckpointError,
    RecipeError,
    StorageError,
    UnknownBatch,
)

DeleteJob = Callable[[Caller, str], None]


@dataclass(frozen=True, kw_only=True)
class Made:
    """A batch that was put into the database, not committed yet."""

    row: BatchRow
    jobs: list[str]


class BatchService:
    """Submits, shows, cancels and deletes batches."""

    def __init__(
        self,
        database: Database,
        *,
        submit: Submit,
        cancel: Cancel,
        delete_job: DeleteJob,
        results: Results,
        wake: Wake,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._database = database
        self._submit = submit
        self._cancel = cancel
        self._delete_job = delete_job
        self._results = results
        self._wake = wake
        self._clock = clock

    def submit(self, caller: Caller, request: BatchRequest, *, once: Once | None) -> Answer:
        """Queue every job of a batch, or none; the same request again gets the same answer."""
        entries = expand(request)  # before the transaction: nobody has to wait for it
        with self._database.write() as session:
            before = once.replay(session) if once else None
            if before is not None:
                return before
            made = self.add(session, request, caller, entries=entries)
            answer = self._accepted(session, made.row)
            if once:
                once.keep(session, answer)
        self._wake(made.jobs)
        return answer

    def add(
        self,
        session: Session,
        request: BatchRequest,
        submitter: Submitter,
        *,
        entries: list[Entry],
        schedule_id: str | None = None,
    ) -> Made:
        """Insert a batch and its jobs; the caller commits, then wakes the controller.

        Raises `BatchInvalid` if any job is refused; the caller must roll back.
        """
        batch_id = new_id()
        jobs, troubles = [], []
        for entry in entries:
            try:
                job = self._job_request(request, entry)
                jobs.append(self._submit(session, job, submitter, batch_id, schedule_id))
            except (RecipeError, CheckpointError, StorageError) as error:
                troubles.append(trouble_with(request, entry.index, error))
        if troubles:
            raise refusal(request, troubles)
        row = BatchRow(
            id=batch_id,
            name=request.name,
            owner=submitter.owner,
            team=submitter.team,
            request=request.model_dump(mode="json", exclude_none=True),
            jobs=len(jobs),
            entries=[
                {"job": job, "values": entry.values, "output": entry.output}
                for job, entry in zip(jobs, entries, strict=True)
            ],
            schedule_id=schedule_id,
            labels=dict(request.labels),
            created_at=self._clock(),
        )
        repository.add(session, row)
        return Made(row=row, jobs=jobs)

    def _job_request(self, request: BatchRequest, entry: Entry) -> JobRequest:
        deadline = request.deadline
        if request.begin_within_seconds is not None:
            deadline = self._clock() + timedelta(seconds=request.begin_within_seconds)
        return JobRequest(
            recipe=entry.recipe,
            labels=request.labels,
            priority=request.priority,
            deadline=deadline,
            webhook=request.webhook,
        )

    def get(self, caller: Caller, batch_id: str) -> Batch:
        """Return a batch with its table."""
        with self._database.read() as session:
            row = _found(session, caller, batch_id)
            jobs = repository.jobs(session, batch_id)
            counts = repository.counts(session, [batch_id])[batch_id]
        done = {
            job.id: job.output
            for job in jobs.values()
            if job.state == JobState.SUCCEEDED and job.output is not None
        }
        table = table_view(row, jobs, self._results.of(done), moment=self._clock())
        return batch_view(row, counts, table)

    def page(
        self, caller: Caller, *, cursor: str | None, limit: int, schedule: str | None
    ) -> Page[Batch]:
        """Return a piece of the list, newest first."""
        with self._database.read() as session:
            rows = repository.page(
                session, team_seen(caller), cursor=cursor, limit=limit + 1, schedule=schedule
            )
            counts = repository.counts(session, [row.id for row in rows])
        shown = [batch_view(row, counts[row.id]) for row in rows[:limit]]
        more = len(rows) > limit
        return Page(data=shown, next_cursor=shown[-1].id if more else None, has_more=more)

    def cancel(self, caller: Caller, batch_id: str) -> Batch:
        """Ask all jobs that are not over to stop; raise `BatchOver` if there are none."""
        with self._database.write() as session:
            row = _found(session, caller, batch_id)
            stopped = [
                job for job in repository.under_way(session, batch_id) if self._cancel(session, job)
            ]
            counts = repository.counts(session, [batch_id])[batch_id]
            if not stopped:
                raise BatchOver(
                    f"batch {batch_id}: {_words(counts)}; there is nothing to cancel",
                    hint="Jobs that failed or were cancelled can be tried again one by one.",
                    batch=batch_id,
                )
        self._wake(stopped)
        return batch_view(row, counts)

    def delete(self, caller: Caller, batch_id: str, *, jobs: bool) -> None:
        """Delete a batch whose jobs are all over; the jobs stay unless asked for."""
        with self._database.read() as session:
            _found(session, caller, batch_id)
            counts = repository.counts(session, [batch_id])[batch_id]
            ids = list(repository.jobs(session, batch_id))
        _check_over(batch_id, counts)
        for job in sorted(ids) if jobs else ():
            self._delete_job(caller, job)
        with self._database.write() as session:
            row = _found(session, caller, batch_id)
            _check_over(batch_id, repository.counts(session, [batch_id])[batch_id])
            repository.remove(session, row, moment=self._clock())

    def _accepted(self, session: Session, row: BatchRow) -> Answer:
        view = batch_view(row, repository.counts(session, [row.id])[row.id])
        return Answer(
            status=202,
            headers={"Location": view.urls.self, "Retry-After": "2"},
            body=view.model_dump(mode="json"),
        )


def _found(session: Session, caller: Caller, batch_id: str) -> BatchRow:
    row = repository.find(session, batch_id, team_seen(caller))
    if row is None:
        raise UnknownBatch(
            f"there is no batch {batch_id!r}",
            hint="GET /v1/batches lists those of your team.",
            batch=batch_id,
        )
    return row


def _check_over(batch_id: str, counts: Mapping[JobState, int]) -> None:
    if not set(counts) <= TERMINAL:
        raise BatchNotOver(
            f"batch {batch_id} still has jobs on their way: {_words(counts)}",
            hint="Cancel it first, and wait until it is over.",
            batch=batch_id,
        )


def _words(counts: Mapping[JobState, int]) -> str:
    return ", ".join(f"{count} {state.value}" for state, count in counts.items()) or "no jobs"
