"""Routes of schedules: decode, call the service, encode."""

import re
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.responses import JSONResponse

from api.gate import Cursor, Gate, Id, Limit, refusals
from api.jobs.submitting import Caller, Once
from api.schedules.service import ScheduleService, etag
from fda_core.contract.rest.base import Page, Time
from fda_core.contract.rest.schedules import Fire, Schedule, SchedulePatch, ScheduleRequest
from fda_core.errors import StaleSchedule

IfMatch = Annotated[
    str | None, Header(max_length=64, description="The version seen, as in ETag: only that.")
]
_TAG = re.compile(r'^(?:W/)?"?([0-9]{1,9})"?$')


def seen_version(if_match: str | None) -> int | None:
    """Return the version an If-Match names; None if any will do."""
    if if_match is None or if_match.strip() == "*":
        return None
    match = _TAG.match(if_match.strip())
    if match is None:
        raise StaleSchedule(
            f"If-Match: {if_match} is no version of a schedule",
            hint='Send the ETag of what you read, as "3".',
        )
    return int(match.group(1))


def router(gate: Gate, service: ScheduleService) -> APIRouter:
    """Return the routes under /v1/schedules."""
    routes = APIRouter(prefix="/v1/schedules", tags=["schedules"])
    viewer, submitter = Depends(gate.viewer), Depends(gate.submitter)

    @routes.post(
        "",
        status_code=201,
        operation_id="createSchedule",
        summary="Make a batch again and again",
        response_model=Schedule,
        responses=refusals(409, 422),
    )
    def create(
        request: ScheduleRequest,
        caller: Annotated[Caller, submitter],
        once: Annotated[Once | None, Depends(gate.once)],
    ) -> JSONResponse:
        return service.create(caller, request, once=once).response()

    @routes.get(
        "",
        operation_id="listSchedules",
        summary="List schedules, newest first",
        responses=refusals(422),
    )
    def page(
        caller: Annotated[Caller, viewer], cursor: Cursor = None, limit: Limit = 50
    ) -> Page[Schedule]:
        return service.page(caller, cursor=cursor, limit=limit)

    @routes.get(
        "/{schedule_id}",
        operation_id="getSchedule",
        summary="Show a schedule and when it fires next",
        responses=refusals(404, 422),
    )
    def get(schedule_id: Id, caller: Annotated[Caller, viewer], response: Response) -> Schedule:
        return _tagged(response, service.get(caller, schedule_id))

    @routes.patch(
        "/{schedule_id}",
        operation_id="updateSchedule",
        summary="Change a schedule",
        responses=refusals(404, 412, 422),
    )
    def update(
        schedule_id: Id,
        patch: SchedulePatch,
        caller: Annotated[Caller, submitter],
        response: Response,
        if_match: IfMatch = None,
    ) -> Schedule:
        version = seen_version(if_match)
        return _tagged(response, service.update(caller, schedule_id, patch, version=version))

    @routes.delete(
        "/{schedule_id}",
        status_code=204,
        operation_id="deleteSchedule",
        summary="Delete a schedule; its batches stay",
        responses=refusals(404, 412, 422),
    )
    def delete(
        schedule_id: Id, caller: Annotated[Caller, submitter], if_match: IfMatch = None
    ) -> None:
        service.delete(caller, schedule_id, version=seen_version(if_match))

    @routes.post(
        "/{schedule_id}/pause",
        operation_id="pauseSchedule",
        summary="Stop firing",
        responses=refusals(404, 412, 422),
    )
    def pause(
        schedule_id: Id, caller: Annotated[Caller, submitter], response: Response
    ) -> Schedule:
        return _tagged(response, service.pause(caller, schedule_id, paused=True))

    @routes.post(
        "/{schedule_id}/resume",
        operation_id="resumeSchedule",
        summary="Fire again, from the next time on",
        responses=refusals(404, 412, 422),
    )
    def resume(
        schedule_id: Id, caller: Annotated[Caller, submitter], response: Response
    ) -> Schedule:
        return _tagged(response, service.pause(caller, schedule_id, paused=False))

    @routes.post(
        "/{schedule_id}/trigger",
        status_code=202,
        operation_id="triggerSchedule",
        summary="Make a batch now",
        response_model=Fire,
        responses=refusals(404, 409, 422, 429),
    )
    def trigger(
        schedule_id: Id,
        caller: Annotated[Caller, submitter],
        once: Annotated[Once | None, Depends(gate.once)],
    ) -> JSONResponse:
        return service.trigger(caller, schedule_id, once=once).response()

    @routes.get(
        "/{schedule_id}/fires",
        operation_id="listFires",
        summary="List what became of fire times, the latest first",
        responses=refusals(404, 422),
    )
    def fires(
        schedule_id: Id,
        caller: Annotated[Caller, viewer],
        cursor: Annotated[Time | None, Query(description="next_cursor.")] = None,
        limit: Limit = 50,
    ) -> Page[Fire]:
        before: datetime | None = cursor
        return service.fires(caller, schedule_id, before=before, limit=limit)

    return routes


def _tagged(response: Response, schedule: Schedule) -> Schedule:
    response.headers["ETag"] = etag(schedule)
    return schedule
