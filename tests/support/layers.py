"""Layers of tiny models for tests of both stages: as our block, and as the library's module."""

import copy
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fda_core.anchors.layer_task import LayerTask
from fda_core.blocks.block import Block, build_block
from fda_core.checkpoints.layers import Scope, families, family_of
from tests.support.models import MASKED, layer_calls, save_model

STACKS = {
    "bert": "bert.encoder.layer",
    "roberta": "roberta.encoder.layer",
    "electra": "electra.encoder.layer",
    "distilbert": "distilbert.transformer.layer",
    "vit": "vit.layers",
    "deit": "deit.layers",
    "dinov2": "encoder.layer",
    "dinov2_with_registers": "encoder.layer",
    "clip_vision": "encoder.layers",
    "siglip_vision": "encoder.layers",
    **{kind: stack for kind, stack in MASKED.items() if kind in families()},
}
"""Where the transformers library keeps the layers of each family's tiny model in memory."""

WIDTH = 16
"""Of all tiny models' hidden states."""
TOKENS = 5
"""How many tokens a decoder layer's mask and positions below are for."""


@dataclass(frozen=True, kw_only=True)
class LayerPair:
    """One layer of a base and of an expert, in float64.

    `more` and `named` are what the library's own model hands the layer beside its input.
    """

    block: Block
    base: dict[str, Tensor]
    expert: dict[str, Tensor]
    base_module: nn.Module
    expert_module: nn.Module
    more: tuple[Any, ...]
    named: dict[str, Any]

    @property
    def task(self) -> LayerTask:
        """Return what the expert did to the layer."""
        return LayerTask(block=self.block, base=self.base, expert=self.expert, width=WIDTH)

    def call(self, module: nn.Module, x: Tensor) -> Tensor:
        """Return the output of one of the library's modules."""
        output = module(x, *self.more, **self.named)
        return output[0] if isinstance(output, tuple) else output


def layer_pair(
    kind: str, *, layer: int = 1, size: float = 0.05, scope: Scope = "layer"
) -> LayerPair:
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
    base, expert = (_layer(found, family, prefix, layer, scope) for found in tensors)
    shapes = {part: tuple(tensor.shape) for part, tensor in base.items()}
    tower = family.towers[0]
    modules = []
    for whole in (model, tuned):
        whole.set_attn_implementation("eager")
        stack = whole.get_submodule(STACKS[kind])
        module = copy.deepcopy(stack[layer]).double().eval()
        modules.append(module if scope == "layer" else module.get_submodule(tower.mlp))
    more, named = _beside(kind, model, layer) if scope == "layer" else ((), {})
    return LayerPair(
        block=build_block(tower, config, shapes, layer=layer, scope=scope),
        base=base,
        expert=expert,
        base_module=modules[0],
        expert_module=modules[1],
        more=more,
        named=named,
    )


def _beside(kind: str, model: nn.Module, layer: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return mask and positions as the library's model makes them; no mask for an encoder."""
    if kind not in MASKED:
        return (None,), {}
    call = layer_calls(kind, model, torch.arange(TOKENS)[None])[layer]
    return _wide(call.more), {name: _wide(value) for name, value in call.named.items()}


def _wide(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_wide(item) for item in value)
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.double()
    return value


def _layer(tensors, family, prefix, layer, scope):  # type: ignore[no-untyped-def]
    found = {}
    for name, tensor in tensors.items():
        place = family.place(family.canonical(name, prefix))
        if place is not None and place[1] == layer and place[0].holds(place[2], scope):
            found[place[2]] = tensor.double()
    return found
