"""Workers and queues, or why nothing is known of them."""

from dataclasses import dataclass, field

from fastapi import APIRouter, Request, Response

from api.context import Context, Here
from api.problems import problem_of
from api.web.pages import Pages, see
from api.web.visitors import AdminVisitor, Form, Visitor
from api.workers import service
from api.workers.queue_routes import QueueName
from api.workers.routes import WorkerId
from fda_core.contract.rest.base import Problem
from fda_core.contract.rest.workers import Queue, Worker
from fda_core.errors import FdaError


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Who works and what waits."""

    workers: list[Worker] = field(default_factory=list)
    queues: list[Queue] = field(default_factory=list)
    problem: Problem | None = None
    """Why nothing is known: the broker does not answer."""

    @property
    def heard(self) -> list[Worker]:
        """Return the workers that still tell of themselves."""
        return [worker for worker in self.workers if worker.state != "silent"]

    @property
    def stuck(self) -> list[Queue]:
        """Return the queues in which something waits for a worker that is not there."""
        return [queue for queue in self.queues if queue.depth and not queue.workers]


def look_at_fleet(context: Context) -> Fleet:
    """Return what Redis knows; pages are made without it too."""
    try:
        return Fleet(workers=service.list_workers(context), queues=service.list_queues(context))
    except FdaError as error:
        return Fleet(problem=problem_of(error, path="/workers", request_id=""))


def routes(pages: Pages) -> APIRouter:
    """Return the routes of the page of workers."""
    router = pages.router()

    @router.get("/workers")
    def show_workers(request: Request, context: Here, caller: Visitor) -> Response:
        return pages.page(request, "workers.html", caller=caller, fleet=look_at_fleet(context))

    @router.post("/workers/{worker_id}/drain")
    def drain_worker(
        worker_id: WorkerId,
        context: Here,
        caller: AdminVisitor,  # noqa: ARG001 - only admins
        form: Form,  # noqa: ARG001 - read for where it comes from
    ) -> Response:
        service.drain_worker(context, worker_id)
        return see("/workers")

    @router.post("/queues/{name}/drain")
    def drain_queue(
        name: QueueName,
        context: Here,
        caller: AdminVisitor,  # noqa: ARG001
        form: Form,
    ) -> Response:
        service.set_draining(context, name, draining=form.get("draining") == "yes")
        return see("/workers")

    return router
