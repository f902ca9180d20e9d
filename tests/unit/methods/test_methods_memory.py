"""What a method declares to need beyond its inputs is what it needs.

Memory is what torch's own allocator hands out, factorisations' work space included. Methods
that go through a tensor in blocks are measured on eight million elements, where the blocks
count for little. What matrix methods need grows with the matrix, so that small ones of three
shapes show it in less time; their blocks are larger than these, which makes the need larger.
"""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from fda_core.contract.recipe import MethodSpec
from fda_core.methods.base import TensorInputs
from fda_core.methods.registry import METHODS, method_class, resolve
from fda_core.methods.task_vector import MatrixMethod

LARGE = (2048, 4096)
SMALL = [(384, 384), (192, 768), (768, 192)]

VARIANTS = {
    "linear": {},
    "linear, not normalised": {"normalize": False},
    "task_arithmetic": {},
    "slerp": {},
    "nuslerp": {},
    "nuslerp, columns": {"flatten": False, "row_wise": True, "on": "parameters"},
    "karcher": {},
    "ties": {},
    "ties, mergekit": {"rules": "mergekit", "density": 0.5},
    "dare_linear": {},
    "dare_ties": {"rescale": "l1", "merge": "mean"},
    "breadcrumbs": {},
    "breadcrumbs, tensor": {"scope": "tensor"},
    "breadcrumbs_ties": {},
    "della": {},
    "della_linear": {"rescale": "l1"},
    "model_stock": {},
    "model_stock, filters": {"filter_wise": True},
    "sce": {"select_topk": 0.1},
    "sce, weights": {"select_topk": 0.5, "mask_scope": "weights"},
    "tsvm": {},
    "iso_c": {},
    "iso_cts": {},
    "ace": {},
    "ace, heterogeneous": {"heterogeneity": 0.0},
    "wudi": {"steps": 2},
    "wudi, closed": {"solver": "closed"},
    "iwudi": {},
    "swudi": {},
    "aswudi": {},
    "optmerge": {"steps": 2},
}


def name_of(variant):
    return variant.partition(",")[0]


MATRIX = [v for v in VARIANTS if issubclass(method_class(name_of(v)), MatrixMethod)]
BLOCKWISE = [v for v in VARIANTS if v not in MATRIX]


def needed(variant, deltas):
    """Return the most that was allocated at any time, in tensors of the base's size."""
    method = resolve(MethodSpec(name=name_of(variant), parameters=VARIANTS[variant]))
    inputs = TensorInputs(
        name="layers.0.weight",
        layer=0,
        base=torch.ones_like(deltas[0]),
        deltas=deltas[: method.max_experts],
        weights=[1.0] * len(deltas[: method.max_experts]),
        experts=[f"e{e}" for e in range(len(deltas[: method.max_experts]))],
        seed=0,
    )
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        method.merge_tensor(inputs)
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most / inputs.base.nbytes


def deltas_of(shape, count):
    generator = torch.Generator().manual_seed(0)
    return [1e-3 * torch.randn(shape, generator=generator) for _ in range(count)]


def test_every_method_of_the_registry_but_fda_is_measured():
    assert {name_of(variant) for variant in VARIANTS} == set(METHODS) - {"fda"}


def test_the_measure_counts_a_tensor_held_and_a_factorisation_s_own_work():
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        torch.linalg.eigh(torch.eye(100, dtype=torch.float64))
    sizes = [e.nbytes() for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    assert sum(size for size in sizes if size > 0) > 3 * 100 * 100 * 8


@pytest.mark.parametrize("variant", BLOCKWISE)
def test_a_tensor_of_eight_million_elements_needs_no_more_than_declared(variant):
    declared = method_class(name_of(variant)).workspace_tensors
    assert needed(variant, deltas_of(LARGE, 3)) <= declared


@pytest.mark.parametrize("variant", ["ties", "ties, mergekit", "breadcrumbs, tensor", "sce"])
def test_entries_that_are_all_of_one_size_need_no_more_either(variant):
    deltas = [delta.sign_() for delta in deltas_of(LARGE, 2)]
    assert needed(variant, deltas) <= method_class(name_of(variant)).workspace_tensors


@pytest.mark.parametrize("variant", MATRIX)
@pytest.mark.parametrize("shape", SMALL)
@pytest.mark.parametrize("count", [2, 8])
def test_a_matrix_needs_no_more_than_declared(variant, shape, count):
    declared = method_class(name_of(variant)).workspace_tensors
    assert needed(variant, deltas_of(shape, count)) <= declared


@pytest.mark.parametrize("name", sorted({name_of(variant) for variant in MATRIX}))
def test_what_is_declared_for_matrices_is_needed_and_no_excuse(name):
    needs = [
        needed(variant, deltas_of(shape, 3))
        for variant in MATRIX
        for shape in SMALL
        if name_of(variant) == name
    ]
    assert max(needs) > 0.85 * method_class(name).workspace_tensors
