"""Great circles, the Karcher mean and Model Stock, against vectors written out in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fda_core.contract.recipe import MethodSpec
from fda_core.errors import NumericsError
from fda_core.methods import elementwise
from fda_core.methods.base import TensorInputs
from fda_core.methods.registry import resolve
from fda_core.methods.spherical import cosines, inner_products

SHAPES = [(), (1,), (7,), (5, 8), (8, 5), (3, 1), (2, 3, 2, 2)]
SEEDS = st.integers(0, 200)
SIZES = st.sampled_from([1e-9, 1e-3, 0.1, 1.0, 10.0])


def merge(name, base, deltas, *, weights=None, **parameters):
    inputs = TensorInputs(
        name="layers.0.weight",
        layer=0,
        base=base.clone(),
        deltas=[delta.clone() for delta in deltas],
        weights=weights or [1.0] * len(deltas),
        experts="abcdefgh"[: len(deltas)],
        seed=0,
    )
    return resolve(MethodSpec(name=name, parameters=parameters)).merge_tensor(inputs)


def tensors(shape, count, *, seed=0, size=1.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator, dtype=dtype)
    return base, [size * torch.randn(shape, generator=generator, dtype=dtype) for _ in range(count)]


def arc(a, b, t, *, straight):
    """Interpolate two flat vectors: numpy, float64."""
    norms = np.linalg.norm(a), np.linalg.norm(b)
    cosine = float(a @ b / (norms[0] * norms[1])) if all(norms) else 0.0
    angle = math.acos(max(-1.0, min(1.0, cosine)))
    if straight(cosine, math.sin(angle)):
        return (1 - t) * a + t * b
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


def flat(tensor):
    return tensor.double().flatten().numpy()


# Inner products


@pytest.mark.parametrize("block", [3, 10, 2**17])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 57), (13, 5), (4, 30)])
def test_inner_products_are_those_of_the_rows_whatever_the_blocks(shape, dtype, block, monkeypatch):
    origin, vectors = tensors(shape, 3, dtype=dtype)
    monkeypatch.setattr(elementwise, "BLOCK", block)
    for at in (None, origin):
        shifted = [v.double() + (0 if at is None else at.double()) for v in vectors]
        expected = torch.einsum("anc,bnc->nab", torch.stack(shifted), torch.stack(shifted))
        torch.testing.assert_close(inner_products(vectors, origin=at), expected)


def test_a_zero_vector_is_at_a_right_angle_to_all():
    vectors = [torch.zeros(2, 3), torch.ones(2, 3)]
    found = cosines(inner_products(vectors))
    assert found.tolist() == [[[0, 0], [0, pytest.approx(1)]]] * 2


# slerp


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SHAPES), SIZES, st.floats(0, 1), st.booleans(), SEEDS)
def test_slerp_goes_along_the_circle_or_nearly_parallel_along_the_line(shape, size, t, alone, seed):
    base, deltas = tensors(shape, 2, seed=seed, size=size)
    ends = [base + deltas[0], base + deltas[1]]
    if alone:
        deltas, ends = deltas[1:], [base, ends[1]]
    found = merge("slerp", base, deltas, t=t)
    expected = arc(*map(flat, ends), t, straight=lambda c, _: abs(c) > 0.9995)
    np.testing.assert_allclose(flat(found), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [1e-3, 3.0])
def test_slerp_ends_at_its_ends_in_the_order_of_the_recipe(size):
    base, (first, second) = tensors((4, 5), 2, size=size)
    for t, delta in ((0.0, first), (1.0, second)):
        torch.testing.assert_close(merge("slerp", base, [first, second], t=t), base + delta)
    torch.testing.assert_close(merge("slerp", base, [first], t=0.0), base)
    torch.testing.assert_close(merge("slerp", base, [first], t=1.0), base + first)
    there, back = merge("slerp", base, [first, second], t=0.3), None
    back = merge("slerp", base, [second, first], t=0.7)
    torch.testing.assert_close(there, back)
    assert not torch.allclose(merge("slerp", base, [second, first], t=0.3), there)


def test_slerp_between_opposite_tensors_is_a_line_through_zero():
    base, _ = tensors((4, 5), 0)
    merged = merge("slerp", base, [torch.zeros_like(base), -2 * base], t=0.5)
    torch.testing.assert_close(merged, torch.zeros_like(base), rtol=0, atol=1e-12)


def test_slerp_from_a_zero_tensor_turns_by_a_right_angle():
    base = torch.zeros(4, 5, dtype=torch.float64)
    _, (delta,) = tensors((4, 5), 1)
    merged = merge("slerp", base, [delta], t=1 / 3)
    torch.testing.assert_close(merged, delta / 2)


# nuslerp


def vectors_of(tensor, *, flatten, row_wise):
    array = tensor.double().numpy()
    if flatten or array.ndim < 2:
        return array.reshape(1, -1)
    if row_wise:
        return array.reshape(array.shape[0], -1).T
    return array.reshape(-1, array.shape[-1])


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(SHAPES),
    SIZES,
    st.sampled_from([(1.0, 1.0), (0.6, 0.4), (3.0, 0.5), (1.0, 0.0), (1.0, -1.0)]),
    st.sampled_from(["task_vectors", "parameters"]),
    st.sampled_from([(True, False), (False, False), (False, True)]),
    SEEDS,
)
def test_nuslerp_is_its_formula(shape, size, weights, on, how, seed):
    layout = dict(zip(("flatten", "row_wise"), how, strict=True))
    base, deltas = tensors(shape, 2, seed=seed, size=size)
    origin = base if on == "parameters" else torch.zeros_like(base)
    t = weights[1] / sum(weights) if sum(weights) else 0.5
    ends = [vectors_of(origin + delta, **layout) for delta in deltas]
    rows = [
        arc(a, b, t, straight=lambda _, sine: abs(sine) < 1e-6) for a, b in zip(*ends, strict=True)
    ]
    if layout["row_wise"] and len(shape) >= 2:
        expected = np.stack(rows).T.reshape(shape)
    else:
        expected = np.stack(rows).reshape(shape)
    found = merge("nuslerp", base, deltas, weights=list(weights), on=on, **layout) - base
    expected = expected - (base - (base - origin)).numpy()
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("layout", [{}, {"flatten": False}, {"flatten": False, "row_wise": True}])
def test_swapping_experts_with_their_weights_changes_nothing(layout):
    base, (first, second) = tensors((4, 6), 2)
    one = merge("nuslerp", base, [first, second], weights=[0.3, 2.0], **layout)
    other = merge("nuslerp", base, [second, first], weights=[2.0, 0.3], **layout)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("on", ["task_vectors", "parameters"])
def test_opposite_vectors_are_interpolated_on_the_line(on):
    base, (delta,) = tensors((4, 6), 1)
    deltas = [delta, -3 * delta] if on == "task_vectors" else [delta - base, -3 * delta - base]
    merged = merge("nuslerp", base, deltas, weights=[3.0, 1.0], on=on)
    expected = base if on == "task_vectors" else torch.zeros_like(base)
    torch.testing.assert_close(merged, expected, rtol=0, atol=1e-12)


def test_a_vector_of_zeros_takes_no_part():
    base, (first, second) = tensors((4, 6), 2)
    torch.testing.assert_close(
        merge("nuslerp", base, [torch.zeros_like(first), second]), base + second
    )
    first[1], second[2] = 0, 0
    merged = merge("nuslerp", base, [first, second], flatten=False) - base
    torch.testing.assert_close(merged[1], second[1])
    torch.testing.assert_close(merged[2], first[2])


def test_a_tensor_that_one_expert_has_is_that_expert_s():
    base, (delta,) = tensors((4, 6), 1)
    torch.testing.assert_close(merge("nuslerp", base, [delta], weights=[0.2]), base + delta)


def test_rows_of_tiny_updates_have_the_angle_they_have():
    base, deltas = tensors((4, 6), 2)
    zero = torch.zeros_like(base)
    small = merge("nuslerp", zero, [1e-9 * delta for delta in deltas], flatten=False)
    torch.testing.assert_close(1e9 * small, merge("nuslerp", zero, deltas, flatten=False))


# Karcher mean


def karcher(vectors, *, max_iter=10, tol=1e-5):
    """Return the mean from the vectors themselves: numpy, float64."""
    norms = [np.linalg.norm(v) for v in vectors]
    units = [v / n for v, n in zip(vectors, norms, strict=True) if n > 0]
    if not units:
        return np.zeros_like(vectors[0])
    mean = sum(units) / len(units)
    u = mean / np.linalg.norm(mean) if np.linalg.norm(mean) >= tol else units[0]
    for _ in range(max_iter):
        g = np.zeros_like(u)
        for unit in units:
            phi = math.acos(max(-1.0, min(1.0, float(u @ unit))))
            if tol <= phi <= math.pi - 1e-6:
                g += phi / math.sin(phi) * (unit - math.cos(phi) * u) / len(units)
        size = np.linalg.norm(g)
        if size < tol:
            break
        u = math.cos(size) * u + math.sin(size) / size * g
        u /= np.linalg.norm(u)
    return sum(norms) / len(vectors) * u


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SHAPES), SIZES, st.integers(1, 6), st.integers(1, 12), SEEDS)
def test_karcher_is_its_iteration(shape, size, m, sweeps, seed):
    base, deltas = tensors(shape, m, seed=seed, size=size)
    found = merge("karcher", base, deltas, max_iter=sweeps)
    expected = karcher([flat(base + delta) for delta in deltas], max_iter=sweeps)
    scale = np.abs(expected).max() + 1
    np.testing.assert_allclose(flat(found), expected, rtol=0, atol=1e-6 * scale)


def test_karcher_ends_where_the_pulls_cancel():
    base, deltas = tensors((6, 7), 4, size=0.5)
    u = flat(merge("karcher", base, deltas, max_iter=200, tol=1e-9))
    u /= np.linalg.norm(u)
    pulls = np.zeros_like(u)
    for delta in deltas:
        unit = flat(base + delta) / np.linalg.norm(flat(base + delta))
        phi = math.acos(u @ unit)
        pulls += phi / math.sin(phi) * (unit - math.cos(phi) * u)
    assert np.linalg.norm(pulls) < 1e-7


def test_karcher_keeps_the_mean_length_with_zero_tensors_counted():
    base, (first, second) = tensors((6, 7), 2)
    merged = merge("karcher", base, [first, second, -base])
    lengths = [(base + first).norm(), (base + second).norm(), 0]
    assert merged.norm().item() == pytest.approx(float(sum(lengths)) / 3)


def test_karcher_of_zero_tensors_is_zero():
    base, _ = tensors((6, 7), 0)
    assert not merge("karcher", base, [-base, -base]).any()


@pytest.mark.parametrize("size", [1e-6, 1.0])
def test_karcher_of_opposite_tensors_is_the_first_direction(size):
    base, _ = tensors((6, 7), 0, size=1.0)
    base = size * base
    merged = merge("karcher", base, [torch.zeros_like(base), -3 * base])
    torch.testing.assert_close(merged, 1.5 * base)


def test_karcher_of_close_experts_is_their_mean_in_float32_too():
    base, deltas = tensors((64, 64), 3, size=1e-3, dtype=torch.float32)
    found = merge("karcher", base, deltas).double() - base.double()
    exact = karcher([flat(base.double() + delta.double()) for delta in deltas])
    expected = torch.from_numpy(exact).view(64, 64) - base.double()
    assert (found - expected).norm() < 1e-4 * expected.norm()
    mean = sum(delta.double() for delta in deltas) / 3
    assert (found - mean).norm() < 0.01 * mean.norm()


# Model Stock


def model_stock(deltas, *, clamp):
    """Return the delta of flat vectors from all pairs: numpy, float64."""
    changed = [d for d in deltas if np.linalg.norm(d) > 0]
    k = len(changed)
    if k == 0:
        return np.zeros_like(deltas[0])
    if k == 1:
        return changed[0]
    pairs = [(a, b) for i, a in enumerate(changed) for b in changed[i + 1 :]]
    c = sum(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in pairs) / len(pairs)
    if clamp and c <= 0:
        return np.zeros_like(deltas[0])
    t = k * c / (1 + (k - 1) * c)
    return (min(1.0, t) if clamp else t) * sum(changed) / k


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(SHAPES),
    st.integers(1, 5),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.0, 0.5, 3.0]),
    SEEDS,
)
def test_model_stock_is_its_formula(shape, m, filter_wise, frozen, shared, seed):
    base, deltas = tensors(shape, m, seed=seed)
    common, _ = tensors(shape, 0, seed=seed + 1000)
    deltas = [delta + shared * common for delta in deltas]
    if frozen and len(shape) > 1:
        deltas[0][0] = 0
    rows = shape[0] if filter_wise and len(shape) > 1 else 1
    found = merge("model_stock", base, deltas, filter_wise=filter_wise) - base
    arrays = [delta.reshape(rows, -1).numpy() for delta in deltas]
    expected = [model_stock([a[row] for a in arrays], clamp=True) for row in range(rows)]
    np.testing.assert_allclose(found.reshape(rows, -1).numpy(), expected, rtol=1e-8, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([(40,), (6, 9)]), st.integers(2, 4), SEEDS)
def test_model_stock_without_clamping_takes_negative_ratios(shape, m, seed):
    base, deltas = tensors(shape, m, seed=seed)
    found = merge("model_stock", base, deltas, clamp=False) - base
    expected = model_stock([flat(delta) for delta in deltas], clamp=False)
    np.testing.assert_allclose(flat(found), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("filter_wise", [True, False])
def test_opposite_experts_leave_the_base_or_are_refused_at_the_pole(filter_wise):
    base, (delta,) = tensors((5, 8), 1, dtype=torch.float32)
    merged = merge("model_stock", base, [delta, -delta], filter_wise=filter_wise)
    assert torch.equal(merged, base)
    with pytest.raises(NumericsError, match="pole") as caught:
        merge("model_stock", base, [delta, -delta], filter_wise=filter_wise, clamp=False)
    assert caught.value.context["tensor"] == "layers.0.weight"


def test_three_experts_that_cancel_are_at_a_pole_too():
    a = torch.tensor([1.0, 0.0], dtype=torch.float64)
    b = torch.tensor([-0.5, math.sqrt(0.75)], dtype=torch.float64)
    deltas = [a, b, -a - b]
    assert not merge("model_stock", torch.zeros(2, dtype=torch.float64), deltas).any()
    with pytest.raises(NumericsError, match=r"cosine -0\.5 of 3"):
        merge("model_stock", torch.zeros(2, dtype=torch.float64), deltas, clamp=False)


def test_right_angles_leave_the_base():
    base = torch.ones(2)
    deltas = [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])]
    assert torch.equal(merge("model_stock", base, deltas), base)


@pytest.mark.parametrize("size", [1e-12, 1e-5, 1e3])
def test_the_size_of_the_updates_does_not_change_the_ratio(size):
    base, deltas = tensors((5, 8), 3)
    zero = torch.zeros_like(base)
    deltas = [delta + 1 for delta in deltas]
    small = merge("model_stock", zero, [size * delta for delta in deltas])
    torch.testing.assert_close(small / size, merge("model_stock", zero, deltas))
