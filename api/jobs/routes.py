"""/v1/jobs: submit, list, show, change, cancel, retry."""

from collections.abc import Mapping
from typing import Annotated, Any

import anyio
import structlog
from fastapi import BackgroundTasks, Header, Path, Query, Request, Response

from api import openapi
from api.auth.dependency import Submitter, Viewer
from api.context import Here
from api.etags import matches, tag_of
from api.idempotency import REPLAYED, Answer, IdempotencyKey
from api.jobs import service, views
from api.jobs.filters import Filtered
from api.openapi import problems
from api.paging import Cursor, Limit, read_cursor, read_moment
from api.tracing import current_trace
from fda_core.contract.rest.base import Page
from fda_core.contract.rest.jobs import Job, JobPatch, JobRequest
from fda_core.contract.service.states import TERMINAL

router = openapi.router(prefix="/v1/jobs", tag="jobs")

JobId = Annotated[str, Path(pattern=r"^[0-9A-Za-z-]{1,64}$", description="The job's id.")]
MOST_WAIT_SECONDS = 60

log = structlog.get_logger("api")

_TEXT = {"schema": {"type": "string"}}
ACCEPTED: dict[str, Any] = {
    "description": "Accepted; it is done in its own time.",
    "headers": {
        "Location": {"description": "The job.", **_TEXT},
        "Retry-After": {"description": "Seconds until it is worth looking.", **_TEXT},
        "ETag": {"description": "The job's version.", **_TEXT},
    },
}
REPLAY = {REPLAYED: {"description": "`true` if this repeats an earlier answer.", **_TEXT}}


@router.post(
    "",
    status_code=202,
    response_model=Job,
    responses={
        202: {**ACCEPTED, "headers": {**ACCEPTED["headers"], **REPLAY}},
        **problems(409, 413, 429),
    },
)
def submit_job(
    body: JobRequest,
    request: Request,
    response: Response,
    background: BackgroundTasks,
    context: Here,
    caller: Submitter,
    idempotency_key: IdempotencyKey = None,
) -> Job | Response:
    """Submit a merge. The recipe is checked at once, its checkpoints once it is planned."""
    made = service.submit(
        context,
        caller,
        body,
        key=idempotency_key,
        request_id=request.state.request_id,
        trace=trace_of(request),
    )
    if isinstance(made, Answer):
        return made.response()
    log.info("job_submitted", job=made.id, attempt=made.attempt)
    background.add_task(context.hints.wake, made.id)
    response.headers.update(service.headers_of(made))
    return made


def trace_of(request: Request) -> Mapping[str, str]:
    """Return the trace context of a request: OpenTelemetry's, or the headers' without it."""
    return current_trace() or {"traceparent": request.state.traceparent}


@router.get("")
def list_jobs(
    context: Here,
    caller: Viewer,
    wanted: Filtered,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Page[Job]:
    """List your team's jobs, newest first; for admins, every team's."""
    place = read_cursor(cursor, parts=2)
    after = None if place is None else (read_moment(place[0]), place[1])
    found = service.find_many(context, caller, wanted, after=after, limit=limit)
    return found.page(lambda row: views.job(row, base_url=context.base_url))


@router.get(
    "/{job_id}",
    response_model=Job,
    responses={
        200: {"headers": {"ETag": {"description": "The job's version.", **_TEXT}}},
        304: {"description": "It is still at the version you know."},
        **problems(404),
    },
)
async def get_job(
    job_id: JobId,
    response: Response,
    context: Here,
    caller: Viewer,
    if_none_match: Annotated[str | None, Header(max_length=1024)] = None,
    wait: Annotated[
        float,
        Query(
            ge=0,
            le=MOST_WAIT_SECONDS,
            description="Answer when something changes, or after so many seconds.",
        ),
    ] = 0,
) -> Job | Response:
    """Show a job. With `wait`, it answers once the job is not what it was (or what you know).

    A job that is over is shown at once, unless you know it as it is.
    """
    job = await anyio.to_thread.run_sync(service.get, context, caller, job_id)
    if if_none_match is None:
        waits = job.state not in TERMINAL
    else:
        waits = matches(if_none_match, job.version)
    if wait and waits:
        await context.hub.newer(job_id, version=job.version, seconds=wait)
        job = await anyio.to_thread.run_sync(service.get, context, caller, job_id)
    tag = tag_of(job.version)
    if if_none_match is not None and matches(if_none_match, job.version):
        return Response(status_code=304, headers={"ETag": tag})
    response.headers["ETag"] = tag
    return job


@router.patch(
    "/{job_id}",
    responses={
        200: {"headers": {"ETag": {"description": "The job's version.", **_TEXT}}},
        **problems(404, 412, 413),
    },
)
def update_job(
    job_id: JobId,
    body: JobPatch,
    response: Response,
    context: Here,
    caller: Submitter,
    if_match: Annotated[str | None, Header(max_length=1024)] = None,
) -> Job:
    """Change a job's labels or priority; units that are sent already keep their place."""
    job = service.change(context, caller, job_id, body, if_match=if_match)
    response.headers["ETag"] = tag_of(job.version)
    return job


@router.post("/{job_id}/cancel", status_code=202, responses={202: ACCEPTED, **problems(404, 409)})
def cancel_job(job_id: JobId, response: Response, context: Here, caller: Submitter) -> Job:
    """Stop a job. Finished units are kept for a retry."""
    job = service.cancel(context, caller, job_id)
    response.headers.update(service.headers_of(job))
    return job


@router.post(
    "/{job_id}/retry", status_code=202, responses={202: ACCEPTED, **problems(404, 409, 429)}
)
def retry_job(job_id: JobId, response: Response, context: Here, caller: Submitter) -> Job:
    """Try a job again: a new attempt of the same job, finished units stay."""
    job = service.retry(context, caller, job_id)
    response.headers.update(service.headers_of(job))
    return job
