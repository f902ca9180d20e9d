"""What holds for whole groups of methods, and what methods make of degenerate tensors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fda_core.contract.recipe import MethodSpec
from fda_core.methods.base import TensorInputs
from fda_core.methods.registry import METHODS, method_class, resolve
from fda_core.methods.task_vector import MatrixMethod

QUICK = {"steps": 5}
VARIANTS = {
    "linear": ("linear", {}),
    "linear, not normalised": ("linear", {"normalize": False}),
    "slerp": ("slerp", {}),
    "nuslerp": ("nuslerp", {}),
    "nuslerp, rows": ("nuslerp", {"flatten": False}),
    "nuslerp, columns": ("nuslerp", {"flatten": False, "row_wise": True}),
    "nuslerp, parameters": ("nuslerp", {"on": "parameters"}),
    "karcher": ("karcher", {}),
    "task_arithmetic": ("task_arithmetic", {}),
    "task_arithmetic, normalised": ("task_arithmetic", {"normalize": True}),
    "ties": ("ties", {}),
    "ties, sum": ("ties", {"merge": "sum", "density": 0.5}),
    "ties, mergekit": ("ties", {"rules": "mergekit", "density": 0.5}),
    "dare_linear": ("dare_linear", {}),
    "dare_linear, l1": ("dare_linear", {"rescale": "l1"}),
    "dare_ties": ("dare_ties", {}),
    "dare_ties, mean": ("dare_ties", {"merge": "mean"}),
    "breadcrumbs": ("breadcrumbs", {"keep": 0.5, "remove_top": 0.2}),
    "breadcrumbs, tensor": ("breadcrumbs", {"scope": "tensor", "keep": 0.5}),
    "breadcrumbs_ties": ("breadcrumbs_ties", {"keep": 0.5}),
    "della": ("della", {}),
    "della, l1": ("della", {"rescale": "l1", "epsilon": 0.15}),
    "della_linear": ("della_linear", {}),
    "model_stock": ("model_stock", {}),
    "model_stock, not clamped": ("model_stock", {"clamp": False}),
    "model_stock, filters": ("model_stock", {"filter_wise": True}),
    "sce": ("sce", {}),
    "sce, half": ("sce", {"select_topk": 0.5}),
    "sce, weights": ("sce", {"select_topk": 0.5, "mask_scope": "weights"}),
    "tsvm": ("tsvm", {}),
    "tsvm, published": ("tsvm", {"rank_tolerance": 0.0}),
    "iso_c": ("iso_c", {}),
    "iso_c, published": ("iso_c", {"rank_tolerance": 0.0}),
    "iso_cts": ("iso_cts", {}),
    "iso_cts, published": ("iso_cts", {"rank_tolerance": 0.0}),
    "ace": ("ace", {}),
    "ace, heterogeneous": ("ace", {"heterogeneity": 0.0}),
    "wudi, adam": ("wudi", QUICK),
    "wudi, flow": ("wudi", {"solver": "flow", "top_ratio": 0.5}),
    "wudi, closed": ("wudi", {"solver": "closed", "init": "mean"}),
    "iwudi": ("iwudi", {}),
    "swudi": ("swudi", {}),
    "aswudi": ("aswudi", {}),
    "aswudi, gavish_donoho": ("aswudi", {"rank_rule": "gavish_donoho"}),
    "optmerge": ("optmerge", {}),
}
ALL = list(VARIANTS)
MATRIX = [v for v in ALL if issubclass(method_class(VARIANTS[v][0]), MatrixMethod)]
PAIRS = [v for v in ALL if method_class(VARIANTS[v][0]).max_experts == 2]
WHOLE = ["linear", "task_arithmetic", "task_arithmetic, normalised", "slerp", "nuslerp"]
WHOLE += ["karcher", "model_stock", "model_stock, not clamped"]
"""Element-wise methods that see a tensor as one vector, but for factors of experts."""
HOMOGENEOUS = [
    v for v in ALL if v not in ("wudi, adam", "linear, not normalised") and v[:3] != "ace"
]
ROTATABLE = [v for v in HOMOGENEOUS if v in WHOLE or v in MATRIX]
LEAVES_OUT_ZEROS = [
    "task_arithmetic",
    "ties",
    "ties, sum",
    "ties, mergekit",
    *(v for v in ALL if v.startswith(("dare", "breadcrumbs", "della", "model_stock"))),
    "sce",
    *MATRIX,
]
ONE_EXPERT_IS_ITSELF = {
    "linear": {},
    "linear, not normalised": {},
    "task_arithmetic": {"scale": 1.0},
    "ties": {"density": 1.0},
    "ties, sum": {"density": 1.0},
    "ties, mergekit": {"density": 1.0},
    "slerp": {"t": 1.0},
    "nuslerp": {},
    "karcher": {},
    "dare_linear": {"density": 1.0, "scale": 1.0},
    "dare_linear, l1": {"density": 1.0, "scale": 1.0},
    "dare_ties": {"density": 1.0, "scale": 1.0},
    "breadcrumbs": {"keep": 1.0, "remove_top": 0.0, "scale": 1.0},
    "breadcrumbs, tensor": {"keep": 1.0, "scale": 1.0},
    "breadcrumbs_ties": {"keep": 1.0, "remove_top": 0.0, "scale": 1.0},
    "della": {"density": 1.0, "scale": 1.0},
    "della_linear": {"density": 1.0, "scale": 1.0},
    "model_stock": {},
    "model_stock, filters": {},
    "sce": {},
    "sce, weights": {},
    "tsvm": {},
    "tsvm, published": {},
    "wudi, adam": {},
    "wudi, flow": {},
    "wudi, closed": {},
    "iwudi": {},
    "swudi": {},
    "aswudi": {},
    "aswudi, gavish_donoho": {},
    "optmerge": {},
}
COPIES_ARE_ONE = {
    "linear": {},
    "task_arithmetic": {"scale": 1 / 3},
    "task_arithmetic, normalised": {"scale": 1.0},
    "ties": {"density": 1.0},
    "ties, mergekit": {"density": 1.0},
    "slerp": {},
    "nuslerp": {},
    "nuslerp, rows": {},
    "nuslerp, columns": {},
    "nuslerp, parameters": {},
    "karcher": {},
    "dare_linear": {"density": 1.0, "scale": 1 / 3},
    "dare_ties, mean": {"density": 1.0, "scale": 1.0},
    "breadcrumbs, tensor": {"keep": 1.0, "scale": 1 / 3},
    "della": {"density": 1.0, "scale": 1.0},
    "model_stock": {},
    "model_stock, not clamped": {},
    "model_stock, filters": {},
    "sce": {},
    "sce, weights": {},
    "wudi, closed": {},
    "optmerge": {},
}
SHAPES = [(6, 6), (5, 9), (9, 5), (2, 11)]
SEEDS = st.integers(0, 30)
"""Few, so that all have been tried: random matrices may come close to singular."""


def merge(variant, base, deltas, *, weights=None, names="abcdefgh", layer=0, **changes):
    """Merge the deltas, or as many of the first as the method takes."""
    name, parameters = VARIANTS[variant]
    method = resolve(MethodSpec(name=name, parameters={**parameters, **changes}))
    deltas = deltas[: method.max_experts]
    inputs = TensorInputs(
        name="layers.0.weight",
        layer=layer,
        base=base.clone(memory_format=torch.preserve_format),
        deltas=[delta.clone(memory_format=torch.preserve_format) for delta in deltas],
        weights=(weights or [1.0] * len(deltas))[: len(deltas)],
        experts=names[: len(deltas)],
        seed=0,
    )
    return method.merge_tensor(inputs)


def tensors(shape, count, *, seed=0, dtype=torch.float64, size=0.1):
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator, dtype=dtype)
    return base, [size * torch.randn(shape, generator=generator, dtype=dtype) for _ in range(count)]


def assert_same_bits(found, expected):
    bits = {torch.float32: torch.int32, torch.float64: torch.int64}[expected.dtype]
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert torch.equal(found.contiguous().view(bits), expected.contiguous().view(bits))


def test_every_method_of_the_registry_but_fda_is_held_to_these_properties():
    assert {name for name, _ in VARIANTS.values()} == set(METHODS) - {"fda"}


@pytest.mark.parametrize("variant", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (5,), (4, 6), (2, 2, 3)])
def test_scale_zero_gives_the_base_bit_for_bit_with_negative_zeros(variant, dtype, shape):
    base, deltas = tensors(shape, 3, dtype=dtype)
    base.view(-1)[::2] = -0.0
    deltas[0].view(-1)[::3] = -0.0
    assert_same_bits(merge(variant, base, deltas, scale=0.0), base)


@pytest.mark.parametrize("variant", [v for v in ALL if v != "linear, not normalised"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (5,), (4, 6), (2, 2, 3)])
def test_task_vectors_of_zero_give_the_base_bit_for_bit(variant, dtype, shape):
    base, _ = tensors(shape, 0, dtype=dtype)
    base.view(-1)[::2] = -0.0
    zero = torch.zeros(shape, dtype=dtype)
    assert_same_bits(merge(variant, base, [zero, -zero, zero]), base)


@pytest.mark.parametrize("variant", ALL)
@pytest.mark.parametrize("shape", [(0,), (0, 4), (4, 0), (2, 0, 3)])
def test_tensors_without_elements_come_back(variant, shape):
    empty = torch.empty(shape)
    assert_same_bits(merge(variant, empty, [empty, empty]), empty)


@pytest.mark.parametrize("variant", ALL)
@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (1, 1), (3, 5), (2, 3, 2, 2)])
def test_results_are_finite_and_of_the_shape_and_dtype_given(variant, count, shape):
    base, deltas = tensors(shape, count, dtype=torch.float32)
    merged = merge(variant, base, deltas)
    assert merged.dtype == torch.float32
    assert merged.shape == base.shape
    assert merged.isfinite().all()


@pytest.mark.parametrize("variant", ALL)
def test_the_same_inputs_give_the_same_bits(variant):
    base, deltas = tensors((6, 9), 3, dtype=torch.float32)
    assert_same_bits(merge(variant, base, deltas), merge(variant, base, deltas))


@pytest.mark.parametrize("variant", ALL)
def test_memory_layout_does_not_matter(variant):
    base, deltas = tensors((6, 9), 3)
    turned = [delta.T.contiguous().T for delta in deltas]
    assert not turned[0].clone().is_contiguous()
    merged = merge(variant, base.T.contiguous().T, turned)
    torch.testing.assert_close(merged, merge(variant, base, deltas))


@pytest.mark.parametrize("variant", ONE_EXPERT_IS_ITSELF)
@pytest.mark.parametrize("shape", SHAPES)
def test_one_expert_at_natural_scale_comes_back(variant, shape):
    base, (delta,) = tensors(shape, 1)
    changes = ONE_EXPERT_IS_ITSELF[variant]
    torch.testing.assert_close(merge(variant, base, [delta], **changes), base + delta)


@pytest.mark.parametrize("variant", COPIES_ARE_ONE)
@pytest.mark.parametrize("shape", SHAPES)
def test_copies_of_an_expert_merge_to_it(variant, shape):
    base, (delta,) = tensors(shape, 1)
    merged = merge(variant, base, [delta] * 3, **COPIES_ARE_ONE[variant])
    torch.testing.assert_close(merged, base + delta)


@pytest.mark.parametrize("variant", [v for v in ALL if v not in PAIRS])
@settings(max_examples=6, deadline=None)
@given(st.sampled_from(SHAPES), st.permutations([0, 1, 2]), SEEDS)
def test_the_order_of_experts_does_not_matter(variant, shape, order, seed):
    base, deltas = tensors(shape, 3, seed=seed)
    weights = [1.0, 0.5, 2.0]
    straight = merge(variant, base, deltas, weights=weights)
    mixed = merge(
        variant,
        base,
        [deltas[e] for e in order],
        weights=[weights[e] for e in order],
        names=["abc"[e] for e in order],
    )
    torch.testing.assert_close(mixed, straight, rtol=0, atol=1e-7)


@pytest.mark.parametrize("variant", HOMOGENEOUS)
@settings(max_examples=6, deadline=None)
@given(st.sampled_from(SHAPES), st.floats(1e-6, 1e3), SEEDS)
def test_scaling_all_updates_scales_the_result(variant, shape, factor, seed):
    _, deltas = tensors(shape, 3, seed=seed)
    zero = torch.zeros(shape, dtype=torch.float64)
    once = merge(variant, zero, deltas)
    scaled = merge(variant, zero, [factor * delta for delta in deltas])
    torch.testing.assert_close(scaled / factor, once, rtol=0, atol=1e-7)


@pytest.mark.parametrize("variant", ROTATABLE)
@settings(max_examples=8, deadline=None)
@given(st.sampled_from(SHAPES), SEEDS)
def test_rotating_inputs_and_outputs_rotates_the_result(variant, shape, seed):
    _, deltas = tensors(shape, 3, seed=seed)
    q, _ = torch.linalg.qr(tensors((shape[0],) * 2, 0, seed=seed + 1)[0])
    r, _ = torch.linalg.qr(tensors((shape[1],) * 2, 0, seed=seed + 2)[0])
    zero = torch.zeros(shape, dtype=torch.float64)
    changes = {} if "not normalised" not in variant else {"normalize": True}
    straight = merge(variant, zero, deltas, **changes)
    rotated = merge(variant, zero, [q @ delta @ r for delta in deltas], **changes)
    torch.testing.assert_close(rotated, q @ straight @ r, rtol=0, atol=1e-6)


@pytest.mark.parametrize("variant", LEAVES_OUT_ZEROS)
@pytest.mark.parametrize("place", [0, 1, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_expert_that_changed_nothing_is_as_if_left_out(variant, place, shape):
    base, deltas = tensors(shape, 3)
    with_zero = [*deltas[:place], torch.zeros_like(base), *deltas[place:]]
    names = ["a", "b", "c"]
    names.insert(place, "zero")
    merged = merge(variant, base, with_zero, names=names)
    torch.testing.assert_close(merged, merge(variant, base, deltas), rtol=0, atol=1e-12)


def test_linear_divides_by_experts_that_changed_nothing_too():
    base, deltas = tensors((3, 4), 1)
    merged = merge("linear", base, [*deltas, torch.zeros_like(base)])
    torch.testing.assert_close(merged, base + deltas[0] / 2)


@pytest.mark.parametrize("variant", ALL)
def test_the_scale_multiplies_the_delta(variant):
    base, deltas = tensors((5, 7), 3)
    once = merge(variant, base, deltas, scale=1.0) - base
    torch.testing.assert_close(merge(variant, base, deltas, scale=-0.5), base - 0.5 * once)


@pytest.mark.parametrize("variant", ALL)
@pytest.mark.parametrize(
    ("patterns", "kept"),
    [
        (["layers.0.weight"], True),
        (["*.weight"], True),
        (["other", "layers.?.*"], True),
        (["layers.[0-3].weight"], True),
        (["layers.0"], False),
        (["weight"], False),
        (["LAYERS.*"], False),
        (["layers.[1-3].weight", "*.bias"], False),
        ([], False),
    ],
)
def test_excluded_tensors_keep_the_base(variant, patterns, kept):
    base, deltas = tensors((3, 4), 2)
    base[0, 0] = -0.0
    merged = merge(variant, base, deltas, exclude=patterns)
    if kept:
        assert_same_bits(merged, base)
    else:
        torch.testing.assert_close(merged, merge(variant, base, deltas))
        assert not torch.equal(merged, base)


@pytest.mark.parametrize("variant", MATRIX)
@pytest.mark.parametrize(
    ("others", "factor"), [("average", 1 / 3), ("base", 0.0), ("task_arithmetic", 0.3)]
)
@pytest.mark.parametrize(
    ("shape", "layer"), [((), 0), ((7,), 0), ((2, 3, 2, 2), 0), ((4, 5), None)]
)
def test_tensors_that_are_no_matrices_of_a_layer_get_what_others_says(
    variant, others, factor, shape, layer
):
    base, deltas = tensors(shape, 3)
    deltas[1] = torch.zeros_like(deltas[1])
    merged = merge(variant, base, deltas, layer=layer, others=others, scale=0.5)
    torch.testing.assert_close(merged, base + 0.5 * factor * sum(deltas))
    if others == "base":
        assert_same_bits(merged, base)


@pytest.mark.parametrize("variant", MATRIX)
def test_others_default_to_the_average_but_to_the_base_for_wudi(variant):
    base, deltas = tensors((7,), 2)
    expected = base if variant.startswith("wudi") else base + sum(deltas) / 2
    torch.testing.assert_close(merge(variant, base, deltas), expected)


@pytest.mark.parametrize("variant", [v for v in MATRIX if not v.endswith("published")])
@pytest.mark.parametrize("shape", SHAPES)
def test_experts_of_low_rank_merge_the_same_after_rotation_and_stay_small(variant, shape):
    generator = torch.Generator().manual_seed(4)

    def low_rank():
        left = torch.randn(shape[0], 1, generator=generator, dtype=torch.float64)
        return 0.1 * left @ torch.randn(1, shape[1], generator=generator, dtype=torch.float64)

    deltas = [low_rank(), low_rank()]
    zero = torch.zeros(shape, dtype=torch.float64)
    merged = merge(variant, zero, deltas)
    assert merged.norm() < 2 * sum(delta.norm() for delta in deltas)
    q, _ = torch.linalg.qr(torch.randn(shape[0], shape[0], generator=generator).double())
    if variant in ROTATABLE:
        rotated = merge(variant, zero, [q @ delta for delta in deltas])
        torch.testing.assert_close(rotated, q @ merged, rtol=0, atol=1e-6)
