"""Names beside an output are made of its own, which may be too long for that."""

import os
from pathlib import Path
from typing import Any

import pytest

from fda_core.contract.uris import basename
from fda_core.engine import layout
from fda_core.engine.plan import make_plan
from fda_core.engine.recipes import read_recipe
from fda_core.errors import RecipeError
from fda_core.storage.local import LocalStorage
from tests.support.checkpoints import RecipeFile, base_model, expert_of
from tests.support.command import fda, succeed


@pytest.fixture
def recipe(tmp_path: Path) -> RecipeFile:
    base = base_model()
    base.save(tmp_path / "base")
    expert_of(base, 0).save(tmp_path / "a")
    return RecipeFile(
        base=tmp_path / "base",
        experts={"a": tmp_path / "a"},
        output=tmp_path / "x",
        method="linear",
    )


def _longest(recipe: RecipeFile, folder: Path, workspace: str) -> int:
    """Return the length of the longest name beside an output that is called x."""
    read = read_recipe(recipe.write(folder / "probe.yaml").read_text())
    plan = make_plan(read, LocalStorage(), cwd=str(folder), workspace=workspace)
    return len(basename(layout.longest_beside(plan)))


@pytest.mark.parametrize("workspace", [None, "elsewhere"])
@pytest.mark.parametrize("letter", ["n", "é"])
def test_a_name_that_just_fits_merges_and_a_longer_one_is_refused(
    recipe: RecipeFile, tmp_path: Path, workspace: Any, letter: str
):
    more = ("--workspace", tmp_path / workspace) if workspace else ()
    written = recipe.write(tmp_path / "recipe.yaml")
    most = os.pathconf(tmp_path, "PC_NAME_MAX")
    room = most - _longest(recipe, tmp_path, str(tmp_path / workspace) if workspace else "") + 1
    fits = letter * (room // len(letter.encode()))
    succeed("merge", written, "--output", tmp_path / fits, "--workers", 1, *more)
    assert (tmp_path / fits / "config.json").is_file()
    outcome = fda("merge", written, "--output", tmp_path / f"{fits}nn", "--json", *more)
    assert (outcome.code, outcome.error["code"]) == (2, RecipeError.code)
    assert "too many" in outcome.error["message"]
