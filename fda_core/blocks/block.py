"""One layer, or its MLP, as a function φ(θ, x) of its tensors as they are named on disk.

The module is the transformers library's own; parameters are handed to it at every call, so
gradients flow to the tensors on disk whatever the library calls them in memory, also where
it splits one (a fused gate-and-up projection is one tensor here and two there).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from fda_core.blocks.arguments import alone
from fda_core.blocks.modules import BuiltLayer, build_module
from fda_core.checkpoints.layers import Scope, Tower
from fda_core.errors import InternalError, UnknownArchitecture


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Where a parameter of the module comes from: all, or one equal piece, of a tensor."""

    part: str
    piece: int
    pieces: int


class Block:
    """φ: call it with {name inside the layer: tensor} and x of shape (n, t, d).

    An MLP alone also takes x of shape (n, d).
    """

    def __init__(self, built: BuiltLayer, sources: Mapping[str, _Source], tower: Tower) -> None:
        self._module = built.module
        self._arguments = built.arguments
        self._sources = dict(sources)
        self.parts = tuple(dict.fromkeys(source.part for source in self._sources.values()))
        self.insensitive = tower.insensitive
        """Names the output does not depend on; their induced gradient is zero."""

    def __call__(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Return the layer's output for input representations x; both of one shape."""
        given = {name: _piece(tensors[src.part], src) for name, src in self._sources.items()}
        positional, named = self._arguments(x)
        output = functional_call(self._module, given, positional, named)
        return output[0] if isinstance(output, tuple) else output


def _piece(tensor: Tensor, source: _Source) -> Tensor:
    return tensor if source.pieces == 1 else tensor.chunk(source.pieces, dim=0)[source.piece]


def build_block(
    tower: Tower,
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    layer: int = 0,
    scope: Scope = "layer",
) -> Block:
    """Return the function of a tower's layer of this number, checked against its tensors.

    `shapes` has every tensor of one layer, or of its MLP, by its name inside the layer. Raises
    `UnknownArchitecture` if the module needs a tensor that is not there, has another shape,
    or has no use for one that is.
    """
    built = build_module(tower.block or "", tower.settings(config), layer=layer)
    inside = ""
    if scope == "mlp":
        built, inside = _mlp(built, tower), f"{tower.mlp}."
    wanted = {name: tuple(value.shape) for name, value in built.module.named_parameters()}
    sources: dict[str, _Source] = {}
    for part in shapes:
        for name, source in _targets(tower, part):
            sources[name.removeprefix(inside)] = source
    _check(wanted, sources, shapes, tower)
    return Block(built, {name: sources[name] for name in wanted}, tower)


def _mlp(built: BuiltLayer, tower: Tower) -> BuiltLayer:
    if tower.mlp is None:
        raise InternalError(f"the {tower.block} layer has no MLP module")
    return BuiltLayer(module=built.module.get_submodule(tower.mlp), arguments=alone)


def _targets(tower: Tower, part: str) -> list[tuple[str, _Source]]:
    leaf = part.rpartition(".")[2]
    modules = tower.modules_of(part)
    if not modules:
        raise UnknownArchitecture(
            f"the {tower.block} layer has no place for the tensor {part!r}",
            hint="FDA needs layers exactly as the transformers library has them.",
            tensor=part,
        )
    return [
        (f"{name}.{leaf}", _Source(part=part, piece=k, pieces=len(modules)))
        for k, name in enumerate(modules)
    ]


def _check(
    wanted: Mapping[str, tuple[int, ...]],
    sources: Mapping[str, _Source],
    shapes: Mapping[str, tuple[int, ...]],
    tower: Tower,
) -> None:
    missing = sorted(set(wanted) - set(sources))
    extra = sorted({src.part for name, src in sources.items() if name not in wanted})
    if missing or extra:
        what = f"needs {missing[0]!r}" if missing else f"has no use for {extra[0]!r}"
        raise UnknownArchitecture(
            f"the {tower.block} layer of this config {what}",
            hint="config.json and the weights describe different models.",
            missing=missing,
            unexpected=extra,
        )
    for name, shape in wanted.items():
        source = sources[name]
        given = list(shapes[source.part])
        if source.pieces > 1 and given:
            given[0] //= source.pieces
        if tuple(given) != shape:
            raise UnknownArchitecture(
                f"{source.part}: the weights have {shapes[source.part]}, the {tower.block} layer "
                f"of this config takes {shape}",
                hint="config.json and the weights describe different models.",
                tensor=source.part,
            )


@torch.no_grad()
def evaluate(block: Block, tensors: Mapping[str, Tensor], x: Tensor, *, batch: int) -> Tensor:
    """Return φ(θ, x) without a graph, `batch` anchors at a time."""
    return torch.cat([block(tensors, piece) for piece in torch.split(x, batch)])
