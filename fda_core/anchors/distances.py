"""How far apart two outputs of a layer are: the three distances, for both stages.

Outputs are (n, t, d), or (n, d) for a layer without tokens. Stage I uses a similarity that
is averaged over anchors (`fda.md` §2, arXiv 2510.21223 eq. 3); stage II a distance that is
summed (§3).
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

NORM_FLOOR = 1e-8
"""Norms are clamped here from below, as torch's own cosine_similarity does."""

Measure = Callable[[Tensor, Tensor], Tensor]


def anchor_cosines(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosine of each anchor's flattened outputs, shape (n,).

    A zero output has cosine 0.
    """
    a, b = a.flatten(1), b.flatten(1)
    norms = a.norm(dim=1).clamp_min(NORM_FLOOR) * b.norm(dim=1).clamp_min(NORM_FLOOR)
    return (a * b).sum(dim=1) / norms


def _mean_cosine(a: Tensor, b: Tensor) -> Tensor:
    return anchor_cosines(a, b).mean()


def _negative_mean_square(a: Tensor, b: Tensor) -> Tensor:
    return -(a - b).square().mean()


def _negative_mean_absolute(a: Tensor, b: Tensor) -> Tensor:
    return -(a - b).abs().mean()


SIMILARITIES: Mapping[str, Measure] = {
    "cosine": _mean_cosine,
    "l2": _negative_mean_square,
    "l1": _negative_mean_absolute,
}
"""S(φ(θ0, X), φ(θi, X)): larger is closer, so that its gradient points along +τ."""


def _summed_cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    return (1 - anchor_cosines(a, b)).sum()


def _summed_square(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().sum()


def _summed_absolute(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().sum()


DISTANCES: Mapping[str, Measure] = {
    "cosine": _summed_cosine_distance,
    "l2": _summed_square,
    "l1": _summed_absolute,
}
"""dist(φ(θ, X), Y), summed over the batch; smaller is closer."""


def similarity_share(a: Tensor, b: Tensor, *, distance: str, anchors: int) -> Tensor:
    """Return what these anchors add to S over all `anchors` anchors.

    S is a mean over anchors of equal size, so shares of microbatches sum to it.
    """
    return SIMILARITIES[distance](a, b) * (a.shape[0] / anchors)


def relative_drift(result: Tensor, expert: Tensor, base: Tensor) -> float | None:
    """Return ‖φ(θ) − φ(θi)‖ / ‖φ(θi) − φ(θ0)‖, summed in float64; None if the latter is 0."""
    apart = torch.linalg.vector_norm((expert - base).double())
    if float(apart) == 0.0:
        return None
    return float(torch.linalg.vector_norm((result - expert).double()) / apart)
