"""/v1/jobs/{id}/…: units, attempts, logs, metrics; and removing a job."""

from typing import Annotated, Literal

from fastapi import Query

from api import openapi
from api.auth.dependency import Submitter, Viewer
from api.context import Here
from api.jobs import metrics, repository, views
from api.jobs.filters import Text
from api.jobs.removal import remove
from api.jobs.routes import JobId
from api.jobs.service import visible
from api.openapi import problems
from api.paging import Cursor, Limit, Slice, read_number, read_text
from fda_core.contract.plan import UnitKind
from fda_core.contract.rest.base import Page
from fda_core.contract.rest.jobs import AttemptView, LogLine, UnitView
from fda_core.contract.rest.metrics import JobMetrics
from fda_core.contract.service.states import JobState, UnitState

router = openapi.router(prefix="/v1/jobs", tag="jobs")

Level = Literal["debug", "info", "warning", "error"]


@router.delete("/{job_id}", status_code=204, responses=problems(404, 409, 502))
def delete_job(
    job_id: JobId,
    context: Here,
    caller: Submitter,
    output: Annotated[
        bool, Query(description="Remove the output too, if this job published it.")
    ] = False,
) -> None:
    """Remove a job that is over, with its workspace; never the output unless asked."""
    remove(
        context.database,
        context.storage,
        caller,
        job_id,
        workspace=context.settings.workspace,
        with_output=output,
        last_look=context.hub.last_look,
    )


@router.get("/{job_id}/units", responses=problems(404))
def list_units(
    job_id: JobId,
    context: Here,
    caller: Viewer,
    state: Annotated[list[UnitState] | None, Query(description="Any of these.")] = None,
    kind: Annotated[list[UnitKind] | None, Query(description="Any of these.")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[UnitView]:
    """List a job's units in the plan's order."""
    place = read_number(cursor) if cursor is not None else -1
    with context.database.read() as session:
        visible(session, caller, job_id)
        rows = repository.units(
            session, job_id, states=state or [], kinds=kind or [], after=place, count=limit + 1
        )
        found = Slice.of(rows, limit=limit, place=lambda row: (str(row.place),))
        return found.page(views.unit)


@router.get("/{job_id}/attempts", responses=problems(404))
def list_attempts(
    job_id: JobId,
    context: Here,
    caller: Viewer,
    unit: Annotated[Text | None, Query(description="Tries at this unit only.")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[AttemptView]:
    """List every try at every unit, oldest first."""
    with context.database.read() as session:
        visible(session, caller, job_id)
        rows = repository.attempts(
            session, job_id, unit=unit, after=read_text(cursor), count=limit + 1
        )
        return Slice.of(rows, limit=limit, place=lambda row: (row.id,)).page(views.attempt)


@router.get("/{job_id}/logs", responses=problems(404))
def list_logs(
    job_id: JobId,
    context: Here,
    caller: Viewer,
    level: Annotated[list[Level] | None, Query(description="Any of these.")] = None,
    unit: Annotated[Text | None, Query(description="Lines about this unit only.")] = None,
    after: Annotated[int, Query(ge=0, description="Lines behind the one with this id.")] = 0,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[LogLine]:
    """List the lines that workers wrote about a job, oldest first."""
    after = max(after, read_number(cursor))
    with context.database.read() as session:
        visible(session, caller, job_id)
        rows = repository.logs(
            session, job_id, levels=level or [], unit=unit, after=after, count=limit + 1
        )
        return Slice.of(rows, limit=limit, place=lambda row: (str(row.seq),)).page(views.log_line)


@router.get("/{job_id}/metrics", responses=problems(404, 502))
def get_job_metrics(
    job_id: JobId,
    context: Here,
    caller: Viewer,
    points: Annotated[int, Query(ge=2, le=5000, description="Of each curve, at most.")] = 200,
    layer: Annotated[int | None, Query(ge=0, le=100_000)] = None,
    expert: Annotated[Text | None, Query(description="An expert's name.")] = None,
) -> JobMetrics:
    """Show what a job measured per layer and expert, while it runs too."""
    with context.database.read() as session:
        row = visible(session, caller, job_id)
    found = metrics.read_metrics(
        context.storage,
        job_id=job_id,
        method=row.method,
        experts=row.experts,
        output=row.output if row.state == JobState.SUCCEEDED else None,
        workspace=context.settings.workspace,
    )
    return metrics.narrowed(found, layer=layer, expert=expert, points=points)
