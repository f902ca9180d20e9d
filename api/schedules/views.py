"""Schedules as resources."""

from datetime import datetime
from itertools import islice
from typing import cast

from api.db.tables import FireRow, ScheduleRow
from api.schedules.cron import fires, zone_of
from fda_core.contract.rest.batches import BatchRequest
from fda_core.contract.rest.schedules import (
    Fire,
    FireTime,
    Missed,
    Overlap,
    Schedule,
    ScheduleUrls,
)

SHOWN_FIRES = 5


def schedule_view(row: ScheduleRow, *, moment: datetime) -> Schedule:
    """Return a schedule with its next fire times after a moment."""
    here = f"/v1/schedules/{row.id}"
    return Schedule(
        id=row.id,
        name=row.name,
        owner=row.owner,
        team=row.team,
        cron=row.cron,
        zone=row.zone,
        overlap=cast(Overlap, row.overlap),
        missed=cast(Missed, row.missed),
        batch=BatchRequest.model_validate(row.batch),
        paused=row.paused,
        next_fires=[] if row.paused else next_fires(row.cron, row.zone, moment=moment),
        last_fire_at=row.last_fire_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
        version=row.version,
        urls=ScheduleUrls(
            self=here,
            trigger=f"{here}/trigger",
            pause=f"{here}/pause",
            resume=f"{here}/resume",
            fires=f"{here}/fires",
            batches=f"/v1/batches?schedule={row.id}",
        ),
    )


def next_fires(cron: str, zone_name: str, *, moment: datetime) -> list[FireTime]:
    """Return the next fire times, in UTC and in the zone."""
    zone = zone_of(zone_name)
    return [
        FireTime(utc=found, local=found.astimezone(zone))
        for found in islice(fires(cron, zone, after=moment), SHOWN_FIRES)
    ]


def fire_view(row: FireRow) -> Fire:
    """Return what became of a fire time."""
    return Fire.model_validate(
        {
            "at": row.fire_at,
            "outcome": row.outcome,
            "batch": row.batch_id,
            "detail": row.detail,
        }
    )
