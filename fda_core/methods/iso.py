"""Iso-C: the sum of the task matrices with a flat spectrum. ICML 2025, arXiv 2502.04959.

Difference from the authors' code: directions and mean are restricted to the numerical rank of
the sum (`rank_tolerance`). Without it the sum of a few LoRA updates comes out with arbitrary
directions at full strength.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fda_core.methods.elementwise import is_zero, sum_into_first
from fda_core.methods.spectral import polar_
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
