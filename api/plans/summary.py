"""A plan in figures: what a caller sees of it."""

from collections import Counter

from fda_core.contract.plan import Plan
from fda_core.contract.rest.jobs import PlanSummary, PlanView
from fda_core.engine.costs.devices import gpus
from fda_core.engine.costs.stages import other_costs, stage_costs
from fda_core.engine.cut import total


def summary_of(plan: Plan, *, seconds_estimate: float | None) -> PlanSummary:
    """Return a plan's figures; what the anchor cache spares is not counted as work."""
    return PlanSummary(
        family=plan.family,
        layers=plan.layers,
        width=plan.width,
        method=plan.recipe.method.name,
        experts=[expert.name for expert in plan.experts],
        units=len(plan.units),
        units_cached=sum(unit.cached for unit in plan.units),
        units_by_kind=dict(Counter(unit.kind for unit in plan.units)),
        read_bytes=sum(unit.read_bytes for unit in plan.units),
        write_bytes=total(plan.units, "write_bytes"),
        peak_memory_bytes=max((unit.memory_bytes for unit in plan.units), default=0),
        flops=total(plan.units, "flops"),
        seconds_estimate=seconds_estimate,
        notes=list(plan.notes),
        warnings=list(plan.warnings),
    )


def view_of(plan: Plan, *, seconds_estimate: float | None) -> PlanView:
    """Return a plan with its units and the recipe it resolves to."""
    summary = summary_of(plan, seconds_estimate=seconds_estimate)
    devices = list(gpus(plan.recipe.dtype.compute).values())
    return PlanView(
        **dict(summary),
        recipe=plan.recipe.model_dump(mode="json", by_alias=True),
        plan=[unit.model_dump(mode="json") for unit in plan.units],
        stages=stage_costs(plan, devices),
        other_methods=other_costs(plan, devices),
    )
