"""Models of any shape that take no disk: headers, then holes; and five of Llama-70B's.

Every shard is a whole safetensors file to whoever reads headers or asks for its length;
tensors read as zeros.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fda_core.checkpoints.layout import TensorSpec, index_json, plan_header

LAYERS, WIDTH, INNER, WORDS, KEYS = 80, 8192, 28672, 32000, 1024
SHARDS = 30
EXPERTS = ("one", "two", "three", "four")
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "intermediate_size": INNER,
    "vocab_size": WORDS,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}


def make(folder: Path) -> None:
    """Write base and experts below a folder."""
    for name in ("base", *EXPERTS):
        write_model(folder / name, CONFIG, _shapes(), dtype="BF16", shards=SHARDS)


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


def _shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "model.embed_tokens.weight", (WORDS, WIDTH)
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        yield f"{at}self_attn.q_proj.weight", (WIDTH, WIDTH)
        yield f"{at}self_attn.k_proj.weight", (KEYS, WIDTH)
        yield f"{at}self_attn.v_proj.weight", (KEYS, WIDTH)
        yield f"{at}self_attn.o_proj.weight", (WIDTH, WIDTH)
        yield f"{at}mlp.gate_proj.weight", (INNER, WIDTH)
        yield f"{at}mlp.up_proj.weight", (INNER, WIDTH)
        yield f"{at}mlp.down_proj.weight", (WIDTH, INNER)
        yield f"{at}input_layernorm.weight", (WIDTH,)
        yield f"{at}post_attention_layernorm.weight", (WIDTH,)
    yield "model.norm.weight", (WIDTH,)
    yield "lm_head.weight", (WORDS, WIDTH)
