"""DELLA: drop entries at random, small ones more often. 2024, arXiv 2406.11617.

Differences from the authors' code: masks are drawn per tensor and expert instead of from one
generator over the model; a row of one entry, 0/0 in the formula, keeps it with probability d.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

from pydantic import Field, model_validator

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
from fda_core.methods.sparsify import pruning
from fda_core.methods.task_vector import TaskVectorParameters
from fda_core.methods.tensor_blocks import TensorBlocks


class DellaParameters(TaskVectorParameters):
    """Settings of MagPrune."""

    scale: float = Field(
        default=1.1, description="λ, the factor of the merged updates; 0 gives the base."
    )
    density: float = Field(
        default=0.7,
        gt=0,
        le=1,
        description="d: the mean probability that an entry stays; 1 drops nothing, whatever ε.",
    )
    epsilon: float = Field(
        default=0.07,
        ge=0,
        lt=0.5,
        description="ε: the smallest entry of a row stays with probability d − ε, the largest "
        "with d + ε; both must lie between 0 and 1. mergekit has 0.15.",
    )
    rescale: Rescale = Field(
        default="inverse_probability",
        description="What makes up for dropped entries: division of each by its own "
        "probability, as published, or scaling to the absolute sum before (mergekit).",
    )

    @property
    def needs_sums(self) -> bool:
        """Say whether what makes up for dropped entries hangs on absolute sums."""
        return self.rescale == "l1" and self.density < 1

    @model_validator(mode="after")
    def _probabilities(self) -> DellaParameters:
        lowest, highest = self.density - self.epsilon, self.density + self.epsilon
        if self.density < 1 and not 0 < lowest <= highest < 1:
            raise ValueError(
                f"density {self.density:g} and epsilon {self.epsilon:g} give probabilities from "
                f"{lowest:g} to {highest:g}, not between 0 and 1"
            )
        return self


class DellaLinearParameters(DellaParameters, SummedParameters):
    """Settings of DELLA without an election."""


class DellaTiesParameters(DellaParameters, ElectedParameters):
    """Settings of DELLA."""

    merge: Literal["mean", "sum"] = Field(
        default="mean",
        description="Whether entries of the elected sign are divided by the sum of their "
        "weights or only added.",
    )


class MagPrune(SparseMethod):
    """M_r ~ Bernoulli(p_r), p_r = d − ε + 2ε (r−1)/(n−1) for rank r of n in a row; M ⊙ τ / p."""

    paper = "arXiv 2406.11617"
    cost = "A"
    expert_parameters = ("density", "epsilon")
    parameters: DellaParameters
    own: Mapping[str, DellaParameters]

    @property
    def single_pass(self) -> bool:
        """Say yes, unless absolute sums have to be known."""
        every = (self.parameters, *self.own.values())
        return not any(settings.needs_sums for settings in every)

    def keepers(self, source: TensorBlocks) -> list[Callable[[], Keep]]:
        """Drop entries by their rank in the row along the last dimension.

        Peak memory: nothing beyond the inputs, but ten rows where a row is long.
        """
        seeds = zip(source.experts, mask_seeds(source), strict=True)
        return [self._keeper(expert, source.row_length, seed=seed) for expert, seed in seeds]

    def _keeper(self, expert: str, length: int, *, seed: int) -> Callable[[], Keep]:
        settings = self.own.get(expert, self.parameters)
        if settings.density == 1:
            return keep_all
        return partial(
            pruning,
            length,
            lowest=settings.density - settings.epsilon,
            highest=settings.density + settings.epsilon,
            inverse=settings.rescale == "inverse_probability",
            seed=seed,
        )

    def made_up(self, source: TensorBlocks, keepers: Sequence[Callable[[], Keep]]) -> list[float]:
        """Return the ratio of absolute sums where entries are not divided by probabilities."""
        if self.parameters.rescale == "inverse_probability":
            return [1.0] * len(keepers)
        return l1_factors(source, keepers, unit=self.unit(source))

    def unit(self, source: TensorBlocks) -> int:
        """Return the length of a row."""
        return source.row_length


class Della(MagPrune, Elected):
    """θ = θ_0 + λ Σ_e [sign y_e = s] y_e / Σ_e [sign y_e = s] w_e, s = sign Σ y_e (+ for 0).

    y_e = w_e M_e ⊙ τ_e / p_e, M_e ~ Bernoulli(p_e) with p_e rising with the rank of |τ_e| in
    its row. All float tensors alike. The recipe's seed, the tensor's name and the expert's
    name make the mask.
    """

    name = "della"
    title = "DELLA"
    summary = "Drops updates at random, small ones more often, and merges those that agree."
    Parameters = DellaTiesParameters
    parameters: DellaTiesParameters


class DellaLinear(MagPrune, Summed):
    """θ = θ_0 + λ Σ w_e M_e ⊙ τ_e / p_e, M_e as in `della`. In mergekit only."""

    name = "della_linear"
    title = "DELLA linear"
    summary = "Drops updates at random, small ones more often, and adds the rest."
    Parameters = DellaLinearParameters
    parameters: DellaLinearParameters
