"""How many anchors a construction holds at once, and a plan that holds fewer.

For a unit whose device ran out of memory. Loads no torch.
"""

from fda_core.contract.plan import Plan, Unit
from fda_core.engine import costs
from fda_core.engine.cut import anchor_bytes, fitted_tensors, settled_tokens
from fda_core.methods.fda import Fda
from fda_core.methods.registry import resolve


def microbatch_of(plan: Plan, unit: Unit) -> int | None:
    """Return how many anchors a unit holds at once, or None if it constructs none."""
    method = resolve(plan.recipe.method)
    if unit.kind != "construct" or unit.layer is None or not isinstance(method, Fda):
        return None
    config = method.parameters.construction
    tensors = fitted_tensors(plan, method)[unit.layer]
    per_anchor = anchor_bytes(plan, tensors, settled_tokens(method))
    return costs.microbatch(config, per_anchor) or config.anchors


def lowered(plan: Plan, unit: Unit, *, microbatch: int) -> Plan:
    """Return the plan with at most so many anchors at once in this unit.

    The anchors are the same up to the order in which sums over them are made: rounding
    differs, and with it the last digits of every step. They are as good, and the cache takes
    them for the same; only the promise of equal bytes ends where memory did. A plan that holds
    no more than that, or whose unit constructs nothing, comes back as it is.
    """
    now = microbatch_of(plan, unit)
    if now is None or now <= microbatch:
        return plan
    spec = plan.recipe.method
    construct = {**dict(spec.parameters.get("construct") or {}), "microbatch": microbatch}
    spec = spec.model_copy(update={"parameters": {**spec.parameters, "construct": construct}})
    return plan.model_copy(update={"recipe": plan.recipe.model_copy(update={"method": spec})})
