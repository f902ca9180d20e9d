"""Model Stock: the way to the average by the experts' angle. ECCV 2024, arXiv 2403.19522.

Differences from mergekit: cosines are exact for small task vectors, whose norms it clamps; an
expert that did not change a tensor (or filter) takes no part in it, where it counts there as
one at a right angle; and t is kept between 0 and 1 unless asked otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from fda_core.errors import NumericsError
from fda_core.methods.elementwise import sum_into_first
from fda_core.methods.lazy_torch import torch
from fda_core.methods.spherical import Vectors, cosines, products_of_blocks
from fda_core.methods.task_vector import DeltaBlock, ElementwiseMethod, TaskVectorParameters
from fda_core.methods.tensor_blocks import TensorBlocks

if TYPE_CHECKING:
    from torch import Tensor

POLE = 1e-9
"""A denominator of t below this is zero but for rounding."""


class ModelStockParameters(TaskVectorParameters):
    """Settings of Model Stock."""

    filter_wise: bool = Field(
        default=False,
        description="One angle per filter (row of a matrix, first dimension of other tensors) "
        "instead of one per tensor.",
    )
    clamp: bool = Field(
        default=True,
        description="Keep t between 0 and 1: experts that disagree leave the base. mergekit "
        "does not, and t is then negative, or beyond all bounds near a pole.",
    )


class ModelStock(ElementwiseMethod):
    """θ = θ_0 + t · mean τ_e, t = k c/(1 + (k−1) c), c the mean cosine of pairs of τ_e.

    k is the number of experts that changed the tensor; t is 1 if that is one. Meant for
    fine-tunes of the same task; for different tasks c is near 0 and θ near the base. All float
    tensors alike.
    """

    name = "model_stock"
    title = "Model Stock"
    summary = "Moves from the base to the average as far as the experts' updates point one way."
    paper = "arXiv 2403.19522"
    cost = "A"
    workspace_tensors = 0.25
    min_experts = 2
    Parameters = ModelStockParameters
    parameters: ModelStockParameters

    def delta_blocks(self, source: TensorBlocks) -> Iterator[DeltaBlock]:
        """Yield t · mean τ_e, in the second pass.

        Raises `NumericsError` at a pole of t, which `clamp` avoids.
        """
        filters = source.shape[0] if self.parameters.filter_wise and len(source.shape) >= 2 else 1
        vectors = Vectors(filters, source.numel // filters)
        products = products_of_blocks(source, vectors)
        changed = (products.diagonal(dim1=1, dim2=2) > 0).sum(dim=1)
        pairs = (changed * (changed - 1) / 2).clamp(min=1)
        cosine = cosines(products).triu(diagonal=1).sum(dim=(1, 2)) / pairs
        ratio = self._ratio(cosine, changed, name=source.name) / changed.clamp(min=1)
        blocks = zip(source.blocks(of=vectors.unit), vectors.parts(ratio[:, None]), strict=False)
        for (base, deltas), of_block in blocks:
            total = sum_into_first(deltas)
            vectors.of(total).mul_(of_block.to(total.dtype))
            yield base, total

    def _ratio(self, cosine: Tensor, count: Tensor, *, name: str) -> Tensor:
        """Return t for each filter."""
        below = 1 + (count - 1) * cosine
        if self.parameters.clamp:
            below, cosine = below.clamp(min=1), cosine.clamp(min=0)
        elif bool((below < POLE).any()):
            raise NumericsError(
                f"{name}: the task vectors cancel (mean cosine {float(cosine.min()):g} of "
                f"{int(count.max())}), which is a pole of model_stock's ratio",
                hint="Set clamp: true, which leaves the base there.",
                tensor=name,
            )
        return torch.where(count > 1, count * cosine / below, 1.0)
