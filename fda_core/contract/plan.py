"""The plan: a recipe resolved against real checkpoints, cut into units.

A plan is self-contained plain data. Any worker that can reach the storage can run any of
its units from the plan alone.
"""

import operator
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fda_core.contract.recipe import Recipe

PLAN_FORMAT: Literal[1] = 1


class PlainData(BaseModel):
    """Base of what our processes write for each other: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PinnedFile(PlainData):
    """A file as it was when planned; a reader refuses it if either number has changed."""

    size_bytes: int
    etag: str


class TensorEntry(PlainData):
    """Where one tensor lies: bytes [start, end) of a file."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def size_bytes(self) -> int:
        """Return the tensor's length in its file."""
        return self.end - self.start

    @property
    def numel(self) -> int:
        """Return the number of elements."""
        count = 1
        for axis in self.shape:
            count *= axis
        return count


class PinnedCheckpoint(PlainData):
    """One input, from its headers: every tensor by its name on disk."""

    uri: str
    family: str
    config: dict[str, Any]
    prefix: str
    files: dict[str, PinnedFile]
    tensors: dict[str, TensorEntry]
    config_file: PinnedFile | None = None
    """config.json itself, which the output takes from the base; an adapter has none."""
    sidecars: dict[str, PinnedFile]


class LowRankUpdate(PlainData):
    """What an adapter adds to one tensor: scale · B A, or scale · B where there is no A."""

    a: str | None
    b: str
    """The factors, by their names in the adapter."""
    scale: float
    transposed: bool
    """Whether the tensor holds the transpose of B A, as embeddings and Conv1D weights do."""


class PlannedAdapter(PlainData):
    """A LoRA adapter: which of the base's tensors it updates, and by what."""

    base_model: str | None
    """The model it says it was trained on; told, never trusted."""
    updates: dict[str, LowRankUpdate]
    """By the base's tensor names."""


class PlannedExpert(PlainData):
    """An expert and how its tensor names map to the base's."""

    name: str
    weight: float
    checkpoint: PinnedCheckpoint
    names: dict[str, str]
    """The base's tensor name to this expert's, for every tensor they share.

    An adapter shares all of the base but its heads; a tensor that it has no whole one of goes
    by the base's name here and is absent from `checkpoint`.
    """
    heads: tuple[str, ...]
    """The expert's own head tensors, by its names; one that an adapter updates, by the base's."""
    adapter: PlannedAdapter | None = None

    def changes(self, name: str) -> bool:
        """Say whether a tensor can differ from the base's; False needs no reading to know."""
        return self.adapter is None or bool(self.own(name))

    def own(self, name: str) -> tuple[str, ...]:
        """Return the tensors of its own that one of the base's is made from; none if inherited."""
        whole = self.names.get(name, "")
        found = [whole] if whole in self.checkpoint.tensors else []
        update = None if self.adapter is None else self.adapter.updates.get(name)
        if update is not None:
            found += [factor for factor in (update.a, update.b) if factor is not None]
        return tuple(found)


class TensorRule(StrEnum):
    """What becomes of one tensor of the base."""

    MERGE = "merge"
    AVERAGE = "average"
    BASE = "base"
    TIED = "tied"


class TensorSetting(PlainData):
    """Parameters and weights of tensors that `vary` gives others than the recipe's."""

    parameters: dict[str, Any]
    """Of the method, every default written out."""
    weights: dict[str, float]
    experts: dict[str, dict[str, Any]] = Field(default_factory=dict, exclude_if=operator.not_)
    """By name, of experts that have parameters of their own: these."""


class PlannedTensor(PlainData):
    """One tensor of the output."""

    name: str
    layer: int | None
    part: str
    """Its name inside the layer (`attention.self.query.weight`), or its name again outside."""
    rule: TensorRule
    reason: str
    """In a word, why the rule: layer, outside, head, buffer, no expert has it, tied."""
    tied_to: str | None = None
    experts: tuple[str, ...]
    """Who takes part, in recipe order."""
    dtype: str
    shape: tuple[int, ...]
    setting: int | None = None
    """Index into the plan's settings; None for the recipe's parameters and weights."""
    transposed: bool = False
    """Whether it is a matrix stored (inputs, outputs); methods see it (outputs, inputs)."""

    @property
    def matrix_shape(self) -> tuple[int, ...]:
        """Return the shape as methods see it."""
        return self.shape[::-1] if self.transposed else self.shape


class PlannedShard(PlainData):
    """One file of weights, written by one unit."""

    number: int
    file: str
    layers: tuple[int, ...]
    tensors: tuple[str, ...]
    size_bytes: int


UnitKind = Literal["construct", "merge", "publish"]


class Unit(PlainData):
    """One piece of a plan: a pure function of the plan, the inputs and the seed."""

    id: str
    kind: UnitKind
    needs: tuple[str, ...] = ()
    layer: int | None = None
    expert: str | None = None
    shard: int | None = None
    steps: int = 0
    """Optimiser steps at most; 0 for units without any."""
    read_bytes: int
    write_bytes: int
    memory_bytes: int
    flops: int
    cached: bool = False
    """Whether the anchor cache had it when the plan was made."""
    microbatch: int | None = None
    """At most so many anchors at once, over what the recipe says: set where memory ran out."""


class Plan(PlainData):
    """Everything a merge will do, decided from headers alone."""

    format: Literal[1] = PLAN_FORMAT
    job_id: str
    digest: str
    """Of everything the result depends on, and where it goes."""
    version: str
    recipe: Recipe
    output: str
    workspace: str
    family: str
    layers: int
    width: int
    base: PinnedCheckpoint
    experts: tuple[PlannedExpert, ...]
    tensors: tuple[PlannedTensor, ...]
    settings: tuple[TensorSetting, ...] = ()
    shards: tuple[PlannedShard, ...]
    single_file: bool
    """Whether publishing joins the shards into one model.safetensors."""
    units: tuple[Unit, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def unit(self, unit_id: str) -> Unit:
        """Return a unit by its id."""
        return next(unit for unit in self.units if unit.id == unit_id)
