"""TSV-Merge, Iso-C and Iso-CTS, and the factorisations under them, against plain SVDs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fda_core.contract.recipe import MethodSpec
from fda_core.errors import NumericsError
from fda_core.methods import spectral
from fda_core.methods.base import TensorInputs
from fda_core.methods.iso import IsoCts
from fda_core.methods.registry import resolve
from fda_core.methods.spectral import gram, multiply_, polar_, singular_triplets

SHAPES = [(1, 1), (1, 5), (5, 1), (4, 4), (6, 9), (9, 6), (12, 30), (31, 7)]
DTYPES = {torch.float32: 2e-5, torch.float64: 1e-10}
TOLERANCE = 1e-6
SEEDS = st.integers(0, 30)
"""Few, so that all have been tried: random matrices may come close to singular."""


def matrices(shape, count, *, seed=0, rank=None, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    o, i = shape
    full = []
    for _ in range(count):
        if rank is None:
            full.append(torch.randn(o, i, generator=generator, dtype=dtype))
        else:
            left = torch.randn(o, rank, generator=generator, dtype=dtype)
            full.append(left @ torch.randn(rank, i, generator=generator, dtype=dtype))
    return full


def merged_delta(name, deltas, **parameters):
    base = torch.zeros_like(deltas[0])
    inputs = TensorInputs(
        name="layers.3.attention.weight",
        layer=3,
        base=base,
        deltas=[delta.clone() for delta in deltas],
        weights=[1.0] * len(deltas),
        experts=[f"e{e}" for e in range(len(deltas))],
        seed=0,
    )
    return resolve(MethodSpec(name=name, parameters=parameters)).merge_tensor(inputs)


def oracle_polar(x: np.ndarray) -> np.ndarray:
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    keep = s > TOLERANCE * s[0]
    return u[:, keep] @ vt[keep]


def oracle_tsvm(deltas: list[np.ndarray]) -> np.ndarray:
    k = max(1, int(min(deltas[0].shape) / len(deltas)))
    us, ss, vs = [], [], []
    for delta in deltas:
        u, s, vt = np.linalg.svd(delta, full_matrices=False)
        keep = min(k, int((s > TOLERANCE * s[0]).sum()))
        us, ss, vs = [*us, u[:, :keep]], [*ss, s[:keep]], [*vs, vt[:keep].T]
    left, right = oracle_polar(np.hstack(us)), oracle_polar(np.hstack(vs))
    return left @ np.diag(np.concatenate(ss)) @ right.T


def oracle_iso(deltas: list[np.ndarray]) -> np.ndarray:
    u, s, vt = np.linalg.svd(sum(deltas), full_matrices=False)
    keep = s > TOLERANCE * s[0]
    return s[keep].mean() * u[:, keep] @ vt[keep]


def oracle_iso_cts(deltas: list[np.ndarray]) -> np.ndarray:
    r, m = min(deltas[0].shape), len(deltas)
    own = min(round((r - int(r * 0.8)) / m), r // m)
    u, s, vt = np.linalg.svd(sum(deltas), full_matrices=False)
    common = min(r - own * m, int((s > TOLERANCE * s[0]).sum()))
    us, ss, vs = [], [], []
    for delta in deltas:
        rest = delta - u[:, :common] @ u[:, :common].T @ delta
        ur, sr, vrt = np.linalg.svd(rest, full_matrices=False)
        keep = min(own, int((sr > TOLERANCE * max(sr[0], np.linalg.norm(delta))).sum()))
        us, ss, vs = [*us, ur[:, :keep]], [*ss, sr[:keep]], [*vs, vrt[:keep].T]
    us, ss, vs = [*us, u[:, :common]], [*ss, s[:common]], [*vs, vt[:common].T]
    left, right = oracle_polar(np.hstack(us)), oracle_polar(np.hstack(vs))
    return np.concatenate(ss).mean() * left @ right.T


ORACLES = {"tsvm": oracle_tsvm, "iso_c": oracle_iso, "iso_cts": oracle_iso_cts}


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=25, deadline=None)
@given(st.sampled_from(SHAPES), st.integers(1, 5), SEEDS)
def test_the_method_is_its_formula(name, dtype, shape, m, seed):
    deltas = matrices(shape, m, seed=seed, dtype=dtype)
    expected = ORACLES[name]([delta.double().numpy() for delta in deltas])
    found = merged_delta(name, deltas)
    assert found.dtype == dtype
    error = np.linalg.norm(found.double().numpy() - expected) / np.linalg.norm(expected)
    # Random stacks may come close to singular, which no route computes better than this.
    assert error < 100 * DTYPES[dtype]


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(12, 30), (30, 12), (16, 16)])
def test_low_rank_experts_merge_by_their_rank_alone(name, dtype, shape):
    deltas = matrices(shape, 3, rank=2, dtype=dtype)
    expected = ORACLES[name]([delta.double().numpy() for delta in deltas])
    found = merged_delta(name, deltas).double()
    assert torch.linalg.matrix_rank(found, rtol=1e-4) == 6
    np.testing.assert_allclose(
        found.numpy(), expected, rtol=0, atol=DTYPES[dtype] * np.abs(expected).max() * 10
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_tsvm_of_copies_is_the_truncated_expert(dtype):
    (delta,) = matrices((9, 12), 1, dtype=dtype)
    u, s, vt = torch.linalg.svd(delta.double(), full_matrices=False)
    expected = (u[:, :3] * s[:3]) @ vt[:3]
    found = merged_delta("tsvm", [delta] * 3).double()
    torch.testing.assert_close(found, expected, rtol=0, atol=20 * DTYPES[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_tsvm_of_one_expert_is_that_expert(dtype, shape):
    (delta,) = matrices(shape, 1, dtype=dtype)
    found = merged_delta("tsvm", [delta])
    torch.testing.assert_close(found, delta, rtol=0, atol=20 * DTYPES[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_tsvm_takes_more_experts_than_the_matrix_has_directions(dtype):
    deltas = matrices((3, 4), 5, dtype=dtype)
    expected = oracle_tsvm([delta.double().numpy() for delta in deltas])
    found = merged_delta("tsvm", deltas).double().numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=50 * DTYPES[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_iso_c_gives_all_directions_the_mean_strength(dtype):
    deltas = matrices((10, 14), 3, dtype=dtype)
    strengths = torch.linalg.svdvals(sum(deltas).double())
    found = torch.linalg.svdvals(merged_delta("iso_c", deltas).double())
    torch.testing.assert_close(found, strengths.mean().expand(10), rtol=20 * DTYPES[dtype], atol=0)


def test_iso_c_of_one_expert_is_not_that_expert():
    (delta,) = matrices((6, 8), 1)
    assert (merged_delta("iso_c", [delta]) - delta).norm() > 0.1 * delta.norm()


def test_iso_c_of_experts_that_cancel_is_the_base():
    (delta,) = matrices((6, 8), 1, dtype=torch.float32)
    assert not merged_delta("iso_c", [delta, -delta]).any()


def test_without_tolerance_iso_c_takes_the_mean_over_zero_directions_too():
    deltas = matrices((8, 8), 1, rank=2)
    published = merged_delta("iso_c", deltas, rank_tolerance=0.0)
    ours = merged_delta("iso_c", deltas)
    assert torch.linalg.matrix_norm(published, 2) == pytest.approx(
        torch.linalg.matrix_norm(ours, 2).item() / 4
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tolerance", [0.0, 1e-6, 1e-2])
def test_triplets_are_those_of_the_svd(shape, dtype, tolerance):
    (matrix,) = matrices(shape, 1, dtype=dtype)
    count = max(1, min(shape) - 1)
    left, values, right = singular_triplets(matrix, count, tolerance=tolerance, name="w")
    expected = torch.linalg.svdvals(matrix.double())[:count]
    torch.testing.assert_close(values.double(), expected, rtol=0, atol=20 * DTYPES[dtype])
    for basis in (left, right):
        identity = torch.eye(count, dtype=dtype)
        torch.testing.assert_close(basis.T @ basis, identity, rtol=0, atol=20 * DTYPES[dtype])
    torch.testing.assert_close(matrix @ right, left * values, rtol=0, atol=50 * DTYPES[dtype])
    assert {left.dtype, values.dtype, right.dtype} == {dtype}


@pytest.mark.parametrize("dtype", DTYPES)
def test_triplets_below_the_tolerance_are_left_out_and_zero_tolerance_keeps_them(dtype):
    (matrix,) = matrices((9, 7), 1, rank=3, dtype=dtype)
    assert len(singular_triplets(matrix, 5, tolerance=1e-6, name="w").values) == 3
    assert len(singular_triplets(matrix, 5, tolerance=0.0, name="w").values) == 5


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_polar_has_orthonormal_rows_or_columns_and_is_the_nearest(shape, dtype):
    (matrix,) = matrices(shape, 1, dtype=dtype)
    u, s, vt = torch.linalg.svd(matrix.double(), full_matrices=False)
    factor, values = polar_(matrix, tolerance=TOLERANCE, name="w")
    assert factor is matrix
    torch.testing.assert_close(factor.double(), u @ vt, rtol=0, atol=50 * DTYPES[dtype])
    torch.testing.assert_close(values.double(), s, rtol=0, atol=50 * DTYPES[dtype])


def test_the_gram_route_is_more_exact_than_a_float32_svd_on_a_bad_stack():
    generator = torch.Generator().manual_seed(0)
    u, _ = torch.linalg.qr(torch.randn(60, 60, generator=generator, dtype=torch.float64))
    v, _ = torch.linalg.qr(torch.randn(60, 60, generator=generator, dtype=torch.float64))
    stack = ((u * torch.logspace(0, -4, 60, dtype=torch.float64)) @ v.T).float()
    a, _, b = torch.linalg.svd(stack.double())
    exact = a @ b
    by_gram = polar_(stack.clone(), tolerance=1e-6, name="w").factor
    by_svd = polar_(stack.clone(), tolerance=0.0, name="w").factor
    assert (by_gram - exact).norm() < 1e-6
    assert (by_gram - exact).norm() < (by_svd - exact).norm()


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_blocks_do_not_show(name, shape, monkeypatch):
    deltas = matrices(shape, 3, dtype=torch.float32)
    whole = merged_delta(name, deltas)
    monkeypatch.setattr(spectral, "BLOCK", 12)
    torch.testing.assert_close(merged_delta(name, deltas), whole, rtol=0, atol=1e-6)


def test_gram_and_product_are_float64_whatever_the_input():
    (matrix,) = matrices((4, 6), 1, dtype=torch.float32)
    wide = matrix.double()
    torch.testing.assert_close(gram(matrix), wide @ wide.T)
    left = torch.arange(16, dtype=torch.float64).view(4, 4)
    expected = (left @ wide).float()
    torch.testing.assert_close(multiply_(left, matrix), expected)
    assert matrix.dtype == torch.float32


def failing_first(real, calls):
    def factorise(matrix, *arguments, **keywords):
        calls.append(matrix.dtype)
        if len(calls) == 1:
            raise torch.linalg.LinAlgError("did not converge")
        return real(matrix, *arguments, **keywords)

    return factorise


def test_a_float32_svd_that_fails_is_done_in_float64(monkeypatch):
    deltas = matrices((5, 6), 2, dtype=torch.float32)
    expected = merged_delta("iso_c", deltas, rank_tolerance=0.0)
    calls: list[torch.dtype] = []
    monkeypatch.setattr(torch.linalg, "svd", failing_first(torch.linalg.svd, calls))
    found = merged_delta("iso_c", deltas, rank_tolerance=0.0)
    assert calls == [torch.float32, torch.float64]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("rank", [1, 5, 6, 48, 49, 384])
@pytest.mark.parametrize("experts", [1, 2, 3, 8, 30])
@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.8, 1.0])
def test_iso_cts_shares_out_all_directions(rank, experts, fraction):
    method = resolve(MethodSpec(name="iso_cts", parameters={"common_fraction": fraction}))
    assert isinstance(method, IsoCts)
    common, own = method.shares(rank, experts)
    assert common + own * experts == rank
    assert common >= 0
    published = round((rank - int(rank * fraction)) / experts)
    assert own == published or published * experts > rank


def test_iso_cts_of_many_experts_is_iso_c():
    deltas = matrices((6, 9), 5)
    torch.testing.assert_close(merged_delta("iso_cts", deltas), merged_delta("iso_c", deltas))


def test_iso_cts_with_everything_common_is_iso_c_and_with_nothing_has_no_need_of_the_sum():
    deltas = matrices((6, 9), 2)
    all_common = merged_delta("iso_cts", deltas, common_fraction=1.0)
    torch.testing.assert_close(all_common, merged_delta("iso_c", deltas))
    opposite = [deltas[0], -deltas[0]]
    merged = merged_delta("iso_cts", opposite, common_fraction=0.0)
    assert merged.isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fraction", [0.5, 0.8])
def test_iso_cts_of_experts_that_cancel_has_their_own_directions_only(dtype, fraction):
    (delta,) = matrices((8, 10), 1, dtype=dtype)
    merged = merged_delta("iso_cts", [delta, -delta], common_fraction=fraction)
    assert merged.isfinite().all()
    assert merged.norm() < 10 * delta.norm()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(30, 12), (12, 30)])
def test_iso_cts_takes_no_rounding_for_an_expert_s_own_direction(dtype, shape):
    (delta,) = matrices(shape, 1, rank=2, dtype=dtype)
    found = merged_delta("iso_cts", [delta, 2 * delta]).double()
    u, s, vt = torch.linalg.svd(3 * delta.double(), full_matrices=False)
    expected = s[:2].mean() * u[:, :2] @ vt[:2]
    torch.testing.assert_close(found, expected, rtol=0, atol=100 * DTYPES[dtype])


MATRIX = ["tsvm", "iso_c", "iso_cts", "ace", "wudi", "iwudi", "swudi", "aswudi", "optmerge"]


@pytest.mark.parametrize("name", MATRIX)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 2, 5, 40])
def test_nan_is_an_error_that_names_the_tensor(name, dtype, size):
    deltas = matrices((size, size), 2, dtype=dtype)
    deltas[1][0, 0] = torch.nan
    with pytest.raises(NumericsError, match=r"layers\.3\.attention\.weight") as caught:
        merged_delta(name, deltas)
    assert caught.value.context["tensor"] == "layers.3.attention.weight"


def test_a_float64_factorisation_that_fails_is_an_error_with_its_cause(monkeypatch):
    deltas = matrices((5, 6), 2, dtype=torch.float32)
    monkeypatch.setattr(torch.linalg, "eigh", failing_first(torch.linalg.eigh, []))
    with pytest.raises(NumericsError) as caught:
        merged_delta("iso_c", deltas)
    assert isinstance(caught.value.__cause__, torch.linalg.LinAlgError)
