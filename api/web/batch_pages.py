"""Batches: the list, and the table that compares a batch's jobs."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api.batches.service import BatchService
from api.gate import Id
from api.web.pages import Pages, see
from api.web.visitors import Form, SubmittingVisitor, Visitor

AT_ONCE = 25


def routes(pages: Pages, service: BatchService) -> APIRouter:
    """Return the routes of the pages of batches."""
    router = pages.router()

    @router.get("/batches")
    def show_batches(
        request: Request,
        caller: Visitor,
        cursor: Annotated[str | None, Query(pattern=r"^[0-9A-Za-z_-]{1,64}$")] = None,
    ) -> Response:
        found = service.page(caller, cursor=cursor, limit=AT_ONCE, schedule=None)
        return pages.page(request, "batches.html", caller=caller, found=found)

    @router.get("/batches/{batch_id}")
    def show_batch(batch_id: Id, request: Request, caller: Visitor) -> Response:
        batch = service.get(caller, batch_id)
        table = batch.table or []
        swept = list(dict.fromkeys(name for line in table for name in line.values))
        best = [line.alignment for line in table if line.alignment is not None]
        return pages.page(
            request,
            "batch.html",
            caller=caller,
            batch=batch,
            table=table,
            swept=swept,
            best=max(best) if len(best) > 1 else None,
        )

    @router.post("/batches/{batch_id}/cancel")
    def cancel_batch(
        batch_id: Id,
        caller: SubmittingVisitor,
        form: Form,  # noqa: ARG001 - read for where it comes from
    ) -> Response:
        service.cancel(caller, batch_id)
        return see(f"/batches/{batch_id}")

    return router
