"""ACE-Merging: input covariances estimated from updates. CVPR 2026, arXiv 2603.02945.

Differences from the authors' code: the covariances' sum is factorised by Cholesky and the
prior, which has rank one, added by the Sherman-Morrison formula; directions of the refinement
are restricted to the numerical rank (`rank_tolerance`); and an expert whose rows are all the
same, which has no covariance to be scaled by, is left out where covariances are scaled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from pydantic import Field

from fda_core.methods.elementwise import is_zero, squared_norm, sum_into_first
from fda_core.methods.interference import Measured, add_cube_, measurable
from fda_core.methods.lazy_torch import torch
from fda_core.methods.spectral import cholesky, columns_of, gram, singular_triplets
from fda_core.methods.task_vector import MatrixMethod, SpectralParameters

if TYPE_CHECKING:
    from torch import Tensor

SAME_ROWS = 1e-12
"""Part of a task vector's square below which what differs between rows is rounding."""


class AceParameters(SpectralParameters):
    """Settings of ACE-Merging."""

    ridge: float = Field(default=1e-2, gt=0, description="ε, added to each covariance.")
    heterogeneity: float = Field(
        default=0.3,
        ge=0,
        description="Above this var(log ‖τ_e‖²)/mean(log ‖τ_e‖²)² over the experts, covariances "
        "are scaled to trace 1 and the result is refined.",
    )
    rank_fraction: float = Field(
        default=0.3, ge=0, le=1, description="Part of the directions that the refinement adds."
    )


class Covariances(NamedTuple):
    """Sums over the experts, S_e and ε_e scaled if they are heterogeneous; float64."""

    ridged: Tensor
    """Σ (S_e + ε_e I), (i, i)."""
    prior: Tensor
    """Column means of Σ S_e, (i,)."""
    cubes: Tensor
    """Σ C_e S_e, (o, i)."""
    offsets: Tensor
    """Σ μ_eᵀ S_e, (i,), with μ_e the mean row of τ_e."""
    ridges: list[float]
    """ε_e."""


class Ace(MatrixMethod):
    """θ = θ_0 + α B A⁻¹, A = Σ (S_e + ε_e I) + P, B = Σ C_e (S_e + ε_e I), matrices only.

    C_e = τ_e less its mean row μ_e; S_e = C_eᵀ C_e; P repeats the column means of Σ S_e in each
    row. If the experts' sizes differ much (`heterogeneity`), S_e and ε_e are divided by tr S_e
    and P by the mean ‖τ_e‖², and M = B A⁻¹ gets mean(s_1..s_k) U_k V_kᵀ added, from the singular
    triplets of R = Σ τ_e (S_e − mean_f (S_f + ε_f I)) + M, k = int(rank_fraction · min(o, i)).
    One expert alone does not come back: the mean rows take no part in M.
    """

    name = "ace"
    title = "ACE-Merging"
    summary = "Weighs the updates by input covariances that are estimated from the updates."
    paper = "arXiv 2603.02945"
    cost = "B"
    workspace_tensors = 32.0
    Parameters = AceParameters
    parameters: AceParameters

    def matrix_delta(self, deltas: Sequence[Tensor], *, name: str) -> Tensor | None:
        """Return M, or None if all task vectors are immeasurably small.

        Factorised in float64. Peak memory beyond the inputs: four float64 matrices (i, i), and
        a float64 matrix (o, i).
        """
        experts = measurable(deltas, name=name)
        scaled = self.heterogeneous(experts)
        means = [_center_(delta) for delta, _ in experts]
        if scaled:
            kept = [squared_norm(d) > SAME_ROWS * norm**2 for d, norm in experts]
            experts = [expert for expert, keep in zip(experts, kept, strict=True) if keep]
            means = [mean for mean, keep in zip(means, kept, strict=True) if keep]
        if not experts:
            return None
        sums = self._sums(experts, means, scaled=scaled)
        centred = [delta for delta, _ in experts]
        total = _sum_of(centred, means) if scaled else None
        merged = _solve_(sum_into_first(centred, weights=sums.ridges), sums, name=name)
        if total is None:
            return merged
        return self._refine_(merged, total, sums, count=len(experts), name=name)

    def heterogeneous(self, experts: Sequence[Measured]) -> bool:
        """Say whether the experts' sizes differ so much that covariances are scaled."""
        if len(experts) < 2:
            return False
        logs = torch.tensor([2 * math.log(norm) for _, norm in experts], dtype=torch.float64)
        return float(logs.var()) > self.parameters.heterogeneity * float(logs.mean()) ** 2

    def _sums(
        self, experts: Sequence[Measured], means: Sequence[Tensor], *, scaled: bool
    ) -> Covariances:
        cubes = torch.zeros_like(experts[0].delta, dtype=torch.float64)
        ridged = cubes.new_zeros(cubes.shape[1], cubes.shape[1])
        offsets = cubes.new_zeros(cubes.shape[1])
        ridges = []
        for (centred, _), mean in zip(experts, means, strict=True):
            trace = squared_norm(centred) if scaled else 1.0
            covariance = gram(centred.T)
            ridged.add_(covariance, alpha=1 / trace)
            offsets.addmv_(covariance, mean, alpha=1 / trace)
            del covariance
            add_cube_(cubes, centred, divisor=trace)
            ridges.append(self.parameters.ridge / trace)
        prior = ridged.mean(dim=0)
        if scaled:
            prior /= math.fsum(norm**2 for _, norm in experts) / len(experts)
        ridged.diagonal().add_(math.fsum(ridges))
        return Covariances(ridged, prior, cubes, offsets, ridges)

    def _refine_(
        self, merged: Tensor, total: Tensor, sums: Covariances, *, count: int, name: str
    ) -> Tensor:
        """Add the leading directions of R, of equal strength; R takes the place of `total`."""
        leading = int(self.parameters.rank_fraction * min(merged.shape))
        for rows in columns_of(merged.T):
            residual = (total[rows].double() @ sums.ridged).div_(-count)
            residual.add_(merged[rows]).add_(sums.cubes[rows]).add_(sums.offsets)
            total[rows] = residual.to(total.dtype)
        if leading == 0 or is_zero(total):
            return merged
        left, values, right = singular_triplets(
            total, leading, tolerance=self.parameters.rank_tolerance, name=name
        )
        return merged.addmm_(left.mul_(values.mean()), right.T)


def _center_(matrix: Tensor) -> Tensor:
    """Subtract a matrix's mean row in place, and return it in float64."""
    mean = matrix.new_zeros(matrix.shape[1], dtype=torch.float64)
    for columns in columns_of(matrix):
        mean[columns] = matrix[:, columns].double().mean(dim=0)
        matrix[:, columns] = (matrix[:, columns].double() - mean[columns]).to(matrix.dtype)
    return mean


def _sum_of(centred: Sequence[Tensor], means: Sequence[Tensor]) -> Tensor:
    """Return Σ τ_e from centred matrices and their mean rows, in new memory."""
    total = sum_into_first([centred[0].clone(), *centred[1:]])
    return total.add_(torch.stack(list(means)).sum(dim=0).to(total.dtype))


def _solve_(ridges: Tensor, sums: Covariances, *, name: str) -> Tensor:
    """Return B A⁻¹ in the memory of Σ ε_e C_e, with B = Σ C_e S_e + Σ ε_e C_e.

    With H = Σ (S_e + ε_e I) and A = H + 1 pᵀ: X − (X 1)(H⁻¹ p)ᵀ / (1 + pᵀ H⁻¹ 1), X = B H⁻¹.
    """
    factor = cholesky(sums.ridged, name=name)
    prior = torch.cholesky_solve(sums.prior[:, None], factor)[:, 0]
    prior /= 1 + prior.sum()
    for rows in columns_of(ridges.T):
        both = ridges[rows].double().add_(sums.cubes[rows])
        solved = torch.cholesky_solve(both.T, factor).T
        ridges[rows] = (solved - torch.outer(solved.sum(dim=1), prior)).to(ridges.dtype)
    return ridges
