"""/v1/jobs/{id}/events: what happened, as a page of JSON or as a stream."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
from fastapi import Header, Query, Response
from fastapi.responses import JSONResponse
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event

from api import openapi
from api.auth.dependency import Viewer
from api.auth.service import Caller
from api.context import Context, Here
from api.events import service
from api.jobs.routes import JobId
from api.openapi import problems
from api.paging import Cursor, Limit, read_number
from fda_core.contract.rest.base import Page
from fda_core.contract.rest.jobs import EventView

router = openapi.router(prefix="/v1/jobs", tag="jobs")

PING_SECONDS = 15.0
RETRY_MILLISECONDS = 2000
STREAM = "text/event-stream"

ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page of events; or a stream of them that ends with the job, each with "
        "`id`, `event` (its type) and `data` (the event as JSON), if `Accept` has "
        "text/event-stream.",
        "content": {
            STREAM: {
                "schema": {"type": "string"},
                "example": 'event: job.state\ndata: {"id": 1, "type": "job.state"}\nid: 1\n\n',
            }
        },
    },
    204: {"description": "The job is over and you have all of its stream: do not come back."},
    **problems(404),
}


@router.get("/{job_id}/events", response_model=Page[EventView], responses=ANSWERS)
async def list_events(
    job_id: JobId,
    context: Here,
    caller: Viewer,
    limit: Limit = 100,
    cursor: Cursor = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
    last_event_id: Annotated[
        str | None,
        Header(max_length=64, description="Stream: begin behind this event."),
    ] = None,
    after: Annotated[
        int | None,
        Query(
            ge=0,
            le=999_999_999,
            description="Begin behind this event, where no header can be sent.",
        ),
    ] = None,
) -> Response:
    """List or stream a job's events, oldest first."""
    if STREAM in accept.lower():
        begin = str(after) if last_event_id is None and after is not None else last_event_id
        return await _stream(context, caller, job_id, begin)
    place = max(read_number(cursor), after or 0)
    found = await anyio.to_thread.run_sync(
        lambda: service.page(context, caller, job_id, after=place, limit=limit)
    )
    return JSONResponse(found.page(lambda event: event).model_dump(mode="json"))


async def _stream(
    context: Context, caller: Caller, job_id: str, last_event_id: str | None
) -> Response:
    """Answer with a stream; looked up before, since a stream cannot end in an error."""
    standing = await anyio.to_thread.run_sync(service.standing, context, caller, job_id)
    after = service.event_number(last_event_id)
    if standing.is_over and after >= standing.last_seq:
        return Response(status_code=204)
    return EventSourceResponse(
        _messages(context, job_id, after),
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


async def _messages(context: Context, job_id: str, after: int) -> AsyncIterator[bytes]:
    yield format_sse_event(retry=RETRY_MILLISECONDS)
    async for events in service.follow(context, job_id, after=after, ping_seconds=PING_SECONDS):
        if not events:
            yield KEEPALIVE_COMMENT
        yield b"".join(
            format_sse_event(data_str=event.model_dump_json(), event=event.type, id=str(event.id))
            for event in events
        )
