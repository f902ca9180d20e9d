"""Models of any shape that take no disk: headers, then holes; and five of Llama-70B's.

Every shard is a whole safetensors file to whoever reads headers or asks for its length;
tensors read as zeros.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fda_core.checkpoints.layout import TensorSpec, index_json, plan_header
from tests.bench.llama_shapes import llama_shapes

SHARDS = 30
EXPERTS = ("one", "two", "three", "four")
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8192,
    "num_hidden_layers": 80,
    "intermediate_size": 28672,
    "vocab_size": 32000,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}


def make(folder: Path) -> None:
    """Write base and experts below a folder."""
    for name in ("base", *EXPERTS):
        write_model(folder / name, CONFIG, llama_shapes(CONFIG), dtype="BF16", shards=SHARDS)


def write_model(
    target: Path,
    config: Mapping[str, Any],
    shapes: Iterable[tuple[str, tuple[int, ...]]],
    *,
    dtype: str,
    shards: int,
) -> None:
    """Write one model's headers and holes."""
    target.mkdir(parents=True)
    weight_map: dict[str, str] = {}
    specs = [TensorSpec(name, dtype, shape) for name, shape in shapes]
    for number in range(shards):
        group = specs[number * len(specs) // shards : (number + 1) * len(specs) // shards]
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        head = plan_header(group)
        with (target / file).open("wb") as shard:
            shard.write(head)
            shard.truncate(len(head) + sum(spec.size_bytes for spec in group))
        weight_map.update({spec.name: file for spec in group})
    total = sum(spec.size_bytes for spec in specs)
    (target / "model.safetensors.index.json").write_bytes(index_json(weight_map, total_size=total))
    (target / "config.json").write_text(json.dumps(config, indent=2))
    (target / "tokenizer.json").write_text("{}")
