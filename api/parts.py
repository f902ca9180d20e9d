"""Batches, schedules, webhooks and pages put together, for the api and for the controller."""

from collections.abc import Callable, Sequence
from datetime import datetime

from fastapi import APIRouter, Request
from sqlalchemy.orm import Session

from api import idempotency
from api.auth.dependency import Submitter as SubmitterKey
from api.auth.dependency import requiring
from api.batches import routes as batches
from api.batches.results import Results
from api.batches.service import BatchService
from api.broker import Hints
from api.context import Context, Here
from api.db.session import Database
from api.gate import Gate
from api.jobs import service as jobs
from api.jobs.removal import remove
from api.jobs.submitting import Caller, Once, Submit, Submitter, Wake
from api.jobs.transitions import ask_to_stop
from api.kept_answers import KeptAnswer
from api.recipes import read_recipe
from api.schedules import routes as schedules
from api.schedules.service import ScheduleService
from api.settings import Settings
from api.tracing import current_trace
from api.web import routes as pages
from api.webhooks import routes as webhooks
from api.webhooks.service import WebhookService
from fda_core.contract.rest.jobs import JobRequest
from fda_core.storage.base import Storage

Clock = Callable[[], datetime]


def submitting(settings: Settings, clock: Clock) -> Submit:
    """Return what queues one job of a batch, by the rules of a job of its own."""

    def submit(
        session: Session,
        request: JobRequest,
        submitter: Submitter,
        batch_id: str | None,
        schedule_id: str | None,
    ) -> str:
        moment = clock()
        recipe = read_recipe(request.recipe, roots=settings.roots, workspace=settings.workspace)
        jobs.check_webhook(request.webhook, settings)
        jobs.check_deadline(request.deadline, moment)
        jobs.check_quota(session, submitter.team, most=settings.max_active_jobs_per_team)
        origin = jobs.Origin(
            owner=submitter.owner,
            team=submitter.team,
            batch_id=batch_id,
            schedule_id=schedule_id,
            trace=current_trace(),
        )
        return jobs.insert(session, request, recipe, origin=origin, moment=moment).id

    return submit


def waking(hints: Hints) -> Wake:
    """Return what tells the controller that jobs have something new."""

    def wake(job_ids: Sequence[str]) -> None:
        for job_id in job_ids:
            hints.wake(job_id)

    return wake


def batch_service(
    settings: Settings,
    database: Database,
    hints: Hints,
    storage: Storage,
    *,
    clock: Clock,
    last_look: Callable[[str], None] = lambda _job: None,
) -> BatchService:
    """Return the service of batches."""

    def delete_job(caller: Caller, job_id: str) -> None:
        remove(
            database,
            storage,
            caller,
            job_id,
            workspace=settings.workspace,
            with_output=False,
            last_look=last_look,
        )

    return BatchService(
        database,
        submit=submitting(settings, clock),
        cancel=ask_to_stop,
        delete_job=delete_job,
        results=Results(storage),
        wake=waking(hints),
        clock=clock,
    )


async def once(
    request: Request,
    context: Here,
    caller: SubmitterKey,
    idempotency_key: idempotency.IdempotencyKey = None,
) -> Once | None:
    """Return the request's Idempotency-Key, if it has one."""
    if idempotency_key is None:
        return None
    route = f"{request.method} {request.url.path}"
    body = await request.body()
    return KeptAnswer.of(context, caller, route=route, key=idempotency_key, body=body)


GATE = Gate(viewer=requiring("viewer"), submitter=requiring("submitter"), once=once)


def routers(context: Context) -> Sequence[APIRouter]:
    """Return the routes of batches, schedules and webhooks, and the pages that show them too."""
    made = batch_service(
        context.settings,
        context.database,
        context.hints,
        context.storage,
        clock=context.clock,
        last_look=context.hub.last_look,
    )
    timed = ScheduleService(context.database, made, wake=waking(context.hints), clock=context.clock)
    told = WebhookService(
        context.database,
        allow_private=context.settings.webhook_allow_private,
        clock=context.clock,
    )
    return (
        batches.router(GATE, made),
        schedules.router(GATE, timed),
        webhooks.router(GATE, told),
        pages.router(made, timed),
    )
