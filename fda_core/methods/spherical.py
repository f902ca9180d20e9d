"""Steps of methods that move on spheres: inner products, great circles, sums of parameters.

Such methods return Σ k_e x_e with factors k_e that depend on the x_e through their inner
products alone. With the products in float64, found in one pass, iterations and angles cost
nothing, and the sum can be formed from task vectors, which rounds them less.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fda_core.methods import elementwise
from fda_core.methods.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor


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
