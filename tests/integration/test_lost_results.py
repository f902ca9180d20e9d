"""The workspace may be removed whenever one likes, a merge under way or not: it costs time."""

import shutil
from pathlib import Path

import pytest

from fda_core.contract.events import Event, UnitFinished, UnitRetried
from fda_core.engine.plan import make_plan
from fda_core.engine.recipes import read_recipe
from fda_core.engine.run import RunOptions, run_plan
from fda_core.storage.local import LocalStorage
from tests.support.checkpoints import RecipeFile, read_tensors
from tests.support.command import succeed
from tests.support.merges import fda_method
from tests.support.workers import save_models


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("what", ["anchors", "jobs"])
def test_results_that_someone_removes_are_made_again(tmp_path: Path, workers: int, what: str):
    save_models(tmp_path, num_hidden_layers=1)
    recipe = RecipeFile(
        base=tmp_path / "base",
        experts={name: tmp_path / name for name in "ab"},
        output=tmp_path / "out",
        method=fda_method(),
    )
    written = recipe.write(tmp_path / "recipe.yaml")
    succeed("merge", written, "--output", tmp_path / "untouched", "--workers", 1)
    shutil.rmtree(tmp_path / ".fda-workspace")

    plan = make_plan(read_recipe(written.read_text()), LocalStorage(), cwd=str(tmp_path))
    constructed = {unit.id for unit in plan.units if unit.kind == "construct"}
    waited_for = set(constructed)
    retried = set()

    def remove_once_all_is_constructed(event: Event) -> None:
        if isinstance(event, UnitFinished) and event.unit in waited_for:
            waited_for.remove(event.unit)
            if not waited_for:  # and nothing that needs them has begun
                shutil.rmtree(f"{plan.workspace}/{what}")
        if isinstance(event, UnitRetried):
            retried.add(event.unit)

    run_plan(
        plan,
        LocalStorage(),
        options=RunOptions(workers=workers, device="cpu"),
        sink=remove_once_all_is_constructed,
        is_cancelled=lambda: False,
    )
    assert constructed < retried
    succeed("verify", tmp_path / "out")
    expected, found = read_tensors(tmp_path / "untouched"), read_tensors(tmp_path / "out")
    assert all(tensor.equal(expected[name]) for name, tensor in found.items())
