"""SCE against its four steps, coordinate by coordinate."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fda_core.contract.recipe import MethodSpec
from fda_core.methods import elementwise
from fda_core.methods.base import TensorInputs
from fda_core.methods.registry import resolve

SHAPES = st.sampled_from([(), (1,), (7,), (5, 6), (2, 3, 4)])
SHARES = st.sampled_from([0.0, 0.05, 0.3, 0.5, 0.99, 1.0])
SCOPES = ["delta", "weights"]


def merge(base, deltas, **parameters):
    inputs = TensorInputs(
        name="layers.0.weight",
        layer=0,
        base=base.clone(),
        deltas=[delta.clone() for delta in deltas],
        weights=[1.0] * len(deltas),
        experts="abcdefgh"[: len(deltas)],
        seed=0,
    )
    return resolve(MethodSpec(name="sce", parameters=parameters)).merge_tensor(inputs)


def variance(entries):
    mean = sum(entries) / len(entries)
    spread = 0.0 if len(set(entries)) == 1 else 1.0
    return spread * sum((v - mean) ** 2 for v in entries) / len(entries)


def oracle(deltas, *, share, scope):
    columns = list(zip(*(delta.flatten().tolist() for delta in deltas), strict=True))
    spread = [variance(column) for column in columns]
    count = int(share * sum(v > 0 for v in spread))
    order = sorted(range(len(columns)), key=lambda place: (-spread[place], place))
    chosen = set(order[:count]) if share < 1 else set(order)
    sizes = [0.0] * len(deltas)
    for place in chosen:
        sizes = [size + v**2 for size, v in zip(sizes, columns[place], strict=True)]
    weights = sizes if sum(sizes) else [1.0] * len(deltas)
    result = []
    for place, column in enumerate(columns):
        entries = [0.0] * len(column) if scope == "delta" and place not in chosen else column
        plus = sum(entries) >= 0
        agree = [(w, v) for w, v in zip(weights, entries, strict=True) if v and (v > 0) == plus]
        divisor = sum(w for w, _ in agree)
        result.append(sum(w * v for w, v in agree) / divisor if divisor else 0.0)
    return torch.tensor(result, dtype=torch.float64).reshape(deltas[0].shape)


@settings(max_examples=100, deadline=None)
@given(
    SHAPES, st.integers(1, 5), SHARES, st.sampled_from(SCOPES), st.booleans(), st.integers(0, 99)
)
def test_sce_is_its_four_steps(shape, m, share, scope, coarse, seed):
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator, dtype=torch.float64)
    deltas = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(m)]
    if coarse:  # quarters, whose variances tie exactly only if computed alike
        deltas = [(2 * delta).round() / 4 for delta in deltas]
        if m not in (1, 2, 4):
            deltas = deltas[:2]
    found = merge(base, deltas, select_topk=share, mask_scope=scope)
    expected = base + oracle(deltas, share=share, scope=scope)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_experts_that_are_the_same_have_no_variance_to_the_bit(dtype):
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(50, generator=generator, dtype=dtype)
    delta = torch.rand(50, generator=generator, dtype=dtype) / 3
    assert torch.equal(merge(base, [delta] * 3, select_topk=0.99), base)
    merged = merge(base, [delta] * 3, select_topk=0.99, mask_scope="weights")
    torch.testing.assert_close(merged, base + delta)
    torch.testing.assert_close(merge(base, [delta] * 3), base + delta)


def test_one_expert_varies_nowhere():
    delta = torch.tensor([1.0, -2.0])
    assert torch.equal(merge(torch.zeros(2), [delta], select_topk=0.5), torch.zeros(2))
    assert torch.equal(merge(torch.zeros(2), [delta]), delta)


def test_nothing_selected_leaves_the_base_bit_for_bit():
    base = torch.tensor([-0.0, 1.0])
    merged = merge(base, [torch.ones(2), -torch.ones(2)], select_topk=0.0)
    assert torch.equal(merged.view(torch.int32), base.view(torch.int32))


@pytest.mark.parametrize("size", [1e-8, 1.0])
def test_weights_of_small_updates_are_not_taken_for_equal(size):
    deltas = [torch.tensor([2.0 * size]), torch.tensor([1.0 * size])]
    merged = merge(torch.zeros(1), deltas)
    assert merged.item() == pytest.approx(1.8 * size)


@pytest.mark.parametrize("scope", SCOPES)
def test_blocks_do_not_show(scope, monkeypatch):
    generator = torch.Generator().manual_seed(1)
    base = torch.randn(70, generator=generator)
    deltas = [torch.randn(70, generator=generator) for _ in range(3)]
    whole = merge(base, deltas, select_topk=0.4, mask_scope=scope)
    monkeypatch.setattr(elementwise, "BLOCK", 16)
    torch.testing.assert_close(merge(base, deltas, select_topk=0.4, mask_scope=scope), whole)
