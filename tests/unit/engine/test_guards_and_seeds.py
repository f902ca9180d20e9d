"""Finite checks name the place; random numbers hang on their purpose alone."""

import math

import pytest
import torch

from fda_core.engine.guards import require_finite
from fda_core.engine.seeds import derive, generator
from fda_core.errors import NonFinite


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_the_first_bad_position_is_named(bad, dtype):
    tensor = torch.zeros(3, 4, 5, dtype=dtype)
    tensor[1, 2, 3] = bad
    tensor[2, 0, 0] = bad
    with pytest.raises(NonFinite, match=r"left: w\[1, 2, 3\] is .*2 of 60") as caught:
        require_finite(tensor, name="w", whose="left")
    assert caught.value.context["position"] == [1, 2, 3]


def test_finite_and_integer_tensors_pass():
    require_finite(torch.full((2,), 3e38), name="w", whose="base")
    require_finite(torch.tensor([1, 2]), name="w", whose="base")
    require_finite(torch.zeros(0, 3), name="w", whose="base")


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz"])
def test_eight_bit_floats_are_checked_too(name):
    tensor = torch.ones(2, 3).to(getattr(torch, name))
    require_finite(tensor, name="w", whose="left")
    tensor[1, 2] = math.nan
    with pytest.raises(NonFinite, match=r"left: w\[1, 2\] is nan .*1 of 6"):
        require_finite(tensor, name="w", whose="left")


def test_a_scalar_has_the_empty_position():
    with pytest.raises(NonFinite, match=r"w\[\] is nan"):
        require_finite(torch.tensor(math.nan), name="w", whose="result")


def test_seeds_differ_by_every_word_and_repeat():
    purposes = [("construct", 1, "a"), ("construct", 1, "b"), ("construct", 2, "a"), ("adapt", 1)]
    seeds = [derive(0, *purpose) for purpose in purposes] + [derive(1, *purposes[0])]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive(0, *purposes[0]) == seeds[0]


def test_words_do_not_run_together():
    assert derive(0, "a", "bc") != derive(0, "ab", "c")


def test_a_generator_repeats():
    first, second = (torch.randn(3, generator=generator(5, "x")) for _ in range(2))
    assert torch.equal(first, second)
