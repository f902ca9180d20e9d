"""Merging in blocks: the size of a block changes nothing, and its memory is used again."""

import pytest
import torch

from fda_core.contract.recipe import MethodSpec
from fda_core.methods import elementwise
from fda_core.methods.base import TensorInputs
from fda_core.methods.registry import METHODS, method_class, resolve
from fda_core.methods.tensor_blocks import Scratch, TensorBlocks
from tests.unit.methods.test_methods_properties import MATRIX, VARIANTS, assert_same_bits

SHAPES = [(), (1,), (7,), (1, 300), (37, 11), (5, 129), (3, 4, 5, 2), (90, 1), (0,), (0, 4)]
IN_BLOCKS = [v for v in VARIANTS if v not in MATRIX and not v.startswith("sce")]
OTHERS = ["tsvm", "iso_c", "wudi, adam"]
PARAMETERS = {**{v: VARIANTS[v] for v in IN_BLOCKS}, **{v: VARIANTS[v] for v in OTHERS}}
SUMMED_OVER_BLOCKS = ("slerp", "nuslerp", "karcher", "model_stock")
"""Their float64 inner products are sums over blocks."""


def method_of(variant):
    name, parameters = PARAMETERS[variant]
    return resolve(MethodSpec(name=name, parameters=parameters))


def numbers(shape, *, seed=0, dtype=torch.float32):
    """Return a base and three task vectors of stored bfloat16 checkpoints: many equals."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator).bfloat16()
    experts = [base.float() + 0.05 * torch.randn(shape, generator=generator) for _ in range(3)]
    base = base.to(dtype)
    return base, [expert.bfloat16().to(dtype) - base for expert in experts]


def source_of(method, base, deltas, *, layer=None, seed=0):
    """Return a source that spoils what it gave before, as one that reuses its memory does."""
    flats = [base.reshape(-1), *(delta.reshape(-1) for delta in deltas)][: 1 + count(method)]
    given = []

    def cut(start, stop):
        for tensor in given:
            tensor.fill_(torch.nan)
        given[:] = [flat[start:stop].clone() for flat in flats]
        return given[0], given[1:]

    return TensorBlocks(
        name="w",
        layer=layer,
        shape=tuple(base.shape),
        weights=[0.7, 1.3, -0.4][: len(flats) - 1],
        experts="abc"[: len(flats) - 1],
        seed=seed,
        cut=cut,
    )


def count(method):
    return min(3, method.max_experts or 3)


def joined(blocks, shape, dtype):
    pieces = [block.reshape(-1).clone() for block in blocks]
    return torch.cat([torch.empty(0, dtype=dtype), *pieces]).view(shape)


def whole(method, base, deltas, *, layer=None, seed=0):
    inputs = TensorInputs(
        name="w",
        layer=layer,
        base=base.clone(),
        deltas=[delta.clone() for delta in deltas[: count(method)]],
        weights=[0.7, 1.3, -0.4][: count(method)],
        experts="abc"[: count(method)],
        seed=seed,
    )
    return method.merge_tensor(inputs)


def test_all_methods_but_those_that_need_the_whole_matrix_merge_in_blocks():
    named = {name for name in METHODS if name not in ("fda", "sce")}
    for name in named:
        method = resolve(MethodSpec(name=name, parameters={}))
        assert method.merges_blocks(layer=None, shape=(4, 4))
        matrix = name in {VARIANTS[v][0] for v in MATRIX}
        assert method.merges_blocks(layer=0, shape=(4, 4)) is not matrix
    assert not method_class("sce")(method_class("sce").Parameters()).merges_blocks(
        layer=None, shape=(4, 4)
    )


@pytest.mark.parametrize("variant", PARAMETERS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [32, 100, 2**17])
def test_blocks_give_what_whole_tensors_give(variant, shape, dtype, size, monkeypatch):
    length = shape[-1] if shape else 1
    if "della" in variant and max(1, size // max(1, length)) * length % 2:
        size = 2 * length  # blocks of an odd length would waste half a random number each
    method = method_of(variant)
    base, deltas = numbers(shape, dtype=dtype)
    expected = whole(method, base, deltas, seed=5)
    monkeypatch.setattr(elementwise, "BLOCK", size)
    source = source_of(method, base, deltas, seed=5)
    found = joined(method.merge_blocks(source), shape, dtype)
    if variant.startswith(SUMMED_OVER_BLOCKS):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)
    else:
        assert_same_bits(found, expected)


@pytest.mark.parametrize("variant", [v for v in PARAMETERS if VARIANTS[v][0] in METHODS])
def test_a_tensor_that_changes_late_is_merged_and_negative_zeros_before_it_are_added_to(
    variant, monkeypatch
):
    monkeypatch.setattr(elementwise, "BLOCK", 8)
    method = method_of(variant)
    base, _ = numbers((10, 4))
    deltas = [torch.zeros(10, 4) for _ in range(3)]
    base[0] = -0.0
    for e, delta in enumerate(deltas):
        delta[9, e:] = 1.0 + e
    found = joined(method.merge_blocks(source_of(method, base, deltas)), (10, 4), torch.float32)
    torch.testing.assert_close(found, whole(method, base, deltas))
    assert not torch.equal(found[9], base[9]) or variant == "wudi, adam"  # others: base


@pytest.mark.parametrize("of", [1, 3, 7, 100])
@pytest.mark.parametrize("numel", [0, 1, 20, 21, 100])
def test_blocks_are_whole_multiples_and_come_in_order(of, numel):
    cuts = []
    source = TensorBlocks(
        name="w",
        layer=None,
        shape=(numel,),
        weights=[],
        experts=[],
        seed=0,
        cut=lambda start, stop: cuts.append((start, stop)) or (torch.empty(0), []),
    )
    assert len(list(source.blocks(of=of, at_most=20))) == len(cuts)
    assert [start for start, _ in cuts] == [0, *(stop for _, stop in cuts)][: len(cuts)]
    assert sum(stop - start for start, stop in cuts) == numel
    for start, stop in cuts[:-1]:
        assert (stop - start) % of == 0
        assert stop - start <= max(20, of)


def test_scratch_is_used_again_and_grows():
    scratch = Scratch(2, dtype=torch.float32, device=torch.device("cpu"))
    first = scratch.rows(8)
    again = scratch.rows(5)
    assert first[0].data_ptr() == again[0].data_ptr()
    assert [row.shape for row in scratch.rows(20)] == [(20,), (20,)]
