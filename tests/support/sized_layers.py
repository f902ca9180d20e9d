"""Random layers of a chosen size, of a base and a fine-tune, with what a plan would say of them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fda_core.anchors.layer_task import LayerTask
from fda_core.blocks.block import Block, build_block
from fda_core.blocks.modules import build_module
from fda_core.checkpoints.layers import Scope, Tower, families
from fda_core.contract.plan import PlannedTensor, TensorRule
from fda_core.engine.costs.layers import LayerSize, layer_size

FAMILY = {"clip_vision": "clip", "siglip_vision": "siglip"}


@dataclass(frozen=True, kw_only=True)
class SizedLayer:
    """One layer, or its MLP, as function and as numbers; float32."""

    block: Block
    base: dict[str, Tensor]
    expert: dict[str, Tensor]
    size: LayerSize

    @property
    def task(self) -> LayerTask:
        """Return what the expert did to the layer."""
        return LayerTask(
            block=self.block, base=self.base, expert=self.expert, width=self.size.width
        )


def settings(kind: str, *, width: int, heads: int, inner: int) -> dict[str, Any]:
    """Return a config.json of one layer."""
    if kind == "gpt2":
        return {"n_embd": width, "n_head": heads, "n_inner": inner, "n_layer": 1}
    config: dict[str, Any] = {
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "num_hidden_layers": 1,
    }
    if kind == "dinov2":
        del config["intermediate_size"]
        return {**config, "mlp_ratio": inner // width}
    if kind in ("llama", "olmo2"):
        return {**config, "num_key_value_heads": heads}
    if kind == "gemma3_text":
        return {**config, "num_key_value_heads": heads, "head_dim": width // heads}
    return {"vision_config": config} if kind in FAMILY else config


def sized_layer(
    kind: str, *, width: int, heads: int, inner: int, scope: Scope = "layer"
) -> SizedLayer:
    """Return a layer of a kind of block and a copy of it whose every tensor has moved a little."""
    tower = families()[FAMILY.get(kind, kind)].towers[0]
    config = settings(kind, width=width, heads=heads, inner=inner)
    shapes = _shapes(tower, config, scope)
    numbers = torch.Generator().manual_seed(0)
    base = {
        part: 0.03 * torch.randn(shape, generator=numbers) + (len(shape) == 1)
        for part, shape in shapes.items()
    }
    expert = {
        part: tensor + 0.002 * torch.randn(tensor.shape, generator=numbers)
        for part, tensor in base.items()
    }
    size = layer_size(
        [_planned(tower, part, shape) for part, shape in shapes.items()],
        tower=tower,
        config=config,
        scope=scope,
        width=width,
    )
    block = build_block(tower, config, shapes, scope=scope)
    return SizedLayer(block=block, base=base, expert=expert, size=size)


def _shapes(tower: Tower, config: dict[str, Any], scope: Scope) -> dict[str, tuple[int, ...]]:
    module = build_module(tower.block or "", tower.settings(config)).module
    on_disk = {name: part for part, name in tower.bindings.items()}
    found = {}
    for name, parameter in module.named_parameters():
        path, _, leaf = name.rpartition(".")
        if path in on_disk and tower.holds(f"{on_disk[path]}.{leaf}", scope):
            found[f"{on_disk[path]}.{leaf}"] = tuple(parameter.shape)
    return found


def _planned(tower: Tower, part: str, shape: tuple[int, ...]) -> PlannedTensor:
    return PlannedTensor(
        name=part,
        layer=0,
        part=part,
        rule=TensorRule.MERGE,
        reason="layer",
        experts=("a",),
        dtype="F32",
        shape=shape,
        transposed=tower.is_transposed(part),
    )
