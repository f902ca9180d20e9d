"""TSV-Merge: task singular vectors made orthogonal to each other. CVPR 2025, arXiv 2412.00081.

Differences from the authors' code, none of which changes the result where it is well defined:
- experts that share directions make the stacks rank deficient, and the polar factor then fills
  the missing directions arbitrarily; `rank_tolerance` keeps to the stacks' numerical rank, so
  that copies of one expert give that expert, truncated;
- an expert's own triplets below the same tolerance (LoRA) stay out of the stacks, since their
  vectors are as arbitrary;
- experts that did not change the matrix are not counted in m.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fda_core.methods.lazy_torch import torch
from fda_core.methods.spectral import polar_, singular_triplets
from fda_core.methods.task_vector import MatrixMethod, SpectralParameters

if TYPE_CHECKING:
    from torch import Tensor


class Tsvm(MatrixMethod):
    """θ = θ_0 + α polar(U) diag(S) polar(V)ᵀ, matrices only.

    U, S, V stack the first k = max(1, int(min(o, i)/m)) singular triplets of each τ_e in the
    experts' order; polar(X) is the nearest matrix with orthonormal columns.
    """

    name = "tsvm"
    title = "TSV-Merge"
    summary = "Adds each expert's leading singular directions, made orthogonal to the others'."
    paper = "arXiv 2412.00081"
    cost = "B"
    workspace_tensors = 10.5
    Parameters = SpectralParameters
    parameters: SpectralParameters

    def matrix_delta(self, deltas: Sequence[Tensor], *, name: str) -> Tensor:
        """Return the merged delta.

        Peak memory beyond the inputs: twice the stacks, (o + i)·min(o, i) elements, and four
        float64 matrices of the short side; in float64 an SVD of one matrix.
        """
        tolerance = self.parameters.rank_tolerance
        count = max(1, min(deltas[0].shape) // len(deltas))
        parts = [
            singular_triplets(delta, count, tolerance=tolerance, name=name) for delta in deltas
        ]
        left = torch.cat([part.left for part in parts], dim=1)
        values = torch.cat([part.values for part in parts])
        right = torch.cat([part.right for part in parts], dim=1)
        del parts
        polar_(left, tolerance=tolerance, name=name)
        polar_(right, tolerance=tolerance, name=name)
        return torch.mm(left.mul_(values), right.T, out=deltas[0])
