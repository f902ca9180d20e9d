"""One run of a schedule: its batch made for one fire time, within the caller's transaction."""

from collections.abc import Mapping
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from api.batches.expanding import Entry, expand
from api.batches.service import BatchService, Made
from api.db.tables import ScheduleRow
from api.jobs.submitting import Name
from api.schedules.cron import zone_of
from fda_core.contract.rest.batches import BatchRequest


def placeholders(fire_at: datetime, zone: str) -> Mapping[str, str]:
    """Return what outputs may name: the day in the schedule's zone, and the moment in UTC."""
    return {
        "date": fire_at.astimezone(zone_of(zone)).strftime("%Y-%m-%d"),
        "fire_time": fire_at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ"),
    }


def entries_at(request: BatchRequest, fire_at: datetime, zone: str) -> list[Entry]:
    """Return the jobs of one run, or raise `BatchInvalid`."""
    return expand(request, more=placeholders(fire_at, zone))


def make_run(session: Session, batches: BatchService, row: ScheduleRow, fire_at: datetime) -> Made:
    """Insert a schedule's batch for one fire time; nothing of it stays if it is refused."""
    request = BatchRequest.model_validate(row.batch)
    entries = entries_at(request, fire_at, row.zone)
    with session.begin_nested():
        return batches.add(
            session,
            request,
            Name(owner=row.owner, team=row.team),
            entries=entries,
            schedule_id=row.id,
        )
