"""How many anchors a construction holds at once, and a unit that holds fewer.

For a unit whose device ran out of memory. Loads no torch.
"""

from fda_core.contract.plan import Plan, Unit
from fda_core.engine.costs import memory
from fda_core.engine.cut import anchor_bytes, fitted_tensors, settled_tokens
from fda_core.methods.fda import Fda
from fda_core.methods.registry import method_of


def microbatch_of(plan: Plan, unit: Unit) -> int | None:
    """Return how many anchors a unit holds at once, or None if it constructs none."""
    method = method_of(plan.recipe)
    if unit.kind != "construct" or unit.layer is None or not isinstance(method, Fda):
        return None
    config = method.parameters.construction
    tensors = fitted_tensors(plan, method)[unit.layer]
    per_anchor = anchor_bytes(plan, tensors, settled_tokens(method))
    found = memory.microbatch(config, per_anchor) or config.anchors
    return min(found, unit.microbatch or found)


def lowered(plan: Plan, unit: Unit, *, microbatch: int) -> Unit:
    """Return the unit with at most so many anchors at once.

    The anchors are the same up to the order in which sums over them are made: rounding
    differs, and with it the last digits of every step. They are as good, and are kept in the
    cache under the recipe's own settings; only the promise of equal bytes ends where memory
    did. A unit that holds no more than that, or constructs nothing, comes back as it is.
    """
    now = microbatch_of(plan, unit)
    if now is None or now <= microbatch:
        return unit
    return unit.model_copy(update={"microbatch": microbatch})
