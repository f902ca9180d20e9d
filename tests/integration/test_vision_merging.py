"""The benchmark's merges: weights that were dropped come back, what they cost stays as it was."""

import json
from pathlib import Path

import pytest

from tests.bench.vision.merging import RESULT, Models, drop_weights, is_merged, merge
from tests.support.models import save_expert, save_model

METHOD = {"name": "task_arithmetic"}


def test_a_merge_made_again_has_its_first_cost_and_weights(tmp_path: Path) -> None:
    base = save_model("bert", tmp_path / "base")
    experts = {name: tmp_path / name for name in "ab"}
    for seed, folder in enumerate(experts.values()):
        save_expert(base, folder, seed=seed)
    models, cache = Models.of(tmp_path / "base", experts), tmp_path / "cache"

    first = merge(METHOD, models, seed=0, cache=cache)
    assert is_merged(METHOD, models, seed=0, cache=cache)
    weights = (first.folder / "model.safetensors").read_bytes()
    drop_weights(first)
    again = merge(METHOD, models, seed=0, cache=cache, again=True)
    assert again == first
    assert (again.folder / "model.safetensors").read_bytes() == weights

    drop_weights(first)
    result = first.folder.parent / RESULT
    result.write_text(json.dumps(json.loads(result.read_text()) | {"weights": "others"}))
    with pytest.raises(RuntimeError, match=r"others before; remove"):
        merge(METHOD, models, seed=0, cache=cache, again=True)
