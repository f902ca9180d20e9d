"""A Dinov2 folder of two layers, its tensors under the names of disk."""

from pathlib import Path
from typing import Any

import torch

from tests.bench.vision.appearing import appearing
from tests.bench.vision.backbone import CONFIG
from tests.bench.vision.model_folder import build_module, write_model

SMALL: dict[str, Any] = {**CONFIG, "hidden_size": 24, "num_hidden_layers": 2, "image_size": 42}
DISK = {
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
}


def write_small(folder: Path, *, query_scale: float = 1.0, noise: float = 0.0) -> None:
    """Write the same random model each time: queries scaled, then noise on everything."""
    numbers = torch.Generator().manual_seed(0)
    tensors = {}
    for name, value in build_module(SMALL).named_parameters():
        for module, disk in DISK.items():
            name = name.replace(module, disk)
        start = torch.randn(value.shape, generator=numbers) * 0.2
        moved = torch.randn(value.shape, generator=numbers) * noise
        tensors[name] = start * (query_scale if "query" in name else 1.0) + moved
    with appearing(folder) as aside:
        write_model(aside, tensors, SMALL)
