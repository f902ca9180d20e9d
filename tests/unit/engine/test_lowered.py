from pathlib import Path
from typing import Any

from fda_core.contract.plan import Plan
from fda_core.engine import cache_alias
from fda_core.engine.lowered import lowered, microbatch_of
from fda_core.methods.fda import Fda
from fda_core.methods.registry import resolve
from tests.support.plans import plan_of


def fda(**construct: Any) -> dict[str, Any]:
    return {"name": "fda", "construct": {"anchors": 6, **construct}}


def settings(plan: Plan) -> dict[str, object]:
    method = resolve(plan.recipe.method)
    assert isinstance(method, Fda)
    return cache_alias.settings(plan, method)


def test_a_unit_holds_all_anchors_at_once_unless_told_otherwise(models: Path) -> None:
    made = plan_of(models, fda())
    assert microbatch_of(made, made.units[0]) == 6
    made = plan_of(models, fda(microbatch=4))
    assert microbatch_of(made, made.units[0]) == 4


def test_lowering_changes_the_microbatch_and_nothing_else(models: Path) -> None:
    before = plan_of(models, fda())
    unit = before.units[0]
    after = lowered(before, unit, microbatch=2)
    assert microbatch_of(before, after) == 2
    assert after.model_copy(update={"microbatch": None}) == unit
    assert lowered(before, after, microbatch=6) is after, "never more than it was"


def test_the_cache_tells_recipes_apart_that_differ_in_their_microbatch(models: Path) -> None:
    assert settings(plan_of(models, fda(microbatch=2))) != settings(plan_of(models, fda()))


def test_what_constructs_nothing_stays_as_it_is(models: Path) -> None:
    linear = plan_of(models, "linear")
    assert lowered(linear, linear.units[0], microbatch=1) is linear.units[0]
    with_fda = plan_of(models, fda())
    assert lowered(with_fda, with_fda.units[-1], microbatch=1) is with_fda.units[-1]
