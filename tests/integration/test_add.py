"""`fda add`: one more expert costs its own anchors and the adaptation, nothing else."""

from pathlib import Path

import pytest

from tests.support.checkpoints import RecipeFile, base_model, expert_of, read_tensors
from tests.support.command import fda, succeed

FDA = {
    "name": "fda",
    "start": "tsvm",
    "construct": {"anchors": 4, "tokens": 3, "steps": 5},
    "adapt": {"epochs": 2},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    base = base_model()
    base.save(tmp_path / "base")
    for seed, name in enumerate("abc", 1):
        expert_of(base, seed).save(tmp_path / name)
    recipe = RecipeFile(
        base=tmp_path / "base",
        experts={name: tmp_path / name for name in "ab"},
        output=tmp_path / "out",
        method=FDA,
    )
    succeed("merge", recipe.write(tmp_path / "recipe.yaml"), "--workers", "1")
    return tmp_path


def test_the_others_anchors_come_from_the_cache_and_the_bytes_are_those_of_merging_all(folder):
    layers = 2
    done = succeed("add", folder / "c", "--to", folder / "out", "--workers", "1")
    assert done["output"] == str(folder / "out-c")
    assert done["units_from_cache"] == 2 * layers
    everything = RecipeFile(
        base=folder / "base",
        experts={name: folder / name for name in "abc"},
        output=folder / "elsewhere" / "all",
        method=FDA,
    )
    succeed("merge", everything.write(folder / "all.yaml"), "--workers", "1")
    ours, theirs = (read_tensors(folder / f) for f in ("out-c", "elsewhere/all"))
    assert all(bool((ours[name] == theirs[name]).all()) for name in theirs)
    assert (folder / "out" / "merge_manifest.json").exists()


def test_a_name_that_is_taken_is_refused(folder):
    outcome = fda("add", folder / "c", "--to", folder / "out", "--name", "A", "--json")
    assert outcome.code == 2
    assert outcome.data["error"]["code"] == "duplicate_expert"


def test_a_folder_that_is_no_output_is_refused(folder):
    outcome = fda("add", folder / "c", "--to", folder / "base", "--json")
    assert outcome.code == 4
    assert "merge_recipe.yaml" in outcome.data["error"]["message"]
