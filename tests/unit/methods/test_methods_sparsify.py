"""Dropping at random and by rank: DARE, Breadcrumbs and DELLA, against plain loops and counts."""

import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fda_core.contract.recipe import MethodSpec
from fda_core.errors import BadParameter
from fda_core.methods import elementwise
from fda_core.methods.base import TensorInputs
from fda_core.methods.registry import resolve
from fda_core.methods.sparsify import (
    ascending_order,
    drop_,
    keep_ranks_in_rows_,
    prune_by_rank_,
)
from fda_core.seeds import derive

DTYPES = [torch.float32, torch.float64]
SHAPES = [(), (1,), (7,), (40,), (6, 9), (9, 1), (3, 4, 5)]
WEIGHTS = [1.0, 0.5, -2.0, 3.0]
RANDOM = ["dare_linear", "dare_ties", "della", "della_linear"]
TIED = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 1e-45, 3e38])


def merge(name, base, deltas, *, weights=None, names="abcd", seed=0, tensor="w", **parameters):
    inputs = TensorInputs(
        name=tensor,
        layer=0,
        base=base.clone(),
        deltas=[delta.clone() for delta in deltas],
        weights=weights or [1.0] * len(deltas),
        experts=names[: len(deltas)],
        seed=seed,
    )
    return resolve(MethodSpec(name=name, parameters=parameters)).merge_tensor(inputs)


def tensors(shape, count, *, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator, dtype=dtype)
    return base, [torch.randn(shape, generator=generator, dtype=dtype) for _ in range(count)]


def sign(value):
    return (value > 0) - (value < 0)


def general_form(sparse, *, weights, elect, mean):
    """Return mergekit's general form of already sparsified task vectors, entry by entry."""
    result = []
    for entries in zip(*(delta.flatten().tolist() for delta in sparse), strict=True):
        weighed = [w * v for w, v in zip(weights, entries, strict=True)]
        wanted = 1 if sum(weighed) >= 0 else -1
        agree = [not elect or sign(v) == wanted for v in weighed]
        value = sum(v for v, kept in zip(weighed, agree, strict=True) if kept)
        divisor = sum(w for w, kept in zip(weights, agree, strict=True) if kept)
        result.append(value / (divisor or 1) if mean else value)
    return torch.tensor(result, dtype=torch.float64).reshape(sparse[0].shape)


# Seeds


def test_a_seed_is_the_digest_of_the_job_s_seed_and_the_words():
    digest = hashlib.sha256(b"7\0mask\0layers.0.weight\0maths").digest()
    expected = int.from_bytes(digest[:8], "big") >> 1
    assert derive(7, "mask", "layers.0.weight", "maths") == expected < 2**63


@pytest.mark.parametrize("name", RANDOM)
def test_masks_hang_on_seed_tensor_and_expert_and_on_nothing_else(name):
    base, (delta,) = tensors((50, 40), 1)
    once = merge(name, base, [delta])
    assert torch.equal(merge(name, base, [delta]), once)
    assert not torch.equal(merge(name, base, [delta], seed=1), once)
    assert not torch.equal(merge(name, base, [delta], tensor="v"), once)
    assert not torch.equal(merge(name, base, [delta], names="b"), once)


@pytest.mark.parametrize("name", ["dare_linear", "della_linear"])
def test_an_expert_has_the_same_mask_alone_and_in_company_wherever_it_stands(name):
    base, (first, second) = tensors((30, 20), 2)
    zero = torch.zeros_like(base)
    alone = merge(name, zero, [first], names="a") + merge(name, zero, [second], names="b")
    torch.testing.assert_close(merge(name, zero, [first, second], names="ab"), alone)
    torch.testing.assert_close(merge(name, zero, [second, first], names="ba"), alone)


@pytest.mark.parametrize("name", RANDOM)
def test_both_dtypes_draw_the_same_mask(name):
    _, (delta,) = tensors((60, 50), 1, dtype=torch.float32)
    single = merge(name, torch.zeros(60, 50), [delta])
    double = merge(name, torch.zeros(60, 50, dtype=torch.float64), [delta.double()])
    assert torch.equal(single != 0, double != 0)
    torch.testing.assert_close(single, double.float())


# Dropping at random


@pytest.mark.parametrize("density", [0.001, 0.1, 0.5, 0.93])
def test_each_entry_stays_with_the_density_s_probability(density):
    count = 1_000_003
    flat = torch.ones(count)
    drop_(flat, density=density, seed=3)
    sigma = (density * (1 - density) / count) ** 0.5
    assert abs(flat.mean(dtype=torch.float64).item() - density) < 4 * sigma
    assert set(flat.unique().tolist()) <= {0.0, 1.0}


def test_neighbours_and_experts_are_dropped_independently():
    first, second = torch.ones(2, 400_000).unbind()
    drop_(first, density=0.5, seed=1)
    drop_(second, density=0.5, seed=2)
    limit = 4 * 0.25 / 400_000**0.5
    for other in (second, first.roll(1), first.roll(2), first.roll(elementwise.BLOCK)):
        covariance = ((first - 0.5) * (other - 0.5)).mean()
        assert abs(covariance.item()) < limit


def test_what_stays_keeps_its_bits():
    flat = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    dropped = flat.clone()
    drop_(dropped, density=0.3, seed=0)
    kept = dropped != 0
    assert torch.equal(dropped[kept], flat[kept])


def mask_of(delta, expert, *, density):
    """Return an expert's mask, read off a merge of ones."""
    ones = torch.ones_like(delta)
    merged = merge(
        "dare_linear", torch.zeros_like(delta), [ones], names=expert, density=density, scale=1.0
    )
    return (merged != 0).to(delta.dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rescale", ["inverse_probability", "l1"])
@pytest.mark.parametrize(
    ("name", "how", "elect", "mean"),
    [
        ("dare_linear", {"normalize": False}, False, False),
        ("dare_linear", {"normalize": True}, False, True),
        ("dare_ties", {"merge": "sum"}, True, False),
        ("dare_ties", {"merge": "mean"}, True, True),
    ],
)
def test_dare_is_its_formula(shape, rescale, name, how, elect, mean):
    base, deltas = tensors(shape, 4)
    sparse = []
    for delta, expert in zip(deltas, "abcd", strict=True):
        kept = delta * mask_of(delta, expert, density=0.6)
        factor = 1 / 0.6 if rescale != "l1" else delta.abs().sum() / (kept.abs().sum() or 1)
        sparse.append(kept * factor)
    expected = base + 0.7 * general_form(sparse, weights=WEIGHTS, elect=elect, mean=mean)
    settings_ = {"density": 0.6, "rescale": rescale, "scale": 0.7, **how}
    found = merge(name, base, deltas, weights=WEIGHTS, **settings_)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_dare_is_right_on_average():
    delta = torch.full((200_000,), 2.0, dtype=torch.float64)
    merged = merge("dare_linear", torch.zeros_like(delta), [delta], density=0.1, scale=1.0)
    assert merged.mean().item() == pytest.approx(2, rel=0.03)


@pytest.mark.parametrize("name", RANDOM)
def test_density_one_draws_and_drops_nothing(name):
    base, deltas = tensors((5, 6), 3)
    full = merge(name, base, deltas, density=1.0)
    assert torch.equal(full, merge(name, base, deltas, density=1.0, seed=9))
    assert (full != base).all()


@pytest.mark.parametrize("rescale", ["inverse_probability", "l1"])
@pytest.mark.parametrize("name", ["dare_linear", "dare_ties"])
def test_a_tensor_of_which_nothing_stays_is_the_base(name, rescale):
    base, deltas = tensors((3, 3), 2)
    merged = merge(name, base, deltas, density=1e-12, rescale=rescale)
    assert torch.equal(merged, base)


@pytest.mark.parametrize("name", ["dare_linear", "breadcrumbs", "della_linear"])
def test_weights_that_sum_to_zero_cannot_normalise(name):
    base, deltas = tensors((3, 3), 2)
    with pytest.raises(BadParameter, match="sum to"):
        merge(name, base, deltas, weights=[1.0, -1.0], normalize=True)


# Bands of magnitude


def keep_band(values, first, last):
    order = sorted(range(len(values)), key=lambda place: (-abs(values[place]), place))
    kept = set(order[first:last])
    return [v if place in kept else 0.0 for place, v in enumerate(values)]


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 9).flatmap(
        lambda size: st.lists(
            st.lists(st.one_of(TIED, st.floats(-9, 9, width=32)), min_size=size, max_size=size),
            min_size=1,
            max_size=4,
        )
    ),
    st.data(),
    st.sampled_from(DTYPES),
)
def test_a_band_of_ranks_stays_in_each_row_and_the_first_of_equals_rank_higher(rows, data, dtype):
    last = data.draw(st.integers(1, len(rows[0])))
    first = data.draw(st.integers(0, last - 1))
    matrix = torch.tensor(rows, dtype=dtype)
    flat = matrix[0].clone()
    expected = [keep_band(row, first, last) for row in matrix.tolist()]
    keep_ranks_in_rows_(matrix, first, last)
    assert matrix.tolist() == expected
    elementwise.keep_ranks_(flat, first, last)
    assert flat.tolist() == expected[0]


@pytest.mark.parametrize("block", [4, 37, 10_000])
def test_bands_are_right_across_blocks(block, monkeypatch):
    monkeypatch.setattr(elementwise, "BLOCK", block)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(11, 23, generator=generator).mul_(3).round_().div_(3)
    expected = [keep_band(row, 4, 15) for row in rows.tolist()]
    flat = rows.flatten().clone()
    expected_flat = keep_band(flat.tolist(), 40, 170)
    keep_ranks_in_rows_(rows, 4, 15)
    elementwise.keep_ranks_(flat, 40, 170)
    assert rows.tolist() == expected
    assert flat.tolist() == expected_flat


def breadcrumbs_of(delta, *, keep, remove_top, scope):
    """Return the mask's result from the two published descriptions."""
    tensor_scope = scope == "tensor"
    length = delta.numel() if tensor_scope else (delta.shape[-1] if delta.ndim else 1)
    rows = delta.reshape(-1, length).tolist()
    kept = max(1, int(keep * length))
    top = int(remove_top * length)
    if tensor_scope:
        bottom = length - top - kept
        top = top + bottom if bottom < 0 else top
    rows = [keep_band(row, top, top + kept) for row in rows]
    return torch.tensor(rows, dtype=torch.float64).reshape(delta.shape)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(SHAPES),
    st.sampled_from([0.05, 0.29, 0.5, 0.9, 1.0]),
    st.sampled_from([0.0, 0.01, 0.2, 0.6, 0.99]),
    st.sampled_from(["row", "tensor"]),
    st.sampled_from(
        [
            ("breadcrumbs", {"normalize": False}, False, False),
            ("breadcrumbs", {"normalize": True}, False, True),
            ("breadcrumbs_ties", {"merge": "sum"}, True, False),
            ("breadcrumbs_ties", {"merge": "mean"}, True, True),
        ]
    ),
    st.integers(0, 100),
)
def test_breadcrumbs_is_its_formula(shape, keep, remove_top, scope, form, seed):
    name, how, elect, mean = form
    base, deltas = tensors(shape, 4, seed=seed)
    band = {"keep": keep, "remove_top": remove_top, "scope": scope}
    sparse = [breadcrumbs_of(delta, **band) for delta in deltas]
    expected = base + 0.4 * general_form(sparse, weights=WEIGHTS, elect=elect, mean=mean)
    found = merge(name, base, deltas, weights=WEIGHTS, scale=0.4, **band, **how)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scope", ["row", "tensor"])
@pytest.mark.parametrize("shape", [(), (1,), (5,), (4, 1), (99,)])
def test_tensors_too_small_to_lose_an_outlier_keep_their_largest(shape, scope):
    base, (delta,) = tensors(shape, 1)
    merged = merge("breadcrumbs", torch.zeros_like(base), [delta], scope=scope, scale=1.0)
    largest = delta.abs().argmax()
    assert merged.flatten()[largest] == delta.flatten()[largest]


def test_outliers_beyond_the_density_stay_removed_by_rows_and_come_back_over_the_tensor():
    delta = torch.arange(1.0, 11.0)
    rows = merge("breadcrumbs", torch.zeros(10), [delta], keep=0.9, remove_top=0.3, scale=1.0)
    assert rows.tolist() == [1, 2, 3, 4, 5, 6, 7, 0, 0, 0]
    over = merge(
        "breadcrumbs",
        torch.zeros(10),
        [delta],
        keep=0.9,
        remove_top=0.3,
        scale=1.0,
        scope="tensor",
    )
    assert over.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]


# Dropping by rank


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9).flatmap(
        lambda size: st.lists(st.lists(TIED, min_size=size, max_size=size), min_size=1, max_size=3)
    )
)
def test_the_order_of_magnitudes_is_stable(dtype, rows):
    matrix = torch.tensor(rows, dtype=torch.float32).to(dtype)
    expected = [sorted(range(len(row)), key=lambda p: (abs(row[p]), p)) for row in matrix.tolist()]
    assert ascending_order(matrix).tolist() == expected


def test_the_fast_order_is_torch_s_stable_one_on_long_rows():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(20, 5_000, generator=generator)
    rows[::2] = rows[::2].to(torch.bfloat16).float()
    assert torch.equal(ascending_order(rows), rows.abs().argsort(dim=1, stable=True))


def kept_share(rows, *, lowest, highest):
    kept = rows.clone()
    prune_by_rank_(kept, lowest=lowest, highest=highest, inverse=False, seed=5)
    return (kept != 0).double().mean(dim=0)


def test_probabilities_rise_evenly_with_the_rank_in_the_row():
    count, length = 60_000, 9
    row = torch.tensor([3.0, -9.0, 1.0, 2.0, -4.0, 8.0, -5.0, 7.0, 6.0])
    ranks = row.abs().argsort().argsort().double()
    expected = 0.3 + 0.5 * ranks / (length - 1)
    found = kept_share(row.expand(count, length).contiguous(), lowest=0.3, highest=0.8)
    assert ((found - expected).abs() < 4 * (0.25 / count) ** 0.5).all()


def test_the_only_entry_of_a_row_stays_with_the_mean_probability():
    share = kept_share(torch.ones(100_000, 1), lowest=0.2, highest=0.6)
    assert share.item() == pytest.approx(0.4, abs=4 * (0.24 / 100_000) ** 0.5)


def della_of(delta, expert, *, density, epsilon, rescale):
    """Return the pruned task vector: the mask read off one merge, the factors from ranks."""
    mask = merge(
        "della_linear",
        torch.zeros_like(delta),
        [delta],
        names=expert,
        density=density,
        epsilon=epsilon,
        scale=1.0,
        rescale="l1",
    )
    kept = delta * (mask != 0)
    if rescale == "l1":
        return kept * (delta.abs().sum() / (kept.abs().sum() or 1))
    rows = kept.reshape(-1, delta.shape[-1] if delta.ndim else 1)
    full = delta.reshape(rows.shape).tolist()
    for row, values in zip(rows, full, strict=True):
        for place, value in enumerate(values):
            rank = sum(abs(other) < abs(value) for other in values)
            share = rank / (len(values) - 1) if len(values) > 1 else 0.5
            row[place] /= density - epsilon + 2 * epsilon * share
    return rows.reshape(delta.shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rescale", ["inverse_probability", "l1"])
@pytest.mark.parametrize(
    ("name", "how", "elect", "mean"),
    [
        ("della", {"merge": "mean"}, True, True),
        ("della", {"merge": "sum"}, True, False),
        ("della_linear", {"normalize": False}, False, False),
        ("della_linear", {"normalize": True}, False, True),
    ],
)
def test_della_is_its_formula(shape, rescale, name, how, elect, mean):
    base, deltas = tensors(shape, 4, seed=2)
    pruning = {"density": 0.5, "epsilon": 0.3, "rescale": rescale}
    sparse = [della_of(d, e, **pruning) for d, e in zip(deltas, "abcd", strict=True)]
    expected = base + 1.1 * general_form(sparse, weights=WEIGHTS, elect=elect, mean=mean)
    found = merge(name, base, deltas, weights=WEIGHTS, **pruning, **how)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_della_is_right_on_average_for_large_and_small():
    delta = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64).expand(100_000, 3).contiguous()
    merged = merge("della_linear", torch.zeros_like(delta), [delta], scale=1.0, epsilon=0.25)
    torch.testing.assert_close(merged.mean(0), delta[0], rtol=0.02, atol=0)


@pytest.mark.parametrize("name", RANDOM)
def test_blocks_of_full_rows_do_not_show(name, monkeypatch):
    base, deltas = tensors((8, 16), 3, dtype=torch.float32)
    whole = merge(name, base, deltas)
    monkeypatch.setattr(elementwise, "BLOCK", 32)
    assert torch.equal(merge(name, base, deltas), whole)
