"""Norms, cosines, sign conflicts and rounding of task vectors, summed over tensors."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fda_core.anchors.sums import inner
from fda_core.contract.artifacts import TaskVectorMetrics
from fda_core.errors import NonFinite


class TaskVectorStats:
    """The task vectors of one layer (or of everything outside), read as one vector each.

    Memory: two tensors beyond the deltas. Sums are kept in float64.
    """

    def __init__(self, layer: int | None, experts: Sequence[str]) -> None:
        self.layer = layer
        self._experts = tuple(experts)
        count = len(self._experts)
        self._gram = torch.zeros(count, count, dtype=torch.float64)
        self._base = 0.0
        self._elements = 0
        self._changed = 0
        self._conflicting = 0
        self._moved = 0
        self._lost = 0

    def add(self, base: Tensor, deltas: Sequence[Tensor], experts: Sequence[str]) -> None:
        """Count one tensor of the base and the task vectors of the experts that have it."""
        self._base += float(inner(base, base))
        self._elements += base.numel()
        places = [self._experts.index(name) for name in experts]
        flat = [delta.flatten() for delta in deltas]
        for row, one in zip(places, flat, strict=True):
            for column, other in zip(places, flat, strict=True):
                if column >= row:
                    product = float(inner(one, other))
                    self._gram[row, column] += product
                    if column != row:
                        self._gram[column, row] += product
        up = torch.zeros_like(flat[0], dtype=torch.bool)
        down = torch.zeros_like(up)
        for one in flat:
            up |= one > 0
            down |= one < 0
        self._conflicting += int((up & down).sum())
        self._changed += int((up | down).sum())

    def add_result(self, base: Tensor, merged: Tensor, written: Tensor, stored: Tensor) -> None:
        """Count elements the merge moved, and of them those that the output dtype put back.

        `written` and `stored` are the merged and the base's tensor in the output dtype.
        """
        moved = merged != base
        self._moved += int(moved.sum())
        self._lost += int((moved & (written == stored)).sum())

    def _check_finite(self) -> None:
        if math.isfinite(self._base) and bool(self._gram.isfinite().all()):
            return
        where = "outside of the layers" if self.layer is None else f"layer {self.layer}"
        raise NonFinite(
            f"{where}: the numbers of base or experts ({', '.join(self._experts)}) are so large "
            "that the norms of the task vectors overflow",
            hint="Check that the checkpoints are sound and of one base.",
            layer=self.layer,
        )

    def result(self) -> TaskVectorMetrics:
        """Return the figures, or raise `NonFinite` if squares of such numbers overflow."""
        self._check_finite()
        norms = self._gram.diagonal().clamp_min(0).sqrt()
        count = len(self._experts)
        cosines: list[tuple[float | None, ...]] = []
        for row in range(count):
            cells: list[float | None] = []
            for column in range(count):
                size = float(norms[row] * norms[column])
                cells.append(float(self._gram[row, column]) / size if size > 0 else None)
            cosines.append(tuple(cells))
        return TaskVectorMetrics(
            layer=self.layer,
            base_norm=self._base**0.5,
            norms={name: float(norm) for name, norm in zip(self._experts, norms, strict=True)},
            cosines=tuple(cosines),
            sign_conflict_ratio=self._conflicting / self._changed if self._changed else 0.0,
            rounded_away_ratio=self._lost / self._moved if self._moved else 0.0,
        )
