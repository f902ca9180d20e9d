"""The metric of a layer's update: against its definition, and what it must not depend on."""

import pytest
import torch
from torch import Tensor

from fda_core.anchors.update_metric import root_of_update, update_gram

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
