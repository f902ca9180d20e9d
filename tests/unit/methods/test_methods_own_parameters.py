"""Sparsifier settings that single experts have of their own, against plain float64 loops."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fda_core.contract.recipe import MethodSpec
from fda_core.errors import BadParameter, UnknownKey
from fda_core.methods import elementwise
from fda_core.methods.base import OwnParameters, TensorInputs
from fda_core.methods.elementwise import order_statistics
from fda_core.methods.registry import METHODS, describe, method_class, resolve
from tests.unit.methods.test_methods_blocks import joined, numbers, source_of
from tests.unit.methods.test_methods_properties import assert_same_bits
from tests.unit.methods.test_methods_sparsify import (
    WEIGHTS,
    breadcrumbs_of,
    della_of,
    general_form,
    mask_of,
    tensors,
)
from tests.unit.methods.test_methods_ties import mergekit_trim, paper_trim, sign

NAMES = "abcd"
DENSITIES = {"a": 0.2, "b": 0.9, "c": 1.0, "d": 0.55}
SHAPES = [(), (1,), (7,), (6, 9), (3, 4, 5)]
VARIANTS = [
    ("ties", {"rules": "paper"}),
    ("ties", {"rules": "mergekit"}),
    ("dare_linear", {}),
    ("dare_linear", {"rescale": "l1"}),
    ("dare_ties", {"merge": "mean"}),
    ("breadcrumbs", {"scope": "row"}),
    ("breadcrumbs_ties", {"scope": "tensor"}),
    ("della", {}),
    ("della_linear", {"rescale": "l1"}),
]


def method_of(name, own, **parameters):
    given = {expert: OwnParameters(values, f"own.{expert}") for expert, values in own.items()}
    return resolve(MethodSpec(name=name, parameters=parameters), own=given)


def merge(name, base, deltas, own, *, weights=WEIGHTS, **parameters):
    inputs = TensorInputs(
        name="w",
        layer=0,
        base=base.clone(),
        deltas=[delta.clone() for delta in deltas],
        weights=weights[: len(deltas)],
        experts=NAMES[: len(deltas)],
        seed=0,
    )
    return method_of(name, own, **parameters).merge_tensor(inputs)


def own_of(name, values):
    """Return these densities as a method calls them."""
    density = "keep" if name.startswith("breadcrumbs") else "density"
    return {expert: {density: value} for expert, value in values.items()}


# Each expert by its own settings


def ties_merged(rows, *, rules):
    """Return the mean of what agrees, per coordinate, of trimmed and weighed task vectors."""
    columns = list(zip(*rows, strict=True))
    signs = [sign(sum(column)) for column in columns]
    fallback = sign(sum(signs)) if rules == "paper" else 1
    result = []
    for column, elected in zip(columns, signs, strict=True):
        agreeing = [
            (v, 1.0 if rules == "paper" else w)
            for v, w in zip(column, WEIGHTS, strict=True)
            if v * (elected or fallback) > 0
        ]
        result.append(sum(v for v, _ in agreeing) / (sum(w for _, w in agreeing) or 1))
    return torch.tensor(result, dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rules", ["paper", "mergekit"])
@pytest.mark.parametrize("coarse", [False, True])
def test_ties_trims_each_expert_to_its_own_density(shape, rules, coarse):
    base, deltas = tensors(shape, 4, seed=3)
    if coarse:
        deltas = [(2 * delta).round() / 2 for delta in deltas]
    trim = paper_trim if rules == "paper" else mergekit_trim
    rows = [
        [weight * v for v in trim(delta.flatten().tolist(), DENSITIES[expert])]
        for delta, expert, weight in zip(deltas, NAMES, WEIGHTS, strict=True)
    ]
    expected = base + 0.7 * ties_merged(rows, rules=rules).reshape(shape)
    found = merge("ties", base, deltas, own_of("ties", DENSITIES), rules=rules, scale=0.7)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rescale", ["inverse_probability", "l1"])
@pytest.mark.parametrize(("name", "elect"), [("dare_linear", False), ("dare_ties", True)])
def test_dare_drops_each_expert_s_entries_with_its_own_probability(shape, rescale, name, elect):
    base, deltas = tensors(shape, 4, seed=4)
    sparse = []
    for delta, (expert, density) in zip(deltas, DENSITIES.items(), strict=True):
        kept = delta * mask_of(delta, expert, density=density)
        factor = 1 / density if rescale != "l1" else delta.abs().sum() / (kept.abs().sum() or 1)
        sparse.append(kept * factor)
    expected = base + 0.7 * general_form(sparse, weights=WEIGHTS, elect=elect, mean=False)
    own = own_of(name, DENSITIES)
    found = merge(name, base, deltas, own, rescale=rescale, scale=0.7, density=0.01)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scope", ["row", "tensor"])
@pytest.mark.parametrize(("name", "elect"), [("breadcrumbs", False), ("breadcrumbs_ties", True)])
def test_breadcrumbs_keeps_each_expert_s_own_band(shape, scope, name, elect):
    base, deltas = tensors(shape, 4, seed=5)
    own = {
        "a": {"keep": 0.2},
        "b": {"keep": 0.7, "remove_top": 0.2},
        "d": {"keep": 1.0, "remove_top": 0.0},
    }
    shared = {"keep": 0.4, "remove_top": 0.1, "scope": scope}
    sparse = [
        breadcrumbs_of(delta, **{**shared, **own.get(expert, {})})
        for delta, expert in zip(deltas, NAMES, strict=True)
    ]
    expected = base + 0.3 * general_form(sparse, weights=WEIGHTS, elect=elect, mean=False)
    found = merge(name, base, deltas, own, **shared)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rescale", ["inverse_probability", "l1"])
@pytest.mark.parametrize(("name", "elect"), [("della_linear", False), ("della", True)])
def test_della_drops_by_each_expert_s_own_density_and_epsilon(shape, rescale, name, elect):
    base, deltas = tensors(shape, 4, seed=6)
    own = {"a": {"density": 0.5, "epsilon": 0.4}, "b": {"density": 1.0}, "d": {"epsilon": 0.2}}
    shared = {"density": 0.6, "epsilon": 0.1, "rescale": rescale}
    sparse = [
        delta if expert == "b" else della_of(delta, expert, **{**shared, **own.get(expert, {})})
        for delta, expert in zip(deltas, NAMES, strict=True)
    ]
    expected = base + 1.1 * general_form(sparse, weights=WEIGHTS, elect=elect, mean=elect)
    found = merge(name, base, deltas, own, **shared)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


# Properties


@pytest.mark.parametrize(("name", "parameters"), VARIANTS)
@settings(max_examples=10, deadline=None)
@given(
    density=st.sampled_from([0.3, 0.5, 0.75, 1.0]),
    shape=st.sampled_from([(), (9,), (5, 8), (2, 3, 4)]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 20),
)
def test_the_same_for_each_expert_is_the_same_for_all_to_the_bit(
    name, parameters, density, shape, dtype, seed
):
    base, deltas = tensors(shape, 3, seed=seed, dtype=dtype)
    own = own_of(name, dict.fromkeys("abc", density))
    together = next(iter(own.values()))
    expected = merge(name, base, deltas, {}, **{**parameters, **together})
    assert_same_bits(merge(name, base, deltas, own, **parameters), expected)


@pytest.mark.parametrize(("name", "parameters"), VARIANTS)
def test_what_an_expert_has_of_its_own_changes_no_other_expert(name, parameters):
    base, deltas = tensors((20, 30), 3)
    deltas[1].zero_()
    weights = [1.0, 0.0, 1.0]
    before = merge(name, base, deltas, {}, weights=weights, **parameters)
    own = own_of(name, {"b": 0.45, "elsewhere": 0.4})
    assert torch.equal(merge(name, base, deltas, own, weights=weights, **parameters), before)
    changed = merge(name, base, deltas, own_of(name, {"a": 0.45}), weights=weights, **parameters)
    assert not torch.equal(changed, before)


@pytest.mark.parametrize(("name", "parameters"), VARIANTS)
@pytest.mark.parametrize("size", [64, 2**17])
def test_blocks_do_not_show_where_settings_differ(name, parameters, size, monkeypatch):
    method = method_of(name, own_of(name, {"a": 0.3, "b": 1.0}), **parameters)
    base, deltas = numbers((37, 16))
    inputs = TensorInputs(
        name="w",
        layer=None,
        base=base.clone(),
        deltas=[delta.clone() for delta in deltas],
        weights=[0.7, 1.3, -0.4],
        experts="abc",
        seed=5,
    )
    expected = method.merge_tensor(inputs)
    monkeypatch.setattr(elementwise, "BLOCK", size)
    blocks = method.merge_blocks(source_of(method, base, deltas, seed=5))
    assert_same_bits(joined(blocks, (37, 16), torch.float32), expected)


def passes_of(method, monkeypatch):
    """Return how often a merge goes through a tensor whose first block already differs."""
    monkeypatch.setattr(elementwise, "BLOCK", 16)
    base, deltas = numbers((4, 16))
    source = source_of(method, base, deltas)
    cuts = []
    cut = source.cut
    object.__setattr__(source, "cut", lambda *at: cuts.append(at) or cut(*at))
    joined(method.merge_blocks(source), (4, 16), torch.float32)
    return cuts.count((48, 64))


@pytest.mark.parametrize("name", ["dare_linear", "della_linear"])
@pytest.mark.parametrize("rescale", ["inverse_probability", "l1"])
@pytest.mark.parametrize(
    ("shared", "own"), [(1.0, {}), (1.0, {"b": 0.5}), (0.5, {}), (0.5, {"b": 1.0})]
)
def test_what_says_that_it_goes_through_once_does(name, rescale, shared, own, monkeypatch):
    method = method_of(name, own_of(name, own), density=shared, rescale=rescale)
    assert method.single_pass == (passes_of(method, monkeypatch) == 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_order_statistics_are_found_at_each_tensor_s_own_places(dtype):
    generator = torch.Generator().manual_seed(0)
    flats = [torch.randn(1000, generator=generator, dtype=dtype) for _ in range(3)]
    blocks = [torch.split(flat, 37) for flat in flats]
    places = [[1, 500], [], [1000]]
    found = order_statistics(lambda: zip(*blocks, strict=True), places)
    for flat, wanted, ranks in zip(flats, places, found, strict=True):
        descending = flat.abs().sort(descending=True).values
        assert [rank.magnitude for rank in ranks] == [descending[n - 1].item() for n in wanted]
    assert order_statistics(lambda: pytest.fail("nothing to look at"), [[], []]) == [[], []]


# What is declared, and what is refused


@pytest.mark.parametrize("name", METHODS)
def test_what_experts_may_have_of_their_own_is_declared_among_the_parameters(name):
    described = json.loads(json.dumps(describe(name)))
    wanted = {
        "ties": ["density"],
        "dare_linear": ["density"],
        "dare_ties": ["density"],
        "breadcrumbs": ["keep", "remove_top"],
        "breadcrumbs_ties": ["keep", "remove_top"],
        "della": ["density", "epsilon"],
        "della_linear": ["density", "epsilon"],
    }
    assert described["expert_parameters"] == wanted.get(name, [])
    assert set(described["expert_parameters"]) <= set(described["parameters"]["properties"])


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("ties", {"density": 0.0}, r"own\.a\.density: .*greater than 0.*0\.0"),
        ("ties", {"density": "0.5"}, r"own\.a\.density"),
        ("ties", {"density": float("nan")}, r"own\.a\.density"),
        ("ties", {"density": {"gradient": [0.1, 0.5]}}, r"own\.a\.density"),
        ("dare_linear", {"density": 1.5}, r"own\.a\.density: .*1\.5"),
        ("breadcrumbs", {"remove_top": 1.0}, r"own\.a\.remove_top"),
        ("della", {"density": 0.05}, r"own\.a: density 0\.05 and epsilon 0\.07 .* -0\.02 to 0\.12"),
        ("della", {"epsilon": 0.4}, r"own\.a: density 0\.7 and epsilon 0\.4 .* 0\.3 to 1\.1"),
    ],
)
def test_an_expert_s_own_values_are_held_to_the_method_s_ranges(name, given, said):
    with pytest.raises(BadParameter, match=said):
        method_of(name, {"a": given})


@pytest.mark.parametrize(
    ("name", "key", "hint"),
    [
        ("ties", "densty", "Did you mean 'density'? Known here: density."),
        ("ties", "scale", "Known here: density."),
        ("ties", "rules", "Known here: density."),
        ("della", "epsilo", "Did you mean 'epsilon'? Known here: density, epsilon."),
        ("breadcrumbs", "density", "Known here: keep, remove_top."),
        ("dare_ties", "merge", "Known here: density."),
    ],
)
def test_what_is_one_for_all_experts_is_refused_with_what_is_not(name, key, hint):
    with pytest.raises(UnknownKey, match=rf"own\.a\.{key}: {name} has no such") as caught:
        method_of(name, {"a": {key: 0.5}})
    assert caught.value.hint == hint


@pytest.mark.parametrize("name", [n for n in METHODS if not method_class(n).expert_parameters])
def test_methods_without_any_say_so(name):
    with pytest.raises(BadParameter, match=rf"own\.a: {name} has no parameters that an expert"):
        method_of(name, {"a": {"scale": 0.5}})


def test_fda_gives_them_to_its_start_and_refuses_them_from_the_base():
    own = {"a": {"density": 0.5}}
    method = method_of("fda", own, start={"name": "ties", "density": 0.1})
    assert method.expert_parameters == ("density",)
    assert method.start.own["a"].density == 0.5
    assert method.start.parameters.density == 0.1
    base, deltas = tensors((6, 9), 2)
    inputs = {"weights": [1.0, 1.0], "experts": "ab", "seed": 0, "name": "w", "layer": 0}
    found = method.merge_tensor(TensorInputs(base=base.clone(), deltas=deltas, **inputs))
    expected = merge("ties", base, deltas, own, weights=[1.0, 1.0], density=0.1)
    assert torch.equal(found, expected)
    with pytest.raises(BadParameter, match=r"own\.a: fda has no parameters"):
        method_of("fda", own, start="base")
    with pytest.raises(BadParameter, match=r"own\.a: tsvm has no parameters"):
        method_of("fda", own, start="tsvm")
