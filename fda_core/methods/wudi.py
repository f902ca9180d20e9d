"""WUDI-Merging and its closed forms. ICML 2025, arXiv 2503.08099; MLLMerging repository.

All minimise, or stop early in minimising, the interference objective of `interference.py`.
Early stopping is part of the method: its minimiser merges worse than the published 300 steps.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from fda_core.methods.interference import Filter, adam, filtered, measurable
from fda_core.methods.lazy_torch import torch
from fda_core.methods.task_vector import MatrixMethod, MatrixParameters, Others

if TYPE_CHECKING:
    from torch import Tensor

Init = Literal["sum", "mean", "zero"]


class InterferenceParameters(MatrixParameters):
    """Settings of all methods of this family."""

    init: Init = Field(
        default="sum", description="Where minimising begins: sum or mean of task vectors, or 0."
    )

    def start(self, experts: int) -> float:
        """Return the factor of the summed task vectors that minimising begins at."""
        return {"sum": 1.0, "mean": 1 / experts, "zero": 0.0}[self.init]


class WudiParameters(InterferenceParameters):
    """Settings of WUDI-Merging."""

    solver: Literal["adam", "flow", "closed"] = Field(
        default="adam",
        description="adam: the published steps; flow: gradient flow up to `time`, in closed "
        "form and independent of the updates' size; closed: the minimiser.",
    )
    lr: float = Field(default=1e-5, gt=0, description="Adam's learning rate.")
    steps: int = Field(default=300, ge=1, description="Adam's steps.")
    time: float = Field(default=300.0, gt=0, description="How long the flow runs.")
    top_ratio: float | None = Field(
        default=None, gt=0, le=1, description="Part of the eigenvalues the flow keeps; all if none."
    )
    others: Others = Field(
        default="base",
        description="What tensors that are no matrices of a layer get: the base's as published, "
        "the mean of the task vectors (fusion_bench), or 0.3 of their sum.",
    )

    @model_validator(mode="after")
    def _top_ratio_is_for_the_flow(self) -> WudiParameters:
        if self.top_ratio is not None and self.solver != "flow":
            raise ValueError(f"top_ratio is for solver flow, not for {self.solver}")
        return self


class Wudi(MatrixMethod):
    """θ = θ_0 + α M, M near the minimum of Σ_e ‖(M − τ_e) τ_eᵀ‖² / ‖τ_e‖², matrices only.

    Adam's steps have absolute size (at most lr · steps per entry), so unlike the other solvers
    it is not homogeneous. Language models with `init: sum` want a scale near 1/m.
    """

    name = "wudi"
    title = "WUDI-Merging"
    summary = "Descends to the update that interferes least with each expert's own inputs."
    paper = "arXiv 2503.08099"
    cost = "C"
    workspace_tensors = 33.0
    Parameters = WudiParameters
    parameters: WudiParameters

    def matrix_delta(self, deltas: Sequence[Tensor], *, name: str) -> Tensor | None:
        """Return M, or None if all task vectors are immeasurably small.

        For peak memory see `adam` and `filtered`.
        """
        settings = self.parameters
        experts = measurable(deltas, name=name)
        if not experts:
            return None
        start = settings.start(len(experts))
        if settings.solver == "adam":
            return adam(experts, start=start, learning_rate=settings.lr, steps=settings.steps)
        if settings.solver == "closed":
            return filtered(experts, start=start, keep=closed_form(), name=name)
        keep = flow(settings.time, top_ratio=settings.top_ratio)
        return filtered(experts, start=start, keep=keep, name=name)


class FilteredWudi(MatrixMethod):
    """θ = θ_0 + α [M_0 (I − Q f Qᵀ) + D Q (f/λ) Qᵀ] for one filter f(λ), matrices only."""

    paper = "arXiv 2503.08099, code only (MLLMerging repository)"
    cost = "B"
    workspace_tensors = 33.0
    parameters: InterferenceParameters

    @abstractmethod
    def filter(self, shape: Sequence[int]) -> Filter:
        """Return the filter for matrices of shape (o, i)."""

    def matrix_delta(self, deltas: Sequence[Tensor], *, name: str) -> Tensor | None:
        """Return the filtered solution, or None if all task vectors are immeasurably small.

        For peak memory see `filtered`.
        """
        experts = measurable(deltas, name=name)
        if not experts:
            return None
        start = self.parameters.start(len(experts))
        return filtered(experts, start=start, keep=self.filter(deltas[0].shape), name=name)


class IwudiParameters(InterferenceParameters):
    """Settings of iWUDI."""

    time: float = Field(default=300.0, gt=0, description="How long the gradient flow runs.")


class Iwudi(FilteredWudi):
    """WUDI's gradient flow at time t: f = 1 − exp(−λ t)."""

    name = "iwudi"
    title = "iWUDI"
    summary = "WUDI's gradient flow in closed form, stopped at a time."
    Parameters = IwudiParameters
    parameters: IwudiParameters

    def filter(self, shape: Sequence[int]) -> Filter:  # noqa: ARG002
        """Return 1 − exp(−λ t)."""
        return flow(self.parameters.time)


class SwudiParameters(IwudiParameters):
    """Settings of sWUDI."""

    top_ratio: float = Field(
        default=0.65, gt=0, le=1, description="Part of the eigenvalues that is used."
    )


class Swudi(FilteredWudi):
    """WUDI's gradient flow on the top K = ⌈r · i⌉ eigenvalues only: f = 1 − exp(−λ t), else 0.

    Published settings: ViT-B/32 t 1300, B/16 t 1800, both r 0.65; Llama-3.2-3B t 300, r 0.85.
    """

    name = "swudi"
    title = "sWUDI"
    summary = "WUDI's gradient flow, stopped at a time and kept to the leading directions."
    Parameters = SwudiParameters
    parameters: SwudiParameters

    def filter(self, shape: Sequence[int]) -> Filter:  # noqa: ARG002
        """Return 1 − exp(−λ t) on the leading eigenvalues."""
        return flow(self.parameters.time, top_ratio=self.parameters.top_ratio)


class AswudiParameters(InterferenceParameters):
    """Settings of asWUDI."""

    rank_rule: Literal["participation", "gavish_donoho"] = Field(
        default="participation",
        description="How many directions are used: the participation ratio of √λ, or the "
        "Gavish-Donoho threshold on √λ, meant for Llama-style models.",
    )


class Aswudi(FilteredWudi):
    """WUDI's minimiser on the top K eigenvalues, K from the spectrum: f = 1 on them, else 0."""

    name = "aswudi"
    title = "asWUDI"
    summary = "WUDI's minimiser on as many leading directions as the spectrum has."
    Parameters = AswudiParameters
    parameters: AswudiParameters

    def filter(self, shape: Sequence[int]) -> Filter:
        """Return 1 on the leading eigenvalues."""
        if self.parameters.rank_rule == "participation":
            return lambda values: _leading(values, participation_rank(values))
        return lambda values: _leading(values, gavish_donoho_rank(values, shape))


def flow(time: float, *, top_ratio: float | None = None) -> Filter:
    """Return f = 1 − exp(−λ t), on the top ⌈ratio · i⌉ eigenvalues if a ratio is given."""

    def keep(values: Tensor) -> Tensor:
        passed = torch.expm1(-time * values).neg_()
        if top_ratio is None:
            return passed
        return passed * _leading(values, math.ceil(top_ratio * len(values)))

    return keep


def closed_form() -> Filter:
    """Return f = 1 on eigenvalues above 1e-10 of the largest, else 0: the pseudo-inverse."""
    return lambda values: (values > 1e-10 * values[-1]).to(values.dtype)


def participation_rank(values: Tensor) -> int:
    """Return ⌈(Σ √λ)² / Σ λ⌉: how many equal eigenvalues would be spread as widely."""
    ratio = float(values.sqrt().sum() ** 2 / values.sum())
    return math.ceil(ratio - 1e-9)


def gavish_donoho_rank(values: Tensor, shape: Sequence[int]) -> int:
    """Return how many √λ exceed the optimal hard threshold ω · median(√λ), at least 1.

    ω as coded in MLLMerging for a matrix of aspect b = min/max of its shape. The median of an
    even number is the lower of the middle two.
    """
    b = min(shape) / max(shape)
    omega = math.sqrt(2 * (b + 1) + 8 * b / ((b + 1) + math.sqrt(b * b + 14 * b + 1)))
    middle = math.sqrt(2 + math.sqrt(3)) if b == 1 else math.sqrt((1 - b) ** 2 + b)
    roots = values.sqrt()
    return max(1, int(torch.count_nonzero(roots > omega / middle * roots.median())))


def _leading(values: Tensor, count: int) -> Tensor:
    """Return 1 for the `count` largest of ascending values, 0 for the rest."""
    passed = torch.zeros_like(values)
    passed[max(0, len(values) - count) :] = 1
    return passed
