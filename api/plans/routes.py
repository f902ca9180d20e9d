"""POST /v1/plans."""

import anyio

from api import openapi
from api.auth.dependency import Viewer
from api.context import Here
from api.openapi import problems
from api.plans import service
from fda_core.contract.rest.jobs import PlanRequest, PlanView

router = openapi.router(prefix="/v1/plans", tag="plans")


@router.post("", responses=problems(409, 413, 502, 507))
async def make_plan(body: PlanRequest, context: Here, caller: Viewer) -> PlanView:  # noqa: ARG001
    """Validate a recipe against its checkpoints' headers and show what it takes."""
    return await anyio.to_thread.run_sync(service.plan, context, body, limiter=context.planning)
