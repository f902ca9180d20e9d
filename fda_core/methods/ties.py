"""TIES: trim, elect signs, merge what agrees. NeurIPS 2023, arXiv 2306.01708.

Differences from the authors' code: trimming is per tensor, not over the whole model, so any
tensor can be merged alone; density 1 keeps everything (theirs fails); and where a coordinate
sums to zero and the whole tensor's vote is a draw too, nothing is kept (theirs keeps the
negative entries), so that turning all signs around turns the result around.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fda_core.methods.elementwise import (
    Keep,
    at_least,
    bands,
    keep_all,
    order_statistics,
    sign_balance,
)
from fda_core.methods.sparse import Elected, ElectedParameters
from fda_core.methods.tensor_blocks import Block, TensorBlocks

if TYPE_CHECKING:
    from torch import Tensor


class TiesParameters(ElectedParameters):
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


class Ties(Elected):
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
    expert_parameters = ("density",)
    Parameters = TiesParameters
    parameters: TiesParameters
    own: Mapping[str, TiesParameters]

    def keepers(self, source: TensorBlocks) -> list[Callable[[], Keep]]:
        """Trim to the largest entries; nothing makes up for the rest.

        Peak memory: nothing beyond the inputs.
        """
        paper, count = self.parameters.rules == "paper", source.numel
        shares = [self.own.get(e, self.parameters).density for e in source.experts]
        kept = [int(share * count) for share in shares]

        def passes() -> Iterator[Sequence[Tensor]]:
            return (deltas for _, deltas in source.blocks())

        if not paper:
            return bands(passes, [(0, max(k, 1)) for k in kept], count=count)
        places = [[k + 1] if k + 1 < count else [] for k in kept]
        return [
            partial(at_least, ranks[0].magnitude) if ranks else keep_all
            for ranks in order_statistics(passes, places)
        ]

    def zero_sign(self, weighed: Callable[[], Iterator[Block]]) -> int:
        """Return the sign elected where the sum is zero."""
        if self.parameters.rules == "mergekit":
            return 1
        balance = sum(sign_balance(deltas) for _, deltas in weighed())
        return (balance > 0) - (balance < 0)

    def votes(self, weights: Sequence[float]) -> Sequence[float]:
        """Return one vote per entry, or the experts' weights under mergekit's rules."""
        return [1.0] * len(weights) if self.parameters.rules == "paper" else weights
