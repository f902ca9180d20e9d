"""/v1/workers."""

from typing import Annotated

from fastapi import Path

from api import openapi
from api.auth.dependency import Admin, Viewer
from api.context import Here
from api.openapi import problems
from api.workers import service
from fda_core.contract.rest.base import Page
from fda_core.contract.rest.workers import Worker

router = openapi.router(prefix="/v1/workers", tag="workers")

WorkerId = Annotated[str, Path(pattern=r"^[0-9A-Za-z._:@-]{1,128}$", description="Its id.")]


@router.get("")
def list_workers(context: Here, caller: Viewer) -> Page[Worker]:  # noqa: ARG001
    """List the workers that told their status lately."""
    return Page(data=service.list_workers(context))


@router.post("/{worker_id}/drain", status_code=202, responses=problems(404))
def drain_worker(worker_id: WorkerId, context: Here, caller: Admin) -> Worker:  # noqa: ARG001
    """Tell a worker to take no more units and end."""
    return service.drain_worker(context, worker_id)
