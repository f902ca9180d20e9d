"""What one expert did to one layer: that which anchors are constructed for."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

from fda_core.blocks.block import Block

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class LayerTask:
    """A layer's function, its tensors before and after training, and the width d of its input."""

    block: Block
    base: Tensors
    expert: Tensors
    width: int
    transposed: Collection[str] = ()
    """Matrices that are kept as (inputs, outputs), as GPT-2's are."""

    def matrices(self) -> tuple[Tensors, Tensors]:
        """Return base and expert with every matrix as (outputs, inputs), without copying."""
        return self._turned(self.base), self._turned(self.expert)

    def _turned(self, layer: Tensors) -> Tensors:
        return {name: t.T if name in self.transposed else t for name, t in layer.items()}
