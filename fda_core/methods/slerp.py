"""Interpolation along great circles: mergekit's slerp and nuslerp.

Differences from mergekit: angles are computed in float64; its absolute floors for norms are
not used, which take the angle of small tensors for larger than it is; and nuslerp is linear
below a sine of 1e-6, where mergekit has 1e-8, which rounding takes exactly opposite vectors
beyond, to be divided by that sine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from fda_core.methods.lazy_torch import torch
from fda_core.methods.spherical import (
    Vectors,
    cosines,
    great_circle,
    products_of_blocks,
    weighted_blocks,
)
from fda_core.methods.task_vector import DeltaBlock, ElementwiseMethod, TaskVectorParameters
from fda_core.methods.tensor_blocks import TensorBlocks

STRAIGHT = 0.9995
"""Above this |cos| slerp interpolates linearly. mergekit."""

FLAT = 1e-6
"""Below this sine nuslerp interpolates linearly: the sine that rounding gives opposite vectors."""


class SlerpParameters(TaskVectorParameters):
    """Settings of slerp."""

    t: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Where on the way: 0 the first of two experts, or the base if there is but "
        "one expert; 1 the last.",
    )


class Slerp(ElementwiseMethod):
    """θ = sin((1−t)Ω)/sin Ω · a + sin(tΩ)/sin Ω · b with cos Ω = a·b/(‖a‖ ‖b‖), per tensor.

    Between two experts in the recipe's order, which matters; with one expert, from the base to
    it; a tensor that only one of two experts has, too. Linear, (1−t) a + t b, if |cos Ω| is
    above 0.9995, as it is for most fine-tunes of one base; a zero tensor is at a right angle
    to everything. All float tensors alike. `scale` stretches the result's distance to the base.
    """

    name = "slerp"
    title = "SLERP"
    summary = "Interpolates two models, the order counts, along the great circle between them."
    paper = "mergekit"
    cost = "A"
    workspace_tensors = 0.25
    max_experts = 2
    Parameters = SlerpParameters
    parameters: SlerpParameters

    def delta_blocks(self, source: TensorBlocks) -> Iterator[DeltaBlock]:
        """Yield the interpolation less the base, in the second pass."""
        whole = Vectors(1, source.numel)
        alone = len(source.experts) == 1
        products = products_of_blocks(source, whole, from_origin=True, and_origin=alone)
        cosine = cosines(products)[:, 0, 1]
        factors = great_circle(cosine, self.parameters.t, straight=cosine.abs() > STRAIGHT)
        return weighted_blocks(source, whole, factors, from_origin=True)


class NuslerpParameters(TaskVectorParameters):
    """Settings of nuslerp."""

    on: Literal["task_vectors", "parameters"] = Field(
        default="task_vectors",
        description="What is interpolated: the updates, as mergekit does where a base is given, "
        "or the experts' parameters.",
    )
    flatten: bool = Field(
        default=True, description="One angle per tensor; if not, one per vector of a tensor."
    )
    row_wise: bool = Field(
        default=False,
        description="Without flatten: vectors run along the first dimension, not the last.",
    )

    @model_validator(mode="after")
    def _row_wise_has_vectors(self) -> NuslerpParameters:
        if self.row_wise and self.flatten:
            raise ValueError("row_wise is for flatten: false")
        return self


class Nuslerp(ElementwiseMethod):
    """Slerp with t = w_2/(w_1 + w_2), on task vectors by default. All float tensors alike.

    x = sin((1−t)Ω)/sin Ω · x_1 + sin(tΩ)/sin Ω · x_2 with Ω the angle between x_1 and x_2;
    linear where |sin Ω| < 1e-6. t is 0.5 if the weights sum to zero. A vector of zeros has no
    angle and takes no part: the other comes back, as it does where only one expert has the
    tensor. Swapping the experts with their weights changes nothing.
    """

    name = "nuslerp"
    title = "NuSLERP"
    summary = "Interpolates two experts' updates along great circles, by their weights."
    paper = "mergekit"
    cost = "A"
    workspace_tensors = 0.25
    min_experts = 2
    max_experts = 2
    uses_weights = True
    Parameters = NuslerpParameters
    parameters: NuslerpParameters

    def delta_blocks(self, source: TensorBlocks) -> Iterator[DeltaBlock]:
        """Yield the interpolation, in the second pass."""
        if len(source.experts) == 1:
            return ((base, delta) for base, (delta,) in source.blocks())
        vectors = self._vectors(source)
        from_origin = self.parameters.on == "parameters"
        products = products_of_blocks(source, vectors, from_origin=from_origin)
        cosine = cosines(products)[:, 0, 1]
        flat = torch.sin(torch.arccos(cosine)).abs() < FLAT
        factors = great_circle(cosine, _share(*source.weights), straight=flat)
        alone = (products.diagonal(dim1=1, dim2=2) == 0).any(dim=1)
        factors.masked_fill_(alone[:, None], 1)
        return weighted_blocks(source, vectors, factors, from_origin=from_origin)

    def _vectors(self, source: TensorBlocks) -> Vectors:
        """Return the vectors between which angles are taken."""
        if self.parameters.flatten or len(source.shape) < 2:
            return Vectors(1, source.numel)
        if self.parameters.row_wise:
            first = source.shape[0]
            return Vectors(source.numel // first, first, across=True)
        return Vectors(source.numel // source.row_length, source.row_length)


def _share(first: float, second: float) -> float:
    """Return the second weight's share of the sum, and one half if that is zero."""
    total = first + second
    return 0.5 if abs(total) < 1e-6 else second / total
