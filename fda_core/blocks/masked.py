"""Layers that are handed a mask or positions: the library's classes and how they see.

Decoders of causal language models, and ModernBERT, which sees both ways. All but GPT-2's have
rotary positions, made by the library's own class from the config, scaled in whatever way it says,
with Gemma 3 and ModernBERT otherwise in layers with a window. Which layers see through a sliding
window each family says otherwise.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from fda_core.blocks.arguments import Arguments, Masked, causal_mask, mask_both_ways
from fda_core.blocks.library import modules_of

Settings = Mapping[str, Any]
Window = Callable[[Any, int], int | None]


def _no_window(_config: Any, _layer: int) -> None:
    """Return None: every layer sees all that came before."""


def _one_window(config: Any, _layer: int) -> int | None:
    """Return the window that all layers share, if the config has one."""
    return config.sliding_window


def _window_by_type(config: Any, layer: int) -> int | None:
    """Return the window if the config's list has this layer as a sliding one."""
    kind = config.layer_types[layer]
    if kind == "full_attention":
        return None
    if kind != "sliding_attention" or config.sliding_window is None:
        raise ValueError(
            f"layer {layer} is {kind!r} with sliding_window {config.sliding_window}; only "
            "full_attention, and sliding_attention with a window, are known"
        )
    return config.sliding_window


Angles = Callable[[type[nn.Module], Any, int], Callable[..., Any]]
"""From the library's rotary class, a config and a layer's number to a maker of angles."""


def _one_rotation(rotary: type[nn.Module], config: Any, _layer: int) -> Callable[..., Any]:
    """Return the maker of the angles that all layers share."""
    return rotary(config)


def _rotation_by_type(rotary: type[nn.Module], config: Any, layer: int) -> Callable[..., Any]:
    """Return the maker of the angles that layers of this one's kind have."""
    return partial(rotary(config), layer_type=config.layer_types[layer])


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """The names of a family's classes in its modules, and its windows and positions."""

    stem: str
    package: str | None = None
    config: str | None = None
    layer: str = "DecoderLayer"
    rotary: Angles | None = _one_rotation
    window: Window = _no_window
    mask: Callable[..., Tensor] = causal_mask


_KINDS = {
    "gpt2": _Kind(stem="GPT2", layer="Block", rotary=None),
    "gpt_neox": _Kind(stem="GPTNeoX", layer="Layer"),
    "llama": _Kind(stem="Llama"),
    "mistral": _Kind(stem="Mistral", window=_one_window),
    "qwen2": _Kind(stem="Qwen2", window=_window_by_type),
    "qwen3": _Kind(stem="Qwen3", window=_window_by_type),
    "gemma": _Kind(stem="Gemma"),
    "gemma2": _Kind(stem="Gemma2", window=_window_by_type),
    "gemma3_text": _Kind(
        stem="Gemma3",
        package="gemma3",
        config="Gemma3TextConfig",
        rotary=_rotation_by_type,
        window=_window_by_type,
    ),
    "granite": _Kind(stem="Granite"),
    "modernbert": _Kind(
        stem="ModernBert",
        layer="EncoderLayer",
        rotary=_rotation_by_type,
        window=_window_by_type,
        mask=mask_both_ways,
    ),
    "olmo2": _Kind(stem="Olmo2"),
    "phi3": _Kind(stem="Phi3", window=_one_window),
    "smollm3": _Kind(stem="SmolLM3", window=_window_by_type),
    "starcoder2": _Kind(stem="Starcoder2", window=_one_window),
}


def _build(name: str, settings: Settings, layer: int) -> tuple[nn.Module, Arguments]:
    kind = _KINDS[name]
    configuration, modeling = modules_of(kind.package or name)
    config = getattr(configuration, kind.config or f"{kind.stem}Config")(**settings)
    config._attn_implementation = "eager"
    if kind.mask is causal_mask:
        _check_causal(config)
    if name == "gpt2":
        config.reorder_and_upcast_attn = False  # the same function, rounded for half precision
    module = getattr(modeling, kind.stem + kind.layer)(config, layer)
    rotary = None
    if kind.rotary is not None:
        rotary = partial(
            kind.rotary, getattr(modeling, f"{kind.stem}RotaryEmbedding"), config, layer
        )
    mask = partial(kind.mask, window=kind.window(config, layer))
    return module, Masked(mask=mask, rotary=rotary)


def _check_causal(config: Any) -> None:
    if not getattr(config, "is_causal", True) or getattr(
        config, "use_bidirectional_attention", None
    ):
        raise ValueError("it asks for attention in both directions")


MASKED: Mapping[str, Callable[[Settings, int], tuple[nn.Module, Arguments]]] = {
    name: partial(_build, name) for name in _KINDS
}
