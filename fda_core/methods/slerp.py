"""Interpolation along great circles: mergekit's slerp and nuslerp.

Differences from mergekit: angles are computed in float64; its absolute floors for norms are
not used, which take the angle of small tensors for larger than it is; and nuslerp is linear
below a sine of 1e-6, where mergekit has 1e-8, which rounding takes exactly opposite vectors
beyond, to be divided by that sine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from fda_core.methods.base import TensorInputs
from fda_core.methods.lazy_torch import torch
from fda_core.methods.spherical import (
    add_surplus_,
    cosines,
    great_circle,
    inner_products,
    weighted_rows_,
)
from fda_core.methods.task_vector import TaskVectorMethod, TaskVectorParameters

if TYPE_CHECKING:
    from torch import Tensor

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


class Slerp(TaskVectorMethod):
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

    def merged_delta(self, inputs: TensorInputs) -> Tensor:
        """Return the interpolation less the base. Peak memory: nothing beyond the inputs."""
        origin = inputs.base.reshape(1, -1)
        ends = [delta.reshape(1, -1) for delta in inputs.deltas]
        still = origin.new_zeros(1, 1).expand_as(origin)
        pair = ends if len(ends) == 2 else [still, *ends]
        cosine = cosines(inner_products(pair, origin=origin))[:, 0, 1]
        factors = great_circle(cosine, self.parameters.t, straight=cosine.abs() > STRAIGHT)
        total = weighted_rows_(ends, factors[:, -len(ends) :])
        return add_surplus_(total, origin, factors).view(inputs.base.shape)


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


class Nuslerp(TaskVectorMethod):
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

    def merged_delta(self, inputs: TensorInputs) -> Tensor:
        """Return the interpolation. Peak memory: nothing beyond the inputs, in place if flat."""
        if len(inputs.deltas) == 1:
            return inputs.deltas[0]
        origin = self._vectors(inputs.base) if self.parameters.on == "parameters" else None
        ends = [self._vectors(delta) for delta in inputs.deltas]
        products = inner_products(ends, origin=origin)
        cosine = cosines(products)[:, 0, 1]
        flat = torch.sin(torch.arccos(cosine)).abs() < FLAT
        factors = great_circle(cosine, _share(*inputs.weights), straight=flat)
        alone = (products.diagonal(dim1=1, dim2=2) == 0).any(dim=1)
        factors.masked_fill_(alone[:, None], 1)
        total = weighted_rows_(ends, factors)
        if origin is not None:
            add_surplus_(total, origin, factors)
        return self._tensor(total, inputs.base.shape)

    def _vectors(self, tensor: Tensor) -> Tensor:
        """Return the vectors between which angles are taken, as rows."""
        if self.parameters.flatten or tensor.ndim < 2:
            return tensor.reshape(1, -1)
        if self.parameters.row_wise:
            return tensor.reshape(tensor.shape[0], -1).T
        return tensor.reshape(-1, tensor.shape[-1])

    def _tensor(self, vectors: Tensor, shape: Sequence[int]) -> Tensor:
        """Return the tensor that has these vectors."""
        turned = self.parameters.row_wise and len(shape) >= 2
        return (vectors.T if turned else vectors).reshape(shape)


def _share(first: float, second: float) -> float:
    """Return the second weight's share of the sum, and one half if that is zero."""
    total = first + second
    return 0.5 if abs(total) < 1e-6 else second / total
