"""Read the tensors of base and experts for a unit: checked, in the compute dtype."""

from collections.abc import Mapping, Sequence
from functools import partial

from torch import Tensor

from fda_core.checkpoints.low_rank import low_rank_update
from fda_core.checkpoints.reader import TensorReader, torch_dtype
from fda_core.contract.plan import (
    LowRankUpdate,
    PinnedCheckpoint,
    PlannedExpert,
    PlannedTensor,
    TensorEntry,
)
from fda_core.engine.context import UnitContext
from fda_core.engine.guards import require_finite
from fda_core.engine.window import Stored


class Inputs:
    """Readers of the base and the experts of one plan, opened once per unit."""

    def __init__(self, context: UnitContext) -> None:
        self._context = context
        plan = context.plan
        self._base = TensorReader(context.storage, plan.base)
        self._experts = {e.name: TensorReader(context.storage, e.checkpoint) for e in plan.experts}
        self._planned = {e.name: e for e in plan.experts}

    def base(self, name: str) -> Tensor:
        """Return one tensor of the base in the compute dtype."""
        return self._one(self._base, self._context.plan.base, name, whose="base")

    def raw_base(self, name: str) -> Tensor:
        """Return one tensor of the base in its own dtype, on the CPU."""
        tensor = self._base.read(name)
        self._context.moved(read=self._context.plan.base.tensors[name].size_bytes)
        require_finite(tensor, name=name, whose="base")
        return tensor

    def changes(self, name: str, expert: str) -> bool:
        """Say whether an expert's tensor can differ from the base's, without reading it."""
        return self._planned[expert].changes(name)

    def expert(self, name: str, expert: str, base: Tensor) -> Tensor:
        """Return an expert's tensor, by the base's name for it, in the compute dtype.

        `base` is the base's tensor, left as it is: what an adapter inherits is a copy of it,
        and an update is added to it. Memory: one tensor and the adapter's factors.
        """
        who = self._planned[expert]
        whole = who.names[name]
        update = who.adapter.updates.get(name) if who.adapter else None
        if whole in who.checkpoint.tensors:
            own = self._own(whole, who)
            return own if update is None else self._updated(own, update, who, name=name)
        return base.clone() if update is None else self._updated(base, update, who, name=name)

    def is_stored(self, name: str, who: str | None) -> bool:
        """Say whether a tensor of the base (None) or an expert lies in its files as it is."""
        if who is None:
            return True
        planned = self._planned[who]
        updated = planned.adapter is not None and name in planned.adapter.updates
        return planned.names[name] in planned.checkpoint.tensors and not updated

    def stored(self, name: str, who: str | None) -> Stored:
        """Return where such a tensor lies. Its reads are neither counted nor looked at."""
        reader, own, entry = self._place(name, who)
        return Stored(torch_dtype(entry.dtype), entry.numel, partial(reader.read_elements, own))

    def count(self, name: str, who: str | None) -> None:
        """Count the bytes of such a tensor as read."""
        self._context.moved(read=self._place(name, who)[2].size_bytes)

    def raw(self, name: str, who: str | None) -> Tensor:
        """Return such a tensor in its own dtype, on the CPU; it is not looked at."""
        reader, own, _ = self._place(name, who)
        self.count(name, who)
        return reader.read(own)

    def whole(self, name: str, who: str | None) -> Tensor:
        """Return a tensor of the base (None) or an expert in the compute dtype, finite."""
        if who is None:
            return self.base(name)
        if self.is_stored(name, who):
            planned = self._planned[who]
            return self._own(planned.names[name], planned)
        return self.expert(name, who, self.base(name))

    def _place(self, name: str, who: str | None) -> tuple[TensorReader, str, TensorEntry]:
        if who is None:
            return self._base, name, self._context.plan.base.tensors[name]
        own = self._planned[who].names[name]
        return self._experts[who], own, self._planned[who].checkpoint.tensors[own]

    def base_layer(self, tensors: Sequence[PlannedTensor]) -> dict[str, Tensor]:
        """Return a layer of the base by the names inside the layer."""
        return {t.part: self.base(t.name) for t in tensors}

    def expert_layer(
        self, tensors: Sequence[PlannedTensor], expert: str, base: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return a layer of an expert by the names inside the layer, given the base's layer."""
        return {t.part: self.expert(t.name, expert, base[t.part]) for t in tensors}

    def head(self, name: str, expert: str) -> Tensor:
        """Return a head that an expert has as its own, as it is stored, on the CPU.

        One that an adapter updates is computed, and has the dtype of what is updated.
        """
        who = self._planned[expert]
        if who.adapter and name in who.adapter.updates:
            made = self.expert(name, expert, self.base(name))
            return made.to("cpu", torch_dtype(self.head_entry(name, expert).dtype))
        tensor = self._experts[expert].read(name)
        self._context.moved(read=who.checkpoint.tensors[name].size_bytes)
        require_finite(tensor, name=name, whose=expert)
        return tensor

    def head_entry(self, name: str, expert: str) -> TensorEntry:
        """Return dtype and shape of `head`, by the entry they come from."""
        who = self._planned[expert]
        own = who.checkpoint.tensors.get(who.names.get(name, name))
        return self._context.plan.base.tensors[name] if own is None else own

    def _updated(
        self, tensor: Tensor, update: LowRankUpdate, who: PlannedExpert, *, name: str
    ) -> Tensor:
        """Return a tensor with an adapter's update added, in new memory."""
        added = low_rank_update(
            None if update.a is None else self._own(update.a, who),
            self._own(update.b, who),
            scale=update.scale,
            transposed=update.transposed,
            shape=tensor.shape,
        )
        result = added.add_(tensor)
        require_finite(result, name=name, whose=who.name)
        return result

    def _own(self, own: str, who: PlannedExpert) -> Tensor:
        return self._one(self._experts[who.name], who.checkpoint, own, whose=who.name)

    def _one(
        self,
        reader: TensorReader,
        checkpoint: PinnedCheckpoint,
        own: str,
        *,
        whose: str,
    ) -> Tensor:
        tensor = reader.read(own, dtype=self._context.dtype)
        self._context.moved(read=checkpoint.tensors[own].size_bytes)
        require_finite(tensor, name=own, whose=whose)
        return tensor.to(self._context.device)


def shapes_of(layer: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a layer's tensors."""
    return {part: tuple(tensor.shape) for part, tensor in layer.items()}
