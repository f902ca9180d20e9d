"""Fold what workers report into the database, exactly once.

The rows and the place in the stream that they come from are committed together. Redis may be
emptied or fall back: then the stream's newest id is before our place, and folding starts from
its beginning, which is harmless, since every fact is folded by what it says and not by how
often.
"""

import random
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

import structlog
from pydantic import ValidationError
from sqlalchemy.orm import Session

from api.control import repository
from api.control.folding import Fold
from api.control.plans import Plans
from api.control.progress import Tally
from api.control.redis_state import FIRST, RedisState
from api.control.repository import JobFacts
from api.control.telling import tell_all
from api.control.unit_changes import OPEN
from api.db.session import Database
from api.db.tables import UnitRow
from api.jobs.transitions import add_event
from fda_core.contract.events import UnitFinished
from fda_core.contract.service.messages import REPORT, Report
from fda_core.engine.plan import is_published
from fda_core.errors import FdaError

CURSOR = "projector"
BATCH = 500
PROGRESS_SECONDS = 1.0
KEEP_DEVICES = 1000

_log = structlog.get_logger("fda.control.projector")


class Projector:
    """The loop that reads the reports."""

    def __init__(
        self,
        database: Database,
        redis: RedisState,
        plans: Plans,
        *,
        clock: Callable[[], datetime],
        chance: random.Random,
        poke: Callable[[Iterable[str]], None],
        on_fold: Callable[[int], None] = lambda _count: None,
    ) -> None:
        self._database = database
        self._redis = redis
        self._plans = plans
        self._clock = clock
        self._chance = chance
        self._poke = poke
        self._on_fold = on_fold
        self._cursor: str | None = None
        self._tallies: dict[tuple[str, int], Tally] = {}
        self._unsaid: dict[str, None] = {}
        """Jobs whose progress changed since it was told."""
        self._said: dict[str, datetime] = {}
        self._devices: dict[str, str] = {}

    def step(self, *, block_seconds: float = 0.0) -> int:
        """Fold the next batch, tell progress that is due, and return how many were folded."""
        try:
            return self._step(block_seconds)
        except BaseException:
            self._cursor = None
            self._tallies.clear()
            raise

    def _step(self, block_seconds: float) -> int:
        if self._cursor is None:
            with self._database.read() as session:
                found = repository.note(session, CURSOR) or {}
            self._cursor = str(found.get("id", FIRST))
        entries = self._redis.read_reports(self._cursor, count=BATCH, block_seconds=block_seconds)
        if not entries:
            self._notice_emptied(self._cursor)
            self._tell_progress()
            return 0
        reports = [report for entry, text in entries if (report := _parse(entry, text))]
        self._fold(reports, upto=entries[-1][0])
        if len(entries) == BATCH and self._cursor:
            self._redis.forget_reports(self._cursor)
        return len(entries)

    def _notice_emptied(self, cursor: str) -> None:
        """Start from the beginning if the stream is younger than our place in it."""
        if cursor == FIRST or _order(self._redis.newest_report()) >= _order(cursor):
            return
        with self._database.write() as session:
            if repository.locked_note(session, CURSOR, {"id": FIRST})["id"] == cursor:
                repository.set_note(session, CURSOR, {"id": FIRST})
        self._cursor = None
        _log.warning("stream_was_emptied", cursor=cursor)

    def _fold(self, reports: list[Report], *, upto: str) -> None:
        published = self._published(reports)
        with self._database.write() as session:
            if repository.locked_note(session, CURSOR, {"id": FIRST})["id"] != self._cursor:
                self._cursor = None
                self._tallies.clear()
                return
            repository.set_note(session, CURSOR, {"id": upto})
            fold = Fold(
                session=session,
                moment=self._clock(),
                published=published,
                device_of=self._device_of,
                served_queues=self._redis.served_queues,
                chance=self._chance,
            )
            fold.load(reports)
            for report in reports:
                fold.fold(report)
            session.flush()
            tell_all(session, fold.jobs.values())
            self._count(session, fold.jobs, fold.touched)
            told = self._tell(session, fold.jobs)
        self._cursor = upto
        self._on_fold(len(reports))
        self._remember_told(told)
        for job, units in fold.undone.items():
            self._redis.mark_undone(job, units)
        for job, units in fold.done.items():
            self._redis.mark_done(job, units)
        if fold.pokes:
            self._poke(fold.pokes)

    def _published(self, reports: Iterable[Report]) -> dict[str, bool]:
        """Return whether the jobs that say so are published; looked up before locking.

        Where storage does not answer the job is left out, and the dispatcher looks later.
        """
        said = {
            report.job
            for report in reports
            if isinstance(report.event, UnitFinished) and report.event.unit == "publish"
        }
        if not said:
            return {}
        with self._database.read() as session:
            digests = {
                job: row.plan_digest for job in said if (row := repository.job_row(session, job))
            }
        found = {}
        for job, digest in digests.items():
            try:
                plan = self._plans.find(job, digest)
                if plan is not None:
                    found[job] = is_published(plan, self._plans.storage)
            except FdaError as problem:
                _log.warning("output_not_seen", job=job, code=problem.code)
        return found

    def _device_of(self, worker: str) -> str | None:
        if worker not in self._devices:
            device = self._redis.device_of(worker)
            if device is None:
                return None
            if len(self._devices) >= KEEP_DEVICES:
                self._devices.clear()
            self._devices[worker] = device
        return self._devices[worker]

    # Progress

    def _count(
        self,
        session: Session,
        jobs: Mapping[str, JobFacts],
        touched: Mapping[str, Mapping[str, UnitRow]],
    ) -> None:
        """Bring the tallies of jobs up to date with the units that changed."""
        for job_id, units in touched.items():
            job = jobs[job_id]
            if job.state not in OPEN:
                self._drop(job_id)
                continue
            self._unsaid[job_id] = None
            tally = self._tallies.get((job_id, job.attempt))
            if tally is None:
                self._tally(session, job)
                continue
            for unit in units.values():
                tally.note(unit)

    def _tally(self, session: Session, job: JobFacts) -> Tally:
        tally = self._tallies[job.id, job.attempt] = Tally.of(
            repository.tally_lines(session, job.id),
            began=repository.first_try_at(session, job.id, job.attempt),
        )
        return tally

    def _drop(self, job_id: str) -> None:
        self._unsaid.pop(job_id, None)
        self._said.pop(job_id, None)
        for key in [key for key in self._tallies if key[0] == job_id]:
            del self._tallies[key]

    def _tell_progress(self) -> None:
        """Tell what could not be told when it changed."""
        due = self._due()
        if not due:
            return
        with self._database.write() as session:
            jobs = repository.lock_jobs(session, due)
            told = self._tell(session, jobs)
        self._remember_told(told)
        for gone in set(due) - set(jobs):
            self._drop(gone)

    def _due(self) -> list[str]:
        moment = self._clock()
        return [
            job
            for job in self._unsaid
            if job not in self._said
            or (moment - self._said[job]).total_seconds() >= PROGRESS_SECONDS
        ]

    def _tell(self, session: Session, jobs: Mapping[str, JobFacts]) -> list[str]:
        """Write a progress event for every job that is due, at most one a second each."""
        moment = self._clock()
        told = []
        for job_id in self._due():
            job = jobs.get(job_id)
            if job is None:
                continue
            told.append(job_id)
            if job.state not in OPEN:
                continue
            tally = self._tallies.get((job_id, job.attempt))
            if tally is None or tally.units_done != job.units_done:
                tally = self._tally(session, job)
            view = tally.view(moment, units_total=job.units_total, bytes_total=job.bytes_total)
            add_event(
                session, job_id, "progress", view, bytes_done=view["bytes_done"], progress=view
            )
        return told

    def _remember_told(self, jobs: Iterable[str]) -> None:
        moment = self._clock()
        for job in jobs:
            self._unsaid.pop(job, None)
            self._said[job] = moment


def _parse(entry: str, text: str) -> Report | None:
    """Return a report, or None for what no version of ours wrote, which is said in the log."""
    try:
        return REPORT.validate_json(text)
    except ValidationError as problem:
        _log.error("unreadable_report", entry=entry, problem=str(problem)[:500])
        return None


def _order(entry: str) -> tuple[int, int]:
    """Return a stream id as what it is ordered by."""
    milliseconds, _, place = entry.partition("-")
    return int(milliseconds), int(place or 0)
