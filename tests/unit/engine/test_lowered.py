from pathlib import Path
from typing import Any

import pytest

from fda_core.contract.plan import Plan
from fda_core.engine import cache_alias
from fda_core.engine.lowered import lowered, microbatch_of
from fda_core.engine.plan import make_plan
from fda_core.engine.recipes import recipe_of
from fda_core.methods.fda import Fda
from fda_core.methods.registry import resolve
from fda_core.storage.resolve import storages
from tests.support.checkpoints import RecipeFile
from tests.support.workers import save_models


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_models(tmp_path_factory.mktemp("models"))


def plan(models: Path, method: Any) -> Plan:
    recipe = RecipeFile(
        base=models / "base",
        experts={name: models / name for name in "ab"},
        output=models / "out",
        method=method,
    )
    return make_plan(recipe_of(recipe.document()), storages(), cwd="/")


def fda(**construct: Any) -> dict[str, Any]:
    return {"name": "fda", "construct": {"anchors": 6, **construct}}


def settings(plan: Plan) -> dict[str, object]:
    method = resolve(plan.recipe.method)
    assert isinstance(method, Fda)
    return cache_alias.settings(plan, method)


def test_a_unit_holds_all_anchors_at_once_unless_told_otherwise(models: Path) -> None:
    made = plan(models, fda())
    assert microbatch_of(made, made.units[0]) == 6
    made = plan(models, fda(microbatch=4))
    assert microbatch_of(made, made.units[0]) == 4


def test_lowering_changes_the_microbatch_and_nothing_else(models: Path) -> None:
    before = plan(models, fda())
    unit = before.units[0]
    after = lowered(before, unit, microbatch=2)
    assert microbatch_of(before, after) == 2
    assert after.model_copy(update={"microbatch": None}) == unit
    assert lowered(before, after, microbatch=6) is after, "never more than it was"


def test_the_cache_tells_recipes_apart_that_differ_in_their_microbatch(models: Path) -> None:
    assert settings(plan(models, fda(microbatch=2))) != settings(plan(models, fda()))


def test_what_constructs_nothing_stays_as_it_is(models: Path) -> None:
    linear = plan(models, "linear")
    assert lowered(linear, linear.units[0], microbatch=1) is linear.units[0]
    with_fda = plan(models, fda())
    assert lowered(with_fda, with_fda.units[-1], microbatch=1) is with_fda.units[-1]
