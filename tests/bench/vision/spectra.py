"""How long the tail of a spectrum is, and how near two singular subspaces are.

Rows (r, d) are anchors or features of all tokens, not centred: what a layer takes in.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

HEAD_SHARE = 0.2
"""The strongest fifth of the singular directions (arXiv 2510.21223)."""


@dataclass(frozen=True, kw_only=True)
class Singular:
    """Singular values (min(r, d),), largest first, and right vectors (min(r, d), d), float64."""

    values: Tensor
    vectors: Tensor

    @property
    def energy(self) -> Tensor:
        """Return the share of each direction in the sum of squares."""
        squares = self.values.square()
        return squares / squares.sum()


def singular(rows: Tensor) -> Singular:
    """Return the decomposition of anchors (n, t, d) or rows (r, d), computed in float64."""
    flat = rows.detach().double().flatten(0, -2)
    _, values, vectors = torch.linalg.svd(flat, full_matrices=False)
    return Singular(values=values, vectors=vectors)


def effective_rank(found: Singular) -> float:
    """Return exp of the entropy of the energy: the number of directions, if all are equal."""
    shares = found.energy[found.energy > 0]
    return float(torch.exp(-(shares * shares.log()).sum()))


def head_size(count: int) -> int:
    """Return how many directions are the strongest fifth of `count`, at least one."""
    return max(1, round(HEAD_SHARE * count))


def head_energy(found: Singular) -> float:
    """Return the share of energy in the strongest fifth of the directions."""
    return float(found.energy[: head_size(len(found.values))].sum())


def similarity(a: Singular, b: Singular, *, size: int) -> float:
    """Return tr(P P̂) / k of the subspaces of the `size` strongest directions, from 0 to 1.

    Two random subspaces of k dimensions in d have k / d.
    """
    both = a.vectors[:size] @ b.vectors[:size].T
    return float(both.square().sum()) / size


def relative(found: Singular, *, digits: int = 5) -> Sequence[float]:
    """Return the singular values over the largest, rounded."""
    return [round(float(value), digits) for value in found.values / found.values[0]]
