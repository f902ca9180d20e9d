"""The transformers library's own layer classes, one builder per kind of block.

A builder gets the tower's settings from config.json and returns the module, made without
weights. Attention is the plain matmul-softmax kernel, which has a second derivative; fused
kernels have none.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from fda_core.errors import InternalError, UnknownArchitecture

Settings = Mapping[str, Any]


def _settled(config: Any) -> Any:
    config._attn_implementation = "eager"
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


BUILDERS: Mapping[str, Callable[[Settings], nn.Module]] = {
    "bert": _bert,
    "roberta": _roberta,
    "distilbert": _distilbert,
    "vit": _vit,
    "dinov2": _dinov2,
    "clip_vision": _clip_vision,
}

_REFUSALS = (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError)
_NOT_THE_LAYERS = ("transformers_version", "architectures", "torch_dtype", "dtype", "auto_map")


def build_module(kind: str, settings: Settings) -> nn.Module:
    """Return one layer of a family in eval mode, its parameters on the meta device.

    Raises `UnknownArchitecture` if the library refuses the settings.
    """
    import torch
    from huggingface_hub.errors import StrictDataclassError

    if kind not in BUILDERS:
        raise InternalError(f"there is no block builder {kind!r}")
    given = {key: value for key, value in settings.items() if key not in _NOT_THE_LAYERS}
    try:
        with torch.device("meta"):
            module = BUILDERS[kind](given)
    except (*_REFUSALS, StrictDataclassError) as problem:
        raise UnknownArchitecture(
            f"transformers cannot build a {kind} layer from this config: {problem}",
            hint="Check config.json against the model's documentation.",
            block=kind,
        ) from problem
    return module.eval().requires_grad_(False)
