"""Norms, cosines, sign conflicts and rounding of task vectors, summed over tensors."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fda_core.contract.artifacts import TaskVectorMetrics
from fda_core.engine.device import plain_float32
from fda_core.errors import NonFinite

BLOCK = 2**17
"""Elements of each tensor in one block."""


class TaskVectorStats:
    """The task vectors of one layer (or of everything outside), read as one vector each.

    Tensors are read in blocks that fit a processor's cache, so that counting costs little
    beside reading and needs no memory of its own. Sums over blocks are kept in float64. On the
    CPU, NumPy compares: it takes a fifth of torch's time.
    """

    def __init__(self, layer: int | None, experts: Sequence[str]) -> None:
        self.layer = layer
        self._experts = tuple(experts)
        count = len(self._experts)
        self._gram = np.zeros((count, count))
        self._base = 0.0
        self._changed = 0
        self._conflicting = 0
        self._moved = 0
        self._lost = 0

    def add(self, base: Tensor, deltas: Sequence[Tensor], experts: Sequence[str]) -> None:
        """Count one tensor of the base and the task vectors of the experts that have it."""
        rows = [base.reshape(-1), *(delta.reshape(-1) for delta in deltas)]
        for start in range(0, base.numel(), BLOCK):
            part, *parts = (row[start : start + BLOCK] for row in rows)
            self.add_block(part, parts, experts)

    def add_block(self, base: Tensor, deltas: Sequence[Tensor], experts: Sequence[str]) -> bool:
        """Count a flat block; return False, and count its products only, if one overflows.

        So it does if any number is NaN or infinite.
        """
        places = [self._experts.index(name) for name in experts]
        pairs = [(k, other) for k in range(len(places)) for other in range(k + 1)]
        with plain_float32():
            size = float(torch.dot(base, base))
            products = [float(torch.dot(deltas[k], deltas[other])) for k, other in pairs]
        self._base += size
        for (k, other), product in zip(pairs, products, strict=True):
            self._gram[places[k], places[other]] += product
            if other != k:
                self._gram[places[other], places[k]] += product
        if not math.isfinite(sum(map(abs, products), start=size)):
            return False
        up, down, both = _signs(deltas) if deltas else (0, 0, 0)
        self._conflicting += both
        self._changed += up + down - both
        return True

    def add_result(self, base: Tensor, merged: Tensor, written: Tensor) -> None:
        """Count elements the merge moved, and of them those that the output dtype put back.

        `base` and `merged` are in the compute dtype, `written` is merged in the output's.
        """
        flat = [tensor.reshape(-1) for tensor in (base, merged, written)]
        for start in range(0, base.numel(), BLOCK):
            was, now, kept = (tensor[start : start + BLOCK] for tensor in flat)
            moved = _differing(now, was)
            self._moved += moved
            if kept.dtype != now.dtype:
                # what did not move is written as the base would be, so the rest is what moved
                rounded = was.to(kept.dtype).to(was.dtype)
                self._lost += moved - _differing(kept.to(was.dtype), rounded)

    def _check_finite(self) -> None:
        if math.isfinite(self._base) and np.isfinite(self._gram).all():
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
        norms = np.sqrt(self._gram.diagonal())
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


def _signs(deltas: Sequence[Tensor]) -> tuple[int, int, int]:
    """Return how many elements some task vector raises, some lowers, and both."""
    if deltas[0].device.type != "cpu":
        rows = torch.stack(list(deltas))
        up, down = rows.amax(dim=0) > 0, rows.amin(dim=0) < 0
        return int(up.sum()), int(down.sum()), int((up & down).sum())
    arrays = [delta.numpy() for delta in deltas]
    highest = lowest = arrays[0]
    if len(arrays) > 1:
        highest, lowest = np.maximum(arrays[0], arrays[1]), np.minimum(arrays[0], arrays[1])
    for array in arrays[2:]:
        np.maximum(highest, array, out=highest)
        np.minimum(lowest, array, out=lowest)
    raised, lowered = highest > 0, lowest < 0
    counts = [int(np.count_nonzero(where)) for where in (raised, lowered, raised & lowered)]
    return counts[0], counts[1], counts[2]


def _differing(first: Tensor, second: Tensor) -> int:
    """Return how many elements differ."""
    if first.device.type != "cpu":
        return int(torch.count_nonzero(first != second))
    return int(np.count_nonzero(first.numpy() != second.numpy()))
