"""Routes of batches: decode, call the service, encode."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse

from api.batches.service import BatchService
from api.gate import Cursor, Gate, Id, Limit, refusals
from api.jobs.submitting import Caller, Once
from fda_core.contract.rest.base import Page
from fda_core.contract.rest.batches import Batch, BatchRequest


def router(gate: Gate, service: BatchService) -> APIRouter:
    """Return the routes under /v1/batches."""
    routes = APIRouter(prefix="/v1/batches", tags=["batches"])

    @routes.post(
        "",
        status_code=202,
        operation_id="submitBatch",
        summary="Queue many jobs at once: all or none",
        response_model=Batch,
        responses=refusals(409, 422, 429),
    )
    def submit(
        request: BatchRequest,
        caller: Annotated[Caller, Depends(gate.submitter)],
        once: Annotated[Once | None, Depends(gate.once)],
    ) -> JSONResponse:
        return service.submit(caller, request, once=once).response()

    @routes.get(
        "",
        operation_id="listBatches",
        summary="List batches, newest first",
        responses=refusals(422),
    )
    def page(
        caller: Annotated[Caller, Depends(gate.viewer)],
        cursor: Cursor = None,
        limit: Limit = 50,
        schedule: Annotated[str | None, Query(pattern=r"^[0-9A-Za-z_-]{1,64}$")] = None,
    ) -> Page[Batch]:
        return service.page(caller, cursor=cursor, limit=limit, schedule=schedule)

    @routes.get(
        "/{batch_id}",
        operation_id="getBatch",
        summary="Show a batch and a table that compares its jobs",
        responses=refusals(404, 422),
    )
    def get(batch_id: Id, caller: Annotated[Caller, Depends(gate.viewer)]) -> Batch:
        return service.get(caller, batch_id)

    @routes.post(
        "/{batch_id}/cancel",
        status_code=202,
        operation_id="cancelBatch",
        summary="Cancel all jobs that are not over",
        responses=refusals(404, 409, 422),
    )
    def cancel(batch_id: Id, caller: Annotated[Caller, Depends(gate.submitter)]) -> Batch:
        return service.cancel(caller, batch_id)

    @routes.delete(
        "/{batch_id}",
        status_code=204,
        operation_id="deleteBatch",
        summary="Delete a batch that is over",
        responses=refusals(404, 409, 422),
    )
    def delete(
        batch_id: Id,
        caller: Annotated[Caller, Depends(gate.submitter)],
        jobs: Annotated[bool, Query(description="Delete its jobs too, never outputs.")] = False,
    ) -> None:
        service.delete(caller, batch_id, jobs=jobs)

    return routes
