"""Functional Dual Anchors: fit each layer to the experts' outputs on constructed inputs.

arXiv 2510.21223. Here are the parameters, and what FDA begins from; the two stages are in
`fda_core.anchors` and run layer by layer in the engine. Tensors outside the layers get what
the start makes of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator, model_validator

from fda_core.anchors.config import AdaptConfig, ConstructConfig
from fda_core.checkpoints.layers import Scope
from fda_core.contract.recipe import MethodSpec
from fda_core.methods import base, registry
from fda_core.methods.fda_presets import Preset, filled
from fda_core.methods.lazy_torch import torch
from fda_core.methods.task_arithmetic import TaskArithmetic
from fda_core.methods.tensor_blocks import TensorBlocks

if TYPE_CHECKING:
    from torch import Tensor

BASE = "base"


class FdaParameters(base.MethodParameters):
    """What a recipe may say of FDA."""

    start: MethodSpec = Field(
        default=MethodSpec(name=BASE),
        description="Where adaptation begins: base, or any other method, by name or with "
        "parameters: {name: tsvm, scale: 1.0}.",
    )
    scope: Scope = Field(
        default="layer",
        description="What is fitted: the whole residual block, or its MLP alone, on anchors that "
        "are single rows; the paper's choice for language models, with 8192 anchors.",
    )
    preset: Preset = Field(
        default="published",
        description="What construct and adapt are where they are left out: published, or quick, "
        "which costs a tenth or less and merged no worse that could be told.",
    )
    construction: ConstructConfig = Field(default=ConstructConfig(), alias="construct")
    adaptation: AdaptConfig = Field(default=AdaptConfig(), alias="adapt")

    @model_validator(mode="before")
    @classmethod
    def _preset_fills_in(cls, given: Any) -> Any:
        return filled(given) if isinstance(given, Mapping) else given

    @field_validator("start")
    @classmethod
    def _not_itself(cls, spec: MethodSpec) -> MethodSpec:
        if spec.name == "fda":
            raise ValueError("FDA cannot start from itself")
        if spec.name == BASE and spec.parameters:
            raise ValueError("the start 'base' has no parameters")
        return spec

    @model_validator(mode="after")
    def _rows_are_no_layers_input(self) -> FdaParameters:
        if self.scope == "mlp" and self.construction.tokens is not None:
            raise ValueError("construct.tokens is for scope: layer; an MLP's anchors are rows")
        if self.scope == "mlp" and self.preset == "quick":
            raise ValueError("preset: quick is for scope: layer; it was never measured on rows")
        return self


class Fda(base.Method):
    """FDA from the base (use A) or refining another method's result (use B)."""

    name = "fda"
    title = "Functional Dual Anchors"
    summary = "Fits each layer to the experts' outputs on inputs made from their task vectors."
    paper = "arXiv 2510.21223"
    cost = "E"
    Parameters = FdaParameters
    parameters: FdaParameters

    def __init__(
        self, parameters: base.MethodParameters, own: Mapping[str, base.OwnParameters] | None = None
    ) -> None:
        """Give the start what single experts have of their own; the base refuses it."""
        super().__init__(parameters)
        spec = self.parameters.start
        self.start: base.Method | None = None
        if spec.name == BASE:
            self._read_own(own)
        else:
            self.start = registry.resolve(spec, where="method.start", own=own)
            self.uses_weights = self.start.uses_weights
            self.expert_parameters = self.start.expert_parameters
            self.min_experts = self.start.min_experts
            self.max_experts = self.start.max_experts

    def merge_tensor(self, inputs: base.TensorInputs) -> Tensor:
        """Return the start's tensor."""
        return inputs.base if self.start is None else self.start.merge_tensor(inputs)

    def merges_blocks(self, *, layer: int | None, shape: Sequence[int]) -> bool:
        """Say whether the start merges such a tensor in blocks; the base alone can be."""
        return self.start is None or self.start.merges_blocks(layer=layer, shape=shape)

    @property
    def single_pass(self) -> bool:
        """Say what the start says."""
        return self.start is None or self.start.single_pass

    def merge_blocks(self, source: TensorBlocks) -> Iterator[Tensor]:
        """Yield the start's tensor."""
        if self.start is not None:
            return self.start.merge_blocks(source)
        return (base for base, _ in source.blocks())

    def coefficient_deltas(
        self,
        base: Mapping[str, Tensor],
        experts: Sequence[Mapping[str, Tensor]],
        start: Mapping[str, Tensor],
        *,
        weights: Sequence[float],
        names: Mapping[str, str],
    ) -> list[tuple[dict[str, Tensor], float]]:
        """Return the pairs (δ_k, first α_k) of use B for one layer (`fda.md` §3).

        From task arithmetic: one per expert, δ_k = τ_k. From any other start: one, δ = θ* − θ0
        with α = 1. Tensors the start excludes cannot move; `names` has their whole names.
        """
        if not isinstance(self.start, TaskArithmetic):
            return [({name: start[name] - base[name] for name in base}, 1.0)]
        fixed = {part for part in base if self.start.excludes(names[part])}
        pairs = []
        for expert, scale in zip(experts, self.start.coefficients(weights), strict=True):
            delta = {
                part: torch.zeros_like(base[part]) if part in fixed else expert[part] - base[part]
                for part in base
            }
            pairs.append((delta, scale))
        return pairs
