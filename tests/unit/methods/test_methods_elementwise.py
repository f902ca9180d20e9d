"""Exact selection by magnitude, sign election and sums, against sorting and plain loops."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fda_core.methods import elementwise
from fda_core.methods.elementwise import (
    disjoint_sum,
    is_zero,
    keep_largest_,
    majority_sign,
    nth_largest_magnitude,
    sum_into_first,
)

DTYPES = [torch.float32, torch.float64]
MAGNITUDES = st.sampled_from([0.0, -0.0, 1e-45, -3e-40, 1e-3, -1e-3, 1.0, -1.0, 1.0000001, 3e38])
VALUES = st.one_of(MAGNITUDES, st.floats(-1e3, 1e3, width=32))


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(elementwise, "BLOCK", 3)


def by_sorting(values: torch.Tensor, n: int) -> tuple[float, int, int]:
    magnitudes = sorted((abs(v) for v in values.tolist()), reverse=True)
    magnitude = magnitudes[n - 1]
    return magnitude, sum(v > magnitude for v in magnitudes), magnitudes.count(magnitude)


@settings(max_examples=60, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=12), st.data(), st.sampled_from(DTYPES))
def test_the_nth_largest_magnitude_is_the_one_sorting_finds(values, data, dtype):
    flat = torch.tensor(values, dtype=dtype)
    n = data.draw(st.integers(1, len(values)))
    assert tuple(nth_largest_magnitude(flat, n)) == by_sorting(flat, n)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 5_000, 199_999, 200_000, 300_000])
def test_selection_is_exact_across_blocks_and_for_neighbouring_floats(dtype, n):
    generator = torch.Generator().manual_seed(n)
    flat = torch.randn(300_000, generator=generator, dtype=dtype)
    flat[:100_000] = 1 + torch.arange(100_000) * torch.finfo(dtype).eps
    flat[-1] = -flat[5_000]
    found = nth_largest_magnitude(flat, n)
    expected = flat.abs().sort(descending=True).values[n - 1]
    assert found.magnitude == expected.item()
    assert found.larger == torch.count_nonzero(flat.abs() > expected)


def test_selection_leaves_its_input_alone():
    flat = torch.tensor([-3.0, 0.5, -0.0, 2.0])
    before = flat.clone()
    nth_largest_magnitude(flat, 2)
    assert torch.equal(flat.view(torch.int32), before.view(torch.int32))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=14), st.integers(1, 15))
def test_ties_with_the_last_are_kept_or_the_first_of_them_win(values, n):
    order = sorted(range(len(values)), key=lambda place: (-abs(values[place]), place))
    last = abs(values[order[min(n, len(values)) - 1]])
    inclusive = [v if abs(v) >= last else 0 for v in values]
    exact = [v if place in order[:n] else 0 for place, v in enumerate(values)]
    for ties, expected in ((True, inclusive), (False, exact)):
        kept = keep_largest_(torch.tensor(values, dtype=torch.float32), n, ties=ties)
        assert kept.tolist() == expected


@pytest.mark.usefixtures("small_blocks")
def test_the_first_of_equals_win_across_blocks_too():
    flat = torch.tensor([1.0, -1.0, 1.0, 2.0, 1.0, -1.0, 1.0, 1.0])
    assert keep_largest_(flat, 5, ties=False).tolist() == [1, -1, 1, 2, 1, 0, 0, 0]


@pytest.mark.usefixtures("small_blocks")
@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 8).flatmap(
        lambda size: st.lists(
            st.lists(st.integers(-2, 2), min_size=size, max_size=size), min_size=1, max_size=4
        )
    ),
    st.sampled_from([-1, 0, 1]),
    st.booleans(),
)
def test_disjoint_sum_adds_what_has_the_elected_sign(rows, zero_sign, averaged):
    votes = [1.0, 0.5, -1.0, 2.0][: len(rows)]
    expected = []
    for column in zip(*rows, strict=True):
        total = sum(column)
        sign = (total > 0) - (total < 0) or zero_sign
        agreeing = [(v, w) for v, w in zip(column, votes, strict=True) if v * sign > 0]
        value = sum(v for v, _ in agreeing)
        if averaged:
            value /= sum(w for _, w in agreeing) or 1
        expected.append(value)
    flats = [torch.tensor(row, dtype=torch.float64) for row in rows]
    found = disjoint_sum(flats, zero_sign=zero_sign, votes=votes if averaged else None)
    assert found.tolist() == pytest.approx(expected)
    assert found is flats[0]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    ("first", "second", "sign"),
    [
        ([1.0, 1.0, -9.0, 0.0], [0.0, 0.0, 0.0, 0.0], 1),
        ([-1.0, -1.0, 9.0, 0.0], [0.0, 0.0, 0.0, 0.0], -1),
        ([1.0, 2.0, -5.0, 1.0], [-1.0, -1.0, 1.0, -1.0], 0),
        ([3.0, 2.0, -5.0, 1.0], [-1.0, -1.0, 1.0, -1.0], 1),
    ],
)
def test_the_majority_counts_coordinates_not_sizes(first, second, sign):
    flats = [torch.tensor(first), torch.tensor(second)]
    assert majority_sign(flats) == sign
    assert flats[0].tolist() == first


@pytest.mark.parametrize("shape", [(), (1,), (5000,), (70, 80), (0,), (0, 4), (3, 4, 5)])
def test_zero_tensors_are_told_from_those_with_one_entry(shape):
    tensor = torch.zeros(shape)
    assert is_zero(tensor)
    assert is_zero(-tensor)
    if tensor.numel():
        tensor.view(-1)[-1] = 1e-45
        assert not is_zero(tensor)
        assert not is_zero(tensor.T if tensor.ndim == 2 else tensor)


def test_nan_is_not_zero():
    assert not is_zero(torch.full((3,), torch.nan))


def test_sums_run_in_the_order_given_and_end_in_the_first_tensor():
    tensors = [torch.tensor([x], dtype=torch.float64) for x in (1.0, 10.0, 100.0)]
    total = sum_into_first(tensors, weights=[1.0, 0.5, -2.0])
    assert total.item() == -194
    assert total is tensors[0]
    assert tensors[2].item() == 100


def test_unweighted_sums_are_the_same_bits_as_adding_in_turn():
    generator = torch.Generator().manual_seed(1)
    tensors = [torch.randn(50, generator=generator) for _ in range(4)]
    expected = tensors[0] + tensors[1] + tensors[2] + tensors[3]
    assert torch.equal(sum_into_first([t.clone() for t in tensors]), expected)
