"""Layers of tiny models for tests of both stages: as our block, and as the library's module."""

import copy
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fda_core.blocks.block import Block, build_block
from fda_core.checkpoints.layers import family_of
from tests.support.models import save_model

STACKS = {
    "bert": "bert.encoder.layer",
    "roberta": "roberta.encoder.layer",
    "distilbert": "distilbert.transformer.layer",
    "vit": "vit.layers",
    "dinov2": "encoder.layer",
    "clip_vision": "encoder.layers",
}
"""Where the transformers library keeps the layers of each family's tiny model in memory."""


@dataclass(frozen=True, kw_only=True)
class LayerPair:
    """One layer of a base and of an expert, in float64."""

    block: Block
    base: dict[str, Tensor]
    expert: dict[str, Tensor]
    base_module: nn.Module
    expert_module: nn.Module


def layer_pair(kind: str, *, layer: int = 1, size: float = 0.05) -> LayerPair:
    """Return a layer of a tiny model and a fine-tuned copy whose every tensor has moved.

    The modules are built by the library and know nothing of our name tables: the expert's
    module gets its tensors by loading a whole model that was saved with them changed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = save_model(kind, folder)
        config = json.loads((folder / "config.json").read_text())
        family = family_of(config, where=kind)
        tuned = copy.deepcopy(model)
        numbers = torch.Generator().manual_seed(11)
        with torch.no_grad():
            for parameter in tuned.parameters():
                parameter.add_(size * torch.randn(parameter.shape, generator=numbers))
        tuned.save_pretrained(folder / "tuned")
        tensors = [load_file(f / "model.safetensors") for f in (folder, folder / "tuned")]
    prefix = family.prefix_of(tensors[0])
    base, expert = (_layer(found, family, prefix, layer) for found in tensors)
    shapes = {part: tuple(tensor.shape) for part, tensor in base.items()}
    modules = []
    for whole in (model, tuned):
        whole.set_attn_implementation("eager")
        stack = whole.get_submodule(STACKS[kind])
        modules.append(copy.deepcopy(stack[layer]).double().eval())
    return LayerPair(
        block=build_block(family.towers[0], config, shapes),
        base=base,
        expert=expert,
        base_module=modules[0],
        expert_module=modules[1],
    )


def _layer(tensors, family, prefix, layer):  # type: ignore[no-untyped-def]
    found = {}
    for name, tensor in tensors.items():
        place = family.place(family.canonical(name, prefix))
        if place is not None and place[1] == layer:
            found[place[2]] = tensor.double()
    return found
