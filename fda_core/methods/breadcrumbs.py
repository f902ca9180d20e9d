"""Model Breadcrumbs: drop outliers and noise of each task vector. ECCV 2024, arXiv 2312.06795.

Differences from the published codes: mergekit empties tensors too small to lose an outlier
(int(γ n) = 0), which is a mistake in a slice; here at least one entry of a row, or of a tensor,
stays, where both codes keep int(β n) even if that is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

from pydantic import Field

from fda_core.methods.elementwise import Keep, bands, keep_all
from fda_core.methods.sparse import (
    Elected,
    ElectedParameters,
    SparseMethod,
    Summed,
    SummedParameters,
)
from fda_core.methods.sparsify import keeping_ranks_in_rows
from fda_core.methods.task_vector import TaskVectorParameters
from fda_core.methods.tensor_blocks import TensorBlocks


class BreadcrumbsParameters(TaskVectorParameters):
    """Settings of the mask."""

    scale: float = Field(
        default=0.3, description="α, the factor of the sum; 0 gives the base. The code uses 0.4."
    )
    keep: float = Field(
        default=0.1, gt=0, le=1, description="β: part of the entries that stays, by magnitude."
    )
    remove_top: float = Field(
        default=0.01, ge=0, lt=1, description="γ: part of the entries dropped as outliers."
    )
    scope: Literal["row", "tensor"] = Field(
        default="row",
        description="Where entries are ranked: within rows along the last dimension, as "
        "published, or over the tensor, as in mergekit. They also differ if β + γ > 1: row "
        "keeps the 1 − γ that are left, tensor takes back outliers until β stay.",
    )

    def band(self, count: int) -> tuple[int, int]:
        """Return how many of `count` entries are too large, and how many are not too small."""
        dropped = int(self.remove_top * count)
        kept = max(1, int(self.keep * count))
        if self.scope == "tensor":
            dropped = min(dropped, count - kept)
        return dropped, min(count, dropped + kept)


class BreadcrumbsLinearParameters(BreadcrumbsParameters, SummedParameters):
    """Settings of Breadcrumbs with task arithmetic."""


class BreadcrumbsTiesParameters(BreadcrumbsParameters, ElectedParameters):
    """Settings of Breadcrumbs with sign election."""


class SparseByBand(SparseMethod):
    """Zero the int(γ n) largest magnitudes, then all but the int(β n) largest of the rest."""

    paper = "arXiv 2312.06795"
    cost = "A"
    expert_parameters = ("keep", "remove_top")
    parameters: BreadcrumbsParameters
    own: Mapping[str, BreadcrumbsParameters]

    @property
    def single_pass(self) -> bool:
        """Say yes, if entries are ranked within rows."""
        return self.parameters.scope == "row"

    def keepers(self, source: TensorBlocks) -> list[Callable[[], Keep]]:
        """Keep a band of magnitudes; nothing makes up for the rest.

        Of equal magnitudes those that come first count as larger. Peak memory: nothing beyond
        the inputs, but four rows where a row is long.
        """
        by_row = self.parameters.scope == "row"
        count = source.row_length if by_row else source.numel
        cuts = [self.own.get(e, self.parameters).band(count) for e in source.experts]
        if not by_row:
            return bands(lambda: (deltas for _, deltas in source.blocks()), cuts, count=count)
        return [
            keep_all if cut == (0, count) else partial(keeping_ranks_in_rows, count, *cut)
            for cut in cuts
        ]

    def unit(self, source: TensorBlocks) -> int:
        """Return the length of a row where entries are ranked in it."""
        return source.row_length if self.parameters.scope == "row" else 1


class Breadcrumbs(SparseByBand, Summed):
    """θ = θ_0 + α Σ w_e M_e ⊙ τ_e, M_e without the largest γ and the smallest of the rest.

    All float tensors alike; a scalar is a row of one, which stays. The code's example has
    β 0.2, γ 0.1, α 0.4; the paper counts what is removed.
    """

    name = "breadcrumbs"
    title = "Breadcrumbs"
    summary = "Drops each task vector's outliers and small entries, then adds them up."
    Parameters = BreadcrumbsLinearParameters
    parameters: BreadcrumbsLinearParameters


class BreadcrumbsTies(SparseByBand, Elected):
    """Breadcrumbs' sparse task vectors y_e, merged where they have the sign of Σ y_e.

    θ = θ_0 + α Σ_e [sign y_e = s] y_e with s = sign Σ y_e (+ for 0). In mergekit only.
    """

    name = "breadcrumbs_ties"
    title = "Breadcrumbs-TIES"
    summary = "Drops outliers and small entries, elects a sign per entry and merges what agrees."
    Parameters = BreadcrumbsTiesParameters
    parameters: BreadcrumbsTiesParameters
