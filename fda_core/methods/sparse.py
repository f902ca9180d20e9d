"""Methods that sparsify each task vector and merge what is left: mergekit's general form.

For every float tensor alike: (1) δ_e = S(τ_e); (2) y_e = w_e f_e δ_e, where f_e makes up for
what S dropped; (3) either θ = θ_0 + λ Σ y_e, or a sign is elected per coordinate from Σ y_e
and only entries with that sign are summed. A method is a sparsifier with one of the two sums.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fda_core.methods.base import TensorInputs
from fda_core.methods.elementwise import disjoint_sum, sum_into_first
from fda_core.methods.linear import normalized
from fda_core.methods.task_vector import TaskVectorMethod, TaskVectorParameters
from fda_core.seeds import derive

if TYPE_CHECKING:
    from torch import Tensor

Rescale = Literal["inverse_probability", "l1"]


class SummedParameters(TaskVectorParameters):
    """Settings of the plain sum."""

    normalize: bool = Field(default=False, description="Divide by the sum of the weights.")


class ElectedParameters(TaskVectorParameters):
    """Settings of the sum after an election."""

    merge: Literal["mean", "sum"] = Field(
        default="sum",
        description="Whether entries of the elected sign are only added, or divided by the sum "
        "of their weights too.",
    )


class SparseMethod(TaskVectorMethod):
    """A sparsifier and a sum."""

    uses_weights = True
    workspace_tensors = 0.25

    def merged_delta(self, inputs: TensorInputs) -> Tensor:
        """Return the sum of the sparsified, weighted task vectors.

        Peak memory: see the sparsifier; the sums need none.
        """
        deltas = [delta.contiguous() for delta in inputs.deltas]
        made_up = [
            self.sparsify_(delta, seed=derive(inputs.seed, "mask", inputs.name, expert))
            for delta, expert in zip(deltas, inputs.experts, strict=True)
        ]
        return self.combined(deltas, weights=inputs.weights, made_up=made_up)

    @abstractmethod
    def sparsify_(self, delta: Tensor, *, seed: int) -> float:
        """Zero entries of a contiguous task vector; return the factor that makes up for them.

        `seed` belongs to the tensor and the expert. All of it may be zero.
        """

    @abstractmethod
    def combined(
        self, deltas: Sequence[Tensor], *, weights: Sequence[float], made_up: Sequence[float]
    ) -> Tensor:
        """Return the merged delta; may overwrite the deltas."""


class Summed(SparseMethod):
    """Σ w_e f_e δ_e, divided by Σ w_e with `normalize`."""

    parameters: SummedParameters

    def combined(
        self, deltas: Sequence[Tensor], *, weights: Sequence[float], made_up: Sequence[float]
    ) -> Tensor:
        """Return the weighted sum."""
        shares = normalized(weights) if self.parameters.normalize else weights
        return sum_into_first(deltas, weights=_products(shares, made_up))


class Elected(SparseMethod):
    """Σ of the entries w_e f_e δ_e that have the sign of their sum; zero counts as plus."""

    parameters: ElectedParameters

    def combined(
        self, deltas: Sequence[Tensor], *, weights: Sequence[float], made_up: Sequence[float]
    ) -> Tensor:
        """Return the sum or mean of what agrees."""
        for delta, factor in zip(deltas, _products(weights, made_up), strict=True):
            if factor != 1:
                delta.mul_(factor)
        flats = [delta.view(-1) for delta in deltas]
        votes = self.votes(weights) if self.parameters.merge == "mean" else None
        merged = disjoint_sum(flats, zero_sign=self.zero_sign(flats), votes=votes)
        return merged.view_as(deltas[0])

    def zero_sign(self, flats: Sequence[Tensor]) -> int:  # noqa: ARG002
        """Return the sign elected where the sum is zero."""
        return 1

    def votes(self, weights: Sequence[float]) -> Sequence[float]:
        """Return what the mean divides by, per agreeing entry."""
        return weights


def _products(first: Sequence[float], second: Sequence[float]) -> list[float]:
    return [a * b for a, b in zip(first, second, strict=True)]
