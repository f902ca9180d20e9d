"""The clock's work on schedules: make the batch of every fire time, once.

A fire time is a row whose primary key is (schedule, time), inserted in the transaction that
inserts the batch: however many processes do this at once, one of them makes the batch.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from api.batches.repository import under_way_of_schedule
from api.batches.service import BatchService
from api.db.session import Database
from api.db.tables import ScheduleRow
from api.db.types import now
from api.jobs.submitting import Cancel, Wake
from api.schedules import repository
from api.schedules.cron import latest_fire, next_fire, zone_of
from api.schedules.runs import make_run
from fda_core.contract.rest.base import utc
from fda_core.errors import FdaError

GRACE = timedelta(seconds=60)
"""A fire time that is noticed later than this was missed: no controller ran."""
MOST_WAITING = 100
"""Queued fire times of one schedule; more are skipped."""
AT_ONCE = 100

log = structlog.get_logger("schedules")

Work = Callable[[Session, ScheduleRow], list[str]]
"""Does something about one schedule; returns the jobs that have something new."""


class Firing:
    """Fires schedules. `step` may run in any number of processes at once."""

    def __init__(
        self,
        database: Database,
        batches: BatchService,
        *,
        cancel: Cancel,
        wake: Wake,
        clock: Callable[[], datetime] = now,
        on_outcome: Callable[[str], None] = lambda _outcome: None,
    ) -> None:
        self._database = database
        self._batches = batches
        self._cancel = cancel
        self._wake = wake
        self._clock = clock
        self._on_outcome = on_outcome
        self._outcomes: dict[datetime, str] = {}
        """What became of fire times in the transaction under way."""

    def step(self) -> None:
        """Make the batches that are due, and queued ones whose turn has come."""
        with self._database.read() as session:
            waiting = repository.with_waiting(session, limit=AT_ONCE)
            due = repository.due(session, moment=self._clock(), limit=AT_ONCE)
        for schedule_id in waiting:
            self._locked(schedule_id, self._next_in_queue)
        for schedule_id in due:
            self._locked(schedule_id, self._fire)

    def _locked(self, schedule_id: str, work: Work) -> None:
        """Do one schedule's work in a transaction; what breaks there stops no other one."""
        self._outcomes.clear()
        try:
            with self._database.write() as session:
                row = repository.lock(session, schedule_id)
                jobs = work(session, row) if row is not None and not row.paused else []
        except SQLAlchemyError as problem:
            log.warning("schedule_database", schedule=schedule_id, problem=str(problem))
            return
        except Exception as problem:
            log.error("schedule_broke", schedule=schedule_id, exc_info=problem)
            self._outcomes.clear()
            with suppress(SQLAlchemyError):  # then it breaks again at the next step
                self._give_up(schedule_id, f"{type(problem).__name__}: {problem}")
                self._tell_outcomes()
            return
        self._tell_outcomes()
        if jobs:
            self._wake(jobs)

    def _tell_outcomes(self) -> None:
        """Tell what became of fire times, once that is committed."""
        for outcome in self._outcomes.values():
            self._on_outcome(outcome)

    def _set(
        self, session: Session, schedule_id: str, fire_at: datetime, outcome: str, **more: Any
    ) -> None:
        repository.set_fire(session, schedule_id, fire_at, outcome=outcome, **more)
        self._outcomes[fire_at] = outcome

    def _fire(self, session: Session, row: ScheduleRow) -> list[str]:
        """Deal with all fire times that have come: the latest one is run, at most."""
        moment = self._clock()
        since = row.next_fire_at
        if since is None or since > moment:
            return []  # another process was first
        zone = zone_of(row.zone)
        latest = latest_fire(row.cron, zone, since=since, until=moment)
        upcoming = next_fire(row.cron, zone, after=moment)
        if since < latest:
            self._miss(session, row, since, f"from then to before {utc(latest)}, all of them")
        repository.note_fire(session, row.id, last=latest, upcoming=upcoming)
        if row.missed == "skip" and moment - latest > GRACE:
            self._miss(session, row, latest, f"noticed {_words(moment - latest)} late")
            return []
        return self._start(session, row, latest)

    def _start(self, session: Session, row: ScheduleRow, fire_at: datetime) -> list[str]:
        """Run a fire time, or do what the overlap policy says."""
        new = repository.add_fire(
            session, row.id, fire_at, outcome="fired", created_at=self._clock()
        )
        if not new:
            return []
        busy = under_way_of_schedule(session, row.id)
        waiting = repository.waiting(session, row.id)
        if row.overlap == "queue" and (busy or waiting):
            full = len(waiting) >= MOST_WAITING
            self._set(
                session,
                row.id,
                fire_at,
                outcome="skipped" if full else "waiting",
                detail=f"{len(waiting)} fire times wait already" if full else _busy(busy),
            )
            return []
        if row.overlap == "skip" and busy:
            self._set(session, row.id, fire_at, outcome="skipped", detail=_busy(busy))
            return []
        made = self._run(session, row, fire_at)
        stopped = [job for job in busy if made and self._cancel(session, job)]
        return [*stopped, *made]

    def _next_in_queue(self, session: Session, row: ScheduleRow) -> list[str]:
        """Run the earliest queued fire time if nothing of the schedule is on its way."""
        waiting = repository.waiting(session, row.id)
        if not waiting or under_way_of_schedule(session, row.id):
            return []
        return self._run(session, row, waiting[0])

    def _run(self, session: Session, row: ScheduleRow, fire_at: datetime) -> list[str]:
        """Make the batch of a fire time that has its row; a refusal is kept there."""
        try:
            made = make_run(session, self._batches, row, fire_at)
        except FdaError as problem:
            log.warning("schedule_refused", schedule=row.id, code=problem.code)
            detail = f"{problem.code}: {problem.message}"
            self._set(session, row.id, fire_at, outcome="failed", detail=detail)
            return []
        self._set(session, row.id, fire_at, outcome="fired", batch_id=made.row.id)
        return made.jobs

    def _miss(self, session: Session, row: ScheduleRow, fire_at: datetime, detail: str) -> None:
        new = repository.add_fire(
            session,
            row.id,
            fire_at,
            outcome="missed",
            created_at=self._clock(),
            detail=f"no controller ran: {detail}",
        )
        if new:
            self._outcomes[fire_at] = "missed"

    def _give_up(self, schedule_id: str, detail: str) -> None:
        """Record a fire time that broke in a way we did not think of, and go on after it."""
        with self._database.write() as session:
            row = repository.lock(session, schedule_id)
            if row is None:
                return
            waiting = repository.waiting(session, schedule_id)
            moment = self._clock()
            if row.next_fire_at is not None and row.next_fire_at <= moment:
                fire_at = row.next_fire_at
                repository.add_fire(session, row.id, fire_at, outcome="failed", created_at=moment)
                upcoming = _next_if_known(row, moment)
                repository.note_fire(session, row.id, last=fire_at, upcoming=upcoming)
            elif waiting:
                fire_at = waiting[0]
            else:
                return
            self._set(session, row.id, fire_at, outcome="failed", detail=detail)


def _next_if_known(row: ScheduleRow, moment: datetime) -> datetime | None:
    try:
        return next_fire(row.cron, zone_of(row.zone), after=moment)
    except Exception:
        return None  # shown as a schedule without a next fire time; its last one says why


def _busy(jobs: Sequence[str]) -> str:
    return f"{len(jobs)} jobs of earlier runs were on their way"


def _words(late: timedelta) -> str:
    seconds = int(late.total_seconds())
    return f"{seconds // 3600} h {seconds % 3600 // 60} min {seconds % 60} s"
