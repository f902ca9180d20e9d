"""What workers are told and what they report, versioned by the names of their kinds."""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from fda_core.contract.events import (
    BytesMoved,
    StepReported,
    UnitFinished,
    UnitRetried,
    UnitStarted,
)
from fda_core.contract.plan import PlainData


class TryUnit(PlainData):
    """Do a unit if it is not done and nobody does it. Late and doubled messages are harmless."""

    job: str
    unit: str
    attempt: int
    """The job's attempt, told back in reports."""
    plan: str
    """Address of the plan; the workspace it names holds the journal."""
    device: str
    """Queue of the job's layers."""
    priority: int = 0
    microbatch: int | None = None
    """At most so many anchors at once: set after a device ran out of memory."""
    trace: dict[str, str] = Field(default_factory=dict)
    """W3C trace context (`traceparent`) of the request that submitted the job."""


class ErrorReport(PlainData):
    """`FdaError.as_dict()` as data; `trace` only of our own bugs."""

    code: str
    message: str
    hint: str | None = None
    blame: str = "us"
    retryable: bool = False
    context: dict[str, Any] = Field(default_factory=dict)
    unit: str | None = None
    trace: str | None = None


class UnitFailed(PlainData):
    """A try at a unit ended with an error."""

    kind: Literal["unit_failed"] = "unit_failed"
    unit: str
    error: ErrorReport


class UnitReturned(PlainData):
    """A worker gave a unit back: it was told to stop, to drain, or lost its lease."""

    kind: Literal["unit_returned"] = "unit_returned"
    unit: str
    reason: Literal["cancelled", "drained", "lease_lost"]


class Logged(PlainData):
    """One line of a worker's log about a job."""

    kind: Literal["log"] = "log"
    level: Literal["debug", "info", "warning", "error"]
    text: str
    unit: str | None = None
    fields: dict[str, Any] = Field(default_factory=dict)


Reported = Annotated[
    UnitStarted
    | StepReported
    | BytesMoved
    | UnitFinished
    | UnitRetried
    | UnitFailed
    | UnitReturned
    | Logged,
    Field(discriminator="kind"),
]


class Report(PlainData):
    """One fact a worker tells about a job."""

    job: str
    attempt: int
    worker: str
    token: str
    """The lease under which it was said; one token is one try at one unit."""
    at: float
    """Unix seconds by the worker's clock."""
    event: Reported


REPORT: TypeAdapter[Report] = TypeAdapter(Report)


class WorkerStatus(PlainData):
    """What a worker says of itself every beat."""

    id: str
    """Unique to the process: host, process id and a random part."""
    host: str
    process: int
    version: str
    device: str
    """As people know it: `NVIDIA H100`, `cpu`."""
    device_kind: Literal["cpu", "gpu"]
    device_memory_bytes: int | None
    device_used_bytes: int | None
    host_memory_bytes: int
    host_used_bytes: int
    threads: int
    queues: tuple[str, ...]
    started: float
    at: float
    state: Literal["idle", "busy", "draining"]
    job: str | None = None
    unit: str | None = None
    unit_started: float | None = None
    units_done: int = 0
    units_failed: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    seconds_by_kind: dict[str, float] = Field(default_factory=dict)
    """Seconds spent in units done, by their kind."""
    cache_hits: int = 0
    leases_lost: int = 0
    metrics_port: int | None = None
