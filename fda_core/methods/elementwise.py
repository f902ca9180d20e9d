"""Steps of element-wise methods: sums, exact selection by magnitude, sign election.

Pure algebra in the dtype given. Large tensors are worked through in blocks that fit a
processor's cache, so that nothing here needs another tensor's worth of memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from fda_core.methods.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 2**17
"""Elements worked on at a time."""

DIGIT_BITS = 16


def is_zero(tensor: Tensor) -> bool:
    """Say whether every element is zero; an empty tensor is.

    A look at the first elements answers for nearly every task vector that is not.
    """
    head = tensor.reshape(-1)[:1024] if tensor.is_contiguous() else tensor
    return not bool(head.any()) and not bool(tensor.any())


def sum_into_first(tensors: Sequence[Tensor], *, weights: Sequence[float] | None = None) -> Tensor:
    """Return Σ w_e x_e in the first tensor's memory, summed in the order given."""
    factors = weights or [1.0] * len(tensors)
    total = tensors[0] if factors[0] == 1 else tensors[0].mul_(factors[0])
    for tensor, factor in zip(tensors[1:], factors[1:], strict=True):
        total.add_(tensor, alpha=factor)
    return total


class Rank(NamedTuple):
    """An order statistic of magnitudes."""

    magnitude: float
    larger: int
    """How many elements are strictly larger in magnitude."""


def nth_largest_magnitude(flat: Tensor, n: int) -> Rank:
    """Return the n-th largest magnitude of a flat tensor, n counted from 1; exact.

    Bit patterns of non-negative floats are ordered like the floats, so the magnitude is found
    16 bits at a time by counting: one pass over the tensor, a second over the elements that
    share the leading digit. No sorting, no copy. Needs 1 <= n <= numel and float32 or float64.
    """
    patterns, bits = (torch.int32, 32) if flat.dtype == torch.float32 else (torch.int64, 64)
    shift = bits - DIGIT_BITS
    magnitude_bits = 2 ** (bits - 1) - 1
    blocks = torch.split(flat.view(patterns), BLOCK)

    counts = torch.zeros(2 ** (DIGIT_BITS - 1), dtype=torch.int64, device=flat.device)
    for block in blocks:
        counts += torch.bincount((block & magnitude_bits) >> shift, minlength=len(counts))
    found, larger = _digit(counts, n)
    rest = torch.cat([_with_digit(block & magnitude_bits, shift, found) for block in blocks])
    while shift:
        shift -= DIGIT_BITS
        counts = torch.bincount(_digits(rest, shift), minlength=2**DIGIT_BITS)
        digit, above = _digit(counts, n - larger)
        found, larger = (found << DIGIT_BITS) | digit, larger + above
        rest = _with_digit(rest, shift, digit)
    return Rank(torch.tensor(found, dtype=patterns).view(flat.dtype).item(), larger)


def _digits(patterns: Tensor, shift: int) -> Tensor:
    digits: Tensor = (patterns >> shift) & (2**DIGIT_BITS - 1)
    return digits


def _with_digit(patterns: Tensor, shift: int, digit: int) -> Tensor:
    return patterns[_digits(patterns, shift) == digit]


def _digit(counts: Tensor, n: int) -> tuple[int, int]:
    """Return the digit of the n-th largest, and how many elements have a larger digit."""
    from_top = counts.flip(0).cumsum(0)
    place = int(torch.searchsorted(from_top, n))
    return len(counts) - 1 - place, int(from_top[place - 1]) if place else 0


def keep_largest_(flat: Tensor, n: int, *, ties: bool) -> Tensor:
    """Zero all but the n largest magnitudes, in place.

    With `ties`, everything as large as the n-th stays too. Without, exactly n stay: of equal
    magnitudes those that come first, so that the result depends on nothing but the tensor.
    """
    if n >= flat.numel():
        return flat
    threshold, larger = nth_largest_magnitude(flat, n)
    room = n - larger
    for block in torch.split(flat, BLOCK):
        magnitudes = block.abs()
        if not ties:
            equal = (magnitudes == threshold).nonzero().squeeze(1)
            magnitudes[equal[room:]] = -1
            room -= min(room, len(equal))
        block.masked_fill_(magnitudes < threshold, 0)
    return flat


def majority_sign(flats: Sequence[Tensor]) -> int:
    """Return the sign that most coordinates of Σ_e x_e have: 1, -1, or 0 for a draw."""
    balance = 0
    for parts in zip(*(torch.split(flat, BLOCK) for flat in flats), strict=True):
        total = _total(parts)
        balance += int(torch.count_nonzero(total > 0)) - int(torch.count_nonzero(total < 0))
    return (balance > 0) - (balance < 0)


def disjoint_sum(
    flats: Sequence[Tensor], *, zero_sign: int, votes: Sequence[float] | None
) -> Tensor:
    """Return, per coordinate, the sum of the entries that have the sign of Σ_e x_e.

    A sum of zero elects `zero_sign`, and nobody if that is 0. With `votes`, one per tensor,
    the sum is divided by the votes of the entries it has (by 1 where they come to 0). The
    result is in the first tensor's memory; all are overwritten. NeurIPS 2023, 2306.01708.
    """
    for parts in zip(*(torch.split(flat, BLOCK) for flat in flats), strict=True):
        signs = _total(parts).sign_()
        if zero_sign:
            signs.masked_fill_(signs == 0, zero_sign)
        for part in parts:
            part.mul_(signs).clamp_(min=0)
        divisor = _divisor(parts, votes) if votes is not None else None
        merged = sum_into_first(parts).mul_(signs)
        if divisor is not None:
            merged.div_(divisor)
    return flats[0]


def _total(parts: Sequence[Tensor]) -> Tensor:
    return sum_into_first([parts[0].clone(), *parts[1:]])


def _divisor(parts: Sequence[Tensor], votes: Sequence[float]) -> Tensor:
    divisor = torch.zeros_like(parts[0])
    for part, vote in zip(parts, votes, strict=True):
        divisor.add_(part > 0, alpha=vote)
    return divisor.masked_fill_(divisor == 0, 1)
