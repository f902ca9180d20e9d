"""The metric of a layer's update: against its definition, and what it must not depend on."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fda_core.anchors.config import ConstructConfig
from fda_core.anchors.construct import construct, pose
from fda_core.anchors.layer_task import LayerTask
from fda_core.anchors.update_metric import root_of_update, update_gram
from tests.support.layers import LayerPair, layer_pair

WIDTH = 8


def _layer(seed: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    numbers = torch.Generator().manual_seed(seed)
    shapes = {"q": (WIDTH, WIDTH), "up": (3 * WIDTH, WIDTH), "down": (WIDTH, 3 * WIDTH), "b": (8,)}
    return {
        name: torch.randn(shape, generator=numbers, dtype=torch.float64).to(dtype)
        for name, shape in shapes.items()
    }


def _stacked(base: dict[str, Tensor], expert: dict[str, Tensor]) -> Tensor:
    deltas = [(expert[name] - base[name]).double() for name in ("q", "up")]
    return torch.cat([delta / (delta**2).sum().sqrt() for delta in deltas])


def test_the_gram_is_that_of_matrices_that_read_the_width_each_of_length_one() -> None:
    base, expert = _layer(0), _layer(1)
    rows = _stacked(base, expert)
    torch.testing.assert_close(update_gram(base, expert, width=WIDTH), rows.T @ rows)


def test_the_root_squared_is_the_gram_over_its_largest_value() -> None:
    base, expert = _layer(0), _layer(1)
    root = root_of_update(base, expert, width=WIDTH)
    assert root is not None
    _, singular, vectors = torch.linalg.svd(_stacked(base, expert))
    expected = vectors.T * (singular / singular[0]) @ vectors
    torch.testing.assert_close(root, expected, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(root, root.T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_neither_an_updates_length_nor_other_tensors_matter(dtype: torch.dtype) -> None:
    base, expert = _layer(0, dtype), _layer(1, dtype)
    root = root_of_update(base, expert, width=WIDTH)
    longer = {name: base[name] + 4.0 * (expert[name] - base[name]) for name in base}
    longer["down"], longer["b"] = base["down"], base["b"]
    found = root_of_update(base, longer, width=WIDTH)
    assert root is not None
    assert found is not None
    assert found.dtype == dtype
    torch.testing.assert_close(found, root, rtol=1e-5, atol=1e-5)


def test_an_update_of_low_rank_leaves_the_other_directions_out() -> None:
    base = _layer(0)
    up, down = _layer(2)["up"][:, :2], _layer(3)["q"][:2]
    root = root_of_update(base, {**base, "up": base["up"] + up @ down}, width=WIDTH)
    assert root is not None
    assert int((torch.linalg.svdvals(root) > 1e-6).sum()) == 2


@pytest.mark.parametrize("changed", [None, "down", "b"])
def test_without_an_update_of_such_matrices_there_is_no_metric(changed: str | None) -> None:
    base = _layer(0)
    expert = {**base, changed: _layer(1)[changed]} if changed else base
    assert root_of_update(base, expert, width=WIDTH) is None


@pytest.fixture(scope="module")
def bert() -> LayerPair:
    return layer_pair("bert")


def test_a_problem_has_the_metric_that_is_asked_for(bert: LayerPair) -> None:
    plain = pose(bert.task, config=ConstructConfig(optimiser="muon"))
    asked = pose(bert.task, config=ConstructConfig(optimiser="muon", metric="update"))
    assert plain is not None
    assert asked is not None
    assert plain.metric_root is None
    expected = root_of_update(bert.base, bert.expert, width=16)
    assert torch.equal(asked.metric_root, expected)


def test_the_metric_is_of_matrices_as_outputs_by_inputs() -> None:
    """Kept the other way round and named so, they give the same metric."""
    config = ConstructConfig(optimiser="muon", metric="update")
    base, expert = _layer(0), _layer(1)
    kept = LayerTask(block=_Nothing(), base=base, expert=expert, width=WIDTH)
    turned = LayerTask(
        block=_Nothing(),
        base={**base, "up": base["up"].T, "down": base["down"].T},
        expert={**expert, "up": expert["up"].T, "down": expert["down"].T},
        width=WIDTH,
        transposed={"up", "down"},
    )
    roots = [pose(task, config=config).metric_root for task in (kept, turned)]
    torch.testing.assert_close(*roots)


class _Nothing:
    """A block that nobody calls."""

    insensitive: frozenset[str] = frozenset()


def test_construction_moves_in_the_metric(bert: LayerPair) -> None:
    """An update that reads one direction lets the anchors move along it alone."""
    numbers = torch.Generator().manual_seed(6)
    along = torch.randn(16, generator=numbers, dtype=torch.float64)
    along /= along.norm()
    name = "intermediate.dense.weight"
    up = torch.outer(torch.ones(len(bert.base[name]), dtype=torch.float64), along)
    task = replace(bert.task, expert={**bert.base, name: bert.base[name] + 0.1 * up})
    start = torch.randn(6, 5, 16, generator=numbers, dtype=torch.float64)
    config = ConstructConfig(anchors=6, steps=4, optimiser="muon", metric="update")
    made = construct(task, start, config=config, on_step=lambda *_: None)
    assert made is not None
    moved = (made.anchors - start).flatten(0, -2)
    assert moved.any()
    torch.testing.assert_close(moved, torch.outer(moved @ along, along), rtol=0, atol=1e-7)
