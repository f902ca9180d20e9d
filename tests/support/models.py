"""Tiny random models of every family, built by the transformers library itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn


def _bert() -> nn.Module:
    from transformers import BertConfig, BertForMaskedLM

    return BertForMaskedLM(BertConfig(vocab_size=41, **_TEXT))


def _roberta() -> nn.Module:
    from transformers import RobertaConfig, RobertaForSequenceClassification

    return RobertaForSequenceClassification(RobertaConfig(vocab_size=41, **_TEXT))


def _distilbert() -> nn.Module:
    from transformers import DistilBertConfig, DistilBertForMaskedLM

    return DistilBertForMaskedLM(
        DistilBertConfig(
            vocab_size=41, dim=16, n_layers=3, n_heads=2, hidden_dim=24, max_position_embeddings=20
        )
    )


def _vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(**_IMAGE))


def _dinov2() -> nn.Module:
    from transformers import Dinov2Config, Dinov2Model

    return Dinov2Model(Dinov2Config(mlp_ratio=2, layerscale_value=0.5, **_DINO))


def _dinov2_swiglu() -> nn.Module:
    from transformers import Dinov2Config, Dinov2Model

    return Dinov2Model(Dinov2Config(mlp_ratio=2, use_swiglu_ffn=True, **_DINO))


def _clip_vision() -> nn.Module:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    return CLIPVisionModel(CLIPVisionConfig(**_IMAGE))


def _clip() -> nn.Module:
    from transformers import CLIPConfig, CLIPModel

    text = dict(_TEXT, vocab_size=41, eos_token_id=40, bos_token_id=39, pad_token_id=1)
    return CLIPModel(CLIPConfig(text_config=text, vision_config=dict(_IMAGE), projection_dim=8))


_TEXT: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
}
_DINO: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}
_IMAGE: dict[str, Any] = dict(_DINO, intermediate_size=24)

MODELS: dict[str, Callable[[], nn.Module]] = {
    "bert": _bert,
    "roberta": _roberta,
    "distilbert": _distilbert,
    "vit": _vit,
    "dinov2": _dinov2,
    "dinov2_swiglu": _dinov2_swiglu,
    "clip_vision": _clip_vision,
    "clip": _clip,
}


def build_model(kind: str, *, seed: int = 0) -> nn.Module:
    """Return a tiny model whose every parameter is random, norm scales and biases included."""
    torch.manual_seed(seed)
    model = MODELS[kind]().eval()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim < 2:
                parameter.add_(0.1 * noise)
            else:
                parameter.copy_(0.15 * noise)
    return model


def save_model(kind: str, folder: Path, *, seed: int = 0) -> nn.Module:
    """Save a tiny model in Hugging Face layout and return it."""
    model = build_model(kind, seed=seed)
    model.save_pretrained(folder)
    return model


def run_layers(kind: str, model: nn.Module) -> list[torch.Tensor]:
    """Return the hidden states before and after every layer for some random input."""
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(3, 39, (3, 6), generator=generator)
    pixels = torch.randn(3, 3, 8, 8, generator=generator)
    with torch.no_grad():
        if kind == "clip":
            output = model.vision_model(pixel_values=pixels, output_hidden_states=True)
        elif kind in ("bert", "roberta", "distilbert"):
            output = model(input_ids=ids, output_hidden_states=True)
        else:
            output = model(pixel_values=pixels, output_hidden_states=True)
    return list(output.hidden_states)
