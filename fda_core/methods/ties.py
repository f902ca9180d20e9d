"""TIES: trim, elect signs, merge what agrees. NeurIPS 2023, arXiv 2306.01708.

Differences from the authors' code: trimming is per tensor, not over the whole model, so any
tensor can be merged alone; density 1 keeps everything (theirs fails); and where a coordinate
sums to zero and the whole tensor's vote is a draw too, nothing is kept (theirs keeps the
negative entries), so that turning all signs around turns the result around.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fda_core.methods.base import TensorInputs
from fda_core.methods.elementwise import disjoint_sum, keep_largest_, majority_sign
from fda_core.methods.task_vector import TaskVectorMethod, TaskVectorParameters

if TYPE_CHECKING:
    from torch import Tensor


class TiesParameters(TaskVectorParameters):
    """Settings of TIES."""

    density: float = Field(
        default=0.2, gt=0, le=1, description="Part of each task vector, by magnitude, that stays."
    )
    merge: Literal["mean", "sum"] = Field(
        default="mean", description="Whether agreeing entries are averaged or only added."
    )
    rules: Literal["paper", "mergekit"] = Field(
        default="paper",
        description="Where the two differ. Kept of n entries: paper int(density·n)+1 and all as "
        "large as the last; mergekit int(density·n), at least 1, the first of equals. Sign of a "
        "zero sum: paper the tensor's majority; mergekit plus. Mean: paper over the number of "
        "agreeing entries; mergekit over their weights.",
    )


class Ties(TaskVectorMethod):
    """θ = θ_0 + λ · (sum or mean of the trimmed entries that have the elected sign).

    Per tensor: (1) y_e = w_e · (largest `density` of τ_e, else 0); (2) the sign of Σ y_e is
    elected per coordinate; (3) entries with that sign are merged. All float tensors alike.
    Published settings: density 0.2 and mean with λ 1; sum with λ 0.3 in fusion_bench.
    """

    name = "ties"
    title = "TIES"
    summary = "Trims small updates, elects a sign per entry and merges the updates that agree."
    paper = "arXiv 2306.01708"
    cost = "A"
    uses_weights = True
    Parameters = TiesParameters
    parameters: TiesParameters

    def merged_delta(self, inputs: TensorInputs) -> Tensor:
        """Return the disjoint merge of the trimmed, weighted task vectors.

        Peak memory beyond the inputs: the entries that share the threshold's leading bits, a
        few percent of one tensor; one tensor at worst, if all entries are equally large.
        """
        settings = self.parameters
        paper = settings.rules == "paper"
        flats = [delta.reshape(-1) for delta in inputs.deltas]
        for flat, weight in zip(flats, inputs.weights, strict=True):
            self._trim_(flat)
            if weight != 1:
                flat.mul_(weight)
        votes = [1.0] * len(flats) if paper else inputs.weights
        merged = disjoint_sum(
            flats,
            zero_sign=majority_sign(flats) if paper else 1,
            votes=votes if settings.merge == "mean" else None,
        )
        return merged.view_as(inputs.base)

    def _trim_(self, flat: Tensor) -> None:
        kept = int(self.parameters.density * flat.numel())
        if self.parameters.rules == "paper":
            keep_largest_(flat, kept + 1, ties=True)
        else:
            keep_largest_(flat, max(kept, 1), ties=False)
