"""WUDI by Adam and in closed form, against the literal objective and the matrix exponential."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fda_core.contract.recipe import MethodSpec
from fda_core.errors import BadParameter
from fda_core.methods import spectral
from fda_core.methods.base import TensorInputs
from fda_core.methods.registry import resolve
from fda_core.methods.wudi import closed_form, flow, gavish_donoho_rank, participation_rank

SHAPES = [(1, 1), (1, 6), (6, 1), (5, 5), (4, 9), (9, 4), (3, 20)]
"""(4, 9), (3, 20) and (1, 6) with few experts have fewer rows in all than columns."""
SEEDS = st.integers(0, 30)
"""Few, so that all have been tried: random matrices may come close to singular."""


def task_vectors(shape, count, *, seed=0, rank=None, size=0.1, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    o, i = shape
    inner = min(shape) if rank is None else rank
    return [
        size
        * torch.randn(o, inner, generator=generator, dtype=dtype)
        @ torch.randn(inner, i, generator=generator, dtype=dtype)
        for _ in range(count)
    ]


def merged_delta(name, deltas, **parameters):
    inputs = TensorInputs(
        name="layers.0.weight",
        layer=0,
        base=torch.zeros_like(deltas[0]),
        deltas=[delta.clone() for delta in deltas],
        weights=[1.0] * len(deltas),
        experts=[f"e{e}" for e in range(len(deltas))],
        seed=0,
    )
    return resolve(MethodSpec(name=name, parameters=parameters)).merge_tensor(inputs)


def objective(merged, deltas):
    return sum(((merged - d) @ d.T).square().sum() / d.square().sum() for d in deltas)


def c_and_d(deltas):
    squares = [d.square().sum() for d in deltas]
    c = sum(d.T @ d / n for d, n in zip(deltas, squares, strict=True))
    d = sum(d @ d.T @ d / n for d, n in zip(deltas, squares, strict=True))
    return c, d


def starting(deltas, init):
    return {"sum": 1.0, "mean": 1 / len(deltas), "zero": 0.0}[init] * sum(deltas)


def oracle_adam(deltas, *, lr, steps, init):
    merged = starting(deltas, init).clone().requires_grad_()
    optimiser = torch.optim.Adam([merged], lr=lr)
    for _ in range(steps):
        optimiser.zero_grad()
        objective(merged, deltas).backward()
        optimiser.step()
    return merged.detach()


def oracle_flow(deltas, *, time, init):
    """Solve dM/dt = D − M C by one matrix exponential; its corner is ∫ exp(−C s) ds."""
    c, d = c_and_d(deltas)
    i = c.shape[0]
    generator = torch.zeros(2 * i, 2 * i, dtype=torch.float64)
    generator[:i, :i], generator[:i, i:] = -c * time, torch.eye(i, dtype=torch.float64) * time
    exponential = torch.linalg.matrix_exp(generator)
    return starting(deltas, init) @ exponential[:i, :i] + d @ exponential[:i, i:]


def oracle_top(deltas, *, count, time, init):
    """Filter on the top eigenvalues, eigenvector by eigenvector; no time is for ever."""
    c, d = c_and_d(deltas)
    values, vectors = torch.linalg.eigh(c)
    start = starting(deltas, init)
    merged = start.clone()
    for value, vector in zip(values.flip(0)[:count], vectors.flip(1).T[:count], strict=True):
        passed = 1.0 if time is None else -math.expm1(-value.item() * time)
        merged -= passed * torch.outer(start @ vector, vector)
        merged += passed / max(value.item(), 1e-8) * torch.outer(d @ vector, vector)
    return merged


CASES = given(
    st.sampled_from(SHAPES),
    st.integers(1, 4),
    st.sampled_from(["sum", "mean", "zero"]),
    SEEDS,
)


@settings(max_examples=60, deadline=None)
@CASES
def test_adam_takes_the_steps_of_torchs_adam_on_the_literal_objective(shape, m, init, seed):
    assume(not (shape[1] == 1 and init == "mean"))  # begins at the minimum, see below
    deltas = task_vectors(shape, m, seed=seed)
    found = merged_delta("wudi", deltas, lr=1e-3, steps=12, init=init)
    expected = oracle_adam(deltas, lr=1e-3, steps=12, init=init)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adam_that_begins_at_the_minimum_stays_within_a_few_steps_of_it(dtype):
    """Adam turns rounding into whole steps there, but comes back."""
    (delta,) = task_vectors((6, 5), 1, dtype=dtype)
    found = merged_delta("wudi", [delta, delta], init="mean")
    torch.testing.assert_close(found, delta, rtol=0, atol=1e-4)
    assert torch.equal(merged_delta("wudi", [delta]), delta)


@settings(max_examples=40, deadline=None)
@CASES
def test_the_flow_solves_its_differential_equation(shape, m, init, seed):
    """But for eigenvalues below 1e-8, which are not divided by."""
    deltas = task_vectors(shape, m, seed=seed)
    found = merged_delta("wudi", deltas, solver="flow", time=7.0, init=init)
    torch.testing.assert_close(found, oracle_flow(deltas, time=7.0, init=init), rtol=0, atol=1e-6)


@settings(max_examples=40, deadline=None)
@CASES
def test_the_closed_form_has_no_gradient_left_and_keeps_the_starts_free_part(shape, m, init, seed):
    deltas = task_vectors(shape, m, seed=seed, rank=1)
    found = merged_delta("wudi", deltas, solver="closed", init=init)
    c, d = c_and_d(deltas)
    torch.testing.assert_close(found @ c, d, rtol=0, atol=1e-8)
    inverse = torch.linalg.pinv(c, rtol=1e-10, hermitian=True)
    start = starting(deltas, init)
    torch.testing.assert_close(found, d @ inverse + start - start @ c @ inverse, rtol=0, atol=1e-6)


@pytest.mark.parametrize("solver", ["iwudi", "wudi"])
def test_iwudi_is_wudi_by_flow(solver):
    deltas = task_vectors((5, 7), 3)
    parameters = {"solver": "flow"} if solver == "wudi" else {}
    found = merged_delta(solver, deltas, time=20.0, **parameters)
    torch.testing.assert_close(found, oracle_flow(deltas, time=20.0, init="sum"))


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(SHAPES),
    st.integers(1, 4),
    st.sampled_from(["sum", "mean", "zero"]),
    st.sampled_from([0.1, 0.5, 0.65, 1.0]),
    SEEDS,
)
def test_swudi_flows_on_the_leading_directions_only(shape, m, init, ratio, seed):
    deltas = task_vectors(shape, m, seed=seed)
    found = merged_delta("swudi", deltas, time=9.0, top_ratio=ratio, init=init)
    count = math.ceil(ratio * shape[1])
    expected = oracle_top(deltas, count=count, time=9.0, init=init)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("m", [1, 2, 3])
@pytest.mark.parametrize("rule", ["participation", "gavish_donoho"])
def test_aswudi_minimises_on_as_many_directions_as_its_rule_counts(shape, m, rule):
    deltas = task_vectors(shape, m)
    c, _ = c_and_d(deltas)
    values = torch.linalg.eigvalsh(c).clamp(min=0)
    values[: max(0, shape[1] - m * min(shape))] = 0
    count = {
        "participation": participation_rank(values),
        "gavish_donoho": gavish_donoho_rank(values, shape),
    }[rule]
    found = merged_delta("aswudi", deltas, rank_rule=rule)
    expected = oracle_top(deltas, count=count, time=None, init="sum")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_the_closed_forms_filter_tells_directions_from_rounding():
    values = torch.tensor([0.0, 1e-11, 1e-9, 0.5, 2.0], dtype=torch.float64)
    assert closed_form()(values).tolist() == [0, 0, 1, 1, 1]


def test_the_flows_filter_is_exact_for_small_eigenvalues_and_ends_at_its_ratio():
    values = torch.tensor([1e-18, 1e-3, 0.1, 1.0], dtype=torch.float64)
    passed = flow(10.0)(values)
    assert passed[0].item() == pytest.approx(1e-17, rel=1e-12)
    assert passed[2].item() == pytest.approx(1 - math.exp(-1))
    assert flow(10.0, top_ratio=0.3)(values).tolist() == [0, 0, *passed[2:].tolist()]


def test_participation_counts_equal_eigenvalues():
    assert participation_rank(torch.tensor([0.0, 0.0, 0.3, 0.3, 0.3], dtype=torch.float64)) == 3
    assert participation_rank(torch.ones(7, dtype=torch.float64) / 7) == 7
    assert participation_rank(torch.tensor([1e-6, 1.0], dtype=torch.float64)) == 2


def test_gavish_and_donohos_threshold_of_square_matrices():
    """b = 1: ω = √(4 + 8/(2 + 4)) = 4/√3, μ = √(2 + √3)."""
    factor = 4 / math.sqrt(3) / math.sqrt(2 + math.sqrt(3))
    roots = torch.tensor([1.0, 1.0, 1.0, 0.99 * factor, 1.01 * factor], dtype=torch.float64)
    for size in (1.0, 1e-3):
        assert gavish_donoho_rank((size * roots) ** 2, (5, 5)) == 1
    roots[3] = 1.01 * factor
    assert gavish_donoho_rank(roots**2, (5, 5)) == 2


def test_gavish_and_donohos_rule_uses_at_least_one_direction():
    assert gavish_donoho_rank(torch.ones(6, dtype=torch.float64), (6, 6)) == 1


def test_gavish_and_donohos_threshold_depends_on_the_aspect():
    """b = 1/4: ω = √(2.5 + 2/(1.25 + √4.5625)), μ = √(0.5625 + 0.25)."""
    factor = math.sqrt(2.5 + 2 / (1.25 + math.sqrt(4.5625))) / math.sqrt(0.8125)
    roots = torch.tensor([1.0, 1.0, 1.0, 0.99 * factor, 1.01 * factor], dtype=torch.float64)
    assert gavish_donoho_rank(roots**2, (8, 2)) == 1
    assert gavish_donoho_rank(roots**2, (2, 8)) == 1
    roots[3] = 1.01 * factor
    assert gavish_donoho_rank(roots**2, (2, 8)) == 2


def test_independent_row_spaces_merge_without_interference():
    deltas = task_vectors((3, 20), 4)
    merged = merged_delta("wudi", deltas, solver="closed")
    assert objective(merged, deltas) < 1e-16
    assert objective(sum(deltas), deltas) > 1e-3


def test_both_spaces_give_the_same_flow():
    """Three experts of (3, 9) are solved by columns, padded to (3, 10) by rows."""
    deltas = task_vectors((3, 9), 3)
    padded = [torch.nn.functional.pad(delta, (0, 1)) for delta in deltas]
    for parameters in ({"solver": "flow", "time": 5.0}, {"solver": "closed"}):
        narrow = merged_delta("wudi", deltas, **parameters)
        wide = merged_delta("wudi", padded, **parameters)
        torch.testing.assert_close(wide[:, :9], narrow, rtol=0, atol=1e-9)
        assert wide[:, 9].abs().max() < 1e-12


@pytest.mark.parametrize("shape", [(5, 5), (9, 4), (3, 20)])
@pytest.mark.parametrize(
    ("name", "parameters"),
    [("wudi", {"lr": 1e-4, "steps": 30}), ("iwudi", {}), ("swudi", {}), ("aswudi", {})],
)
def test_float32_agrees_with_float64(shape, name, parameters):
    deltas = task_vectors(shape, 3, dtype=torch.float32)
    wide = merged_delta(name, [delta.double() for delta in deltas], **parameters)
    narrow = merged_delta(name, deltas, **parameters)
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow.double(), wide, rtol=0, atol=2e-5)


@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (3, 20)])
@pytest.mark.parametrize("name", ["iwudi", "swudi", "aswudi"])
def test_blocks_do_not_show(name, shape, monkeypatch):
    deltas = task_vectors(shape, 3)
    whole = merged_delta(name, deltas)
    monkeypatch.setattr(spectral, "BLOCK", 30)
    torch.testing.assert_close(merged_delta(name, deltas), whole, rtol=0, atol=1e-10)


@pytest.mark.parametrize("m", [1, 2, 3, 4, 6])
def test_adam_is_right_however_many_deltas_lend_it_their_memory(m):
    deltas = task_vectors((4, 5), m)
    found = merged_delta("wudi", deltas, lr=1e-3, steps=5)
    torch.testing.assert_close(found, oracle_adam(deltas, lr=1e-3, steps=5, init="sum"))


def test_adams_result_depends_on_the_size_of_the_updates():
    deltas = task_vectors((5, 6), 3)
    found = merged_delta("wudi", [3 * delta for delta in deltas], lr=1e-3)
    assert (found - 3 * merged_delta("wudi", deltas, lr=1e-3)).norm() > 1e-2


def test_adam_moves_an_entry_by_at_most_about_lr_a_step():
    deltas = task_vectors((5, 6), 3)
    moved = merged_delta("wudi", deltas) - sum(deltas)
    assert 1e-3 < moved.abs().max() < 300 * 1.1e-5


@pytest.mark.parametrize("name", ["wudi", "iwudi", "swudi", "aswudi"])
@pytest.mark.parametrize("size", [1e-25, 1e-22])
def test_immeasurably_small_updates_count_as_zero(name, size):
    """Squared, they vanish in float32; dividing by that would give NaN."""
    deltas = task_vectors((4, 5), 2, size=size, dtype=torch.float32)
    large = task_vectors((4, 5), 1, dtype=torch.float32)
    assert not merged_delta(name, deltas).any()
    assert torch.equal(merged_delta(name, [*large, *deltas]), merged_delta(name, large))


@pytest.mark.parametrize("name", ["wudi", "iwudi", "swudi", "aswudi"])
def test_small_updates_still_merge_to_finite_numbers(name):
    deltas = task_vectors((4, 5), 2, size=1e-17, dtype=torch.float32)
    assert merged_delta(name, deltas).isfinite().all()


@pytest.mark.parametrize("solver", ["adam", "closed"])
def test_a_top_ratio_is_refused_where_it_would_be_ignored(solver):
    with pytest.raises(BadParameter, match="top_ratio is for solver flow"):
        resolve(MethodSpec(name="wudi", parameters={"solver": solver, "top_ratio": 0.5}))
