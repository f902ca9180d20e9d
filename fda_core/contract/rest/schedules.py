"""Schedules: batches that are made again and again, by cron expressions in a time zone."""

from typing import Literal

from pydantic import Field, model_validator

from fda_core.contract.rest.base import NO_CONTROLS, Request, Resource, Time
from fda_core.contract.rest.batches import BatchRequest

Overlap = Literal["skip", "queue", "cancel"]
Missed = Literal["run_once", "skip"]

OVERLAP = (
    "What to do at a fire time while jobs of an earlier run are on their way: skip it, queue it "
    "until they are over, or cancel them."
)
MISSED = (
    "What to do about fire times that passed while no controller ran: run_once makes one batch, "
    "for the latest of them; skip makes none."
)


class ScheduleRequest(Request):
    """A batch and when to make it."""

    name: str = Field(min_length=1, max_length=128, pattern=NO_CONTROLS)
    cron: str = Field(
        min_length=1, max_length=128, description="Minute, hour, day, month, day of week."
    )
    zone: str = Field(default="UTC", max_length=64, description="IANA name, as Europe/Berlin.")
    overlap: Overlap = Field(default="skip", description=OVERLAP)
    missed: Missed = Field(default="run_once", description=MISSED)
    batch: BatchRequest = Field(
        description="Its outputs need {date} or {fire_time}, so that every run writes elsewhere."
    )
    paused: bool = False

    @model_validator(mode="after")
    def _makes_sense(self) -> "ScheduleRequest":
        _check_batch(self.batch)
        return self


class SchedulePatch(Request):
    """What can be changed of a schedule; what is left out stays."""

    name: str | None = Field(default=None, min_length=1, max_length=128, pattern=NO_CONTROLS)
    cron: str | None = Field(default=None, min_length=1, max_length=128)
    zone: str | None = Field(default=None, max_length=64)
    overlap: Overlap | None = Field(default=None, description=OVERLAP)
    missed: Missed | None = Field(default=None, description=MISSED)
    batch: BatchRequest | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> "SchedulePatch":
        if self.batch is not None:
            _check_batch(self.batch)
        return self


def _check_batch(batch: BatchRequest) -> None:
    if batch.deadline is not None:
        raise ValueError("batch: a deadline passes once; give begin_within_seconds instead")


class FireTime(Resource):
    """A moment at which a schedule fires."""

    utc: Time
    local: Time = Field(description="The same moment in the schedule's zone.")


class Fire(Resource):
    """What became of one fire time, or of one trigger."""

    at: Time
    outcome: Literal["fired", "skipped", "missed", "waiting", "failed"]
    batch: str | None
    detail: str | None = Field(description="Why it was skipped, missed or failed.")


class ScheduleUrls(Resource):
    """Where to go from here."""

    self: str
    trigger: str
    pause: str
    resume: str
    fires: str
    batches: str


class Schedule(Resource):
    """A batch that is made again and again."""

    id: str
    name: str
    owner: str
    team: str
    cron: str
    zone: str
    overlap: Overlap
    missed: Missed
    batch: BatchRequest
    paused: bool
    next_fires: list[FireTime] = Field(description="The next five; none while it is paused.")
    last_fire_at: Time | None
    created_at: Time
    updated_at: Time
    version: int = Field(description="Send it back as If-Match to change what you have seen.")
    urls: ScheduleUrls
