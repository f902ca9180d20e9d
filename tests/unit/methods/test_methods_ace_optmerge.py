"""ACE-Merging against general inverses, and OptMerge against the SGD it stands for."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fda_core.contract.recipe import MethodSpec
from fda_core.errors import NumericsError
from fda_core.methods import spectral
from fda_core.methods.base import TensorInputs
from fda_core.methods.registry import resolve

SHAPES = [(1, 1), (1, 6), (6, 1), (5, 5), (4, 9), (9, 4), (12, 30)]
SEEDS = st.integers(0, 30)
DTYPES = {torch.float32: 2e-4, torch.float64: 1e-9}


def task_vectors(shape, sizes, *, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [
        (size * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)
        for size in sizes
    ]


def merged_delta(name, deltas, **parameters):
    inputs = TensorInputs(
        name="layers.0.weight",
        layer=0,
        base=torch.zeros_like(deltas[0]),
        deltas=[delta.clone() for delta in deltas],
        weights=[1.0] * len(deltas),
        experts="abcdefgh"[: len(deltas)],
        seed=0,
    )
    return resolve(MethodSpec(name=name, parameters=parameters)).merge_tensor(inputs)


def relative(found, expected):
    return np.linalg.norm(found.double().numpy() - expected) / (np.linalg.norm(expected) or 1)


# ACE-Merging


def oracle_ace(deltas, *, ridge=1e-2, heterogeneity=0.3, fraction=0.3):
    """Return the delta with the matrices and the inverse written out."""
    i = deltas[0].shape[1]
    traces = np.array([np.trace(d.T @ d) for d in deltas])
    gamma = np.log(traces).var(ddof=1) / np.log(traces).mean() ** 2 if len(deltas) > 1 else 0.0
    scaled = gamma > heterogeneity
    a, b, plain, ridged = np.zeros((i, i)), np.zeros_like(deltas[0]), [], []
    for delta in deltas:
        centred = delta - delta.mean(axis=0, keepdims=True)
        covariance, eps = centred.T @ centred, ridge
        if scaled:
            trace = np.trace(covariance)
            covariance, eps = covariance / trace, eps / trace
        plain.append(covariance)
        ridged.append(covariance + eps * np.eye(i))
        b += centred @ ridged[-1]
    prior = np.tile(sum(plain).mean(axis=0, keepdims=True), (i, 1))
    a = sum(ridged) + (prior / traces.mean() if scaled else prior)
    merged = b @ np.linalg.inv(a)
    if not scaled:
        return merged
    mean = sum(ridged) / len(deltas)
    mixed = sum(d @ (s - mean) for d, s in zip(deltas, plain, strict=True)) + merged
    u, s, vt = np.linalg.svd(mixed, full_matrices=False)
    k = min(int(fraction * len(s)), int((s > 1e-6 * s[0]).sum()))
    return merged + s[:k].mean() * u[:, :k] @ vt[:k] if k else merged


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([shape for shape in SHAPES if shape[0] > 1]),
    st.sampled_from(
        [(1.0,), (0.1, 0.1, 0.1), (1.5, 0.5, 2.0), (1e-3, 2.0), (0.05, 1.0, 30.0, 2.0)]
    ),
    st.sampled_from([0.0, 0.3, 1e9]),
    SEEDS,
)
def test_ace_is_its_formula(dtype, shape, sizes, heterogeneity, seed):
    deltas = task_vectors(shape, sizes, seed=seed, dtype=dtype)
    found = merged_delta("ace", deltas, heterogeneity=heterogeneity)
    arrays = [delta.double().numpy() for delta in deltas]
    expected = oracle_ace(arrays, heterogeneity=heterogeneity)
    assert found.dtype == dtype
    assert relative(found, expected) < DTYPES[dtype]


@pytest.mark.parametrize("shape", [(12, 30), (30, 12)])
@pytest.mark.parametrize("sizes", [(0.1, 0.1), (0.01, 1.0, 30.0)])
def test_ace_does_not_show_its_blocks(shape, sizes, monkeypatch):
    deltas = task_vectors(shape, sizes, dtype=torch.float32)
    whole = merged_delta("ace", deltas)
    monkeypatch.setattr(spectral, "BLOCK", 64)
    torch.testing.assert_close(merged_delta("ace", deltas), whole, rtol=1e-4, atol=1e-5)


def test_ace_has_no_use_for_a_mean_row():
    (delta,) = task_vectors((6, 4), [0.1])
    shifted = delta + torch.tensor([1.0, -2.0, 0.5, 0.0])
    torch.testing.assert_close(merged_delta("ace", [shifted]), merged_delta("ace", [delta]))
    assert merged_delta("ace", [delta]).mean(0).abs().max() < 1e-12


def test_a_large_ridge_makes_ace_the_mean_of_the_centred_updates():
    deltas = task_vectors((6, 4), [0.1, 0.1, 0.1])
    expected = sum(delta - delta.mean(0) for delta in deltas) / 3
    found = merged_delta("ace", deltas, ridge=1e9)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("heterogeneity", [0.0, 1e9])
def test_rows_that_are_all_the_same_leave_the_base(heterogeneity):
    rows = [torch.full((1, 4), v).expand(3, 4).contiguous() for v in (0.1, 3.0)]
    merged = merged_delta("ace", rows, heterogeneity=heterogeneity)
    assert merged.abs().max() < 1e-6
    single = [row[:1] for row in rows]
    assert not merged_delta("ace", single, heterogeneity=heterogeneity).any()


def test_an_expert_of_equal_rows_is_left_out_where_covariances_are_scaled():
    (delta,) = task_vectors((8, 4), [0.1])
    flat = torch.full((8, 4), 7.0, dtype=torch.float64)
    merged = merged_delta("ace", [delta, flat], heterogeneity=0.0)
    assert merged.isfinite().all()
    assert merged.norm() < 10 * delta.norm()


def test_low_rank_updates_are_refined_along_their_own_directions_only():
    generator = torch.Generator().manual_seed(0)
    deltas = [
        size
        * torch.randn(20, 1, generator=generator, dtype=torch.float64)
        @ torch.randn(1, 16, generator=generator, dtype=torch.float64)
        for size in (0.05, 2.0)
    ]
    found = merged_delta("ace", deltas, heterogeneity=0.0)
    assert relative(found, oracle_ace([d.numpy() for d in deltas], heterogeneity=0.0)) < 1e-6
    assert torch.linalg.matrix_rank(found, rtol=1e-6) <= 5


# OptMerge


def truncated(delta, rank):
    u, s, vt = torch.linalg.svd(delta, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vt[:rank], s[:rank, None] * vt[:rank]


def oracle_optmerge(deltas, *, lr=1e-4, momentum=0.9, steps=300):
    """Take the steps on the objective itself, by torch's own SGD."""
    rank = min(deltas[0].shape) // len(deltas)
    merged = (sum(deltas) / len(deltas)).clone().requires_grad_()
    parts = [(*truncated(delta, rank), delta.square().sum()) for delta in deltas]
    optimiser = torch.optim.SGD([merged], lr=lr, momentum=momentum)
    for _ in range(steps):
        optimiser.zero_grad()
        terms = [((merged - t) @ p.T).square().sum() / size for t, p, size in parts]
        torch.stack(terms).sum().backward()
        optimiser.step()
    return merged.detach()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("m", [1, 2, 3, 7])
def test_optmerge_is_its_steps_of_sgd(dtype, shape, m):
    deltas = task_vectors(shape, [0.1, 0.3, 0.05, 0.1, 0.2, 0.1, 1.0][:m], dtype=dtype)
    found = merged_delta("optmerge", deltas)
    expected = oracle_optmerge([delta.double() for delta in deltas])
    assert relative(found, expected.numpy()) < DTYPES[dtype] / 100


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([(5, 5), (4, 9), (9, 4)]),
    st.floats(1e-5, 0.3),
    st.floats(0, 0.95),
    st.integers(1, 60),
    SEEDS,
)
def test_optmerge_is_sgd_at_other_settings_too(shape, lr, momentum, steps, seed):
    deltas = task_vectors(shape, [0.1, 0.3], seed=seed)
    settings_ = {"lr": lr, "momentum": momentum, "steps": steps}
    found = merged_delta("optmerge", deltas, **settings_)
    expected = oracle_optmerge(deltas, **settings_)
    assert relative(found, expected.numpy()) < 1e-9


def test_many_steps_end_at_the_minimum():
    deltas = task_vectors((6, 8), [0.1, 0.2])
    merged = merged_delta("optmerge", deltas, lr=0.3, steps=20_000)
    for delta in deltas:
        t, p = truncated(delta, 3)
        assert ((merged - t) @ p.T).norm() < 1e-6 * delta.norm() ** 2


def test_more_experts_than_directions_leave_the_mean():
    deltas = task_vectors((2, 5), [0.1, 0.2, 0.3])
    torch.testing.assert_close(merged_delta("optmerge", deltas), sum(deltas) / 3)


def test_a_learning_rate_that_diverges_is_refused_with_one_that_does_not():
    deltas = task_vectors((6, 8), [0.1, 0.2])
    with pytest.raises(NumericsError, match=r"lr 50 diverges") as caught:
        merged_delta("optmerge", deltas, lr=50.0)
    limit = float(caught.value.hint.split("below ")[1].rstrip("."))
    stable = merged_delta("optmerge", deltas, lr=0.99 * limit, steps=2_000)
    assert stable.norm() < 10 * sum(delta.norm() for delta in deltas)
