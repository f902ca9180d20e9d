"""One job: how far it is, its layers, curves, events, log, files, recipe and error."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from fastapi import APIRouter, Request, Response

from api.auth.service import Caller
from api.context import Context, Here
from api.jobs import artifacts, repository, service, views
from api.jobs.routes import JobId
from api.problems import problem_of
from api.web.fleet import look_at_fleet
from api.web.layers import LayerTable, layer_table
from api.web.pages import Pages, base_url, see
from api.web.recipe_text import as_command, as_curl, as_yaml
from api.web.visitors import Form, SubmittingVisitor, Visitor
from fda_core.contract.rest.base import Problem
from fda_core.contract.rest.jobs import Artifact, AttemptView, EventView, Job, LogLine
from fda_core.contract.service.states import CANCELLABLE, RETRYABLE, TERMINAL, JobState
from fda_core.errors import FdaError

MOST_UNITS = 20_000
SHOWN_EVENTS = 60
SHOWN_LINES = 200
SHOWN_TRIES = 50

WAITS: Mapping[JobState, str] = {
    JobState.QUEUED: "Waits for the controller to plan it.",
    JobState.VALIDATING: "The controller reads the checkpoints' headers.",
    JobState.PUBLISHING: "All tensors are merged; the output is put into place.",
    JobState.CANCELLING: "Waits for its workers to stop.",
}


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """A state the job was in, from when, and how long."""

    state: str
    at: datetime
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Details:
    """What belongs to a job, as one look at the database found it."""

    job: Job
    last_seq: int
    table: LayerTable
    events: list[EventView]
    lines: list[LogLine]
    tries: list[AttemptView]


def routes(pages: Pages) -> APIRouter:
    """Return the routes of a job's page."""
    router = pages.router()

    @router.get("/jobs/{job_id}")
    def show_job(job_id: JobId, request: Request, context: Here, caller: Visitor) -> Response:
        found = _details(context, caller, job_id)
        job = found.job
        files, files_problem = _files(context, caller, job)
        here = base_url(request, context)
        return pages.page(
            request,
            "job.html",
            caller=caller,
            job=job,
            found=found,
            over=job.state in TERMINAL,
            can_cancel=job.state in CANCELLABLE and caller.role != "viewer",
            can_retry=job.state in RETRYABLE and caller.role != "viewer",
            elapsed=elapsed(job, context.clock()),
            waits=_waits(context, found),
            stretches=stretches(job, context.clock()),
            files=files,
            files_problem=files_problem,
            sent_yaml=as_yaml(job.recipe),
            resolved_yaml=None if job.resolved is None else as_yaml(job.resolved),
            curl=as_curl(job.recipe, base_url=here),
            command=as_command(job.recipe, base_url=here),
        )

    @router.post("/jobs/{job_id}/cancel")
    def cancel(
        job_id: JobId,
        context: Here,
        caller: SubmittingVisitor,
        form: Form,  # noqa: ARG001 - read for where it comes from
    ) -> Response:
        service.cancel(context, caller, job_id)
        return see(f"/jobs/{job_id}")

    @router.post("/jobs/{job_id}/retry")
    def retry(
        job_id: JobId,
        context: Here,
        caller: SubmittingVisitor,
        form: Form,  # noqa: ARG001
    ) -> Response:
        service.retry(context, caller, job_id)
        return see(f"/jobs/{job_id}")

    return router


def _details(context: Context, caller: Caller, job_id: str) -> Details:
    with context.database.read() as session:
        row = service.visible(session, caller, job_id)
        units = repository.units(session, job_id, states=[], kinds=[], after=-1, count=MOST_UNITS)
        events = repository.events(
            session, job_id, after=max(0, row.last_seq - SHOWN_EVENTS), count=SHOWN_EVENTS
        )
        lines = repository.logs(
            session,
            job_id,
            levels=[],
            unit=None,
            after=max(0, row.last_log - SHOWN_LINES),
            count=SHOWN_LINES,
        )
        tries = repository.unlucky_attempts(session, job_id, count=SHOWN_TRIES)
        return Details(
            job=views.job(row, base_url=""),
            last_seq=row.last_seq,
            table=layer_table([views.unit(unit) for unit in units]),
            events=[views.event(event) for event in events],
            lines=[views.log_line(line) for line in lines],
            tries=[views.attempt(attempt) for attempt in tries],
        )


def _files(context: Context, caller: Caller, job: Job) -> tuple[Sequence[Artifact], Problem | None]:
    """Return a job's files, or why they cannot be listed: the page shows the rest anyway."""
    try:
        return artifacts.list_artifacts(context, caller, job.id), None
    except FdaError as error:
        return [], problem_of(error, path=f"/jobs/{job.id}", request_id="")


def elapsed(job: Job, now: datetime) -> float:
    """Return the seconds from submitting a job to its end, or to now."""
    end = job.timestamps.get(job.state, job.updated_at) if job.state in TERMINAL else now
    return max(0.0, (end - job.created_at).total_seconds())


def stretches(job: Job, now: datetime) -> list[Stretch]:
    """Return the states a job went through, in order, with how long each lasted."""
    moments = sorted((at, state) for state, at in job.timestamps.items())
    ends: list[datetime | None] = [later for (_, _), (later, _) in pairwise(moments)]
    ends.append(None if job.state in TERMINAL else now)
    return [
        Stretch(state=state, at=at, seconds=None if end is None else (end - at).total_seconds())
        for (at, state), end in zip(moments, ends, strict=True)
    ]


def _waits(context: Context, found: Details) -> str | None:
    """Return what a job waits for, None if it works or is over."""
    job = found.job
    if job.state is not JobState.RUNNING:
        return WAITS.get(job.state)
    units = [unit for row in found.table.rows for unit in row.units if unit] + found.table.pieces
    if any(unit.state == "running" for unit in units):
        return None
    fleet = look_at_fleet(context)
    if fleet.problem is not None:
        return f"Waits for the broker: {fleet.problem.detail}."
    if not fleet.heard:
        return "Waits for a worker: none is connected. Start one with: python -m worker"
    return f"Waits for one of {len(fleet.heard)} workers to take its next unit."
