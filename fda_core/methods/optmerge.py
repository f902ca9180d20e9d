"""OptMerge (WUDI v2): WUDI on task vectors cleaned of their small directions. arXiv 2505.19892.

The authors descend 300 steps of SGD with momentum on a quadratic. Each step of that is linear,
so all of them are one function of the quadratic's eigenvalues, the same steps on numbers
instead of matrices: no iteration on matrices, and no approximation either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from fda_core.errors import NumericsError
from fda_core.methods.elementwise import sum_into_first
from fda_core.methods.interference import measurable
from fda_core.methods.lazy_torch import torch
from fda_core.methods.spectral import GRAM_TOLERANCE, eigh, gram, singular_triplets
from fda_core.methods.task_vector import MatrixMethod, MatrixParameters

if TYPE_CHECKING:
    from torch import Tensor


class OptmergeParameters(MatrixParameters):
    """Settings of OptMerge."""

    lr: float = Field(default=1e-4, gt=0, description="SGD's learning rate.")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="SGD's momentum.")
    steps: int = Field(default=300, ge=1, description="SGD's steps.")


class Optmerge(MatrixMethod):
    """θ = θ_0 + α M after SGD on Σ_e ‖(M − T_e) P_eᵀ‖² / ‖τ_e‖² from M = mean τ_e, matrices only.

    T_e = U_e S_e V_eᵀ is τ_e cut to its first int(min(o, i)/m) singular triplets, P_e = S_e V_eᵀ.
    With rows W = [P_e/‖τ_e‖]_e, Y = [U_e S_e²/‖τ_e‖]_e and W Wᵀ = Q Λ Qᵀ

        M = M_0 − (M_0 Wᵀ − Y) Q q(Λ) Qᵀ W,

    q by SGD's own steps: q ← q + lr·b, b ← momentum·b + 2 (1 − λ q). At the defaults a mild
    correction of the mean. Published for language models, without lm_head.
    """

    name = "optmerge"
    title = "OptMerge"
    summary = "Corrects the mean of the updates towards each expert's leading directions."
    paper = "arXiv 2505.19892"
    cost = "B"
    workspace_tensors = 11.5
    Parameters = OptmergeParameters
    parameters: OptmergeParameters

    def matrix_delta(self, deltas: Sequence[Tensor], *, name: str) -> Tensor | None:
        """Return M, or None if all task vectors are immeasurably small.

        Peak memory beyond the inputs: W, Y and their product, (i + 2·o)·min(o, i) elements,
        and four float64 matrices of the short side; in float64 an SVD of one matrix.
        """
        experts = measurable(deltas, name=name)
        if not experts:
            return None
        rows, columns = deltas[0].shape
        rank = min(rows, columns) // len(experts)
        w, y = [deltas[0].new_empty(columns, 0)], [deltas[0].new_empty(rows, 0)]
        for delta, norm in experts if rank else ():
            left, values, right = singular_triplets(
                delta, rank, tolerance=GRAM_TOLERANCE, name=name
            )
            w.append(right.mul_(values / norm))
            y.append(left.mul_(values.square() / norm))
        merged = sum_into_first([delta for delta, _ in experts]).mul_(1 / len(experts))
        if not rank:
            return merged
        stack = torch.cat(w, dim=1)
        residual = torch.cat(y, dim=1).neg_().addmm_(merged, stack)
        del w, y
        return merged.addmm_(residual @ self._moved(stack, name=name), stack.T, alpha=-1)

    def _moved(self, stack: Tensor, *, name: str) -> Tensor:
        """Return Q q(Λ) Qᵀ for W's transpose, after all steps."""
        values, vectors = eigh(gram(stack.T), name=name)
        settings = self.parameters
        if settings.lr * float(values[-1]) >= 1 + settings.momentum:
            raise NumericsError(
                f"{name}: SGD with lr {settings.lr:g} diverges at curvature {float(values[-1]):g}",
                hint=f"Set lr below {(1 + settings.momentum) / float(values[-1]):.3g}.",
                tensor=name,
            )
        moved, step = torch.zeros_like(values), torch.zeros_like(values)
        for _ in range(settings.steps):
            step = settings.momentum * step + 2 * (1 - values * moved)
            moved = moved + settings.lr * step
        return ((vectors * moved) @ vectors.T).to(stack.dtype)
