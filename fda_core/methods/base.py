"""What a merge method is: a name, parameters declared once, and algebra on one tensor."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from fda_core.contract.recipe import Document, checked
from fda_core.errors import BadParameter, InternalError, UnknownKey

if TYPE_CHECKING:
    from torch import Tensor

    from fda_core.methods.tensor_blocks import TensorBlocks

CostClass = Literal["A", "B", "C", "E"]
"""A element-wise; B a few factorisations per matrix; C iterative per matrix; E per layer model."""


class MethodParameters(Document):
    """Base of a method's parameters: strict, frozen, unknown keys refused, no NaN."""


class OwnParameters(NamedTuple):
    """What a recipe gives one expert alone, not yet checked against the method."""

    given: Mapping[str, Any]
    where: str
    """Its place in the recipe, for messages."""


@dataclass(frozen=True, kw_only=True)
class TensorInputs:
    """One tensor of the base and the task vectors of the experts that have it.

    Everything is in the compute dtype (float32 or wider), on one device, of one shape.
    `base` and `deltas` belong to the method: it may overwrite them.
    """

    name: str
    layer: int | None
    """The layer's number, or None outside of all layers."""
    base: Tensor
    deltas: Sequence[Tensor]
    weights: Sequence[float]
    """The experts' weights in the recipe, 1.0 each unless the user said otherwise."""
    experts: Sequence[str]
    seed: int
    """The job's seed; randomness is made from (seed, name, expert) and nothing else."""

    @property
    def is_matrix(self) -> bool:
        """Say whether matrix methods treat it."""
        return is_layer_matrix(self.layer, self.base.shape)


def is_layer_matrix(layer: int | None, shape: Sequence[int]) -> bool:
    """Say whether matrix methods treat such a tensor: two dimensions and inside a layer.

    Embeddings are two-dimensional but no linear maps of activations; a spectral method on
    (vocabulary, width) is neither published nor affordable.
    """
    return len(shape) == 2 and layer is not None


class Method(ABC):
    """A named way to merge. One subclass per file; the registry lists them.

    Tensors of which `merges_blocks` says so are merged by `merge_blocks`, from blocks that fit
    the cache; of others the method is given the whole. `merge_tensor` takes any.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    summary: ClassVar[str]
    """One sentence for tables and help."""
    paper: ClassVar[str]
    """arXiv id or where it comes from."""
    cost: ClassVar[CostClass]
    min_experts: int = 1
    max_experts: int | None = None
    uses_weights: bool = False
    expert_parameters: tuple[str, ...] = ()
    """The parameters that an expert may have of its own."""
    workspace_tensors: float = 4.0
    """What `merge_tensor` needs at most beyond base and deltas, in tensors of the base's size.

    For contiguous float32 tensors of millions of elements, with any number of experts, and
    matrices with sides of at most one to four. Smaller tensors need a few
    megabytes more; so do rows of millions of elements where they are ranked (della: ten rows).
    """
    Parameters: ClassVar[type[MethodParameters]]

    def __init__(
        self, parameters: MethodParameters, own: Mapping[str, OwnParameters] | None = None
    ) -> None:
        """Take what holds for all experts, and by expert what holds for it alone.

        Raises `UnknownKey` or `BadParameter` for what an expert cannot have of its own.
        """
        self.parameters = parameters
        self.own: Mapping[str, MethodParameters] = self._read_own(own)
        """By expert, of those that differ: all parameters, its own among them."""

    def _read_own(self, own: Mapping[str, OwnParameters] | None) -> dict[str, MethodParameters]:
        return {expert: self._of_expert(given) for expert, given in (own or {}).items()}

    def _of_expert(self, own: OwnParameters) -> MethodParameters:
        known = self.expert_parameters
        if not known:
            raise BadParameter(
                f"{own.where}: {self.name} has no parameters that an expert has of its own",
                hint="Give them under method:, or choose a method that has (`fda methods`).",
                key=own.where,
            )
        for name in own.given:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
                meant = f"Did you mean {near[0]!r}? " if near else ""
                raise UnknownKey(
                    f"{own.where}.{name}: {self.name} has no such parameter of one expert",
                    hint=f"{meant}Known here: {', '.join(known)}.",
                    key=f"{own.where}.{name}",
                )
        shared = self.parameters.model_dump(by_alias=True)
        return checked(type(self.parameters), {**shared, **own.given}, where=own.where)

    def merges_blocks(self, *, layer: int | None, shape: Sequence[int]) -> bool:  # noqa: ARG002
        """Say whether `merge_blocks` merges a tensor of this layer and shape."""
        return False

    @property
    def single_pass(self) -> bool:
        """Say whether `merge_blocks` goes through a tensor once, so that nothing need be held.

        To find that no expert changed a tensor it may begin twice.
        """
        return False

    def merge_blocks(self, source: TensorBlocks) -> Iterator[Tensor]:
        """Yield the merged tensor in flat blocks, in order, in the compute dtype.

        A block that was yielded is the caller's until it asks for the next. May go through the
        tensor as often as it likes before; in the last pass each block is yielded before the
        next is cut.
        """
        raise InternalError(f"{self.name} merges {source.name} whole")

    @abstractmethod
    def merge_tensor(self, inputs: TensorInputs) -> Tensor:
        """Return the merged tensor (base plus merged delta) in the compute dtype."""
