"""First anchors: where they come from, how large they are, and that they are always the same."""

import pytest
import torch

from fda_core.anchors.config import ConstructConfig
from fda_core.anchors.initialise import initial_anchors
from fda_core.errors import BadParameter

D = 8


def _layers(rows: int = 40):
    numbers = torch.Generator().manual_seed(0)
    base = {
        "a.weight": torch.randn(rows, D, generator=numbers),
        "b.weight": torch.randn(6, D, generator=numbers),
        "wide.weight": torch.randn(D, 20, generator=numbers),
        "a.bias": torch.randn(D, generator=numbers),
    }
    expert = {k: v + 0.1 * torch.randn(v.shape, generator=numbers) for k, v in base.items()}
    return base, expert


def _draw(init, base, expert, *, n=4, t=3, seed=1, **settings):
    return initial_anchors(
        base,
        expert,
        config=ConstructConfig(anchors=n, init=init, **settings),
        tokens=t,
        width=D,
        generator=torch.Generator().manual_seed(seed),
    )


@pytest.mark.parametrize("init", ["weight", "gaussian", "spectral"])
def test_shape_and_dtype_are_those_asked_for_and_the_draw_repeats(init):
    base, expert = _layers()
    first = _draw(init, base, expert)
    assert first.shape == (4, 3, D)
    assert first.dtype == torch.float32
    assert torch.equal(first, _draw(init, base, expert))
    assert not torch.equal(first, _draw(init, base, expert, seed=2))


@pytest.mark.parametrize("init", ["weight", "gaussian", "spectral"])
def test_without_tokens_anchors_are_the_same_draws_as_rows(init):
    base, expert = _layers()
    rows = _draw(init, base, expert, n=12, t=0)
    assert rows.shape == (12, D)
    assert torch.equal(rows, _draw(init, base, expert, n=12, t=1)[:, 0])


def test_weight_rows_are_different_rows_of_the_experts_matrices_of_that_width():
    base, expert = _layers()
    drawn = _draw("weight", base, expert).reshape(-1, D)
    pool = torch.cat([expert["a.weight"], expert["b.weight"]])
    places = [(pool == row).all(dim=1).nonzero().item() for row in drawn]
    assert len(set(places)) == len(places) == 12


def test_too_few_rows_are_filled_up_with_means_of_two():
    base, expert = _layers(rows=2)
    drawn = _draw("weight", base, expert, n=5, t=4).reshape(-1, D)
    pool = torch.cat([expert["a.weight"], expert["b.weight"]])
    means = (pool[:, None] + pool[None]).reshape(-1, D) / 2
    for row in drawn:
        assert (means - row).abs().amax(dim=1).min() < 1e-6
    exact = [row for row in drawn if (pool == row).all(dim=1).any()]
    assert len(exact) >= len(pool)


def test_gaussian_has_the_asked_standard_deviation():
    base, expert = _layers()
    drawn = _draw("gaussian", base, expert, n=200, t=10, sigma=0.25)
    assert float(drawn.std()) == pytest.approx(0.25, rel=0.02)
    assert abs(float(drawn.mean())) < 0.01


def test_spectral_rows_lie_in_the_head_right_singular_subspace_of_the_update():
    base, expert = _layers()
    drawn = _draw("spectral", base, expert, rank=3).reshape(-1, D).double()
    deltas = [expert[n].double() - base[n].double() for n in ("a.weight", "b.weight")]
    stacked = torch.cat([delta / delta.norm() for delta in deltas])
    head = torch.linalg.svd(stacked).Vh[:3]
    outside = drawn - drawn @ head.T @ head
    assert float(outside.norm() / drawn.norm()) < 1e-6


def test_spectral_columns_are_scaled_by_the_singular_values():
    base, expert = _layers()
    drawn = _draw("spectral", base, expert, rank=3, n=500, t=8).reshape(-1, D).double()
    deltas = [expert[n].double() - base[n].double() for n in ("a.weight", "b.weight")]
    stacked = torch.cat([delta / delta.norm() for delta in deltas])
    _, values, right = torch.linalg.svd(stacked)
    spread = (drawn @ right[:3].T).std(dim=0)
    torch.testing.assert_close(spread / spread[0], values[:3] / values[0], rtol=0.1, atol=0)


def test_spectral_has_the_length_of_the_weight_init():
    base, expert = _layers()
    assert float(_draw("spectral", base, expert).norm()) == pytest.approx(
        float(_draw("weight", base, expert).norm()), rel=1e-5
    )


def test_spectral_without_an_update_of_that_width_falls_back_to_weight_rows():
    base, expert = _layers()
    same = {**expert, "a.weight": base["a.weight"], "b.weight": base["b.weight"]}
    drawn = _draw("spectral", base, same).reshape(-1, D)
    pool = torch.cat([base["a.weight"], base["b.weight"]])
    assert all((pool == row).all(dim=1).any() for row in drawn)


def test_a_layer_without_rows_of_that_width_is_refused_with_a_way_out():
    only = {"wide.weight": torch.randn(D, 20)}
    with pytest.raises(BadParameter, match="length 8") as caught:
        _draw("weight", only, only)
    assert "gaussian" in caught.value.hint
