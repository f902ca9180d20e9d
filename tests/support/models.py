"""Tiny random models of every family, built by the transformers library itself."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
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


def _electra() -> nn.Module:
    """Return one whose embeddings are narrower than its layers."""
    from transformers import ElectraConfig, ElectraForMaskedLM

    return ElectraForMaskedLM(ElectraConfig(vocab_size=41, embedding_size=8, **_TEXT))


def _modernbert() -> nn.Module:
    """Return one whose middle layer sees two tokens either way, at another pace of positions."""
    from transformers import ModernBertConfig, ModernBertForMaskedLM

    kinds = ["full_attention", "sliding_attention", "full_attention"]
    return ModernBertForMaskedLM(
        ModernBertConfig(
            vocab_size=41,
            **_TEXT,
            layer_types=kinds,
            local_attention=4,
            norm_bias=True,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            cls_token_id=1,
            sep_token_id=2,
        )
    )


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


def _deit() -> nn.Module:
    from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher

    return DeiTForImageClassificationWithTeacher(DeiTConfig(**_IMAGE))


def _dinov2_with_registers() -> nn.Module:
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    return Dinov2WithRegistersModel(
        Dinov2WithRegistersConfig(mlp_ratio=2, layerscale_value=0.5, **_DINO)
    )


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


def _siglip_vision() -> nn.Module:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    return SiglipVisionModel(SiglipVisionConfig(**_IMAGE))


def _siglip() -> nn.Module:
    from transformers import SiglipConfig, SiglipModel

    text = dict(_TEXT, vocab_size=41, eos_token_id=40, bos_token_id=39, pad_token_id=1)
    return SiglipModel(SiglipConfig(text_config=text, vision_config=dict(_IMAGE)))


def _gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=41,
            n_embd=16,
            n_layer=3,
            n_head=2,
            n_positions=20,
            n_inner=24,
            scale_attn_by_inverse_layer_idx=True,
        )
    )


def _llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**_DECODER))


def _llama_scaled() -> nn.Module:
    """Return one with tied embeddings, biases, and Llama 3's way to stretch positions."""
    from transformers import LlamaConfig, LlamaForCausalLM

    rope = {
        "rope_type": "llama3",
        "rope_theta": 100.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8,
    }
    return LlamaForCausalLM(
        LlamaConfig(
            **_DECODER,
            rope_parameters=rope,
            tie_word_embeddings=True,
            attention_bias=True,
            mlp_bias=True,
        )
    )


def _mistral() -> nn.Module:
    from transformers import MistralConfig, MistralForCausalLM

    return MistralForCausalLM(MistralConfig(**_DECODER, sliding_window=2, head_dim=4))


def _qwen2() -> nn.Module:
    """Return one with tied embeddings and a window in all layers but the first."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(
        Qwen2Config(
            **_DECODER,
            use_sliding_window=True,
            sliding_window=3,
            max_window_layers=1,
            tie_word_embeddings=True,
        )
    )


def _qwen3() -> nn.Module:
    """Return one whose heads are wider than the model, without windows."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(Qwen3Config(**_DECODER, head_dim=8))


def _gemma() -> nn.Module:
    from transformers import GemmaConfig, GemmaForCausalLM

    return GemmaForCausalLM(GemmaConfig(**_DECODER, head_dim=8))


def _gemma3_text() -> nn.Module:
    """Return one whose middle layer sees all, at another pace of positions than the others."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    rope = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10.0},
        "full_attention": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 4.0},
    }
    return Gemma3ForCausalLM(
        Gemma3TextConfig(
            **_DECODER, head_dim=8, sliding_window=2, layer_types=kinds, rope_parameters=rope
        )
    )


def _granite() -> nn.Module:
    """Return one with all four of its multipliers."""
    from transformers import GraniteConfig, GraniteForCausalLM

    return GraniteForCausalLM(
        GraniteConfig(
            **_DECODER,
            embedding_multiplier=2.0,
            attention_multiplier=0.7,
            residual_multiplier=0.4,
            logits_scaling=3.0,
        )
    )


def _smollm3() -> nn.Module:
    """Return one whose middle layer has no positions, and whose last has a window."""
    from transformers import SmolLM3Config, SmolLM3ForCausalLM

    return SmolLM3ForCausalLM(
        SmolLM3Config(
            **_WITH_TOKENS,
            no_rope_layers=[1, 0, 1],
            use_sliding_window=True,
            sliding_window=3,
            layer_types=["full_attention", "full_attention", "sliding_attention"],
        )
    )


def _olmo2() -> nn.Module:
    from transformers import Olmo2Config, Olmo2ForCausalLM

    return Olmo2ForCausalLM(Olmo2Config(**_WITH_TOKENS))


def _starcoder2() -> nn.Module:
    from transformers import Starcoder2Config, Starcoder2ForCausalLM

    return Starcoder2ForCausalLM(Starcoder2Config(**_WITH_TOKENS, sliding_window=3))


def _gpt_neox() -> nn.Module:
    """Return one as Pythia's: attention and MLP side by side, positions in half of each head."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    rope = {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.5}
    return GPTNeoXForCausalLM(GPTNeoXConfig(**_NEOX, rope_parameters=rope))


def _gpt_neox_in_turn() -> nn.Module:
    """Return one whose MLP follows its attention."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    return GPTNeoXForCausalLM(GPTNeoXConfig(**_NEOX, use_parallel_residual=False))


def _gemma2() -> nn.Module:
    """Return one whose scores reach the soft cap; every other layer has a window."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    return Gemma2ForCausalLM(
        Gemma2Config(
            **_DECODER,
            head_dim=8,
            sliding_window=2,
            query_pre_attn_scalar=4,
            attn_logit_softcapping=0.3,
        )
    )


def _phi3() -> nn.Module:
    """Return one with a window whose heads have positions in half of their width only."""
    from transformers import Phi3Config, Phi3ForCausalLM

    return Phi3ForCausalLM(Phi3Config(**_WITH_TOKENS, sliding_window=3, partial_rotary_factor=0.5))


def _phi3_long() -> nn.Module:
    """Return one with Phi-3's own way to stretch positions, used beyond its first reach."""
    from transformers import Phi3Config, Phi3ForCausalLM

    rope = {
        "rope_type": "longrope",
        "rope_theta": 100.0,
        "short_factor": [1.0, 1.5],
        "long_factor": [2.0, 4.0],
    }
    return Phi3ForCausalLM(
        Phi3Config(**_WITH_TOKENS, rope_parameters=rope, original_max_position_embeddings=5)
    )


def _t5() -> nn.Module:
    from transformers import T5Config, T5ForConditionalGeneration

    return T5ForConditionalGeneration(
        T5Config(vocab_size=41, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2)
    )


def _mixtral() -> nn.Module:
    from transformers import MixtralConfig, MixtralForCausalLM

    return MixtralForCausalLM(MixtralConfig(**_DECODER, num_local_experts=2))


def _ernie() -> nn.Module:
    from transformers import ErnieConfig, ErnieForSequenceClassification

    return ErnieForSequenceClassification(ErnieConfig(vocab_size=41, **_TEXT))


def _openai_gpt() -> nn.Module:
    """Return one with matrices stored the other way round, as GPT-2's."""
    from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

    return OpenAIGPTLMHeadModel(
        OpenAIGPTConfig(vocab_size=41, n_positions=20, n_embd=16, n_layer=2, n_head=2)
    )


def _metaclip_2() -> nn.Module:
    from transformers import MetaClip2Config, MetaClip2Model

    text = dict(_TEXT, vocab_size=41, eos_token_id=40, bos_token_id=39, pad_token_id=1)
    return MetaClip2Model(
        MetaClip2Config(text_config=text, vision_config=dict(_IMAGE), projection_dim=8)
    )


def _convnext() -> nn.Module:
    from transformers import ConvNextConfig, ConvNextForImageClassification

    return ConvNextForImageClassification(
        ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 2], num_stages=2)
    )


def _resnet() -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    return ResNetForImageClassification(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    )


_TEXT: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
}
_DECODER: dict[str, Any] = dict(_TEXT, vocab_size=41, num_attention_heads=4, num_key_value_heads=2)
_WITH_TOKENS = dict(_DECODER, bos_token_id=1, eos_token_id=2, pad_token_id=0)
_NEOX: dict[str, Any] = dict(_TEXT, vocab_size=41, bos_token_id=1, eos_token_id=2)
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
    "electra": _electra,
    "modernbert": _modernbert,
    "distilbert": _distilbert,
    "vit": _vit,
    "deit": _deit,
    "dinov2": _dinov2,
    "dinov2_swiglu": _dinov2_swiglu,
    "dinov2_with_registers": _dinov2_with_registers,
    "clip_vision": _clip_vision,
    "clip": _clip,
    "siglip_vision": _siglip_vision,
    "siglip": _siglip,
    "gpt2": _gpt2,
    "llama": _llama,
    "llama_scaled": _llama_scaled,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3_text,
    "granite": _granite,
    "smollm3": _smollm3,
    "olmo2": _olmo2,
    "starcoder2": _starcoder2,
    "gpt_neox": _gpt_neox,
    "gpt_neox_in_turn": _gpt_neox_in_turn,
    "phi3": _phi3,
    "phi3_long": _phi3_long,
}

UNLISTED: dict[str, Callable[[], nn.Module]] = {
    "t5": _t5,
    "mixtral": _mixtral,
    "ernie": _ernie,
    "openai_gpt": _openai_gpt,
    "metaclip_2": _metaclip_2,
    "convnext": _convnext,
    "resnet": _resnet,
}
"""Models of families that families.toml does not have."""

_ROTARY = (
    *("llama", "llama_scaled", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"),
    *("granite", "smollm3", "olmo2", "starcoder2", "phi3", "phi3_long"),
)
DECODERS = {
    "gpt2": "transformer.h",
    **dict.fromkeys(_ROTARY, "model.layers"),
    **dict.fromkeys(("gpt_neox", "gpt_neox_in_turn"), "gpt_neox.layers"),
}
"""Where the transformers library keeps the layers of the causal language models in memory."""
MASKED = {**DECODERS, "modernbert": "model.layers"}
"""The same of all models whose layers are handed a mask and positions."""


def build_model(kind: str, *, seed: int = 0) -> nn.Module:
    """Return a tiny model whose every parameter is random, norm scales and biases included."""
    torch.manual_seed(seed)
    model = {**MODELS, **UNLISTED}[kind]().eval()
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


def save_expert(model: nn.Module, folder: Path, *, seed: int, size: float = 0.02) -> nn.Module:
    """Save a fine-tune whose every parameter has moved, and return it."""
    tuned = copy.deepcopy(model)
    numbers = torch.Generator().manual_seed(3000 + seed)
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=numbers))
    tuned.save_pretrained(folder)
    return tuned


def run_layers(kind: str, model: nn.Module) -> list[torch.Tensor]:
    """Return the hidden states before and after every layer for some random input."""
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(3, 39, (3, 6), generator=generator)
    pixels = torch.randn(3, 3, 8, 8, generator=generator)
    if kind in MASKED:
        calls = layer_calls(kind, model, ids)
        return [call.x for call in calls] + [calls[-1].output]
    with torch.no_grad():
        if kind in ("clip", "siglip"):
            output = model.vision_model(pixel_values=pixels, output_hidden_states=True)
        elif kind in ("bert", "roberta", "electra", "distilbert"):
            output = model(input_ids=ids, output_hidden_states=True)
        else:
            output = model(pixel_values=pixels, output_hidden_states=True)
    return list(output.hidden_states)


@dataclass(frozen=True, kw_only=True)
class LayerCall:
    """What the library's model gave one of its layers, and what it got."""

    x: torch.Tensor
    more: tuple[Any, ...]
    named: dict[str, Any]
    output: torch.Tensor


def layer_calls(kind: str, model: nn.Module, ids: torch.Tensor) -> list[LayerCall]:
    """Return every layer's call in one pass of a model whose layers are handed a mask.

    Watched from outside, since the hidden states such models return end after the last norm.
    """
    calls: list[LayerCall] = []

    def watch(_module: nn.Module, given: Any, named: dict[str, Any], output: Any) -> None:
        calls.append(LayerCall(x=given[0], more=given[1:], named=named, output=output))

    hooks = [
        layer.register_forward_hook(watch, with_kwargs=True)
        for layer in model.get_submodule(MASKED[kind]).children()
    ]
    with torch.no_grad():
        model(input_ids=ids, **({"use_cache": False} if kind in DECODERS else {}))
    for hook in hooks:
        hook.remove()
    return calls
