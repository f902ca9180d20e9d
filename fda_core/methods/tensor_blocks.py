"""One tensor of the base and its task vectors, a block at a time and as often as wanted.

Element-wise methods are written on blocks that fit a processor's cache: what a merge holds is
then what it reads, and no second tensor in the compute dtype. Where the blocks come from, a
file or tensors that are there, is the caller's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from fda_core.methods import elementwise
from fda_core.methods.elementwise import is_zero
from fda_core.methods.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor

    from fda_core.methods.base import TensorInputs

Block = tuple["Tensor", list["Tensor"]]
"""The same elements of the base and of every task vector, flat, in the compute dtype."""

Merging = Callable[["TensorBlocks"], Iterator["Tensor"]]


@dataclass(frozen=True, kw_only=True)
class TensorBlocks:
    """What `TensorInputs` is for whole tensors; every iteration gives the same numbers again."""

    name: str
    layer: int | None
    shape: tuple[int, ...]
    weights: Sequence[float]
    experts: Sequence[str]
    seed: int
    cut: Callable[[int, int], Block]
    """Return elements [start, stop) of base and task vectors.

    Their memory is the caller's to overwrite, until it asks for the next elements.
    """

    @property
    def numel(self) -> int:
        """Return the number of elements."""
        return prod(self.shape)

    @property
    def row_length(self) -> int:
        """Return the length of rows along the last dimension; a scalar is one row."""
        return self.shape[-1] if self.shape else 1

    def blocks(self, *, of: int = 1, at_most: int | None = None) -> Iterator[Block]:
        """Yield all elements in order, in blocks of whole multiples of `of` elements.

        As many as fit `at_most` elements, by default `elementwise.BLOCK`, and at least one.
        """
        step = max(1, (at_most or elementwise.BLOCK) // max(1, of)) * max(1, of)
        for start in range(0, self.numel, step):
            yield self.cut(start, min(start + step, self.numel))

    def is_unchanged(self) -> bool:
        """Say whether every task vector is zero; the first block answers for most that are not."""
        return all(is_zero(delta) for _, deltas in self.blocks() for delta in deltas)


def merged_whole(merge_blocks: Merging, inputs: TensorInputs) -> Tensor:
    """Return what a method makes of whole tensors by blocks, in the base's memory."""
    base = inputs.base.contiguous()
    flats = [tensor.reshape(-1) for tensor in (base, *inputs.deltas)]
    scratch = Scratch(len(flats), dtype=base.dtype, device=base.device)

    def cut(start: int, stop: int) -> Block:
        rows = scratch.rows(stop - start)
        for row, flat in zip(rows, flats, strict=True):
            row.copy_(flat[start:stop])
        return rows[0], rows[1:]

    source = TensorBlocks(
        name=inputs.name,
        layer=inputs.layer,
        shape=tuple(base.shape),
        weights=inputs.weights,
        experts=inputs.experts,
        seed=inputs.seed,
        cut=cut,
    )
    at = 0
    for merged in merge_blocks(source):
        flats[0][at : at + merged.numel()] = merged.reshape(-1)
        at += merged.numel()
    return base


class Scratch:
    """Flat tensors of one dtype that are used again for block after block."""

    def __init__(self, count: int, *, dtype: torch.dtype, device: torch.device) -> None:
        self._count = count
        self._memory = torch.empty(0, dtype=dtype, device=device)

    def rows(self, length: int) -> list[Tensor]:
        """Return the tensors at this length; what was returned before is overwritten."""
        if self._memory.numel() < self._count * length:
            self._memory = self._memory.new_empty(self._count * length)
        return list(self._memory[: self._count * length].view(self._count, length).unbind())
