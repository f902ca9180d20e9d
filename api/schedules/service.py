"""The rules of schedules: what is refused when they are made and changed."""

from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import islice, pairwise
from typing import Any

from sqlalchemy.orm import Session

from api.batches.service import BatchService
from api.db.session import Database
from api.db.tables import ScheduleRow
from api.db.types import now
from api.idempotency import Answer
from api.ids import new_id
from api.jobs.submitting import Caller, Once, Wake, team_seen
from api.schedules import repository
from api.schedules.cron import check_cron, fires, next_fire, zone_of
from api.schedules.runs import entries_at, make_run
from api.schedules.views import SHOWN_FIRES, fire_view, schedule_view
from fda_core.contract.rest.base import Page, utc
from fda_core.contract.rest.batches import BatchRequest
from fda_core.contract.rest.schedules import Fire, Schedule, SchedulePatch, ScheduleRequest
from fda_core.errors import SameOutputAgain, StaleSchedule, UnknownSchedule


class ScheduleService:
    """Makes, shows, changes and triggers schedules."""

    def __init__(
        self,
        database: Database,
        batches: BatchService,
        *,
        wake: Wake,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._database = database
        self._batches = batches
        self._wake = wake
        self._clock = clock

    def create(self, caller: Caller, request: ScheduleRequest, *, once: Once | None) -> Answer:
        """Make a schedule whose first batch would be accepted now."""
        moment = self._clock()
        _check(request.cron, request.zone, request.batch, moment=moment)
        with self._database.write() as session:
            before = once.replay(session) if once else None
            if before is not None:
                return before
            row = ScheduleRow(
                id=new_id(),
                name=request.name,
                owner=caller.owner,
                team=caller.team,
                cron=request.cron,
                zone=request.zone,
                overlap=request.overlap,
                missed=request.missed,
                batch=_plain(request.batch),
                paused=request.paused,
                next_fire_at=None if request.paused else _next(request.cron, request.zone, moment),
                created_at=moment,
                updated_at=moment,
                version=1,
            )
            repository.add(session, row)
            view = schedule_view(row, moment=moment)
            answer = Answer(
                status=201,
                headers={"Location": view.urls.self, "ETag": etag(view)},
                body=view.model_dump(mode="json"),
            )
            if once:
                once.keep(session, answer)
        return answer

    def get(self, caller: Caller, schedule_id: str) -> Schedule:
        """Return a schedule."""
        with self._database.read() as session:
            row = _found(session, caller, schedule_id)
        return schedule_view(row, moment=self._clock())

    def page(self, caller: Caller, *, cursor: str | None, limit: int) -> Page[Schedule]:
        """Return a piece of the list, newest first."""
        with self._database.read() as session:
            rows = repository.page(session, team_seen(caller), cursor=cursor, limit=limit + 1)
        moment = self._clock()
        shown = [schedule_view(row, moment=moment) for row in rows[:limit]]
        more = len(rows) > limit
        return Page(data=shown, next_cursor=shown[-1].id if more else None, has_more=more)

    def update(
        self, caller: Caller, schedule_id: str, patch: SchedulePatch, *, version: int | None
    ) -> Schedule:
        """Change what is given. With a version, only if it is still that one."""
        moment = self._clock()
        given = {name: getattr(patch, name) for name in patch.model_fields_set}
        changes = {name: value for name, value in given.items() if value is not None}
        with self._database.read() as session:
            row = _found(session, caller, schedule_id)
        _check_version(row, version)
        cron, zone = changes.get("cron", row.cron), changes.get("zone", row.zone)
        batch = changes.get("batch") or BatchRequest.model_validate(row.batch)
        if changes.keys() & {"cron", "zone", "batch"}:
            _check(cron, zone, batch, moment=moment)
        if changes.keys() & {"cron", "zone"} and not row.paused:
            changes["next_fire_at"] = _next(cron, zone, moment)
        if "batch" in changes:
            changes["batch"] = _plain(batch)
        return self._changed(row, changes, moment=moment)

    def pause(self, caller: Caller, schedule_id: str, *, paused: bool) -> Schedule:
        """Stop or start firing. Times that pass while it is paused are not made up for."""
        moment = self._clock()
        with self._database.read() as session:
            row = _found(session, caller, schedule_id)
        if row.paused == paused:
            return schedule_view(row, moment=moment)
        upcoming = None if paused else _next(row.cron, row.zone, moment)
        return self._changed(row, {"paused": paused, "next_fire_at": upcoming}, moment=moment)

    def _changed(
        self, row: ScheduleRow, changes: Mapping[str, Any], *, moment: datetime
    ) -> Schedule:
        with self._database.write() as session:
            if not repository.change(session, row, updated_at=moment, **changes):
                raise _stale(row.id, "somebody else changed it at the same time")
            after = repository.find(session, row.id, None)
            assert after is not None
        return schedule_view(after, moment=moment)

    def delete(self, caller: Caller, schedule_id: str, *, version: int | None) -> None:
        """Delete a schedule; batches it made stay."""
        with self._database.write() as session:
            _check_version(_found(session, caller, schedule_id), version)
            repository.remove(session, schedule_id)

    def trigger(self, caller: Caller, schedule_id: str, *, once: Once | None) -> Answer:
        """Make a batch now, beside the fire times, whatever else is on its way."""
        with self._database.write() as session:
            before = once.replay(session) if once else None
            if before is not None:
                return before
            row = _found(session, caller, schedule_id)
            moment = self._clock()
            repository.add_fire(session, row.id, moment, outcome="fired", created_at=moment)
            made = make_run(session, self._batches, row, moment)
            repository.set_fire(session, row.id, moment, outcome="fired", batch_id=made.row.id)
            fired = repository.find_fire(session, row.id, moment)
            assert fired is not None
            answer = Answer(
                status=202,
                headers={"Location": f"/v1/batches/{made.row.id}"},
                body=fire_view(fired).model_dump(mode="json"),
            )
            if once:
                once.keep(session, answer)
        self._wake(made.jobs)
        return answer

    def fires(
        self, caller: Caller, schedule_id: str, *, before: datetime | None, limit: int
    ) -> Page[Fire]:
        """Return what became of fire times, the latest first."""
        with self._database.read() as session:
            _found(session, caller, schedule_id)
            rows = repository.fires(session, schedule_id, before=before, limit=limit + 1)
        shown = [fire_view(row) for row in rows[:limit]]
        more = len(rows) > limit
        cursor = utc(shown[-1].at) if more else None
        return Page(data=shown, next_cursor=cursor, has_more=more)


def etag(schedule: Schedule) -> str:
    """Return the tag to send back as If-Match."""
    return f'"{schedule.version}"'


def _check(cron: str, zone_name: str, batch: BatchRequest, *, moment: datetime) -> None:
    """Refuse what could never run, and runs that would write to one place."""
    zone = zone_of(zone_name)
    check_cron(cron, zone, after=moment)
    upcoming = list(islice(fires(cron, zone, after=moment), SHOWN_FIRES))
    first = entries_at(batch, upcoming[0], zone_name)
    pairs = list(pairwise(upcoming))
    if not pairs:
        return
    days = [(a.astimezone(zone).date(), b.astimezone(zone).date()) for a, b in pairs]
    same_day = [pair for pair, (a, b) in zip(pairs, days, strict=True) if a == b]
    one, other = (same_day or pairs)[0]
    if one != upcoming[0]:
        first = entries_at(batch, one, zone_name)
    again = {entry.output for entry in entries_at(batch, other, zone_name)}
    for entry in first:
        if entry.output in again:
            raise SameOutputAgain(
                f"job {entry.index} would write to {entry.output} at {one.astimezone(zone)} and "
                f"again at {other.astimezone(zone)}",
                hint="Put {fire_time} into output; {date} is enough if it fires once a day.",
                output=entry.output,
            )


def _next(cron: str, zone: str, moment: datetime) -> datetime | None:
    return next_fire(cron, zone_of(zone), after=moment)


def _plain(batch: BatchRequest) -> dict[str, Any]:
    return batch.model_dump(mode="json", exclude_none=True)


def _found(session: Session, caller: Caller, schedule_id: str) -> ScheduleRow:
    row = repository.find(session, schedule_id, team_seen(caller))
    if row is None:
        raise UnknownSchedule(
            f"there is no schedule {schedule_id!r}",
            hint="GET /v1/schedules lists those of your team.",
            schedule=schedule_id,
        )
    return row


def _check_version(row: ScheduleRow, version: int | None) -> None:
    if version is not None and version != row.version:
        raise _stale(row.id, f"it is in version {row.version}, not {version}")


def _stale(schedule_id: str, why: str) -> StaleSchedule:
    return StaleSchedule(
        f"schedule {schedule_id}: {why}",
        hint="Read it again, and send its version as If-Match.",
        schedule=schedule_id,
    )
