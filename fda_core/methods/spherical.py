"""Steps of methods that move on spheres: inner products, great circles, sums of parameters.

Such methods return Σ k_e x_e with factors k_e that depend on the x_e through their inner
products alone. With the products in float64, found in one pass, iterations and angles cost
nothing, and the sum can be formed from task vectors, which rounds them less.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING

from fda_core.methods import elementwise
from fda_core.methods.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor

    from fda_core.methods.task_vector import DeltaBlock
    from fda_core.methods.tensor_blocks import TensorBlocks


@dataclass(frozen=True)
class Vectors:
    """How a tensor is read as vectors: n of length c, along its last or its first dimension."""

    count: int
    length: int
    across: bool = False
    """Whether each block has some elements of every vector, instead of all of some."""

    @property
    def unit(self) -> int:
        """Return how many elements have to be in one block."""
        if self.count == 1:
            return 1
        return self.count if self.across else self.length

    def of(self, flat: Tensor) -> Tensor:
        """Return a flat block as (vectors it has, elements it has of them)."""
        if self.count == 1:
            return flat.view(1, -1)
        return flat.view(-1, self.count).T if self.across else flat.view(-1, self.length)

    def parts(self, values: Tensor) -> Iterator[Tensor]:
        """Yield of values by vector, (n, ...), those of the vectors in one block after another."""
        if self.count == 1 or self.across:
            yield from repeat(values)
        else:
            yield from torch.split(values, self.in_block)

    @property
    def in_block(self) -> int:
        """Return how many vectors a block has whole."""
        return max(1, elementwise.BLOCK // max(1, self.length))


def products_of_blocks(
    source: TensorBlocks,
    vectors: Vectors,
    *,
    from_origin: bool = False,
    and_origin: bool = False,
) -> Tensor:
    """Return `inner_products` of a tensor's task vectors in one pass.

    With `from_origin`, of the base plus each; with `and_origin`, of the base as well, first.
    """
    count = len(source.experts) + and_origin
    found: list[Tensor] = []
    total: Tensor | None = None
    for base, deltas in source.blocks(of=vectors.unit, at_most=elementwise.BLOCK // count):
        rows = [vectors.of(delta) for delta in deltas]
        if and_origin:
            rows.insert(0, base.new_zeros(1, 1).expand_as(rows[0]))
        products = inner_products(rows, origin=vectors.of(base) if from_origin else None)
        if vectors.count == 1 or vectors.across:
            total = products if total is None else total.add_(products)
        else:
            found.append(products)
    return torch.cat(found) if total is None else total


def inner_products(vectors: Sequence[Tensor], *, origin: Tensor | None = None) -> Tensor:
    """Return the inner products ⟨x_a, x_b⟩ of the rows of m matrices (n, c): (n, m, m).

    In float64, a block widened at a time. With `origin`, of the origin's rows plus those of
    the vectors.
    """
    n, columns = vectors[0].shape
    count = len(vectors)
    products = torch.zeros(n, count, count, dtype=torch.float64, device=vectors[0].device)
    width = max(1, elementwise.BLOCK // count)
    height = max(1, width // max(1, columns))
    for top in range(0, n, height):
        for left in range(0, columns, width):
            part = (slice(top, top + height), slice(left, left + width))
            block = torch.stack([vector[part].double() for vector in vectors], dim=1)
            if origin is not None:
                block += origin[part].double()[:, None]
            products[part[0]] += block @ block.mT
    return products


def cosines(products: Tensor) -> Tensor:
    """Return (n, m, m) cosines from inner products; 0 with a zero vector."""
    lengths = products.diagonal(dim1=1, dim2=2).sqrt()
    inverse = torch.where(lengths > 0, 1 / lengths, 0.0)
    return (products * inverse[:, :, None] * inverse[:, None, :]).clamp(-1, 1)


def great_circle(cosine: Tensor, t: float, *, straight: Tensor) -> Tensor:
    """Return the factors of the ends of an arc, a share `t` from the first: (n,) to (n, 2).

    sin((1−t)Ω)/sin Ω and sin(tΩ)/sin Ω with Ω = arccos c; 1−t and t where `straight` says so.
    """
    angle = torch.arccos(cosine)
    arc = torch.stack([torch.sin((1 - t) * angle), torch.sin(t * angle)], dim=1)
    line = torch.tensor([1 - t, t], dtype=cosine.dtype, device=cosine.device)
    return torch.where(straight[:, None], line, arc / torch.sin(angle)[:, None])


def weighted_blocks(
    source: TensorBlocks, vectors: Vectors, factors: Tensor, *, from_origin: bool = False
) -> Iterator[DeltaBlock]:
    """Yield Σ_e k_e τ_e by vector, with factors (n, m), block by block beside the base.

    With `from_origin`, Σ k_e (θ_0 + τ_e) − θ_0.
    """
    blocks = zip(source.blocks(of=vectors.unit), vectors.parts(factors), strict=False)
    for (base, deltas), of_block in blocks:
        total = weighted_rows_([vectors.of(d) for d in deltas], of_block[:, -len(deltas) :])
        if from_origin:
            add_surplus_(total, vectors.of(base), of_block)
        yield base, deltas[0]


def weighted_rows_(vectors: Sequence[Tensor], factors: Tensor) -> Tensor:
    """Return Σ_e k_e x_e by rows, (n, c), with factors (n, m), in the first vector's memory."""
    shares = factors.to(vectors[0].dtype)
    total = vectors[0].mul_(shares[:, :1])
    for e, vector in enumerate(vectors[1:], start=1):
        total.addcmul_(vector, shares[:, e, None])
    return total


def add_surplus_(total: Tensor, origin: Tensor, factors: Tensor) -> Tensor:
    """Add (Σ_e k_e − 1) o by rows: from Σ k_e τ_e make Σ k_e (o + τ_e) − o."""
    surplus = factors.sum(dim=1, keepdim=True) - 1
    return total.addcmul_(origin, surplus.to(total.dtype))
