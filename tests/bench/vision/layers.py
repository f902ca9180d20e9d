"""Layers of the benchmark's models: their tensors, and what they compute."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from fda_core.blocks.block import Block, build_block
from fda_core.checkpoints.layers import family_of
from tests.bench.vision.model_folder import WEIGHTS, read_config

Tensors = Mapping[str, Tensor]
"""One layer's, by their names inside the layer."""


def layers_of(folder: Path) -> dict[int, dict[str, Tensor]]:
    """Return every layer's tensors by their names inside the layer, float32."""
    family = family_of(read_config(folder), where=str(folder))
    found: dict[int, dict[str, Tensor]] = {}
    for name, value in load_file(folder / WEIGHTS).items():
        place = family.place(name)
        if place is not None:
            _, layer, part = place
            found.setdefault(layer, {})[part] = value.float()
    return found


def block_of(tensors: Tensors, config: Mapping[str, Any], *, layer: int) -> Block:
    """Return the function of a layer that has such tensors, by its model's config."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return build_block(family_of(config, where="the base").towers[0], config, shapes, layer=layer)
