"""How anchors move down a gradient: AdamW, or Muon on the anchors read as one matrix (n·t, d).

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) steps along the polar factor
of the momentum, in which all directions count alike. Where this differs: the batch is whole, so
there is no noise to average and no weight decay; everything stays in the anchors' dtype; and a
step is measured by its root mean square in units of the start's, so that a rate has no unit and
a start of another scale is moved in proportion.

With a metric's root R (`update_metric.py`) Muon moves the coefficients C of X = C R instead:
the same as X ← X − length · polar(M R) R for a momentum M of X's gradients.
"""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from fda_core.anchors.config import POLAR_ITERATIONS, ConstructConfig, Schedule
from fda_core.anchors.sums import inner

MOMENTUM = 0.85
QUINTIC = 3.4445, -4.7750, 2.0315
"""a, b, c of x ↦ a x + b x³ + c x⁵, which five times takes (0.01, 1] into 0.68 to 1.14."""

Rate = Callable[[int], float]
"""The learning rate of step k, from 0."""


class Optimiser(Protocol):
    """Moves the anchors it was made for, in place."""

    def step(self, gradient: Tensor) -> None:
        """Take the next step down a gradient of the anchors' shape."""


def optimiser_of(
    anchors: Tensor, *, config: ConstructConfig, metric_root: Tensor | None = None
) -> Optimiser:
    """Return the optimiser that the settings name, for a leaf (n, t, d) or (n, d).

    `metric_root`, (d, d), is Muon's.
    """
    rate = rate_of(config)
    if config.optimiser == "muon":
        return Muon(anchors, rate=rate, metric_root=metric_root)
    return AdamW(anchors, rate=rate, weight_decay=config.settled_weight_decay)


def rate_of(config: ConstructConfig) -> Rate:
    """Return the learning rate of every step of a run of `config.steps`."""
    full, schedule = config.settled_learning_rate, config.settled_schedule
    return lambda step: full * rate_share(schedule, step, steps=config.steps)


def rate_share(schedule: Schedule, step: int, *, steps: int) -> float:
    """Return what a step has of the rate: 1, or ½(1 + cos(π step/steps)); 0 after the last."""
    if schedule == "constant":
        return 1.0
    return 0.5 * (1.0 + math.cos(math.pi * min(step, steps) / steps))


class AdamW:
    """torch's AdamW. Holds twice the anchors."""

    def __init__(self, anchors: Tensor, *, rate: Rate, weight_decay: float) -> None:
        self._anchors = anchors
        self._rate = rate
        self._steps = 0
        self._adamw = torch.optim.AdamW([anchors], lr=rate(0), weight_decay=weight_decay)

    def step(self, gradient: Tensor) -> None:
        """Take the next step down a gradient of the anchors' shape."""
        self._adamw.param_groups[0]["lr"] = self._rate(self._steps)
        self._anchors.grad = gradient
        self._adamw.step()
        self._anchors.grad = None
        self._steps += 1


class Muon:
    """X ← X − rate · rms(X₀) · o/rms(o), o the polar factor of Nesterov's momentum M.

    With a symmetric root R of a metric, (d, d), o = polar(M R) R. A zero gradient moves nothing
    until there is momentum; a start of zeros stays. Holds the anchors once; while it steps,
    twice more, and two matrices of their smaller side.
    """

    def __init__(self, anchors: Tensor, *, rate: Rate, metric_root: Tensor | None = None) -> None:
        self._anchors = anchors
        self._rate = rate
        self._root = metric_root
        self._steps = 0
        self._unit = float(_rms(anchors.detach()))
        self._momentum = torch.zeros_like(anchors.detach()).flatten(0, -2)

    @torch.no_grad()
    def step(self, gradient: Tensor) -> None:
        """Take the next step down a gradient of the anchors' shape."""
        rows = gradient.flatten(0, -2)
        self._momentum.lerp_(rows, 1.0 - MOMENTUM)
        move = self._measured(polar_factor(self._measured(self._nesterov(rows))))
        move.div_(_positive(_rms(move), move))
        length = self._rate(self._steps) * self._unit
        self._anchors.add_(move.view(self._anchors.shape), alpha=-length)
        self._steps += 1

    def _nesterov(self, rows: Tensor) -> Tensor:
        return torch.lerp(rows, self._momentum, MOMENTUM)

    def _measured(self, rows: Tensor) -> Tensor:
        return rows if self._root is None else rows @ self._root


def polar_factor(matrix: Tensor) -> Tensor:
    """Return about U Vᵀ of a matrix U S Vᵀ, in its dtype, its singular values 0.68 to 1.14.

    Those below 0.01 of the Frobenius norm reach 1.21, below 0.0015 they come out smaller; a zero
    matrix stays zero. Five quintic Newton-Schulz iterations on the smaller side's Gram matrix.
    Holds a second matrix and two Gram matrices.
    """
    a, b, c = QUINTIC
    is_tall = matrix.shape[0] > matrix.shape[1]
    matrix = matrix / _positive(inner(matrix, matrix).sqrt(), matrix)
    for _ in range(POLAR_ITERATIONS):
        gram = matrix.T @ matrix if is_tall else matrix @ matrix.T
        gram = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        sides = (matrix, gram) if is_tall else (gram, matrix)
        matrix = torch.addmm(matrix, *sides, beta=a)
    return matrix


def _rms(values: Tensor) -> Tensor:
    """Return the root mean square over all elements, a float64 scalar."""
    return (inner(values, values) / values.numel()).sqrt()


def _positive(length: Tensor, like: Tensor) -> Tensor:
    """Return a length that can be divided by: a zero becomes the dtype's least normal number."""
    return length.clamp_min(torch.finfo(like.dtype).tiny)
