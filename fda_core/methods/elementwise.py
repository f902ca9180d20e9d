"""Steps of element-wise methods: sums, exact selection by magnitude, sign election.

Pure algebra in the dtype given. Large tensors are worked through in blocks that fit a
processor's cache, so that nothing here needs another tensor's worth of memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
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


def count_true(mask: Tensor) -> int:
    """Return how many elements of a mask are true; on the CPU by NumPy."""
    if mask.device.type != "cpu":
        return int(torch.count_nonzero(mask))
    import numpy as np

    return int(np.count_nonzero(mask.numpy()))


class Rank(NamedTuple):
    """An order statistic of magnitudes."""

    magnitude: float
    larger: int
    """How many elements are strictly larger in magnitude."""
    equal: int
    """How many elements have this magnitude, itself included."""


def nth_largest_magnitude(flat: Tensor, n: int) -> Rank:
    """Return the n-th largest magnitude of a flat tensor, n counted from 1; exact."""
    ((rank,),) = order_statistics(lambda: zip(torch.split(flat, BLOCK)), [[n]])
    return rank


def order_statistics(
    passes: Callable[[], Iterable[Sequence[Tensor]]], places: Sequence[Sequence[int]]
) -> list[list[Rank]]:
    """Return, for each of several flat tensors, the n-th largest magnitude for each of its n.

    Exact. `places` has each tensor's n; one that has none is not looked at. `passes` gives the
    tensors' blocks, of all side by side, each time it is called. Bit of
    non-negative floats are ordered like the floats, so magnitudes are found 16 bits at a time
    by counting: one pass for the leading digit of all places, and one per further digit that
    counts the elements with the leading digits found so far. No sorting, no copy.
    Needs 1 <= n <= numel and float32 or float64.
    """
    if not any(places):
        return [[] for _ in places]
    searches = [
        [search.copy(n) for n in wanted]
        for search, wanted in zip(_leading_digits(passes, places), places, strict=True)
    ]
    while not all([search.narrow() for of_tensor in searches for search in of_tensor]):  # noqa: C419
        for parts in passes():
            for of_tensor, part in zip(searches, parts, strict=True):
                if not of_tensor:
                    continue
                patterns = _patterns(part)
                magnitudes = patterns & torch.iinfo(patterns.dtype).max
                leading = magnitudes >> of_tensor[0].shift + DIGIT_BITS
                for search in of_tensor:
                    search.add(magnitudes, leading)
    return [[search.rank() for search in of_tensor] for of_tensor in searches]


def _leading_digits(
    passes: Callable[[], Iterable[Sequence[Tensor]]], places: Sequence[Sequence[int]]
) -> list[_Search]:
    """Return, of each tensor that is looked at, the counts of its leading digits."""
    searches: list[_Search] = []
    for parts in passes():
        searches = searches or [_Search(part, 0) for part in parts]
        for search, part, wanted in zip(searches, parts, places, strict=True):
            if wanted:
                search.add_leading(_patterns(part))
    return searches


def _patterns(block: Tensor) -> Tensor:
    return block.view(torch.int32 if block.dtype == torch.float32 else torch.int64)


class _Search:
    """The search for one order statistic: counts of a digit among magnitudes that lead alike."""

    def __init__(self, like: Tensor, n: int) -> None:
        self._like = like.new_empty(0)
        self._n = n
        self._found = -1
        self._larger = 0
        self._equal = 0
        self.shift = 8 * like.itemsize - DIGIT_BITS
        self._start()

    def _start(self) -> None:
        size = 2 ** (DIGIT_BITS - 1 if self._found < 0 else DIGIT_BITS)  # no sign at first
        self._counts = torch.zeros(size, dtype=torch.int64, device=self._like.device)
        self._waiting: Tensor | None = None
        self._waiting_count = 0

    def copy(self, n: int) -> _Search:
        """Return a search for the n-th that shares the counts of the leading digit."""
        self._count_waiting()
        other = _Search(self._like, n)
        other._counts = self._counts
        return other

    def add_leading(self, patterns: Tensor) -> None:
        """Count the leading digits of a block's magnitudes."""
        self._hold((patterns >> self.shift).bitwise_and_(len(self._counts) - 1))

    def add(self, magnitudes: Tensor, leading: Tensor) -> None:
        """Count the digits of a block's magnitudes, of those with the digits found so far."""
        alike = magnitudes[places_of(equals(leading, self._found))]
        self._hold((alike >> self.shift).bitwise_and_(len(self._counts) - 1))

    def _hold(self, digits: Tensor) -> None:
        """Count digits, few of them together with those that follow.

        These wait in memory of their own: small tensors kept between large ones that come and
        go would leave holes in the heap, one for every block.
        """
        count, room = digits.numel(), BLOCK // 4
        if count > room // 2:
            self._count(digits)
            return
        if self._waiting is None:
            self._waiting = digits.new_empty(room)
        if self._waiting_count + count > room:
            self._count_waiting()
        self._waiting[self._waiting_count : self._waiting_count + count] = digits
        self._waiting_count += count

    def _count_waiting(self) -> None:
        if self._waiting is not None and self._waiting_count:
            self._count(self._waiting[: self._waiting_count])
            self._waiting_count = 0

    def _count(self, digits: Tensor) -> None:
        self._counts += torch.bincount(digits, minlength=len(self._counts))

    def narrow(self) -> bool:
        """Take the digit that the counts show; say whether it was the last."""
        self._count_waiting()
        digit, above = _digit(self._counts, self._n - self._larger)
        self._larger += above
        self._equal = int(self._counts[digit])
        self._found = digit if self._found < 0 else (self._found << DIGIT_BITS) | digit
        if self.shift == 0:
            return True
        self.shift -= DIGIT_BITS
        self._start()
        return False

    def rank(self) -> Rank:
        """Return what was found."""
        patterns = torch.int32 if self._like.dtype == torch.float32 else torch.int64
        found = torch.tensor(self._found, dtype=patterns).view(self._like.dtype)
        return Rank(found.item(), self._larger, self._equal)


def _digit(counts: Tensor, n: int) -> tuple[int, int]:
    """Return the digit of the n-th largest, and how many elements have a larger digit."""
    from_top = counts.flip(0).cumsum(0)
    place = int(torch.searchsorted(from_top, n))
    return len(counts) - 1 - place, int(from_top[place - 1]) if place else 0


Keep = Callable[["Tensor"], None]
"""Zero entries of the next block of a flat tensor, in place."""


def keep_all() -> Keep:
    """Return what zeroes nothing."""
    return lambda _: None


def keep_largest_(flat: Tensor, n: int, *, ties: bool) -> Tensor:
    """Zero all but the n largest magnitudes, in place.

    With `ties`, everything as large as the n-th stays too. Without, exactly n stay: of equal
    magnitudes those that come first, so that the result depends on nothing but the tensor.
    """
    if n >= flat.numel():
        return flat
    if not ties:
        return keep_ranks_(flat, 0, n)
    keep = at_least(nth_largest_magnitude(flat, n).magnitude)
    for block in torch.split(flat, BLOCK):
        keep(block)
    return flat


def at_least(magnitude: float) -> Keep:
    """Return what zeroes smaller magnitudes."""

    def keep(block: Tensor) -> None:
        block.mul_(block.abs().ge_(magnitude))

    return keep


def keep_ranks_(flat: Tensor, first: int, last: int) -> Tensor:
    """Zero all but the magnitudes that rank from `first` + 1 to `last`, in place.

    Rank 1 is the largest; of equal magnitudes the one that comes first ranks higher. Needs
    0 <= first < last <= numel. A dropped infinity becomes NaN, not a number that looks sound.
    """
    bounds = band_places(first, last)
    (ranks,) = order_statistics(lambda: zip(torch.split(flat, BLOCK)), [bounds])
    keep = band(ranks, first, last)
    for block in torch.split(flat, BLOCK):
        keep(block)
    return flat


def band_places(first: int, last: int) -> list[int]:
    """Return the places of the order statistics that `band` needs."""
    return [last, first] if first else [last]


def band(ranks: Sequence[Rank], first: int, last: int) -> Keep:
    """Return what keeps ranks `first` + 1 to `last` of a tensor whose blocks come in order."""
    lower, *above = ranks
    passed = _passed(lower, last)
    above_passed = _passed(above[0], first) if above else None

    def keep(block: Tensor) -> None:
        nonlocal passed, above_passed
        magnitudes = block.abs()
        inside = torch.gt if passed == 0 else torch.ge
        kept = inside(magnitudes, lower.magnitude, out=torch.empty_like(magnitudes))
        if above:
            below = torch.le if above_passed == 0 else torch.lt
            top = above[0].magnitude
            kept.mul_(below(magnitudes, top, out=torch.empty_like(magnitudes)))
        if above_passed:
            equal = equals(magnitudes, above[0].magnitude)
            above_passed = _set_after_(kept, equal, above_passed, to=1)
        if passed:
            passed = _set_after_(kept, equals(magnitudes, lower.magnitude), passed, to=0)
        block.mul_(kept)

    return keep


def bands(
    passes: Callable[[], Iterable[Sequence[Tensor]]],
    cuts: Sequence[tuple[int, int]],
    *,
    count: int,
) -> list[Callable[[], Keep]]:
    """Return what begins `band` for each of several flat tensors, given by their blocks.

    `cuts` has each tensor's `first` and `last`; from 0 to `count`, all elements, keeps all.
    """
    everything = (0, count)
    places = [[] if cut == everything else band_places(*cut) for cut in cuts]
    found = order_statistics(passes, places)
    return [
        keep_all if cut == everything else partial(band, ranks, *cut)
        for cut, ranks in zip(cuts, found, strict=True)
    ]


def _passed(rank: Rank, n: int) -> int | None:
    """Return how many of the n-th's equals rank n-th or higher, or None if all do."""
    inside = n - rank.larger
    return inside if inside < rank.equal else None


def _set_after_(kept: Tensor, equal: Tensor, passed: int, *, to: float) -> int:
    """Set `kept` at all equals but the first `passed`; return how many are still to pass."""
    count = count_true(equal)
    if count > passed:
        kept.index_fill_(0, places_of(equal)[passed:], to)
    return passed - min(passed, count)


def majority_sign(flats: Sequence[Tensor]) -> int:
    """Return the sign that most coordinates of Σ_e x_e have: 1, -1, or 0 for a draw."""
    blocks = zip(*(torch.split(flat, BLOCK) for flat in flats), strict=True)
    balance = sum(sign_balance(parts) for parts in blocks)
    return (balance > 0) - (balance < 0)


def sign_balance(parts: Sequence[Tensor]) -> int:
    """Return how many more coordinates of Σ_e x_e are above zero than below."""
    total = _total(parts)
    return count_above_zero(total) - count_above_zero(total.neg_())


def count_above_zero(flat: Tensor) -> int:
    """Return how many elements are; on the CPU by NumPy, which takes a fifth of the time."""
    if flat.device.type != "cpu":
        return int(torch.count_nonzero(flat > 0))
    return count_true(torch.from_numpy(flat.numpy() > 0))


def equals(flat: Tensor, value: float) -> Tensor:
    """Return where elements are a value; on the CPU by NumPy, which takes a fifth of the time."""
    if flat.device.type != "cpu":
        return flat == value
    return torch.from_numpy(flat.numpy() == value)


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
