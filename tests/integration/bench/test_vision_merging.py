"""The vision benchmark's merges run `fda merge` itself and write down what both stages took."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench.vision.merging import RESULT, Models, anchors_of, drop_weights, is_merged, merge
from tests.support.small_dinov2 import SMALL, write_small

CONSTRUCT = {"anchors": 4, "tokens": 5, "steps": 3}


@pytest.fixture
def models(tmp_path: Path) -> Models:
    write_small(tmp_path / "base")
    for number, name in enumerate(("one", "two"), 1):
        write_small(tmp_path / name, noise=0.01 * number)
    return Models.of(tmp_path / "base", {name: tmp_path / name for name in ("one", "two")})


def fda(start: str) -> dict[str, object]:
    return {"name": "fda", "start": start, "construct": CONSTRUCT, "adapt": {"epochs": 1}}


@pytest.mark.slow
def test_anchors_are_constructed_once_and_their_cost_goes_with_every_start(
    models: Models, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    first = merge(fda("base"), models, seed=0, cache=cache)
    second = merge(fda("task_arithmetic"), models, seed=0, cache=cache)
    assert first.construction == second.construction
    assert first.construction is not None
    assert first.construction.flops > 0
    assert first.construction.cpu_seconds > 0
    assert first.weights != second.weights
    assert 0 < (first.alignment or 0) <= 1


@pytest.mark.slow
def test_the_anchors_of_a_merge_are_those_it_constructed_and_leave_its_result(
    models: Models, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    made = merge(fda("base"), models, seed=0, cache=cache)
    before = {file: file.read_bytes() for file in cache.rglob("merges/*/result.json")}
    found = anchors_of(fda("base"), models, seed=0, cache=cache)
    assert set(found) == {(layer, name) for layer in (0, 1) for name in ("one", "two")}
    stored = {file.read_bytes() for file in cache.rglob("anchors.bin")}
    assert {anchors.numpy().tobytes() for anchors in found.values()} == stored
    assert {anchors.shape for anchors in found.values()} == {(4, 5, SMALL["hidden_size"])}
    assert {file: file.read_bytes() for file in cache.rglob("merges/*/result.json")} == before
    assert list(cache.glob("merges/*/merged")) == [made.folder]


@pytest.mark.slow
def test_a_merge_is_found_again_and_outlives_its_weights(models: Models, tmp_path: Path) -> None:
    method, cache = {"name": "task_arithmetic"}, tmp_path / "cache"
    assert not is_merged(method, models, seed=0, cache=cache)
    made = merge(method, models, seed=0, cache=cache)
    drop_weights(made)
    assert merge(method, models, seed=0, cache=cache) == made
    assert is_merged(method, models, seed=0, cache=cache)
    assert not is_merged(method, models, seed=1, cache=cache)


@pytest.mark.slow
def test_what_an_interrupted_command_had_finished_is_counted(
    models: Models, tmp_path: Path
) -> None:
    """Without its result the merge is asked for again, and the engine finds it finished."""
    cache = tmp_path / "cache"
    made = merge({"name": "ties"}, models, seed=0, cache=cache)
    records = list(cache.glob("workspace/jobs/*/records/*.json"))
    for record in records:
        said = json.loads(record.read_text())
        assert said["cost"]["cpu_seconds"] > 0
        said["cost"] |= {"seconds": 5000.0, "cpu_seconds": 1000.0}
        record.write_text(json.dumps(said))
    (made.folder.parent / RESULT).unlink()
    again = merge({"name": "ties"}, models, seed=0, cache=cache)
    assert (made.folder.parent / RESULT).exists()
    assert again.weights == made.weights
    assert again.cost.flops == made.cost.flops
    assert 5000 * len(records) < again.cost.wall_seconds < 5000 * len(records) + 500
    assert 1000 * len(records) < again.cost.cpu_seconds < 1000 * len(records) + 500


@pytest.mark.slow
def test_a_result_of_other_defaults_or_another_order_is_made_again(
    models: Models, tmp_path: Path
) -> None:
    method, cache = {"name": "ties"}, tmp_path / "cache"
    made = merge(method, models, seed=0, cache=cache)
    result = made.folder.parent / RESULT
    said = json.loads(result.read_text())
    assert said["settled"]["method"]["density"] == 0.2
    said["settled"]["method"]["density"] = 0.3
    result.write_text(json.dumps(said | {"weights": "of density 0.3"}))
    assert not is_merged(method, models, seed=0, cache=cache)
    assert merge(method, models, seed=0, cache=cache).weights == made.weights

    turned = replace(models, experts=dict(reversed(models.experts.items())))
    assert not is_merged(method, turned, seed=0, cache=cache)


@pytest.mark.slow
def test_weights_made_again_are_the_first_ones_at_their_first_cost(
    models: Models, tmp_path: Path
) -> None:
    method, cache = {"name": "task_arithmetic"}, tmp_path / "cache"
    first = merge(method, models, seed=0, cache=cache)
    weights = (first.folder / "model.safetensors").read_bytes()
    drop_weights(first)
    again = merge(method, models, seed=0, cache=cache, again=True)
    assert again == first
    assert (again.folder / "model.safetensors").read_bytes() == weights

    drop_weights(first)
    result = first.folder.parent / RESULT
    result.write_text(json.dumps(json.loads(result.read_text()) | {"weights": "others"}))
    with pytest.raises(RuntimeError, match=r"others before; remove"):
        merge(method, models, seed=0, cache=cache, again=True)


def test_a_merge_that_fails_says_what_the_command_said(models: Models, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no method 'tie'"):
        merge({"name": "tie"}, models, seed=0, cache=tmp_path / "cache")
