"""Schedules: when they fire next, and pausing, resuming and triggering them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api.context import Here
from api.gate import Id
from api.schedules.service import ScheduleService
from api.web.once import new_once, once_of
from api.web.pages import Pages, see
from api.web.visitors import Form, SubmittingVisitor, Visitor
from api.web.words import fire_words
from fda_core.contract.rest.schedules import Schedule

AT_ONCE = 25
OVERLAPS: Mapping[str, str] = {
    "skip": "While an earlier run works, fire times are skipped.",
    "queue": "While an earlier run works, the next one waits.",
    "cancel": "A run that still works is cancelled by the next.",
}


def routes(pages: Pages, service: ScheduleService) -> APIRouter:
    """Return the routes of the page of schedules."""
    router = pages.router()

    @router.get("/schedules")
    def show_schedules(
        request: Request,
        context: Here,
        caller: Visitor,
        cursor: Annotated[str | None, Query(pattern=r"^[0-9A-Za-z_-]{1,64}$")] = None,
    ) -> Response:
        found = service.page(caller, cursor=cursor, limit=AT_ONCE)
        moment = context.clock()
        return pages.page(
            request,
            "schedules.html",
            caller=caller,
            found=found,
            fires={schedule.id: _fires(schedule, moment) for schedule in found.data},
            overlaps=OVERLAPS,
            once=new_once,
        )

    @router.post("/schedules/{schedule_id}/pause")
    def pause(schedule_id: Id, caller: SubmittingVisitor, form: Form) -> Response:  # noqa: ARG001
        service.pause(caller, schedule_id, paused=True)
        return see("/schedules")

    @router.post("/schedules/{schedule_id}/resume")
    def resume(schedule_id: Id, caller: SubmittingVisitor, form: Form) -> Response:  # noqa: ARG001
        service.pause(caller, schedule_id, paused=False)
        return see("/schedules")

    @router.post("/schedules/{schedule_id}/trigger")
    def trigger(
        schedule_id: Id, request: Request, context: Here, caller: SubmittingVisitor, form: Form
    ) -> Response:
        once = once_of(context, caller, path=request.url.path, form=form)
        made = service.trigger(caller, schedule_id, once=once)
        return see(f"/batches/{made.body['batch']}")

    return router


def _fires(schedule: Schedule, moment: datetime) -> Sequence[tuple[datetime, str]]:
    return [
        (fire.utc, fire_words(fire.local, moment, schedule.zone)) for fire in schedule.next_fires
    ]
