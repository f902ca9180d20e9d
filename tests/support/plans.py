"""Plans of a small merge, for tests of what follows from a plan."""

from pathlib import Path
from typing import Any

from fda_core.contract.plan import Plan
from fda_core.engine.plan import make_plan
from fda_core.engine.recipes import recipe_of
from fda_core.storage.resolve import storages
from tests.support.checkpoints import RecipeFile


def plan_of(models: Path, method: Any, **more: Any) -> Plan:
    """Return the plan of merging `workers.save_models`' base and experts a and b.

    `more` are further keys of the recipe.
    """
    recipe = RecipeFile(
        base=models / "base",
        experts={name: models / name for name in "ab"},
        output=models / "out",
        method=method,
    )
    return make_plan(recipe_of({**recipe.document(), **more}), storages(), cwd="/")
