"""All pages put together."""

from fastapi import APIRouter

from api.batches.service import BatchService
from api.schedules.service import ScheduleService
from api.web import (
    batch_pages,
    files,
    fleet,
    job_list,
    job_page,
    new_job,
    overview,
    schedule_pages,
    signing_in,
)
from api.web.pages import Pages


def router(batches: BatchService, schedules: ScheduleService) -> APIRouter:
    """Return the routes of all pages."""
    pages = Pages()
    whole = APIRouter(include_in_schema=False)
    for part in (
        signing_in.routes(pages),
        files.routes(pages),
        overview.routes(pages, schedules),
        new_job.routes(pages),
        job_list.routes(pages),
        job_page.routes(pages),
        fleet.routes(pages),
        batch_pages.routes(pages, batches),
        schedule_pages.routes(pages, schedules),
    ):
        whole.include_router(part)
    return whole
