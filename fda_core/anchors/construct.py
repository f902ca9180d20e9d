"""Stage I of FDA: find the anchors of one (layer, expert).

Minimises J(X) of `alignment.py` with AdamW over X, θ fixed, and keeps the best X seen
(`fda.md` §2; arXiv 2510.21223 §3.2). Where this differs from a double backward through J:

- ∂J/∂g is written down instead of traced, and the second pass asks for ∇_X alone. That is
  9 forward passes' worth of multiply-adds a step instead of 12 (`fda.md` §5).
- because J depends on X only through g and ∂J/∂g is held, anchors can be taken in
  microbatches: one round to sum g, one to pull v back. Memory falls with the microbatch,
  multiply-adds rise from 9 to 13, the result is the same up to the order of sums.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fda_core.anchors.alignment import OBJECTIVES, Directions, directions
from fda_core.anchors.config import ConstructConfig
from fda_core.anchors.distances import similarity_share
from fda_core.blocks.block import Block
from fda_core.errors import NonFinite

Tensors = Mapping[str, Tensor]
OnStep = Callable[[int, float, float], None]
"""Called with (step, loss, alignment) after each step; may raise `Cancelled`."""


@dataclass(frozen=True, kw_only=True)
class Construction:
    """Anchors and how they were reached.

    `losses[k]` and `alignments[k]` belong to the X that step k started from. `cosines` are
    those of the kept X.
    """

    anchors: Tensor
    start: Tensor
    best_step: int
    losses: tuple[float, ...]
    alignments: tuple[float, ...]
    cosines: Mapping[str, float]
    zero: tuple[str, ...]


def construct(
    block: Block,
    base: Tensors,
    expert: Tensors,
    start: Tensor,
    *,
    config: ConstructConfig,
    on_step: OnStep,
) -> Construction | None:
    """Return the best anchors found from `start` (n, t, d), or None without a task vector.

    Computes in the tensors' dtype (float32 or float64). Deterministic on one device. Raises
    `NonFinite` if the loss stops being a number, and whatever `on_step` raises.
    """
    towards = directions(base, expert, insensitive=block.insensitive)
    if not towards.unit:
        return None
    leaves = {name: base[name].detach().requires_grad_(name in towards.unit) for name in base}
    frozen = {name: expert[name].detach() for name in expert}
    problem = _Problem(block, leaves, frozen, towards, config)

    anchors = start.detach().clone().requires_grad_(True)
    optimiser = torch.optim.AdamW(
        [anchors], lr=config.learning_rate, weight_decay=config.weight_decay
    )
    best, best_step, cosines = anchors.detach().clone(), 0, dict[str, float]()
    lowest = math.inf
    losses: list[float] = []
    alignments: list[float] = []
    for step in range(config.steps):
        loss, found, anchors.grad = problem.loss_and_gradient(anchors)
        if not math.isfinite(loss):
            raise NonFinite(f"the loss became {loss} at step {step}", step=step)
        if loss < lowest:
            best.copy_(anchors.detach())
            lowest, best_step, cosines = loss, step, found
        losses.append(loss)
        alignments.append(problem.alignment(loss))
        optimiser.step()
        on_step(step + 1, loss, alignments[-1])
    return Construction(
        anchors=best,
        start=start,
        best_step=best_step,
        losses=tuple(losses),
        alignments=tuple(alignments),
        cosines=cosines,
        zero=towards.zero,
    )


class _Problem:
    """J and ∇J of one (layer, expert), for anchors of any number."""

    def __init__(
        self,
        block: Block,
        base: Tensors,
        expert: Tensors,
        towards: Directions,
        config: ConstructConfig,
    ) -> None:
        self._block = block
        self._base = base
        self._expert = expert
        self._towards = towards
        self._leaves = [base[name] for name in towards.unit]
        self._objective = OBJECTIVES[config.cosine]
        self._distance = config.distance
        self._microbatch = config.microbatch
        self._count = len(towards.counted) if config.cosine == "per_tensor" else 1

    def alignment(self, loss: float) -> float:
        """Return the mean cosine that a loss stands for."""
        return 1.0 - loss / self._count

    def loss_and_gradient(self, anchors: Tensor) -> tuple[float, dict[str, float], Tensor]:
        """Return J(X), the cosines, and ∇_X J."""
        size = self._microbatch or anchors.shape[0]
        if size >= anchors.shape[0]:
            gradients = self._induced(anchors, anchors.shape[0], graph=True)
            loss, cosines, slopes = self._objective([g.detach() for g in gradients], self._towards)
            return loss, cosines, torch.autograd.grad(gradients, anchors, slopes)[0]
        return self._in_pieces(anchors, size)

    def _in_pieces(self, anchors: Tensor, size: int) -> tuple[float, dict[str, float], Tensor]:
        pieces = [p.detach().requires_grad_(True) for p in torch.split(anchors, size)]
        total = [torch.zeros_like(leaf) for leaf in self._leaves]
        for piece in pieces:
            for sum_, part in zip(total, self._induced(piece, len(anchors)), strict=True):
                sum_ += part
        loss, cosines, slopes = self._objective(total, self._towards)
        pulled = [
            torch.autograd.grad(self._induced(piece, len(anchors), graph=True), piece, slopes)[0]
            for piece in pieces
        ]
        return loss, cosines, torch.cat(pulled)

    def _induced(self, x: Tensor, anchors: int, *, graph: bool = False) -> tuple[Tensor, ...]:
        """Return what x adds to g = ∇_θ S(θ0, X), per tensor with a direction."""
        near, far = self._block(self._base, x), self._block(self._expert, x)
        share = similarity_share(near, far, distance=self._distance, anchors=anchors)
        return torch.autograd.grad(share, self._leaves, create_graph=graph)


def spectrum(anchors: Tensor, *, count: int = 128) -> tuple[float, ...]:
    """Return the largest singular values of X read as (n·t, d), over the largest, descending."""
    rows = anchors.detach().to("cpu", torch.float64).flatten(0, -2)
    gram = rows.T @ rows if rows.shape[0] >= rows.shape[1] else rows @ rows.T
    values = torch.linalg.eigvalsh(gram).flip(0).clamp_min(0).sqrt()[:count]
    top = float(values[0])
    return tuple((values / top).tolist()) if top > 0 else (0.0,) * len(values)
