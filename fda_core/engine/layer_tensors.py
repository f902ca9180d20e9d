"""Read the tensors of base and experts for a unit: checked, in the compute dtype."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from fda_core.checkpoints.reader import TensorReader
from fda_core.contract.plan import PinnedCheckpoint, PlannedTensor
from fda_core.engine.context import UnitContext
from fda_core.engine.guards import require_finite


class Inputs:
    """Readers of the base and the experts of one plan, opened once per unit."""

    def __init__(self, context: UnitContext) -> None:
        self._context = context
        plan = context.plan
        self._base = TensorReader(context.storage, plan.base)
        self._experts = {e.name: TensorReader(context.storage, e.checkpoint) for e in plan.experts}
        self._names = {e.name: e.names for e in plan.experts}

    def base(self, name: str) -> Tensor:
        """Return one tensor of the base in the compute dtype."""
        return self._one(self._base, self._context.plan.base, name, whose="base")

    def raw_base(self, name: str) -> Tensor:
        """Return one tensor of the base in its own dtype, on the CPU."""
        tensor = self._base.read(name)
        self._context.moved(read=self._context.plan.base.tensors[name].size_bytes)
        require_finite(tensor, name=name, whose="base")
        return tensor

    def expert(self, name: str, expert: str) -> Tensor:
        """Return an expert's tensor, by the base's name for it, in the compute dtype."""
        own = self._names[expert][name]
        checkpoint = next(e.checkpoint for e in self._context.plan.experts if e.name == expert)
        return self._one(self._experts[expert], checkpoint, own, whose=expert)

    def base_layer(self, tensors: Sequence[PlannedTensor]) -> dict[str, Tensor]:
        """Return a layer of the base by the names inside the layer."""
        return {t.part: self.base(t.name) for t in tensors}

    def expert_layer(self, tensors: Sequence[PlannedTensor], expert: str) -> dict[str, Tensor]:
        """Return a layer of an expert by the names inside the layer."""
        return {t.part: self.expert(t.name, expert) for t in tensors}

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
