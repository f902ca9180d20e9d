"""Plan a recipe for somebody who wants to see what it takes."""

from api.context import Context
from api.plans.estimate import seconds_of, speeds
from api.plans.summary import view_of
from api.recipes import read_recipe
from api.workers.repository import workers_or_none
from fda_core.contract.rest.jobs import PlanRequest, PlanView
from fda_core.engine.plan import make_plan


def plan(context: Context, request: PlanRequest) -> PlanView:
    """Return a recipe's plan from headers alone; nothing is queued or written."""
    recipe = read_recipe(
        request.recipe, roots=context.settings.roots, workspace=context.settings.workspace
    )
    made = make_plan(recipe, context.storage, cwd="/", workspace=context.settings.workspace)
    with context.database.read() as session:
        known = speeds(session)
    workers = len(workers_or_none(context.redis) or ())
    return view_of(made, seconds_estimate=seconds_of(made, known, workers=workers))
