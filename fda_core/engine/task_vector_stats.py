"""Norms, cosines, sign conflicts and rounding of task vectors, summed over tensors."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fda_core.contract.artifacts import TaskVectorMetrics
from fda_core.errors import NonFinite

BLOCK = 2**16
"""Elements of each tensor in one block."""


class TaskVectorStats:
    """The task vectors of one layer (or of everything outside), read as one vector each.

    Tensors are read in blocks that fit a processor's cache, so that counting costs little
    beside reading and needs no memory of its own. Sums over blocks are kept in float64.
    """

    def __init__(self, layer: int | None, experts: Sequence[str]) -> None:
        self.layer = layer
        self._experts = tuple(experts)
        count = len(self._experts)
        self._gram = torch.zeros(count, count, dtype=torch.float64)
        self._base = 0.0
        self._changed = 0
        self._conflicting = 0
        self._moved = 0
        self._lost = 0

    def add(self, base: Tensor, deltas: Sequence[Tensor], experts: Sequence[str]) -> None:
        """Count one tensor of the base and the task vectors of the experts that have it."""
        places = torch.tensor([self._experts.index(name) for name in experts])
        rows = [base.reshape(-1), *(delta.reshape(-1) for delta in deltas)]
        for start in range(0, base.numel(), BLOCK):
            self._add_block(torch.stack([row[start : start + BLOCK] for row in rows]), places)

    def _add_block(self, rows: Tensor, places: Tensor) -> None:
        """Count a block: the base's elements in the first row, then one row per task vector."""
        products = (rows @ rows.T).double().cpu()
        self._base += float(products[0, 0])
        self._gram[places[:, None], places[None]] += products[1:, 1:]
        up, down = rows[1:].amax(dim=0) > 0, rows[1:].amin(dim=0) < 0
        self._conflicting += int(torch.count_nonzero(up & down))
        self._changed += int(torch.count_nonzero(up | down))

    def add_result(self, base: Tensor, merged: Tensor, written: Tensor) -> None:
        """Count elements the merge moved, and of them those that the output dtype put back.

        `base` and `merged` are in the compute dtype, `written` is merged in the output's.
        """
        flat = [tensor.reshape(-1) for tensor in (base, merged, written)]
        for start in range(0, base.numel(), BLOCK):
            was, now, kept = (tensor[start : start + BLOCK] for tensor in flat)
            moved = now != was
            self._moved += int(torch.count_nonzero(moved))
            if kept.dtype != now.dtype:
                self._lost += int(torch.count_nonzero(moved & (kept == was.to(kept.dtype))))

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
