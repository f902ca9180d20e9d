"""Sparsifiers: which entries of a task vector stay, at random or by rank within rows.

All work in place on blocks that come in order, of whole rows where rows are ranked, and need no
other tensor's worth of memory; rows longer than a block are ranked whole, for ten times their
size. Random words are drawn on the CPU, so that devices agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fda_core.methods import elementwise
from fda_core.methods.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from fda_core.methods.elementwise import Keep

WORD = 2**32
"""How many values a random word has: probabilities are exact to 2.3e-10."""


SUMMED = 2**17
"""Elements that are summed in the tensor's dtype, before sums are added up in float64."""


class AbsoluteSum:
    """Σ |x| over a flat tensor whose blocks come in order; how it is cut changes nothing."""

    def __init__(self) -> None:
        self.total = 0.0
        self._begun: list[Tensor] = []
        self._missing = SUMMED

    def add(self, block: Tensor) -> None:
        """Count the next block."""
        while block.numel() >= self._missing:
            self._begun.append(block[: self._missing])
            block = block[self._missing :]
            self.total += self._of_begun()
            self._begun, self._missing = [], SUMMED
        if block.numel():
            self._begun.append(block.clone())  # its memory is used again
            self._missing -= block.numel()

    def result(self) -> float:
        """Return the sum over all blocks."""
        return self.total + self._of_begun() if self._begun else self.total

    def _of_begun(self) -> float:
        joined = self._begun[0] if len(self._begun) == 1 else torch.cat(self._begun)
        return float(joined.abs().sum())


def drop_(tensor: Tensor, *, density: float, seed: int) -> None:
    """Zero each element of a contiguous tensor but with probability `density`."""
    keep = dropping(density=density, seed=seed)
    for block in torch.split(tensor.view(-1), elementwise.BLOCK):
        keep(block)


def dropping(*, density: float, seed: int) -> Keep:
    """Return what zeroes each element of blocks but with probability `density`.

    Blocks of an odd length but the last would change the words of those that follow.
    """
    generator = torch.Generator().manual_seed(seed)
    threshold = int(_thresholds(torch.tensor(density, dtype=torch.float64)))

    def keep(block: Tensor) -> None:
        block.mul_(torch.lt(_words(block, generator), threshold, out=torch.empty_like(block)))

    return keep


def keep_ranks_in_rows_(rows: Tensor, first: int, last: int) -> None:
    """Zero, in each row, all but the magnitudes that rank from `first` + 1 to `last`."""
    keep = keeping_ranks_in_rows(rows.shape[1], first, last)
    for block in _row_blocks(rows):
        keep(block)


def keeping_ranks_in_rows(length: int, first: int, last: int) -> Keep:
    """Return what keeps, in each row of blocks of whole rows, a band of magnitudes.

    Those that rank from `first` + 1 to `last`: rank 1 is the largest; of equal magnitudes the
    one that comes first ranks higher. Needs 0 <= first < last <= row length.
    """

    def keep(block: Tensor) -> None:
        rows = block.view(-1, length)
        magnitudes = rows.abs()
        ascending = _sorted(magnitudes.clone())
        lowest = ascending[:, length - last, None]
        kept = torch.ge(magnitudes, lowest, out=torch.empty_like(magnitudes))
        if first:
            highest = ascending[:, length - first, None]
            kept.mul_(torch.lt(magnitudes, highest, out=torch.empty_like(magnitudes)))
        for cut in (first, last):
            _correct_equals_(kept, magnitudes, ascending, first=first, last=last, cut=cut)
        rows.mul_(kept)

    return keep


def _correct_equals_(
    kept: Tensor, magnitudes: Tensor, ascending: Tensor, *, first: int, last: int, cut: int
) -> None:
    """Rank by place the elements equal to the `cut`-th, in rows where they lie on both sides."""
    length = magnitudes.shape[1]
    if cut in (0, length):
        return
    inner, outer = ascending[:, length - cut, None], ascending[:, length - cut - 1, None]
    unclear = (inner == outer) & (inner > 0)
    if not unclear.any():
        return
    value = torch.where(unclear, inner, -1)
    places = elementwise.places_of((magnitudes == value).view(-1))
    rows = places // length
    in_row = torch.bincount(rows, minlength=len(value))
    before = (in_row.cumsum(0) - in_row)[rows]
    larger = (length - torch.searchsorted(ascending, value, right=True))[rows, 0]
    ranks = torch.arange(1, len(places) + 1, device=places.device) - before + larger
    inside = (ranks > first) & (ranks <= last)
    kept.view(-1).scatter_(0, places, inside.to(kept.dtype))


def prune_by_rank_(
    rows: Tensor, *, lowest: float, highest: float, inverse: bool, seed: int
) -> None:
    """Zero elements at random, those of small magnitude in their row more often."""
    keep = pruning(rows.shape[1], lowest=lowest, highest=highest, inverse=inverse, seed=seed)
    for block in _row_blocks(rows):
        keep(block)


def pruning(length: int, *, lowest: float, highest: float, inverse: bool, seed: int) -> Keep:
    """Return what prunes blocks of whole rows of this length.

    The smallest of a row stays with probability `lowest`, the largest with `highest`, those
    between with steps of equal size; the only element of a row with the mean of both. Of equal
    magnitudes the one that comes first ranks lower. With `inverse`, what stays is divided by
    its probability.
    """
    generator = torch.Generator().manual_seed(seed)
    shares = torch.linspace(lowest, highest, length, dtype=torch.float64)
    if length == 1:
        shares.fill_((lowest + highest) / 2)
    thresholds = _thresholds(shares)
    factors = 1 / shares if inverse else torch.ones_like(shares)

    def keep(block: Tensor) -> None:
        rows = block.view(-1, length)
        below = thresholds.to(rows.device)
        kept = torch.lt(_words(rows, generator), below, out=torch.empty_like(rows))
        order = ascending_order(rows)
        kept.mul_(factors.to(rows))
        rows.mul_(torch.empty_like(rows).scatter_(1, order, kept))

    return keep


def ascending_order(rows: Tensor) -> Tensor:
    """Return the places of each row's magnitudes, smallest first, equal ones in place order.

    For float32 the bit pattern of the magnitude and the place are packed into one integer, so
    that plain sorting, which processors do many values at a time, gives the stable order: 5 ns
    an element where `torch.argsort` takes 50.
    """
    magnitudes = rows.abs()
    if rows.dtype != torch.float32:
        return magnitudes.argsort(dim=1, stable=True)
    keys = magnitudes.view(torch.int32).to(torch.int64).bitwise_left_shift_(32)
    keys.bitwise_or_(torch.arange(rows.shape[1], device=rows.device))
    return _sorted(keys).bitwise_and_(WORD - 1)


def _sorted(rows: Tensor) -> Tensor:
    """Return rows sorted ascending, in place on the CPU, where NumPy sorts 10 times faster."""
    if rows.device.type != "cpu":
        return rows.sort(dim=1).values
    rows.numpy().sort(axis=1)
    return rows


def _row_blocks(rows: Tensor) -> Iterator[Tensor]:
    yield from torch.split(rows, max(1, elementwise.BLOCK // max(1, rows.shape[1])))


def _words(like: Tensor, generator: Generator) -> Tensor:
    """Return uniform 32-bit words of a tensor's shape, two from each 64-bit number drawn."""
    pairs = torch.empty(-(-like.numel() // 2), dtype=torch.int64)
    pairs.random_(-(2**63), None, generator=generator)
    return pairs.view(torch.int32)[: like.numel()].view(like.shape).to(like.device)


def _thresholds(probabilities: Tensor) -> Tensor:
    """Return the words below which such shares of all signed words lie."""
    return ((probabilities * WORD).round().clamp(max=WORD - 1) - WORD // 2).to(torch.int32)
