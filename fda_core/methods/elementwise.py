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


def squared_norm(tensor: Tensor) -> float:
    """Return Σ x² in float64, a block widened at a time: torch's own sum would widen it all."""
    blocks = torch.split(tensor.reshape(-1), BLOCK)
    return sum(float(torch.dot(wide, wide)) for wide in (block.double() for block in blocks))


def sum_into_first(tensors: Sequence[Tensor], *, weights: Sequence[float] | None = None) -> Tensor:
    """Return Σ w_e x_e in the first tensor's memory, summed in the order given."""
    factors = weights or [1.0] * len(tensors)
    total = tensors[0] if factors[0] == 1 else tensors[0].mul_(factors[0])
    for tensor, factor in zip(tensors[1:], factors[1:], strict=True):
        total.add_(tensor, alpha=factor)
    return total


def places_of(mask: Tensor) -> Tensor:
    """Return where a flat mask is true; on the CPU by NumPy, which takes an eighth of the time."""
    if mask.device.type != "cpu":
        return mask.nonzero().squeeze(1)
    return torch.from_numpy(mask.numpy().nonzero()[0])


class Rank(NamedTuple):
    """An order statistic of magnitudes."""

    magnitude: float
    larger: int
    """How many elements are strictly larger in magnitude."""
    equal: int
    """How many elements have this magnitude, itself included."""


def nth_largest_magnitude(flat: Tensor, n: int) -> Rank:
    """Return the n-th largest magnitude of a flat tensor, n counted from 1; exact."""
    (rank,) = order_statistics(flat, [n])
    return rank


def order_statistics(flat: Tensor, places: Sequence[int]) -> list[Rank]:
    """Return the n-th largest magnitude of a flat tensor for each n of `places`; exact.

    Bit patterns of non-negative floats are ordered like the floats, so the magnitude is found
    16 bits at a time by counting: one pass over the tensor for all places, and for each place
    one per further digit that counts the elements with the leading digits found so far. No
    sorting, no copy. Needs 1 <= n <= numel and float32 or float64.
    """
    patterns, bits = (torch.int32, 32) if flat.dtype == torch.float32 else (torch.int64, 64)
    blocks = torch.split(flat.view(patterns), BLOCK)
    first = _count_digits(blocks, bits - DIGIT_BITS, leading=None)
    ranks = []
    for n in places:
        counts, shift = first, bits - DIGIT_BITS
        found, larger = _digit(counts, n)
        digit = found
        while shift:
            shift -= DIGIT_BITS
            counts = _count_digits(blocks, shift, leading=found)
            digit, above = _digit(counts, n - larger)
            found, larger = (found << DIGIT_BITS) | digit, larger + above
        magnitude = torch.tensor(found, dtype=patterns).view(flat.dtype).item()
        ranks.append(Rank(magnitude, larger, int(counts[digit])))
    return ranks


def _count_digits(blocks: Sequence[Tensor], shift: int, *, leading: int | None) -> Tensor:
    """Count the digits at `shift` of magnitudes' patterns, of those with these leading digits."""
    size = 2 ** (DIGIT_BITS - 1 if leading is None else DIGIT_BITS)  # the first lacks the sign
    counts = torch.zeros(size, dtype=torch.int64, device=blocks[0].device)
    held: list[Tensor] = []
    for number, block in enumerate(blocks, start=1):
        magnitudes = block & torch.iinfo(block.dtype).max
        if leading is not None:
            alike = torch.eq(magnitudes >> (shift + DIGIT_BITS), leading)
            magnitudes = magnitudes[places_of(alike)]
        held.append(magnitudes)
        if number == len(blocks) or sum(map(len, held)) >= BLOCK:
            found = held[0] if len(held) == 1 else torch.cat(held)
            counts += torch.bincount((found >> shift) & (size - 1), minlength=size)
            held.clear()
    return counts


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
    if not ties:
        return keep_ranks_(flat, 0, n)
    threshold = nth_largest_magnitude(flat, n).magnitude
    for block in torch.split(flat, BLOCK):
        block.mul_(block.abs().ge_(threshold))
    return flat


def keep_ranks_(flat: Tensor, first: int, last: int) -> Tensor:
    """Zero all but the magnitudes that rank from `first` + 1 to `last`, in place.

    Rank 1 is the largest; of equal magnitudes the one that comes first ranks higher. Needs
    0 <= first < last <= numel. A dropped infinity becomes NaN, not a number that looks sound.
    """
    lower, *above = order_statistics(flat, [last, first] if first else [last])
    passed = _passed(lower, last)
    above_passed = _passed(above[0], first) if above else None
    for block in torch.split(flat, BLOCK):
        magnitudes = block.abs()
        kept = torch.ge(magnitudes, lower.magnitude, out=torch.empty_like(magnitudes))
        if above:
            kept.mul_(torch.lt(magnitudes, above[0].magnitude, out=torch.empty_like(magnitudes)))
        if above_passed is not None:
            equal = magnitudes == above[0].magnitude
            above_passed = _set_after_(kept, equal, above_passed, to=1)
        if passed is not None:
            passed = _set_after_(kept, magnitudes == lower.magnitude, passed, to=0)
        block.mul_(kept)
    return flat


def _passed(rank: Rank, n: int) -> int | None:
    """Return how many of the n-th's equals rank n-th or higher, or None if all do."""
    inside = n - rank.larger
    return inside if inside < rank.equal else None


def _set_after_(kept: Tensor, equal: Tensor, passed: int, *, to: float) -> int:
    """Set `kept` at all equals but the first `passed`; return how many are still to pass."""
    places = places_of(equal)
    kept.index_fill_(0, places[passed:], to)
    return passed - min(passed, len(places))


def majority_sign(flats: Sequence[Tensor]) -> int:
    """Return the sign that most coordinates of Σ_e x_e have: 1, -1, or 0 for a draw."""
    balance = 0
    for parts in zip(*(torch.split(flat, BLOCK) for flat in flats), strict=True):
        total = _total(parts)
        balance += int(torch.count_nonzero(total > 0)) - int(torch.count_nonzero(total < 0))
    return (balance > 0) - (balance < 0)


def disjoint_sum(
    flats: Sequence[Tensor],
    *,
    zero_sign: int,
    votes: Sequence[float] | None,
    weights: Sequence[float] | None = None,
) -> Tensor:
    """Return, per coordinate, the sum of the entries that have the sign of Σ_e x_e.

    A sum of zero elects `zero_sign`, and nobody if that is 0. With `votes`, one per tensor,
    the sum is divided by the votes of the entries it has (by 1 where they come to 0). With
    `weights`, entries are weighed after the election. The result is in the first tensor's
    memory; all are overwritten. NeurIPS 2023, 2306.01708.
    """
    for parts in zip(*(torch.split(flat, BLOCK) for flat in flats), strict=True):
        signs = _signs_(_total(parts), zero_sign)
        for part in parts:
            part.mul_(signs).clamp_(min=0)
        divisor = _divisor(parts, votes) if votes is not None else None
        merged = sum_into_first(parts, weights=weights).mul_(signs)
        if divisor is not None:
            merged.div_(divisor)
    return flats[0]


def _signs_(totals: Tensor, zero_sign: int) -> Tensor:
    """Replace totals by 1 and -1, and zeros by `zero_sign`."""
    if zero_sign == 0:
        return totals.sign_()
    plus = totals.ge_(0) if zero_sign > 0 else totals.gt_(0)
    return plus.mul_(2).sub_(1)


def _total(parts: Sequence[Tensor]) -> Tensor:
    return sum_into_first([parts[0].clone(), *parts[1:]])


def _divisor(parts: Sequence[Tensor], votes: Sequence[float]) -> Tensor:
    divisor, agreeing = torch.zeros_like(parts[0]), torch.empty_like(parts[0])
    for part, vote in zip(parts, votes, strict=True):
        divisor.add_(torch.gt(part, 0, out=agreeing), alpha=vote)
    return divisor.add_(torch.eq(divisor, 0, out=agreeing))
