"""Weighted averaging and task arithmetic, against averages of the parameters themselves."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fda_core.contract.recipe import MethodSpec
from fda_core.errors import BadParameter
from fda_core.methods.base import TensorInputs
from fda_core.methods.registry import resolve
from fda_core.methods.task_arithmetic import TaskArithmetic

SHAPES = st.sampled_from([(), (1,), (7,), (3, 5), (5, 3), (2, 3, 2, 2)])
WEIGHTS = st.lists(st.floats(-2, 2), min_size=1, max_size=5)


def experts_of(shape, count, *, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator, dtype=dtype)
    return base, [0.1 * torch.randn(shape, generator=generator, dtype=dtype) for _ in range(count)]


def merge(name, base, deltas, *, weights=None, **parameters):
    inputs = TensorInputs(
        name="layers.0.weight",
        layer=0,
        base=base.clone(),
        deltas=[delta.clone() for delta in deltas],
        weights=weights or [1.0] * len(deltas),
        experts=[f"e{e}" for e in range(len(deltas))],
        seed=0,
    )
    return resolve(MethodSpec(name=name, parameters=parameters)).merge_tensor(inputs)


@settings(max_examples=40, deadline=None)
@given(SHAPES, WEIGHTS, st.integers(0, 100))
def test_linear_is_the_weighted_mean_of_the_parameters(shape, weights, seed):
    if abs(sum(weights)) < 0.05:
        weights = [*weights, 1.0]
    base, deltas = experts_of(shape, len(weights), seed=seed)
    found = merge("linear", base, deltas, weights=weights)
    experts = [(base + delta).numpy() for delta in deltas]
    expected = np.average(experts, axis=0, weights=weights)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-11)


@settings(max_examples=40, deadline=None)
@given(SHAPES, WEIGHTS, st.integers(0, 100))
def test_linear_without_normalising_is_the_weighted_sum_of_the_parameters(shape, weights, seed):
    base, deltas = experts_of(shape, len(weights), seed=seed)
    found = merge("linear", base, deltas, weights=weights, normalize=False)
    expected = sum(w * (base + d).numpy() for w, d in zip(weights, deltas, strict=True))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-11)


def test_linear_without_normalising_scales_a_frozen_tensor_too():
    base, _ = experts_of((3, 4), 0)
    zeros = [torch.zeros_like(base)] * 2
    found = merge("linear", base, zeros, normalize=False)
    torch.testing.assert_close(found, 2 * base)


def test_linear_scale_moves_between_base_and_average():
    base, deltas = experts_of((3, 4), 3)
    average = merge("linear", base, deltas)
    half = merge("linear", base, deltas, scale=0.5)
    torch.testing.assert_close(half, (base + average) / 2)


def test_linear_counts_an_expert_that_changed_nothing():
    base, deltas = experts_of((3, 4), 2)
    found = merge("linear", base, [*deltas, torch.zeros_like(base)])
    torch.testing.assert_close(found, base + sum(deltas) / 3)


@settings(max_examples=40, deadline=None)
@given(SHAPES, WEIGHTS, st.floats(-3, 3), st.integers(0, 100))
def test_task_arithmetic_adds_the_scaled_weighted_sum(shape, weights, scale, seed):
    base, deltas = experts_of(shape, len(weights), seed=seed)
    found = merge("task_arithmetic", base, deltas, weights=weights, scale=scale)
    total = sum(w * d.numpy() for w, d in zip(weights, deltas, strict=True))
    np.testing.assert_allclose(found.numpy(), base.numpy() + scale * total, rtol=1e-9, atol=1e-11)


def test_normalised_task_arithmetic_at_scale_one_is_the_weighted_average():
    base, deltas = experts_of((3, 4), 3)
    weights = [1.0, 2.0, 0.5]
    found = merge("task_arithmetic", base, deltas, weights=weights, scale=1.0, normalize=True)
    torch.testing.assert_close(found, merge("linear", base, deltas, weights=weights))


def test_a_negative_weight_forgets():
    base, (delta,) = experts_of((3, 4), 1)
    found = merge("task_arithmetic", base, [delta], weights=[-1.0], scale=1.0)
    torch.testing.assert_close(found, base - delta)


@pytest.mark.parametrize("normalize", [True, False])
def test_coefficients_are_the_factors_of_the_task_vectors(normalize):
    base, deltas = experts_of((3, 4), 3)
    weights = [1.0, 2.0, -0.5]
    parameters = {"scale": 0.7, "normalize": normalize}
    method = resolve(MethodSpec(name="task_arithmetic", parameters=parameters))
    assert isinstance(method, TaskArithmetic)
    factors = method.coefficients(weights)
    found = merge("task_arithmetic", base, deltas, weights=weights, **parameters)
    expected = base + sum(f * d for f, d in zip(factors, deltas, strict=True))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("weights", [[1.0, -1.0], [0.0, 0.0], [0.1, 0.2, -0.3]])
@pytest.mark.parametrize(
    ("name", "parameters"), [("linear", {}), ("task_arithmetic", {"normalize": True})]
)
def test_weights_that_sum_to_zero_cannot_normalise(name, parameters, weights):
    base, deltas = experts_of((3,), len(weights))
    with pytest.raises(BadParameter, match="sum to") as caught:
        merge(name, base, deltas, weights=weights, **parameters)
    assert caught.value.hint is not None


@pytest.mark.parametrize("weights", [[1.0, -1.0], [0.0, 0.0]])
def test_weights_that_sum_to_zero_are_fine_without_normalising(weights):
    base, deltas = experts_of((3,), 2)
    expected = weights[0] * (base + deltas[0]) + weights[1] * (base + deltas[1])
    torch.testing.assert_close(
        merge("linear", base, deltas, weights=weights, normalize=False), expected
    )


@pytest.mark.parametrize("name", ["linear", "task_arithmetic"])
def test_the_result_is_in_the_bases_memory(name):
    base, deltas = experts_of((3, 4), 2)
    inputs = TensorInputs(
        name="w", layer=0, base=base, deltas=deltas, weights=[1.0, 1.0], experts="ab", seed=0
    )
    assert resolve(MethodSpec(name=name)).merge_tensor(inputs).data_ptr() == base.data_ptr()
