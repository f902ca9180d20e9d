"""Stage II of FDA: fit one layer to all experts' outputs on their anchors.

Minimises L = Σ_i Σ_j dist(φ(θ, x_ij), φ(θi, x_ij)) over the layer's parameters with Adam, in
minibatches of the pooled anchors, shuffled each epoch (`fda.md` §3; arXiv 2510.21223 §3.3).

Use A, from the base: the elements of θ are the variables. Use B, from a merged model:
θ = θ0 + Σ_k α_k ⊙ δ_k and the coefficients α_k are; elements where δ is 0 cannot move.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from fda_core.anchors.config import AdaptConfig
from fda_core.anchors.distances import DISTANCES
from fda_core.anchors.optimisers import rate_share
from fda_core.blocks.block import Block, evaluate
from fda_core.errors import NonFinite

Tensors = Mapping[str, Tensor]
OnEpoch = Callable[[int, float], None]
"""Called with (epoch, loss) after each epoch; may raise `Cancelled`."""

LEARNING_RATES: Mapping[str, float] = {"elements": 1e-5, "coefficients": 1e-2}


class Variables(ABC):
    """What the optimiser moves, and the layer it makes of it."""

    kind: Literal["elements", "coefficients"]
    leaves: Sequence[Tensor]

    @abstractmethod
    def layer(self) -> dict[str, Tensor]:
        """Return the layer's tensors as a function of the leaves."""


class Elements(Variables):
    """Use A: every element of every tensor of the layer, from the base's values."""

    kind = "elements"

    def __init__(self, base: Tensors) -> None:
        self._tensors = {name: base[name].clone().requires_grad_(True) for name in base}
        self.leaves = list(self._tensors.values())

    def layer(self) -> dict[str, Tensor]:
        """Return the leaves themselves."""
        return dict(self._tensors)


class Coefficients(Variables):
    """Use B: one coefficient per element of each given task vector."""

    kind = "coefficients"

    def __init__(self, base: Tensors, deltas: Sequence[tuple[Tensors, float]]) -> None:
        """Take pairs (δ_k, first value of α_k)."""
        self._base = base
        self._deltas = [delta for delta, _ in deltas]
        self._alphas = [
            {name: torch.full_like(base[name], value).requires_grad_(True) for name in base}
            for _, value in deltas
        ]
        self.leaves = [alpha for group in self._alphas for alpha in group.values()]

    def layer(self) -> dict[str, Tensor]:
        """Return θ0 + Σ α_k ⊙ δ_k."""
        tensors = dict(self._base)
        for alphas, delta in zip(self._alphas, self._deltas, strict=True):
            for name in tensors:
                tensors[name] = torch.addcmul(tensors[name], alphas[name], delta[name])
        return tensors


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """The fitted layer and its losses, one more than epochs.

    Of an epoch the sum over its minibatches, each before its step; the last over all anchors.
    """

    tensors: dict[str, Tensor]
    losses: tuple[float, ...]


def adapt(
    block: Block,
    variables: Variables,
    anchors: Tensor,
    targets: Tensor,
    *,
    config: AdaptConfig,
    generator: Generator,
    on_epoch: OnEpoch,
) -> Adaptation:
    """Return the layer fitted to `targets` (N, t, d) on the pooled `anchors` (N, t, d).

    Deterministic on one device. The losses reported are sums over the epoch's minibatches,
    each taken before its step. Raises `NonFinite` if the loss stops being a number.
    """
    distance = DISTANCES[config.distance]
    rate = config.learning_rate or LEARNING_RATES[variables.kind]
    optimiser = torch.optim.Adam(variables.leaves, lr=rate)
    steps = config.epochs * math.ceil(len(anchors) / config.batch)
    step, losses = 0, []
    for epoch in range(config.epochs):
        order = torch.randperm(len(anchors), generator=generator).to(anchors.device)
        total = 0.0
        for chosen in torch.split(order, config.batch):
            loss = distance(block(variables.layer(), anchors[chosen]), targets[chosen])
            gradients = torch.autograd.grad(loss, variables.leaves, allow_unused=True)
            for leaf, gradient in zip(variables.leaves, gradients, strict=True):
                leaf.grad = gradient
            optimiser.param_groups[0]["lr"] = rate * rate_share(config.schedule, step, steps=steps)
            optimiser.step()
            step += 1
            total += float(loss.detach())
        if not math.isfinite(total):
            raise NonFinite(f"the adaptation loss became {total} in epoch {epoch}", epoch=epoch)
        losses.append(total)
        on_epoch(epoch + 1, total)
    with torch.no_grad():
        fitted = {name: tensor.detach() for name, tensor in variables.layer().items()}
        reached = evaluate(block, fitted, anchors, batch=config.batch)
        final = float(distance(reached, targets))
    if not math.isfinite(final):
        raise NonFinite(f"the adaptation loss became {final} after {config.epochs} epochs")
    losses.append(final)
    return Adaptation(tensors=fitted, losses=tuple(losses))
