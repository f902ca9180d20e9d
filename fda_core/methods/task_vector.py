"""Methods of the form base + scale · delta, and the tensors such methods leave alone.

Every method but FDA merges the experts' task vectors into one delta per tensor and adds it to
the base. What they share is here: the outer scale, the tensors that keep the base, and, for
methods that are defined on matrices only, what happens to all other tensors.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from fda_core.errors import InternalError
from fda_core.methods.base import (
    Method,
    MethodParameters,
    OwnParameters,
    TensorInputs,
    is_layer_matrix,
)
from fda_core.methods.elementwise import is_zero, sum_into_first
from fda_core.methods.tensor_blocks import TensorBlocks, merged_whole
from fda_core.methods.transfer import WORKSPACE_TENSORS, carry_all_, probe

if TYPE_CHECKING:
    from torch import Tensor

Others = Literal["average", "base", "task_arithmetic"]
Transfer = Literal["as_is", "full"]

TASK_ARITHMETIC_SCALE = 0.3
"""Task arithmetic's usual factor for several experts, arXiv 2212.04089."""


def _tuple_of_list(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Patterns = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_tuple_of_list)
]
"""Shell patterns of tensor names; documents write them as a list."""


class TaskVectorParameters(MethodParameters):
    """What every method of this form takes."""

    scale: float = Field(
        default=1.0, description="Factor of the merged delta; 0 gives the base, bit for bit."
    )
    exclude: Patterns = Field(
        default=(),
        description="Tensors that keep the base: shell patterns of whole tensor names, such as "
        "'*.bias' or 'encoder.layer.[01].*'. '*' also matches dots; case matters.",
    )


class MatrixParameters(TaskVectorParameters):
    """What methods take that are defined on matrices only."""

    others: Others = Field(
        default="average",
        description="What tensors that are no matrices of a layer get, times `scale`: the mean "
        f"of the task vectors, nothing (the base's), or {TASK_ARITHMETIC_SCALE} of their sum.",
    )
    transfer: Transfer = Field(
        default="as_is",
        description="full: scale every matrix's delta so that, on the inputs the task vectors "
        "imply, it carries the experts' updates at their full size on average; as_is: as "
        "published. Before `scale`.",
    )


class SpectralParameters(MatrixParameters):
    """Settings of methods that need a numerical rank."""

    rank_tolerance: float = Field(
        default=1e-6,
        ge=0,
        lt=1,
        description="Singular values up to this part of the largest count as zero; 0 is the "
        "published algorithm, arbitrary where experts share directions.",
    )


DeltaBlock = tuple["Tensor", "Tensor | None"]
"""A block of the base and of the merged delta before `scale`, or None for no delta."""


class TaskVectorMethod(Method):
    """A method that adds `scale` times one merged delta to the base.

    The base comes back unchanged, to the bit, when the tensor is excluded, the scale is 0 or no
    expert changed the tensor. Adding a zero would not do: it turns -0.0 into 0.0.
    """

    parameters: TaskVectorParameters

    def merge_tensor(self, inputs: TensorInputs) -> Tensor:
        """Return base + scale · delta, in the base's memory."""
        if self.merges_blocks(layer=inputs.layer, shape=inputs.base.shape):
            return merged_whole(self.merge_blocks, inputs)
        unchanged = all(is_zero(delta) for delta in inputs.deltas)
        if unchanged or self._leaves(inputs.name):
            return inputs.base
        delta = self.merged_delta(inputs)
        return (
            inputs.base if delta is None else inputs.base.add_(delta, alpha=self.parameters.scale)
        )

    def merge_blocks(self, source: TensorBlocks) -> Iterator[Tensor]:
        """Yield base + scale · delta, block by block in the base's memory."""
        if self._leaves(source.name) or self.keeps_base(source):
            yield from (base for base, _ in source.blocks())
            return
        for base, delta in self.delta_blocks(source):
            yield base if delta is None else base.add_(delta, alpha=self.parameters.scale)

    def _leaves(self, name: str) -> bool:
        return self.parameters.scale == 0 or self.excludes(name)

    def excludes(self, name: str) -> bool:
        """Say whether the parameters let a tensor of this name keep the base."""
        return any(fnmatchcase(name, pattern) for pattern in self.parameters.exclude)

    def keeps_base(self, source: TensorBlocks) -> bool:
        """Say whether there is nothing to merge: every task vector is zero, or empty."""
        return source.is_unchanged()

    def merged_delta(self, inputs: TensorInputs) -> Tensor | None:
        """Return the delta of a tensor that is not merged in blocks; None for none.

        May overwrite the deltas, but not the base. At least one delta is not zero.
        """
        raise InternalError(f"{self.name} merges {inputs.name} in blocks")

    def delta_blocks(self, source: TensorBlocks) -> Iterator[DeltaBlock]:
        """Yield, block by block, the base and the delta of a tensor that is merged in blocks.

        May overwrite the deltas, but not the base. At least one delta is not zero.
        """
        raise InternalError(f"{self.name} merges {source.name} whole")


class ElementwiseMethod(TaskVectorMethod):
    """A method that merges every tensor in blocks."""

    def merges_blocks(self, *, layer: int | None, shape: Sequence[int]) -> bool:  # noqa: ARG002
        """Say yes."""
        return True


class MatrixMethod(TaskVectorMethod):
    """A method defined on the matrices of layers; `others` says what the rest gets, in blocks.

    An expert that did not change a matrix takes no part in it: directions and norms of a zero
    matrix mean nothing.
    """

    parameters: MatrixParameters

    def __init__(
        self, parameters: MethodParameters, own: Mapping[str, OwnParameters] | None = None
    ) -> None:
        """Ask for more memory where the delta is scaled to carry all of the experts."""
        super().__init__(parameters, own)
        if self.parameters.transfer == "full":
            self.workspace_tensors += WORKSPACE_TENSORS

    def merges_blocks(self, *, layer: int | None, shape: Sequence[int]) -> bool:
        """Say whether a tensor is no matrix of a layer."""
        return not is_layer_matrix(layer, shape)

    @property
    def single_pass(self) -> bool:
        """Say yes, of what it does not see whole."""
        return True

    def merged_delta(self, inputs: TensorInputs) -> Tensor | None:
        """Return the matrix method's delta."""
        changed = [delta for delta in inputs.deltas if not is_zero(delta)]
        if self.parameters.transfer == "as_is":
            return self.matrix_delta(changed, name=inputs.name)
        probing = probe(changed)
        delta = self.matrix_delta(changed, name=inputs.name)
        return None if delta is None else carry_all_(delta, probing)

    @abstractmethod
    def matrix_delta(self, deltas: Sequence[Tensor], *, name: str) -> Tensor | None:
        """Return the delta of one matrix from task vectors that are not zero.

        There is at least one. May overwrite them. `name` is for error messages.
        """

    def delta_blocks(self, source: TensorBlocks) -> Iterator[DeltaBlock]:
        """Yield what `others` says."""
        for base, deltas in source.blocks():
            yield base, other_delta(self.parameters.others, deltas)


def other_delta(others: Others, deltas: Sequence[Tensor]) -> Tensor | None:
    """Return what tensors outside a matrix method's reach get, in the first delta's memory."""
    if others == "base":
        return None
    total = sum_into_first(deltas)
    return total.mul_(TASK_ARITHMETIC_SCALE if others == "task_arithmetic" else 1 / len(deltas))
