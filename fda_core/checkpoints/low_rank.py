"""The low-rank update of one tensor from its factors: Δ = s · B A (arXiv 2106.09685)."""

from collections.abc import Sequence

from torch import Tensor


def low_rank_update(
    a: Tensor | None, b: Tensor, *, scale: float, transposed: bool, shape: Sequence[int]
) -> Tensor:
    """Return s · B A, or (s · B A)ᵀ, in the factors' dtype and in the shape of its tensor.

    A is (k, i), B is (o, k). Of a convolution, A is (k, i, h, w), B is (o, k, 1, 1): one
    product of matrices all the same. Without A the result is s · B, as for a bias. Memory: one
    tensor of the shape, and no other for B A alone.
    """
    if a is None:
        return b * scale
    rows, columns = b.flatten(1), a.flatten(1)
    product = columns.T @ rows.T if transposed else rows @ columns
    return product.mul_(scale).view(tuple(shape))
