"""Batches: jobs that are submitted together, from a list of recipes or a sweep over one."""

import math
from typing import Any, Literal

from pydantic import Field, model_validator

from fda_core.contract.rest.base import NO_CONTROLS, Labels, Request, Resource, Time
from fda_core.contract.rest.jobs import JobWebhook, Recipe
from fda_core.contract.service.messages import ErrorReport
from fda_core.contract.service.states import JobState
from fda_core.contract.storable import stored_text

MOST_JOBS = 500

Sweep = dict[str, list[Any]]


class BatchRequest(Request):
    """What to submit: `recipes`, or one `recipe` with a `sweep` over some of its keys."""

    name: str = Field(default="", max_length=128, pattern=NO_CONTROLS)
    labels: Labels = Field(default_factory=dict, description="Every job of the batch gets them.")
    priority: int = Field(default=4, ge=0, le=9, description="9 goes first.")
    deadline: Time | None = Field(
        default=None, description="Give jobs up that have not been begun by then."
    )
    begin_within_seconds: int | None = Field(
        default=None, ge=1, le=366 * 86400, description="A deadline counted from submitting."
    )
    webhook: JobWebhook | None = Field(default=None, description="Where every job's end is told.")
    recipes: list[Recipe] | None = Field(default=None, min_length=1, max_length=MOST_JOBS)
    recipe: Recipe | None = None
    sweep: Sweep | None = Field(
        default=None,
        description="Paths into the recipe, as `method.scale` or `experts.0.weight`, and the "
        "values to try. Every combination is a job; the last path changes fastest.",
    )
    output: str | None = Field(
        default=None,
        min_length=1,
        max_length=2048,
        pattern=NO_CONTROLS,
        description="Where the jobs write, with {index} (from 0) and swept paths, {method.scale} "
        "or in short {scale}, filled in; in schedules also {date} and {fire_time}. Without it "
        "the recipes' own outputs are filled in so. {{ and }} stand for braces.",
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> "BatchRequest":
        if (self.recipes is None) == (self.recipe is None):
            raise ValueError("give either recipes, or recipe with a sweep")
        if self.sweep is not None and self.recipe is None:
            raise ValueError("sweep goes with recipe, not with recipes")
        if self.deadline is not None and self.begin_within_seconds is not None:
            raise ValueError("give either deadline or begin_within_seconds")
        for path, values in (self.sweep or {}).items():
            if not values:
                raise ValueError(f"sweep: {path} has no values to try")
        count = self.count()
        if count > MOST_JOBS:
            raise ValueError(f"sweep: {count} combinations; a batch has at most {MOST_JOBS} jobs")
        stored_text([self.recipe, self.recipes, self.sweep])
        return self

    def count(self) -> int:
        """Return how many jobs it asks for."""
        if self.recipes is not None:
            return len(self.recipes)
        return math.prod(len(values) for values in (self.sweep or {}).values())


class BatchJob(Resource):
    """A row of a batch's table: one job, what is special about it and what came out."""

    index: int
    id: str
    state: JobState | Literal["deleted"]
    values: dict[str, Any] = Field(description="The swept values of this job.")
    method: str | None
    output: str
    ratio: float = Field(description="How far it is, 0 to 1.")
    alignment: float | None = Field(
        description="Mean over layers and experts once it is done, the last seen until then."
    )
    drift: float | None = Field(
        description="Mean over layers and experts, 1 is the base's; only of FDA merges."
    )
    seconds: float | None = Field(description="On the clock, from its first unit to its end.")
    compute_seconds: float | None = Field(description="Summed over its units, once it is done.")
    read_bytes: int | None
    write_bytes: int | None
    error: ErrorReport | None
    url: str


class BatchUrls(Resource):
    """Where to go from here."""

    self: str
    cancel: str
    jobs: str


class Batch(Resource):
    """Jobs that were submitted together; the table is left out in lists."""

    id: str
    name: str
    owner: str
    team: str
    labels: dict[str, str]
    jobs: int
    counts: dict[JobState, int] = Field(description="How many jobs are in each state.")
    over: bool = Field(description="Whether all jobs are in a state that they stay in.")
    schedule: str | None
    created_at: Time
    request: BatchRequest = Field(description="As sent.")
    table: list[BatchJob] | None = None
    urls: BatchUrls
