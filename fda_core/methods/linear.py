"""Weighted averaging of parameters. Model soups, arXiv 2203.05482."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from pydantic import Field

from fda_core.errors import BadParameter
from fda_core.methods.elementwise import sum_into_first
from fda_core.methods.task_vector import DeltaBlock, ElementwiseMethod, TaskVectorParameters
from fda_core.methods.tensor_blocks import TensorBlocks


class LinearParameters(TaskVectorParameters):
    """Settings of the weighted average."""

    normalize: bool = Field(
        default=True, description="Divide by the sum of the weights, so that they need not be 1."
    )


class Linear(ElementwiseMethod):
    """θ = Σ w_e θ_e / Σ w_e; without `normalize`, θ = Σ w_e θ_e. All float tensors alike.

    Computed from task vectors, Σ w_e θ_e = (Σ w_e) θ_0 + Σ w_e τ_e, which rounds the updates
    less than the parameters. `scale` moves from the base (0) to the average (1) or beyond.
    """

    name = "linear"
    title = "Linear"
    summary = "Weighted average of the experts' parameters."
    paper = "arXiv 2203.05482"
    cost = "A"
    workspace_tensors = 0.25
    uses_weights = True
    Parameters = LinearParameters
    parameters: LinearParameters

    @property
    def single_pass(self) -> bool:
        """Say yes."""
        return True

    def keeps_base(self, source: TensorBlocks) -> bool:
        """Say whether the average is the base; a plain weighted sum of bases is not."""
        return self.parameters.normalize and super().keeps_base(source)

    def delta_blocks(self, source: TensorBlocks) -> Iterator[DeltaBlock]:
        """Yield the weighted average less the base. Peak memory: nothing beyond the inputs."""
        normalize = self.parameters.normalize
        weights = normalized(source.weights) if normalize else source.weights
        surplus = 0.0 if normalize else math.fsum(source.weights) - 1
        for base, deltas in source.blocks():
            total = sum_into_first(deltas, weights=weights)
            yield base, total.add_(base, alpha=surplus) if surplus else total


def normalized(weights: Sequence[float]) -> list[float]:
    """Return the weights divided by their sum, or raise `BadParameter` if that is zero.

    Zero up to rounding: a sum of 1e-17 is what 0.1 + 0.2 - 0.3 leaves.
    """
    total = math.fsum(weights)
    if abs(total) <= 1e-8 * math.fsum(map(abs, weights)):
        raise BadParameter(
            f"the experts' weights {list(weights)} sum to {total:g}, so nothing can be divided "
            "by their sum",
            hint="Give weights with a sum that is not zero, or set normalize: false.",
            key="experts.weight",
        )
    return [weight / total for weight in weights]
