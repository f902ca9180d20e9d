"""Task arithmetic: add scaled task vectors. arXiv 2212.04089."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import Field

from fda_core.methods.elementwise import sum_into_first
from fda_core.methods.linear import normalized
from fda_core.methods.task_vector import (
    TASK_ARITHMETIC_SCALE,
    DeltaBlock,
    ElementwiseMethod,
    TaskVectorParameters,
)
from fda_core.methods.tensor_blocks import TensorBlocks


class TaskArithmeticParameters(TaskVectorParameters):
    """Settings of task arithmetic."""

    scale: float = Field(
        default=TASK_ARITHMETIC_SCALE,
        description="λ, the factor of the summed task vectors: about 0.3 for eight experts, "
        "0.8 for two; 0 gives the base.",
    )
    normalize: bool = Field(default=False, description="Divide by the sum of the weights.")


class TaskArithmetic(ElementwiseMethod):
    """θ = θ_0 + λ Σ w_e τ_e, divided by Σ w_e with `normalize`. All float tensors alike.

    A negative weight forgets what its expert learned.
    """

    name = "task_arithmetic"
    title = "Task arithmetic"
    summary = "Base plus the scaled sum of the task vectors."
    paper = "arXiv 2212.04089"
    cost = "A"
    workspace_tensors = 0.25
    uses_weights = True
    Parameters = TaskArithmeticParameters
    parameters: TaskArithmeticParameters

    def coefficients(self, weights: Sequence[float]) -> list[float]:
        """Return the factor of each task vector in θ: λ w_e, divided by Σ w_e if normalised."""
        return [self.parameters.scale * share for share in self._shares(weights)]

    @property
    def single_pass(self) -> bool:
        """Say yes."""
        return True

    def delta_blocks(self, source: TensorBlocks) -> Iterator[DeltaBlock]:
        """Yield Σ w_e τ_e. Peak memory: nothing beyond the inputs."""
        shares = self._shares(source.weights)
        for base, deltas in source.blocks():
            yield base, sum_into_first(deltas, weights=shares)

    def _shares(self, weights: Sequence[float]) -> Sequence[float]:
        return normalized(weights) if self.parameters.normalize else weights
