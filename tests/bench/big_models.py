"""A base and three experts of 374 M bfloat16 parameters, in 500 MB shards, made on the spot."""

import json
from pathlib import Path

import torch
from torch import Tensor

from fda_core.checkpoints.layout import TensorSpec, index_json
from fda_core.checkpoints.writer import ShardWriter
from fda_core.storage.local import LocalStorage
from tests.bench.llama_shapes import llama_shapes

EXPERTS = ("one", "two", "three")
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "intermediate_size": 2816,
    "vocab_size": 32000,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}
SHARD_BYTES = 500 * 10**6


def make(folder: Path, *, layers: int = 24) -> None:
    """Write base and experts below a folder, unless they are there."""
    for number, name in enumerate(("base", *EXPERTS)):
        if not (folder / name / "config.json").exists():
            _write(folder / name, number, layers)


def _write(target: Path, number: int, layers: int) -> None:
    storage = LocalStorage()
    groups = _groups(layers)
    weight_map: dict[str, str] = {}
    for k, group in enumerate(groups, 1):
        file = f"model-{k:05d}-of-{len(groups):05d}.safetensors"
        with ShardWriter(storage, str(target / file), group) as writer:
            for spec in group:
                writer.add(spec.name, _tensor(spec, number))
                weight_map[spec.name] = file
            writer.commit()
    total = sum(spec.size_bytes for group in groups for spec in group)
    (target / "model.safetensors.index.json").write_bytes(index_json(weight_map, total_size=total))
    config = {**CONFIG, "num_hidden_layers": layers}
    (target / "config.json").write_text(json.dumps(config, indent=2))


def _groups(layers: int) -> list[list[TensorSpec]]:
    groups: list[list[TensorSpec]] = [[]]
    for name, shape in llama_shapes({**CONFIG, "num_hidden_layers": layers}):
        spec = TensorSpec(name, "BF16", shape)
        if groups[-1] and sum(s.size_bytes for s in groups[-1]) + spec.size_bytes > SHARD_BYTES:
            groups.append([])
        groups[-1].append(spec)
    return groups


def _tensor(spec: TensorSpec, number: int) -> Tensor:
    """Return the base's tensor, moved by some 1 % for the experts."""
    numbers = torch.Generator().manual_seed(len(spec.name) * 7919 + sum(map(ord, spec.name)))
    base = torch.randn(spec.shape, generator=numbers) * 0.02
    if number:
        numbers.manual_seed(number * 104729 + numbers.initial_seed())
        base += torch.randn(spec.shape, generator=numbers) * 2e-4
    return base.to(torch.bfloat16)
