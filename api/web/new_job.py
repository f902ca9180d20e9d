"""A new job: paste a recipe, see what it takes, submit it."""

from collections.abc import Mapping
from typing import Annotated

import anyio
from fastapi import APIRouter, BackgroundTasks, Query, Request, Response

from api.auth.service import Caller
from api.context import Context, Here
from api.errors import InvalidRequest
from api.idempotency import Answer
from api.jobs import service
from api.jobs.routes import trace_of
from api.plans import service as plans
from api.problems import problem_of
from api.web.once import new_once
from api.web.pages import Pages, see
from api.web.recipe_text import as_yaml
from api.web.visitors import Form, SubmittingVisitor
from fda_core.contract.recipe import checked
from fda_core.contract.rest.base import FieldProblem, Problem
from fda_core.contract.rest.jobs import JobRequest, PlanRequest, PlanView
from fda_core.errors import FdaError

Like = Annotated[str | None, Query(pattern=r"^[0-9A-Za-z-]{1,64}$")]
PRIORITIES = range(10)
EMPTY: Mapping[str, str] = {"recipe": "", "labels": "", "priority": "4"}


def routes(pages: Pages) -> APIRouter:
    """Return the routes of the page of a new job."""
    router = pages.router()

    def page(
        request: Request,
        context: Context,
        caller: Caller,
        form: Mapping[str, str],
        *,
        plan: PlanView | None = None,
        problem: Problem | None = None,
    ) -> Response:
        return pages.page(
            request,
            "new_job.html",
            caller=caller,
            status=problem.status if problem else 200,
            form={**EMPTY, **form},
            once=form.get("once") or new_once(),
            plan=plan,
            plan_yaml=None if plan is None else as_yaml(plan.recipe),
            problem=problem,
            roots=context.settings.roots,
        )

    @router.get("/jobs/new")
    def show_new_job(
        request: Request, context: Here, caller: SubmittingVisitor, like: Like = None
    ) -> Response:
        form = dict(EMPTY)
        if like is not None:
            job = service.get(context, caller, like)
            form["recipe"] = as_yaml(job.recipe)
            form["labels"] = "\n".join(f"{name}={value}" for name, value in job.labels.items())
            form["priority"] = str(job.priority)
        return page(request, context, caller, form)

    @router.post("/jobs/new")
    async def send_new_job(
        request: Request,
        background: BackgroundTasks,
        context: Here,
        caller: SubmittingVisitor,
        form: Form,
    ) -> Response:
        try:
            if form.get("act") == "plan":
                wanted = PlanRequest(recipe=_recipe(form))
                plan = await anyio.to_thread.run_sync(
                    plans.plan, context, wanted, limiter=context.planning
                )
                return page(request, context, caller, form, plan=plan)
            job_id = await anyio.to_thread.run_sync(_submit, request, context, caller, form)
        except FdaError as error:
            problem = problem_of(error, path=request.url.path, request_id=request.state.request_id)
            return page(request, context, caller, form, problem=problem)
        answer = see(f"/jobs/{job_id}")
        background.add_task(context.hints.wake, job_id)
        answer.background = background
        return answer

    return router


def _submit(request: Request, context: Context, caller: Caller, form: Mapping[str, str]) -> str:
    wanted = checked(
        JobRequest,
        {
            "recipe": _recipe(form),
            "labels": read_labels(form.get("labels", "")),
            "priority": _priority(form),
        },
    )
    once = form.get("once", "")
    made = service.submit(
        context,
        caller,
        wanted,
        key=once if once.isascii() and once.isalnum() and len(once) < 256 else None,
        request_id=request.state.request_id,
        trace=trace_of(request),
    )
    return str(made.body["id"]) if isinstance(made, Answer) else made.id


def _recipe(form: Mapping[str, str]) -> str:
    text = form.get("recipe", "").replace("\r\n", "\n")
    if not text.strip():
        raise _wrong("recipe", "the recipe is empty", "Paste a recipe, or begin with the example.")
    return text


def _priority(form: Mapping[str, str]) -> int:
    text = form.get("priority", "4")
    if text not in {str(priority) for priority in PRIORITIES}:
        raise _wrong("priority", f"{text!r} is no priority", "Take one from 0 to 9.")
    return int(text)


def read_labels(text: str) -> dict[str, str]:
    """Return labels as they are typed: `name=value` lines."""
    labels: dict[str, str] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, sign, value = line.partition("=")
        if not sign:
            raise _wrong("labels", f"{line!r} has no =", "Write one label a line, as run=7.")
        labels[name.strip()] = value.strip()
    return labels


def _wrong(name: str, message: str, hint: str) -> InvalidRequest:
    problem = FieldProblem(pointer=f"/{name}", message=message, code="value_error")
    return InvalidRequest(f"{name}: {message}", hint=hint, problems=[problem])
