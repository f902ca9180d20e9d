"""SCE: select what varies, calculate weights, erase minority signs. FuseChat, arXiv 2408.07990.

Differences from mergekit: whether an expert's weight is zero is tested exactly, not against
1e-6, which the squares of real task vectors do not reach; and experts that agree exactly have
variance zero to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fda_core.methods import elementwise
from fda_core.methods.base import TensorInputs
from fda_core.methods.elementwise import disjoint_sum, keep_largest_, squared_norm
from fda_core.methods.lazy_torch import torch
from fda_core.methods.task_vector import TaskVectorMethod, TaskVectorParameters

if TYPE_CHECKING:
    from torch import Tensor


class SceParameters(TaskVectorParameters):
    """Settings of SCE."""

    select_topk: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="τ: part of the coordinates that vary between experts which is selected; 1 "
        "selects all, those that do not vary too. FuseChat's runs used 0.1.",
    )
    mask_scope: Literal["delta", "weights"] = Field(
        default="delta",
        description="What the selection applies to: the merged updates too, as in mergekit, or "
        "only the weights calculated from them, as in the authors' code.",
    )


class Sce(TaskVectorMethod):
    """Δ = Σ w_e [sign x_e = s] x_e / Σ w_e [sign x_e = s], s = sign Σ x_e (+ for 0).

    M selects the int(τ · number of coordinates that vary) of largest variance over the experts;
    w_e = mean (M ⊙ τ_e)², divided by their sum (equal if that is 0); x_e = M ⊙ τ_e, or τ_e with
    `mask_scope: weights`. All float tensors alike. Experts that are the same have no variance:
    with τ below 1 the base is left (delta), or their mean (weights).
    """

    name = "sce"
    title = "SCE"
    summary = "Weighs experts by the size of their most varied updates and erases minority signs."
    paper = "arXiv 2408.07990"
    cost = "A"
    workspace_tensors = 1.5
    Parameters = SceParameters
    parameters: SceParameters

    def merged_delta(self, inputs: TensorInputs) -> Tensor | None:
        """Return the merged delta, or None if nothing is selected.

        Peak memory beyond the inputs: one tensor if τ is below 1, else nothing.
        """
        flats = [delta.reshape(-1) for delta in inputs.deltas]
        whole = self.parameters.mask_scope == "delta"
        mask = selection(flats, self.parameters.select_topk)
        if mask is not None and whole:
            if not mask.any():
                return None
            for flat in flats:
                flat.mul_(mask)
            mask = None
        sizes = [_size(flat, mask) for flat in flats]
        total = sum(sizes)
        weights = [size / total for size in sizes] if total else [1.0] * len(flats)
        merged = disjoint_sum(flats, zero_sign=1, votes=weights, weights=weights)
        return merged.view(inputs.base.shape)


def selection(flats: Sequence[Tensor], share: float) -> Tensor | None:
    """Return 1 at the share of varying coordinates that varies most, else 0; None for all."""
    if share == 1:
        return None
    variances = torch.empty_like(flats[0])
    outs = torch.split(variances, elementwise.BLOCK)
    blocks = zip(*(torch.split(flat, elementwise.BLOCK) for flat in flats), strict=True)
    for out, parts in zip(outs, blocks, strict=True):
        _variance(parts, out=out)
    count = int(share * int(torch.count_nonzero(variances)))
    if count == 0:
        return variances.zero_()
    return keep_largest_(variances, count, ties=False).sign_()


def _variance(parts: Sequence[Tensor], *, out: Tensor) -> None:
    """Write the population variance of each coordinate, from differences to the first expert.

    So it is exactly zero where all agree.
    """
    offsets = torch.stack([part - parts[0] for part in parts])
    offsets -= offsets.mean(dim=0)
    torch.mean(offsets.square_(), dim=0, out=out)


def _size(flat: Tensor, mask: Tensor | None) -> float:
    """Return Σ (M ⊙ x)²."""
    if mask is None:
        return squared_norm(flat)
    masks = torch.split(mask, elementwise.BLOCK)
    blocks = zip(torch.split(flat, elementwise.BLOCK), masks, strict=True)
    return sum(squared_norm(block * kept) for block, kept in blocks)
