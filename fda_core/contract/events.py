"""What a running merge tells: small facts, in order, the same for terminals and services."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from fda_core.contract.plan import PlainData


class UnitStarted(PlainData):
    """A worker took a unit."""

    kind: Literal["unit_started"] = "unit_started"
    unit: str
    worker: int


class StepReported(PlainData):
    """An optimiser is at this step; sent a few times a second, not for every step."""

    kind: Literal["step"] = "step"
    unit: str
    stage: Literal["construct", "adapt"]
    layer: int
    step: int
    steps: int
    loss: float
    alignment: float | None = None


class BytesMoved(PlainData):
    """So many bytes were read and written for a unit since it last said so."""

    kind: Literal["bytes"] = "bytes"
    unit: str
    read_bytes: int = 0
    write_bytes: int = 0


class UnitFinished(PlainData):
    """A unit's record is in the journal."""

    kind: Literal["unit_finished"] = "unit_finished"
    unit: str
    worker: int
    seconds: float
    source: Literal["run", "cache", "journal"] = "run"


class UnitRetried(PlainData):
    """A unit is tried again, and why."""

    kind: Literal["unit_retried"] = "unit_retried"
    unit: str
    reason: str


class WaitingForOther(PlainData):
    """Another process runs this very job; this one waits for it."""

    kind: Literal["waiting"] = "waiting"
    job_id: str


Event = Annotated[
    UnitStarted | StepReported | BytesMoved | UnitFinished | UnitRetried | WaitingForOther,
    Field(discriminator="kind"),
]
EVENT: TypeAdapter[Event] = TypeAdapter(Event)
