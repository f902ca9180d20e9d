"""A model of the benchmark as a folder: model.safetensors under the names of disk, config.json.

transformers renames parameters in memory (`attention.attention.query` is `attention.q_proj`
in the module); here the names go both ways by the engine's own table of families, so that a
folder that was merged is loaded as what it says and never by a guess.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fda_core.checkpoints.layers import family_of

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


def write_model(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Fill a folder with weights (by their names on disk, float32) and config."""
    plain = {name: value.detach().float().contiguous() for name, value in tensors.items()}
    save_file(plain, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def read_config(folder: Path) -> dict[str, Any]:
    """Return a folder's config."""
    found: dict[str, Any] = json.loads((folder / CONFIG).read_text())
    return found


def digest_of(folder: Path) -> str:
    """Return the SHA-256 of a folder's weights."""
    with (folder / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def module_name(disk: str, config: Mapping[str, Any]) -> str:
    """Return what the library's module calls a tensor of disk.

    Raises `KeyError` for a tensor of a layer that the family's table does not know.
    """
    place = family_of(config, where="the benchmark").place(disk)
    if place is None:
        return disk
    tower, layer, part = place
    path, _, leaf = part.rpartition(".")
    bound = tower.bindings[path]
    if not isinstance(bound, str):
        raise KeyError(f"{disk} is several parameters of the module")
    return f"encoder.layer.{layer}.{bound}.{leaf}"


def build_module(config: Mapping[str, Any]) -> nn.Module:
    """Return a Dinov2 encoder in eval mode, not yet loaded.

    With plain attention: on 17 tokens torch's fused kernel takes ten times as long.
    """
    from transformers import Dinov2Config, Dinov2Model

    settings = Dinov2Config(**config)
    settings._attn_implementation = "eager"
    return Dinov2Model(settings).eval()


def load_model(folder: Path) -> nn.Module:
    """Return the encoder of a folder in float32; every tensor must have its parameter."""
    config = read_config(folder)
    module = build_module(config)
    tensors = load_file(folder / WEIGHTS)
    named = {module_name(name, config): value.float() for name, value in tensors.items()}
    module.load_state_dict(named, strict=True)
    return module


def tensors_of(module: nn.Module, names: Mapping[str, str]) -> dict[str, Tensor]:
    """Return a module's parameters by their names on disk; `names` maps disk to module."""
    parameters: dict[str, Tensor] = dict(module.named_parameters())
    if set(parameters) != set(names.values()):
        raise KeyError("the module has other parameters than the folder it came from")
    return {disk: parameters[name] for disk, name in names.items()}


def names_of(folder: Path) -> dict[str, str]:
    """Return a folder's tensors: name on disk to name in the module."""
    from safetensors import safe_open

    config = read_config(folder)
    with safe_open(folder / WEIGHTS, "pt") as file:
        return {name: module_name(name, config) for name in file.keys()}  # noqa: SIM118
