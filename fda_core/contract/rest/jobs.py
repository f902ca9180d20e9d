"""Jobs, their units, attempts, events, logs, metrics and artifacts."""

from typing import Any, Literal

from pydantic import Field

from fda_core.contract.cost import StageCost
from fda_core.contract.plan import UnitKind
from fda_core.contract.rest.base import Labels, Request, Resource, Time
from fda_core.contract.service.messages import ErrorReport
from fda_core.contract.service.states import JobState, UnitState

Recipe = dict[str, Any] | str
"""A recipe as an object, or as YAML text; mergekit's documents too."""

WebhookEvent = Literal[
    "job.running",
    "job.publishing",
    "job.succeeded",
    "job.failed",
    "job.cancelled",
    "job.expired",
]


class JobWebhook(Request):
    """Where one job's end is told, beside the team's webhooks."""

    url: str = Field(min_length=1, max_length=2048)
    events: list[WebhookEvent] = Field(
        default=["job.succeeded", "job.failed", "job.cancelled", "job.expired"], min_length=1
    )


class JobRequest(Request):
    """What to submit."""

    recipe: Recipe = Field(description="A recipe, or mergekit's YAML, as an object or as text.")
    labels: Labels = Field(default_factory=dict)
    priority: int = Field(default=4, ge=0, le=9, description="9 goes first.")
    deadline: Time | None = Field(
        default=None, description="Give up if it has not been begun by then."
    )
    webhook: JobWebhook | None = None


class JobPatch(Request):
    """What can be changed of a job."""

    labels: Labels | None = None
    priority: int | None = Field(default=None, ge=0, le=9)


class PlanRequest(Request):
    """A recipe to look at without queueing anything."""

    recipe: Recipe


class PlanSummary(Resource):
    """What a job will take, from headers alone."""

    family: str
    layers: int
    width: int
    method: str
    experts: list[str]
    units: int
    units_cached: int
    units_by_kind: dict[str, int]
    read_bytes: int
    write_bytes: int
    peak_memory_bytes: int
    flops: int
    seconds_estimate: float | None = Field(
        default=None, description="From the speed of finished units here; null if there are none."
    )
    notes: list[str] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)


class PlanView(PlanSummary):
    """A plan with its units and the recipe it resolves to."""

    recipe: dict[str, Any]
    plan: list[dict[str, Any]] = Field(description="Every unit with what it takes.")
    stages: list[StageCost] = Field(
        default_factory=list,
        description="What each stage takes, then all of it, with seconds predicted on some GPUs.",
    )
    other_methods: list[StageCost] = Field(
        default_factory=list,
        description="The same of other methods with their defaults on the same inputs.",
    )


class JobProgress(Resource):
    """How far a job is."""

    units_done: int
    units_total: int
    bytes_done: int
    bytes_total: int
    ratio: float = Field(description="0 to 1, by the units' reckoned work.")
    layer: int | None = None
    expert: str | None = None
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    alignment: float | None = None
    seconds_left: float | None = None
    reckoned_by: str | None = Field(default=None, description="How seconds_left was found.")


class JobUrls(Resource):
    """Where to go from here."""

    self: str
    cancel: str
    events: str
    artifacts: str
    page: str


class Job(Resource):
    """One recipe submitted to run; the same object in lists, details and webhooks."""

    id: str
    state: JobState
    stage: Literal["construct", "merge", "publish"] | None = None
    attempt: int
    priority: int
    owner: str
    team: str
    labels: dict[str, str]
    method: str
    base: str
    output: str | None
    experts: list[str]
    progress: JobProgress
    error: ErrorReport | None = None
    recipe: Recipe = Field(description="As sent.")
    resolved: dict[str, Any] | None = Field(
        default=None, description="With every default written out, once it is planned."
    )
    plan: PlanSummary | None = None
    batch: str | None = None
    schedule: str | None = None
    deadline: Time | None = None
    created_at: Time
    timestamps: dict[str, Time] = Field(description="When each state was last entered.")
    updated_at: Time
    version: int
    urls: JobUrls


class UnitView(Resource):
    """One unit of a job."""

    id: str
    kind: UnitKind
    state: UnitState
    layer: int | None
    expert: str | None
    shard: int | None
    needs: list[str]
    tries: int
    worker: str | None
    device: str | None
    source: Literal["run", "cache", "journal"] | None
    step: int
    steps: int
    loss: float | None
    alignment: float | None
    read_bytes: int
    write_bytes: int
    memory_bytes: int
    flops: int
    seconds: float | None
    started_at: Time | None
    finished_at: Time | None
    error: ErrorReport | None


class AttemptView(Resource):
    """One try at one unit."""

    attempt: int
    unit: str
    worker: str
    outcome: Literal["running", "done", "failed", "lost", "returned"]
    started_at: Time
    finished_at: Time | None
    error: ErrorReport | None


class EventView(Resource):
    """One fact about a job; `id` counts from 1 within the job and is the SSE id."""

    id: int
    job: str
    at: Time
    type: str = Field(description="job.state, unit.state, progress, warning.")
    data: dict[str, Any]


class LogLine(Resource):
    """One line of a job's log."""

    id: int
    at: Time
    level: str
    unit: str | None
    worker: str | None
    text: str
    fields: dict[str, Any]


class Artifact(Resource):
    """One file a job left."""

    path: str
    size_bytes: int
    sha256: str | None
    url: str = Field(description="Works without a key until `expires_at`.")
    expires_at: Time
    uri: str
