"""/v1/queues."""

from typing import Annotated

from fastapi import Path

from api import openapi
from api.auth.dependency import Admin, Viewer
from api.context import Here
from api.openapi import problems
from api.workers import service
from fda_core.contract.rest.base import Page
from fda_core.contract.rest.workers import Queue

router = openapi.router(prefix="/v1/queues", tag="workers")

QueueName = Annotated[str, Path(max_length=64, description="cpu, gpu or gpu-large.")]


@router.get("")
def list_queues(context: Here, caller: Viewer) -> Page[Queue]:  # noqa: ARG001
    """List the queues with what waits in them."""
    return Page(data=service.list_queues(context))


@router.post("/{name}/drain", status_code=202, responses=problems(404))
def drain_queue(name: QueueName, context: Here, caller: Admin) -> Queue:  # noqa: ARG001
    """Let no worker take from a queue; units that run go on."""
    return service.set_draining(context, name, draining=True)


@router.delete("/{name}/drain", responses=problems(404))
def open_queue(name: QueueName, context: Here, caller: Admin) -> Queue:  # noqa: ARG001
    """Let workers take from a queue again."""
    return service.set_draining(context, name, draining=False)
