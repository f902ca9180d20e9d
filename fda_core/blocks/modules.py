"""The transformers library's own layer classes, one builder per kind of block.

A builder gets the tower's settings from config.json and returns the module, made without
weights; those of `masked.py` need the layer's number too. Attention is the plain
matmul-softmax kernel, which has a second derivative; fused kernels have none.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from fda_core.blocks.arguments import Arguments, Masked, causal_mask, unmasked
from fda_core.blocks.library import modules_of
from fda_core.blocks.masked import MASKED
from fda_core.checkpoints.layers import NOT_THE_LAYERS
from fda_core.errors import InternalError, UnknownArchitecture

Settings = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class BuiltLayer:
    """One layer in eval mode, its parameters on the meta device, and how to call it."""

    module: nn.Module
    arguments: Arguments


def _settled(config: Any) -> Any:
    config._attn_implementation = "eager"
    config.chunk_size_feed_forward = 0  # saves memory in ways that need a token axis
    return config


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """The names of a family's package and classes in the library."""

    package: str
    config: str
    layer: str


_KINDS = {
    "bert": _Kind(package="bert", config="BertConfig", layer="BertLayer"),
    "roberta": _Kind(package="roberta", config="RobertaConfig", layer="RobertaLayer"),
    "electra": _Kind(package="electra", config="ElectraConfig", layer="ElectraLayer"),
    "distilbert": _Kind(package="distilbert", config="DistilBertConfig", layer="TransformerBlock"),
    "vit": _Kind(package="vit", config="ViTConfig", layer="ViTLayer"),
    "deit": _Kind(package="deit", config="DeiTConfig", layer="DeiTLayer"),
    "dinov2": _Kind(package="dinov2", config="Dinov2Config", layer="Dinov2Layer"),
    "dinov2_with_registers": _Kind(
        package="dinov2_with_registers",
        config="Dinov2WithRegistersConfig",
        layer="Dinov2WithRegistersLayer",
    ),
    "clip_vision": _Kind(package="clip", config="CLIPVisionConfig", layer="CLIPEncoderLayer"),
    "siglip_vision": _Kind(
        package="siglip", config="SiglipVisionConfig", layer="SiglipEncoderLayer"
    ),
}


def _build(name: str, settings: Settings) -> nn.Module:
    kind = _KINDS[name]
    configuration, modeling = modules_of(kind.package)
    module: nn.Module = getattr(modeling, kind.layer)(
        _settled(getattr(configuration, kind.config)(**settings))
    )
    return module


ENCODERS: Mapping[str, Callable[[Settings], nn.Module]] = {
    name: partial(_build, name) for name in _KINDS
}

_MAY_BE_CAUSAL = ("bert", "roberta", "electra")
"""Encoders that the library also runs as language models: where config.json says is_decoder."""

_REFUSALS = (ValueError, TypeError, LookupError, AttributeError, ZeroDivisionError)


def build_module(kind: str, settings: Settings, *, layer: int = 0) -> BuiltLayer:
    """Return one layer of a family.

    Raises `UnknownArchitecture` if the library refuses the settings.
    """
    import torch
    from huggingface_hub.errors import StrictDataclassError

    if kind not in ENCODERS and kind not in MASKED:
        raise InternalError(f"there is no block builder {kind!r}")
    # a copy, since the library writes into nested settings (rope_parameters)
    given = deepcopy({k: value for k, value in settings.items() if k not in NOT_THE_LAYERS})
    arguments: Arguments = unmasked
    try:
        with torch.device("meta"):
            if kind in ENCODERS:
                module = ENCODERS[kind](given)
                if kind in _MAY_BE_CAUSAL and given.get("is_decoder"):
                    arguments = Masked(mask=partial(causal_mask, window=None), rotary=None)
            else:
                module, arguments = MASKED[kind](given, layer)
    except (*_REFUSALS, StrictDataclassError) as problem:
        raise UnknownArchitecture(
            f"transformers cannot build a {kind} layer from this config: {problem}",
            hint="Check config.json against the model's documentation.",
            block=kind,
        ) from problem
    return BuiltLayer(module=module.eval().requires_grad_(False), arguments=arguments)
