"""DARE: drop entries of each task vector at random, rescale the rest. ICML 2024, arXiv 2311.03099.

Differences from the authors' code (MergeLM): masks are drawn per tensor and expert instead of
from one generator over the model, so results agree in distribution, not bit for bit; and
`dare_ties` does not trim by magnitude after dropping, as in mergekit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from pydantic import Field

from fda_core.methods.elementwise import Keep, keep_all
from fda_core.methods.sparse import (
    Elected,
    ElectedParameters,
    Rescale,
    SparseMethod,
    Summed,
    SummedParameters,
    l1_factors,
    mask_seeds,
)
from fda_core.methods.sparsify import dropping
from fda_core.methods.task_vector import TASK_ARITHMETIC_SCALE, TaskVectorParameters
from fda_core.methods.tensor_blocks import TensorBlocks


class DareParameters(TaskVectorParameters):
    """Settings of dropping."""

    density: float = Field(
        default=0.5, gt=0, le=1, description="Probability that an entry stays; 1 drops nothing."
    )
    rescale: Rescale = Field(
        default="inverse_probability",
        description="What makes up for dropped entries: division by the density, as published, "
        "or scaling to the absolute sum before dropping (mergekit), which for large tensors is "
        "about the same.",
    )

    @property
    def needs_sums(self) -> bool:
        """Say whether what makes up for dropped entries hangs on absolute sums."""
        return self.rescale == "l1" and self.density < 1


class DareLinearParameters(DareParameters, SummedParameters):
    """Settings of DARE with task arithmetic."""

    scale: float = Field(
        default=TASK_ARITHMETIC_SCALE, description="λ, the factor of the sum; 0 gives the base."
    )


class DareTiesParameters(DareParameters, ElectedParameters):
    """Settings of DARE with sign election."""

    scale: float = Field(
        default=0.5, description="λ, the factor of the merged updates; 0 gives the base."
    )


class Dare(SparseMethod):
    """M ~ Bernoulli(density) per entry, δ = M ⊙ τ / density."""

    paper = "arXiv 2311.03099"
    cost = "A"
    expert_parameters = ("density",)
    parameters: DareParameters
    own: Mapping[str, DareParameters]

    @property
    def single_pass(self) -> bool:
        """Say yes, unless absolute sums have to be known."""
        every = (self.parameters, *self.own.values())
        return not any(settings.needs_sums for settings in every)

    def keepers(self, source: TensorBlocks) -> list[Callable[[], Keep]]:
        """Drop entries at random. Peak memory: nothing beyond the inputs."""
        return [
            keep_all if density == 1 else partial(dropping, density=density, seed=seed)
            for density, seed in zip(self._densities(source), mask_seeds(source), strict=True)
        ]

    def made_up(self, source: TensorBlocks, keepers: Sequence[Callable[[], Keep]]) -> list[float]:
        """Return one over the density, or the ratio of absolute sums."""
        densities = self._densities(source)
        if self.parameters.rescale == "inverse_probability":
            return [1 / density for density in densities]
        return l1_factors(source, keepers, unit=1)

    def _densities(self, source: TensorBlocks) -> list[float]:
        return [self.own.get(e, self.parameters).density for e in source.experts]


class DareLinear(Dare, Summed):
    """θ = θ_0 + λ Σ w_e M_e ⊙ τ_e / density, M_e ~ Bernoulli(density). All float tensors alike.

    The recipe's seed, the tensor's name and the expert's name make the mask.
    """

    name = "dare_linear"
    title = "DARE"
    summary = "Drops updates at random, rescales the rest and adds them like task arithmetic."
    Parameters = DareLinearParameters
    parameters: DareLinearParameters


class DareTies(Dare, Elected):
    """DARE's sparse task vectors y_e, merged where they have the sign of Σ y_e.

    θ = θ_0 + λ Σ_e [sign y_e = s] y_e with s = sign Σ y_e (+ for 0) and y_e as in
    `dare_linear`. All float tensors alike. Trimming by magnitude as well, as MergeLM does, is
    not part of it.
    """

    name = "dare_ties"
    title = "DARE-TIES"
    summary = "Drops updates at random, elects a sign per entry and merges those that agree."
    Parameters = DareTiesParameters
    parameters: DareTiesParameters
