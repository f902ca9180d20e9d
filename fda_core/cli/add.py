"""`fda add`: one more expert for a finished merge; what the others cost is in the cache."""

import re

from fda_core.contract.recipe import Expert, Recipe, checked
from fda_core.contract.uris import basename, join, normalise
from fda_core.engine.recipes import read_recipe
from fda_core.errors import DuplicateExpert, NotFound
from fda_core.storage.base import Storage


def recipe_with(
    expert: str, storage: Storage, *, to: str, name: str | None, output: str | None, cwd: str
) -> Recipe:
    """Return the recipe of a finished merge with one more expert and an output of its own.

    The new output is beside the old one unless given, so that both share a workspace and
    the anchors of the experts that were there before are found in its cache.
    """
    finished = normalise(to, cwd=cwd)
    try:
        text = storage.read(join(finished, "merge_recipe.yaml")).decode()
    except NotFound:
        raise NotFound(
            f"{finished} has no merge_recipe.yaml", hint="Give the output of a merge.", uri=finished
        ) from None
    recipe = read_recipe(text)
    model = normalise(expert, cwd=cwd)
    called = name or re.sub(r"[^A-Za-z0-9._-]+", "-", basename(model)).strip("-._") or "expert"
    if any(called.lower() == known.name.lower() for known in recipe.experts):
        raise DuplicateExpert(
            f"{finished} has an expert called {called!r} already",
            hint="Give the new one another name with --name.",
            expert=called,
        )
    added = checked(Expert, {"name": called, "model": model})
    target = normalise(output, cwd=cwd) if output else f"{finished}-{called}"
    return recipe.model_copy(update={"experts": (*recipe.experts, added), "output": target})
