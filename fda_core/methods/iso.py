"""Iso-C and Iso-CTS: task matrices merged with a flat spectrum. ICML 2025, arXiv 2502.04959.

Differences from the authors' code: directions and mean are restricted to the numerical rank of
the sum, and of what each expert has outside of the common space (`rank_tolerance`). Without it
the sum of a few LoRA updates comes out with arbitrary directions at full strength. And experts
that did not change the matrix are not counted in m.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from fda_core.methods.elementwise import is_zero, squared_norm, sum_into_first
from fda_core.methods.lazy_torch import torch
from fda_core.methods.spectral import Triplets, columns_of, polar_, singular_triplets
from fda_core.methods.task_vector import MatrixMethod, SpectralParameters

if TYPE_CHECKING:
    from torch import Tensor


class IsoC(MatrixMethod):
    """θ = θ_0 + α mean(σ) U Vᵀ with Σ τ_e = U diag(σ) Vᵀ, matrices only.

    One expert alone does not come back: its spectrum is flattened too. α is 1 unless tuned;
    fusion_bench's published runs used 1.5.
    """

    name = "iso_c"
    title = "Iso-C"
    summary = "Sums the task vectors and gives all singular directions the same strength."
    paper = "arXiv 2502.04959"
    cost = "B"
    workspace_tensors = 8.5
    Parameters = SpectralParameters
    parameters: SpectralParameters

    def matrix_delta(self, deltas: Sequence[Tensor], *, name: str) -> Tensor | None:
        """Return the flattened sum, or None where the experts cancel exactly.

        Peak memory beyond the inputs: four float64 matrices of the short side; in float64 an
        SVD of one matrix.
        """
        total = sum_into_first(deltas)
        if is_zero(total):
            return None
        factor, values = polar_(total, tolerance=self.parameters.rank_tolerance, name=name)
        return factor.mul_(values.mean())


class IsoCtsParameters(SpectralParameters):
    """Settings of Iso-CTS."""

    common_fraction: float = Field(
        default=0.8,
        ge=0,
        le=1,
        description="Part of the directions taken from the sum; the experts share the rest for "
        "directions of their own.",
    )


class IsoCts(MatrixMethod):
    """θ = θ_0 + α mean(σ) polar(U) polar(V)ᵀ, matrices only.

    U, σ, V stack the first s singular triplets of each R_e = (I − U_c U_cᵀ) τ_e, in the experts'
    order, and the first k_c triplets U_c, σ_c, V_c of Σ τ_e. With r = min(o, i), of
    r − int(r · common_fraction) directions each expert gets s, the m-th part rounded (half to
    even), and k_c = r − m s. s may be 0 when there are many experts; then it is Iso-C.
    """

    name = "iso_cts"
    title = "Iso-CTS"
    summary = "Iso-C on the directions experts share, with room for each expert's own."
    paper = "arXiv 2502.04959"
    cost = "B"
    workspace_tensors = 14.0
    Parameters = IsoCtsParameters
    parameters: IsoCtsParameters

    def matrix_delta(self, deltas: Sequence[Tensor], *, name: str) -> Tensor | None:
        """Return the merged delta.

        Peak memory beyond the inputs: the sum, twice the stacks, (o + i)·min(o, i) elements,
        and four float64 matrices of the short side; in float64 an SVD of one matrix.
        """
        common, own = self.shares(min(deltas[0].shape), len(deltas))
        parts = []
        leading = self._leading(deltas, common, name=name)
        for delta in deltas:
            if own:
                parts.append(self._own(delta, leading, own, name=name))
        parts.append(leading)
        left = torch.cat([part.left for part in parts], dim=1)
        values = torch.cat([part.values for part in parts])
        right = torch.cat([part.right for part in parts], dim=1)
        if not len(values):
            return None
        del parts, leading
        tolerance = self.parameters.rank_tolerance
        polar_(left, tolerance=tolerance, name=name)
        polar_(right, tolerance=tolerance, name=name)
        return torch.mm(left.mul_(values.mean()), right.T, out=deltas[0])

    def shares(self, rank: int, experts: int) -> tuple[int, int]:
        """Return how many directions are common, and how many are each expert's own."""
        own = round((rank - int(rank * self.parameters.common_fraction)) / experts)
        own = min(own, rank // experts)
        return rank - own * experts, own

    def _leading(self, deltas: Sequence[Tensor], count: int, *, name: str) -> Triplets:
        """Return the first triplets of the sum; none if the experts cancel exactly."""
        total = sum_into_first([deltas[0].clone(), *deltas[1:]])
        if count == 0 or is_zero(total):
            return _none(total)
        return singular_triplets(total, count, tolerance=self.parameters.rank_tolerance, name=name)

    def _own(self, delta: Tensor, leading: Triplets, count: int, *, name: str) -> Triplets:
        """Return the first triplets of what a delta has outside of the leading left vectors.

        Those below the tolerance of the whole delta are rounding. Overwrites the delta.
        """
        tolerance = self.parameters.rank_tolerance
        smallest = tolerance * math.sqrt(squared_norm(delta))
        basis = leading.left.double()
        for columns in columns_of(delta):
            block = delta[:, columns].double()
            delta[:, columns] = block.sub_(basis @ (basis.T @ block)).to(delta.dtype)
        if is_zero(delta):
            return _none(delta)
        found = singular_triplets(delta, count, tolerance=tolerance, name=name)
        kept = int(torch.count_nonzero(found.values > smallest)) if tolerance else count
        return Triplets(found.left[:, :kept], found.values[:kept], found.right[:, :kept])


def _none(like: Tensor) -> Triplets:
    rows, columns = like.shape
    return Triplets(like.new_empty(rows, 0), like.new_empty(0), like.new_empty(columns, 0))
