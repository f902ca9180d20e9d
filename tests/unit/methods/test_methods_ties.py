"""TIES against the two references' rules, written out entry by entry."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fda_core.contract.recipe import MethodSpec
from fda_core.methods import elementwise
from fda_core.methods.base import TensorInputs
from fda_core.methods.registry import resolve

DENSITIES = st.sampled_from([0.01, 0.1, 0.2, 0.29, 0.5, 0.7, 0.99, 1.0])
SHAPES = st.sampled_from([(), (1,), (2,), (7,), (10,), (3, 5), (5, 4), (2, 3, 2)])
MERGES = st.sampled_from(["mean", "sum"])


def merge(base, deltas, *, weights=None, **parameters):
    inputs = TensorInputs(
        name="layers.0.weight",
        layer=0,
        base=base.clone(),
        deltas=[delta.clone() for delta in deltas],
        weights=weights or [1.0] * len(deltas),
        experts=[f"e{e}" for e in range(len(deltas))],
        seed=0,
    )
    return resolve(MethodSpec(name="ties", parameters=parameters)).merge_tensor(inputs)


def sign(value: float) -> int:
    return (value > 0) - (value < 0)


def paper_trim(values: list[float], density: float) -> list[float]:
    if density == 1:
        return values
    ascending = sorted(abs(v) for v in values)
    threshold = ascending[len(values) - int(len(values) * density) - 1]
    return [v if abs(v) >= threshold else 0.0 for v in values]


def mergekit_trim(values: list[float], density: float) -> list[float]:
    order = sorted(range(len(values)), key=lambda place: -abs(values[place]))
    kept = set(order[: max(1, int(density * len(values)))])
    return [v if place in kept else 0.0 for place, v in enumerate(values)]


def oracle(deltas, *, density, merge, rules, weights):
    trim = paper_trim if rules == "paper" else mergekit_trim
    rows = [
        [weight * v for v in trim(delta.flatten().tolist(), density)]
        for delta, weight in zip(deltas, weights, strict=True)
    ]
    columns = list(zip(*rows, strict=True))
    signs = [sign(sum(column)) for column in columns]
    fallback = sign(sum(signs)) if rules == "paper" else 1
    result = []
    for column, elected in zip(columns, signs, strict=True):
        wanted = elected or fallback
        agreeing = [(v, w) for v, w in zip(column, weights, strict=True) if v * wanted > 0]
        value = sum(v for v, _ in agreeing)
        if merge == "mean" and rules == "paper":
            value /= max(1, len(agreeing))
        elif merge == "mean":
            value /= sum(w for _, w in agreeing) or 1
        result.append(value)
    return torch.tensor(result, dtype=torch.float64).reshape(deltas[0].shape)


@settings(max_examples=80, deadline=None)
@given(
    SHAPES,
    st.integers(1, 4),
    DENSITIES,
    MERGES,
    st.sampled_from(["paper", "mergekit"]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 1000),
)
def test_ties_is_what_its_rules_say(shape, m, density, merging, rules, weighted, coarse, seed):
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator, dtype=torch.float64)
    deltas = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(m)]
    if coarse:
        deltas = [(2 * delta).round() / 2 for delta in deltas]
    weights = [1.0, 0.5, -0.25, 2.0][:m] if weighted else [1.0] * m
    parameters = {"density": density, "merge": merging, "rules": rules}
    found = merge(base, deltas, weights=weights, scale=0.7, **parameters)
    expected = base + 0.7 * oracle(deltas, weights=weights, **parameters)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rules", ["paper", "mergekit"])
@pytest.mark.parametrize("merging", ["mean", "sum"])
def test_blocks_do_not_show(rules, merging, monkeypatch):
    generator = torch.Generator().manual_seed(3)
    base = torch.randn(17, 9, generator=generator)
    deltas = [torch.randn(17, 9, generator=generator).round(decimals=1) for _ in range(3)]
    parameters = {"density": 0.4, "rules": rules, "merge": merging}
    whole = merge(base, deltas, **parameters)
    monkeypatch.setattr(elementwise, "BLOCK", 10)
    assert torch.equal(merge(base, deltas, **parameters), whole)


def test_a_zero_sum_takes_the_tensors_majority_under_paper_rules():
    first = torch.tensor([1.0, -2.0, -3.0, -4.0])
    second = torch.tensor([-1.0, 0.0, 0.0, 0.0])
    merged = merge(torch.zeros(4), [first, second], density=1.0)
    assert merged.tolist() == [-1, -2, -3, -4]


def test_a_zero_sum_counts_as_plus_under_mergekit_rules():
    first = torch.tensor([1.0, -2.0, -3.0, -4.0])
    second = torch.tensor([-1.0, 0.0, 0.0, 0.0])
    merged = merge(torch.zeros(4), [first, second], density=1.0, rules="mergekit")
    assert merged.tolist() == [1, -2, -3, -4]


def test_experts_that_cancel_everywhere_leave_the_base():
    base = torch.tensor([0.5, -0.0, 2.0])
    delta = torch.tensor([1.0, -2.0, 3.0])
    merged = merge(base, [delta, -delta], density=1.0)
    assert merged.tolist() == base.tolist()


def test_turning_all_signs_turns_the_result():
    generator = torch.Generator().manual_seed(5)
    deltas = [torch.randn(40, generator=generator).round() for _ in range(4)]
    zero = torch.zeros(40)
    there = merge(zero, deltas, density=0.6)
    back = merge(zero, [-delta for delta in deltas], density=0.6)
    assert torch.equal(there, -back)


def test_the_mean_divides_by_how_many_agree_not_by_how_many_experts_there_are():
    deltas = [torch.tensor([3.0]), torch.tensor([1.0]), torch.tensor([-2.0])]
    assert merge(torch.zeros(1), deltas, density=1.0).item() == 2
    assert merge(torch.zeros(1), deltas, density=1.0, merge="sum").item() == 4


@pytest.mark.parametrize("rules", ["paper", "mergekit"])
@pytest.mark.parametrize("shape", [(), (1,), (3,)])
def test_tensors_too_small_for_the_density_keep_their_largest_entry(shape, rules):
    delta = torch.arange(1.0, 4.0)[: max(1, torch.zeros(shape).numel())].reshape(shape)
    merged = merge(torch.zeros(shape), [delta], density=0.01, rules=rules)
    assert torch.count_nonzero(merged) == 1
    assert merged.max() == delta.max()


def test_equal_magnitudes_stay_together_under_paper_rules():
    delta = torch.tensor([1.0, -1.0, 1.0, 0.5, 0.5, -1.0, 0.0, 0.0, 0.0, 0.0])
    kept = merge(torch.zeros(10), [delta], density=0.2)
    assert kept.tolist() == [1, -1, 1, 0, 0, -1, 0, 0, 0, 0]
    exact = merge(torch.zeros(10), [delta], density=0.2, rules="mergekit")
    assert exact.tolist() == [1, -1, 0, 0, 0, 0, 0, 0, 0, 0]


def test_weights_come_after_trimming_and_before_the_vote():
    deltas = [torch.tensor([3.0, 1.0]), torch.tensor([-2.0, -0.3])]
    merged = merge(torch.zeros(2), deltas, weights=[1.0, 2.0], density=1.0)
    assert merged.tolist() == [-4, 1]
    trimmed = merge(torch.zeros(2), deltas, weights=[1.0, 2.0], density=0.2, merge="sum")
    assert trimmed.tolist() == [-4, 0]
