"""The Riemannian mean on the sphere, from mergekit.

Differences from mergekit: all of it is computed from the experts' inner products in float64,
so that the sweeps cost nothing; only tensors that are zero have no direction (mergekit's limit
is a norm of 1e-5, which small tensors can have); and an expert opposite to the mean, where the
formula divides by zero, does not pull.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from fda_core.methods.lazy_torch import torch
from fda_core.methods.spherical import Vectors, cosines, products_of_blocks, weighted_blocks
from fda_core.methods.task_vector import DeltaBlock, ElementwiseMethod, TaskVectorParameters
from fda_core.methods.tensor_blocks import TensorBlocks

if TYPE_CHECKING:
    from torch import Tensor

OPPOSITE = 1e-6
"""Angles within this of π have no direction but that of rounding."""


class KarcherParameters(TaskVectorParameters):
    """Settings of the iteration."""

    max_iter: int = Field(default=10, ge=1, description="Sweeps at most.")
    tol: float = Field(
        default=1e-5, gt=0, description="Angles and steps below this, in radians, count as zero."
    )


class Karcher(ElementwiseMethod):
    """θ = mean ‖θ_e‖ · u, u the mean direction: Σ φ_e/sin φ_e (u_e − cos φ_e u) = 0 at it.

    u_e = θ_e/‖θ_e‖, cos φ_e = u·u_e; per tensor, experts counting alike, the base not among
    them. Starts at the normalised mean of the u_e and follows the sphere by the sum above. For
    fine-tunes of one base nearly the average. All float tensors alike. Symmetric in the
    experts, but where their directions cancel: then it starts at the first.
    """

    name = "karcher"
    title = "Karcher mean"
    summary = "The mean of the experts' directions on the sphere, at their mean length."
    paper = "mergekit, which cites arXiv 2603.04972"
    cost = "A"
    workspace_tensors = 0.25
    Parameters = KarcherParameters
    parameters: KarcherParameters

    def delta_blocks(self, source: TensorBlocks) -> Iterator[DeltaBlock]:
        """Yield the mean less the base, in the second pass."""
        whole = Vectors(1, source.numel)
        products = products_of_blocks(source, whole, from_origin=True)
        device, products = products.device, products.cpu()
        lengths = products[0].diagonal().sqrt()
        directed = lengths > 0
        factors = torch.zeros_like(lengths)
        if directed.any():
            angles = cosines(products)[0][directed][:, directed]
            mean = mean_direction(
                angles, tolerance=self.parameters.tol, sweeps=self.parameters.max_iter
            )
            factors[directed] = lengths.mean() * mean / lengths[directed]
        return weighted_blocks(source, whole, factors.to(device)[None], from_origin=True)


def mean_direction(angles: Tensor, *, tolerance: float, sweeps: int) -> Tensor:
    """Return c with u = Σ c_e u_e the mean of unit vectors that have these cosines (m, m)."""
    mean = torch.full_like(angles[0], 1 / len(angles))
    length = _length(mean, angles)
    if length < tolerance:
        mean, length = torch.eye(len(angles), dtype=angles.dtype)[0], 1.0
    mean = mean / length
    for _ in range(sweeps):
        cosine = (angles @ mean).clamp(-1, 1)
        phi = torch.arccos(cosine)
        pulls = (phi >= tolerance) & (phi <= math.pi - OPPOSITE)
        pull = torch.where(pulls, phi / torch.sin(phi), 0.0) / len(angles)
        step = pull - (pull @ cosine) * mean
        length = _length(step, angles)
        if length < tolerance:
            break
        mean = math.cos(length) * mean + math.sin(length) / length * step
        mean = mean / _length(mean, angles)
    return mean


def _length(coefficients: Tensor, angles: Tensor) -> float:
    """Return ‖Σ c_e u_e‖."""
    return math.sqrt(max(0.0, float(coefficients @ angles @ coefficients)))
