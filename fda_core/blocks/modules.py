"""The transformers library's own layer classes, one builder per kind of block.

A builder gets the tower's settings from config.json and returns the module, made without
weights; those of decoders (`decoders.py`) need the layer's number too. Attention is the plain
matmul-softmax kernel, which has a second derivative; fused kernels have none.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from torch import nn

from fda_core.blocks.arguments import Arguments, Causal, unmasked
from fda_core.blocks.decoders import DECODERS
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


def _bert(settings: Settings) -> nn.Module:
    from transformers.models.bert.configuration_bert import BertConfig
    from transformers.models.bert.modeling_bert import BertLayer

    return BertLayer(_settled(BertConfig(**settings)))


def _roberta(settings: Settings) -> nn.Module:
    from transformers.models.roberta.configuration_roberta import RobertaConfig
    from transformers.models.roberta.modeling_roberta import RobertaLayer

    return RobertaLayer(_settled(RobertaConfig(**settings)))


def _distilbert(settings: Settings) -> nn.Module:
    from transformers.models.distilbert.configuration_distilbert import DistilBertConfig
    from transformers.models.distilbert.modeling_distilbert import TransformerBlock

    return TransformerBlock(_settled(DistilBertConfig(**settings)))


def _vit(settings: Settings) -> nn.Module:
    from transformers.models.vit.configuration_vit import ViTConfig
    from transformers.models.vit.modeling_vit import ViTLayer

    return ViTLayer(_settled(ViTConfig(**settings)))


def _dinov2(settings: Settings) -> nn.Module:
    from transformers.models.dinov2.configuration_dinov2 import Dinov2Config
    from transformers.models.dinov2.modeling_dinov2 import Dinov2Layer

    return Dinov2Layer(_settled(Dinov2Config(**settings)))


def _clip_vision(settings: Settings) -> nn.Module:
    from transformers.models.clip.configuration_clip import CLIPVisionConfig
    from transformers.models.clip.modeling_clip import CLIPEncoderLayer

    return CLIPEncoderLayer(_settled(CLIPVisionConfig(**settings)))


ENCODERS: Mapping[str, Callable[[Settings], nn.Module]] = {
    "bert": _bert,
    "roberta": _roberta,
    "distilbert": _distilbert,
    "vit": _vit,
    "dinov2": _dinov2,
    "clip_vision": _clip_vision,
}

_MAY_BE_CAUSAL = ("bert", "roberta")
"""Encoders that the library also runs as language models: where config.json says is_decoder."""

_REFUSALS = (ValueError, TypeError, LookupError, AttributeError, ZeroDivisionError)


def build_module(kind: str, settings: Settings, *, layer: int = 0) -> BuiltLayer:
    """Return one layer of a family.

    Raises `UnknownArchitecture` if the library refuses the settings.
    """
    import torch
    from huggingface_hub.errors import StrictDataclassError

    if kind not in ENCODERS and kind not in DECODERS:
        raise InternalError(f"there is no block builder {kind!r}")
    # a copy, since the library writes into nested settings (rope_parameters)
    given = deepcopy({k: value for k, value in settings.items() if k not in NOT_THE_LAYERS})
    arguments: Arguments = unmasked
    try:
        with torch.device("meta"):
            if kind in ENCODERS:
                module = ENCODERS[kind](given)
                if kind in _MAY_BE_CAUSAL and given.get("is_decoder"):
                    arguments = Causal(window=None, rotary=None)
            else:
                module, arguments = DECODERS[kind](given, layer)
    except (*_REFUSALS, StrictDataclassError) as problem:
        raise UnknownArchitecture(
            f"transformers cannot build a {kind} layer from this config: {problem}",
            hint="Check config.json against the model's documentation.",
            block=kind,
        ) from problem
    return BuiltLayer(module=module.eval().requires_grad_(False), arguments=arguments)
