"""Stage I of FDA: find the anchors of one (layer, expert).

Minimises J(X) of `alignment.py` over X by `optimisers.py`, θ fixed, and keeps the best X seen
(`fda.md` §2; arXiv 2510.21223 §3.2). Where this differs from a double backward through J:

- ∂J/∂g is written down instead of traced, and the second pass asks for ∇_X alone. That is
  9 forward passes' worth of multiply-adds a step instead of 12 (`fda.md` §5).
- because J depends on X only through g and ∂J/∂g is held, anchors can be taken in
  microbatches: one round to sum g, one to pull v back. Memory falls with the microbatch,
  multiply-adds rise from 9 to 13, the result is the same up to the order of sums.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fda_core.anchors.alignment import OBJECTIVES, Directions, directions
from fda_core.anchors.config import ConstructConfig
from fda_core.anchors.distances import similarity_share
from fda_core.anchors.layer_task import LayerTask
from fda_core.anchors.optimisers import optimiser_of
from fda_core.anchors.update_metric import root_of_update
from fda_core.errors import NonFinite

OnStep = Callable[[int, float, float], None]
"""Called with (step, loss, alignment) after each step; may raise `Cancelled`."""


@dataclass(frozen=True, kw_only=True)
class Construction:
    """Anchors and how they were reached.

    `losses[k]` and `alignments[k]` belong to the X that step k started from. `cosines` are
    those of the kept X. `settled` says that a plateau ended it before its steps ran out.
    """

    anchors: Tensor
    start: Tensor
    best_step: int
    losses: tuple[float, ...]
    alignments: tuple[float, ...]
    cosines: Mapping[str, float]
    zero: tuple[str, ...]
    settled: bool


def construct(
    task: LayerTask, start: Tensor, *, config: ConstructConfig, on_step: OnStep
) -> Construction | None:
    """Return the best anchors found from `start` (n, t, d), or None without a task vector.

    Computes in the tensors' dtype (float32 or float64). Deterministic on one device. Raises
    `NonFinite` if the loss stops being a number, and whatever `on_step` raises.
    """
    problem = pose(task, config=config)
    if problem is None:
        return None
    descent = Descent(problem, start)
    descent.advance(config.steps, on_step=on_step)
    return descent.result()


def has_settled(bests: Sequence[float], *, patience: int | None, min_gain: float) -> bool:
    """Say whether the best alignment, step by step, rose by less over the last `patience`."""
    if patience is None or len(bests) <= patience:
        return False
    return bests[-1] - bests[-1 - patience] < min_gain


class Descent:
    """An optimiser on the anchors of one problem: goes on where it was, keeps the best X seen.

    Two advances give the bytes of one. Holds five times the anchors, six while it advances; of
    Muon four, five while J is differentiated, and up to nine in its step, when nothing of J's
    differentiation is left.
    """

    def __init__(self, problem: "Problem", start: Tensor) -> None:
        self._problem = problem
        self._start = start
        self._config = config = problem.config
        self._anchors = start.detach().clone().requires_grad_(True)
        self._optimiser = optimiser_of(
            self._anchors, config=config, metric_root=problem.metric_root
        )
        self._best, self._best_step = self._anchors.detach().clone(), 0
        self._cosines: Mapping[str, float] = {}
        self._lowest = math.inf
        self._losses: list[float] = []
        self._alignments: list[float] = []
        self._bests: list[float] = []

    @property
    def steps(self) -> int:
        """Return the steps taken."""
        return len(self._losses)

    @property
    def alignment(self) -> float:
        """Return the best alignment seen, after at least one step."""
        return self._bests[-1]

    @property
    def settled(self) -> bool:
        """Say whether the plateau is reached that ends it."""
        return has_settled(
            self._bests, patience=self._config.patience, min_gain=self._config.min_gain
        )

    def advance(self, until: int, *, on_step: OnStep) -> None:
        """Take steps until there are so many in all, or a plateau is reached."""
        while self.steps < until and not self.settled:
            self._step()
            on_step(self.steps, self._losses[-1], self._alignments[-1])

    def _step(self) -> None:
        loss, cosines, gradient = self._problem.loss_and_gradient(self._anchors)
        if not math.isfinite(loss):
            raise NonFinite(f"the loss became {loss} at step {self.steps}", step=self.steps)
        self._note(loss, cosines)
        self._optimiser.step(gradient)

    def _note(self, loss: float, cosines: Mapping[str, float]) -> None:
        if loss < self._lowest:
            self._best.copy_(self._anchors.detach())
            self._lowest, self._best_step, self._cosines = loss, self.steps, cosines
        self._losses.append(loss)
        self._alignments.append(self._problem.alignment(loss))
        self._bests.append(self._problem.alignment(self._lowest))

    def result(self) -> Construction:
        """Return what was reached after at least one step."""
        return Construction(
            anchors=self._best,
            start=self._start,
            best_step=self._best_step,
            losses=tuple(self._losses),
            alignments=tuple(self._alignments),
            cosines=self._cosines,
            zero=self._problem.zero,
            settled=self.settled and self.steps < self._config.steps,
        )


def pose(task: LayerTask, *, config: ConstructConfig) -> "Problem | None":
    """Return what is minimised for one (layer, expert), or None without a task vector."""
    towards = directions(task.base, task.expert, insensitive=task.block.insensitive)
    return Problem(task, towards, config) if towards.unit else None


class Problem:
    """J and ∇J of one (layer, expert), for anchors of any number."""

    def __init__(self, task: LayerTask, towards: Directions, config: ConstructConfig) -> None:
        self.config = config
        self.zero = towards.zero
        self._block = task.block
        self._base = {
            name: tensor.detach().requires_grad_(name in towards.unit)
            for name, tensor in task.base.items()
        }
        self._expert = {name: tensor.detach() for name, tensor in task.expert.items()}
        self._towards = towards
        self._leaves = [self._base[name] for name in towards.unit]
        self._objective = OBJECTIVES[config.cosine]
        self._count = len(towards.counted) if config.cosine == "per_tensor" else 1
        self.metric_root: Tensor | None = None
        """(d, d), what `config.metric` asks for; None for the plain one."""
        if config.metric == "update":
            self.metric_root = root_of_update(*task.matrices(), width=task.width)

    def alignment(self, loss: float) -> float:
        """Return the mean cosine that a loss stands for."""
        return 1.0 - loss / self._count

    def loss_and_gradient(self, anchors: Tensor) -> tuple[float, dict[str, float], Tensor]:
        """Return J(X), the cosines, and ∇_X J."""
        size = self.config.microbatch or anchors.shape[0]
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
        share = similarity_share(near, far, distance=self.config.distance, anchors=anchors)
        return torch.autograd.grad(share, self._leaves, create_graph=graph)


def spectrum(anchors: Tensor, *, count: int = 128) -> tuple[float, ...]:
    """Return the largest singular values of X read as (n·t, d), over the largest, descending."""
    rows = anchors.detach().to("cpu", torch.float64).flatten(0, -2)
    gram = rows.T @ rows if rows.shape[0] >= rows.shape[1] else rows @ rows.T
    values = torch.linalg.eigvalsh(gram).flip(0).clamp_min(0).sqrt()[:count]
    top = float(values[0])
    return tuple((values / top).tolist()) if top > 0 else (0.0,) * len(values)
