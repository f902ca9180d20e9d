"""Methods that sparsify each task vector and merge what is left: mergekit's general form.

For every float tensor alike: (1) δ_e = S(τ_e); (2) y_e = w_e f_e δ_e, where f_e makes up for
what S dropped; (3) either θ = θ_0 + λ Σ y_e, or a sign is elected per coordinate from Σ y_e
and only entries with that sign are summed. A method is a sparsifier with one of the two sums.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from pydantic import Field

from fda_core.methods.elementwise import Keep, disjoint_sum, keep_all, sum_into_first
from fda_core.methods.linear import normalized
from fda_core.methods.sparsify import AbsoluteSum
from fda_core.methods.task_vector import DeltaBlock, ElementwiseMethod, TaskVectorParameters
from fda_core.methods.tensor_blocks import Block, TensorBlocks
from fda_core.seeds import derive

Rescale = Literal["inverse_probability", "l1"]


class SummedParameters(TaskVectorParameters):
    """Settings of the plain sum."""

    normalize: bool = Field(default=False, description="Divide by the sum of the weights.")


class ElectedParameters(TaskVectorParameters):
    """Settings of the sum after an election."""

    merge: Literal["mean", "sum"] = Field(
        default="sum",
        description="Whether entries of the elected sign are only added, or divided by the sum "
        "of their weights too.",
    )


class SparseMethod(ElementwiseMethod):
    """A sparsifier and a sum."""

    uses_weights = True
    workspace_tensors = 0.25

    def delta_blocks(self, source: TensorBlocks) -> Iterator[DeltaBlock]:
        """Yield the sum of the sparsified, weighted task vectors.

        Peak memory: see the sparsifier; the sums need none.
        """
        keepers = self.keepers(source)
        unit = self.unit(source)

        def sparse() -> Iterator[Block]:
            keeps = [begin() for begin in keepers]
            for base, deltas in source.blocks(of=unit):
                for keep, delta in zip(keeps, deltas, strict=True):
                    keep(delta)
                yield base, deltas

        made_up = self.made_up(source, keepers)
        return self.combined(sparse, weights=source.weights, made_up=made_up)

    @abstractmethod
    def keepers(self, source: TensorBlocks) -> list[Callable[[], Keep]]:
        """Return, for each task vector, what begins to zero entries block by block.

        May go through the tensor first. Each call begins anew, and does the same again.
        """

    def made_up(
        self,
        source: TensorBlocks,  # noqa: ARG002
        keepers: Sequence[Callable[[], Keep]],
    ) -> list[float]:
        """Return f_e for each task vector; may go through the tensor."""
        return [1.0] * len(keepers)

    def unit(self, source: TensorBlocks) -> int:  # noqa: ARG002
        """Return how many elements have to be in one block."""
        return 1

    @abstractmethod
    def combined(
        self,
        sparse: Callable[[], Iterator[Block]],
        *,
        weights: Sequence[float],
        made_up: Sequence[float],
    ) -> Iterator[DeltaBlock]:
        """Yield the merged delta from passes over the sparsified task vectors."""


def l1_factors(
    source: TensorBlocks, keepers: Sequence[Callable[[], Keep]], *, unit: int
) -> list[float]:
    """Return Σ |τ_e| before sparsifying over that after, in one pass; 1 where all is kept."""
    dropping = [e for e, begin in enumerate(keepers) if begin is not keep_all]
    factors = [1.0] * len(keepers)
    if not dropping:
        return factors
    keeps = {e: keepers[e]() for e in dropping}
    before, after = ({e: AbsoluteSum() for e in dropping} for _ in range(2))
    for _, deltas in source.blocks(of=unit):
        for e, keep in keeps.items():
            before[e].add(deltas[e])
            keep(deltas[e])
            after[e].add(deltas[e])
    for e in dropping:
        factors[e] = before[e].result() / (after[e].result() or 1.0)
    return factors


class Summed(SparseMethod):
    """Σ w_e f_e δ_e, divided by Σ w_e with `normalize`."""

    parameters: SummedParameters

    def combined(
        self,
        sparse: Callable[[], Iterator[Block]],
        *,
        weights: Sequence[float],
        made_up: Sequence[float],
    ) -> Iterator[DeltaBlock]:
        """Yield the weighted sum."""
        shares = normalized(weights) if self.parameters.normalize else weights
        factors = _products(shares, made_up)
        for base, deltas in sparse():
            yield base, sum_into_first(deltas, weights=factors)


class Elected(SparseMethod):
    """Σ of the entries w_e f_e δ_e that have the sign of their sum; zero counts as plus."""

    parameters: ElectedParameters

    def combined(
        self,
        sparse: Callable[[], Iterator[Block]],
        *,
        weights: Sequence[float],
        made_up: Sequence[float],
    ) -> Iterator[DeltaBlock]:
        """Yield the sum or mean of what agrees."""
        factors = _products(weights, made_up)

        def weighed() -> Iterator[Block]:
            for base, deltas in sparse():
                for delta, factor in zip(deltas, factors, strict=True):
                    if factor != 1:
                        delta.mul_(factor)
                yield base, deltas

        votes = self.votes(weights) if self.parameters.merge == "mean" else None
        zero_sign = self.zero_sign(weighed)
        for base, deltas in weighed():
            yield base, disjoint_sum(deltas, zero_sign=zero_sign, votes=votes)

    def zero_sign(self, weighed: Callable[[], Iterator[Block]]) -> int:  # noqa: ARG002
        """Return the sign elected where the sum is zero."""
        return 1

    def votes(self, weights: Sequence[float]) -> Sequence[float]:
        """Return what the mean divides by, per agreeing entry."""
        return weights


def _products(first: Sequence[float], second: Sequence[float]) -> list[float]:
    return [a * b for a, b in zip(first, second, strict=True)]


def mask_seeds(source: TensorBlocks) -> list[int]:
    """Return the seed of each expert's random mask: the tensor's and the expert's own."""
    return [derive(source.seed, "mask", source.name, expert) for expert in source.experts]
