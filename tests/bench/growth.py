"""Time merges of growing models: what one more billion parameters costs.

    python -m tests.bench.growth [--folder bench-output] [--sizes 0.1,0.3,1] [--huge] [--minutes 8]

Base and two experts of random bfloat16 numbers, made one size at a time and deleted, each
merge started as from a shell with one worker and one thread. `--huge` adds 3 B parameters:
18 GB of models and 6 GB of output. No further merge is begun after `--minutes`.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml

from fda_core.checkpoints.layout import TensorSpec, index_json
from fda_core.checkpoints.writer import ShardWriter
from fda_core.storage.local import LocalStorage
from tests.bench.merges import Run, measure

METHODS: dict[str, dict[str, object]] = {
    "task_arithmetic": {"name": "task_arithmetic", "scale": 0.5},
    "ties": {"name": "ties", "density": 0.2},
}
MODELS = ("base", "one", "two")
WORDS = 32000
SHAPES = {0.1: (640, 10), 0.3: (1024, 18), 1.0: (2048, 17), 3.0: (3072, 25)}
"""Width and layers of about so many billion parameters."""

SHARD_BYTES = 500 * 10**6
DISK_FACTOR = 5
"""Three models, the output and room: in copies of one model."""


def specs(width: int, layers: int) -> list[TensorSpec]:
    """Return the tensors of a Llama of a width and depth."""
    inner = width * 11 // 4
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (WORDS, width)}
    for layer in range(layers):
        at = f"model.layers.{layer}."
        shapes |= {f"{at}self_attn.{part}_proj.weight": (width, width) for part in "qkvo"}
        shapes |= {f"{at}mlp.{part}_proj.weight": (inner, width) for part in ("gate", "up")}
        shapes[f"{at}mlp.down_proj.weight"] = (width, inner)
        shapes[f"{at}input_layernorm.weight"] = (width,)
        shapes[f"{at}post_attention_layernorm.weight"] = (width,)
    shapes |= {"model.norm.weight": (width,), "lm_head.weight": (WORDS, width)}
    return [TensorSpec(name, "BF16", shape) for name, shape in shapes.items()]


def make(folder: Path, width: int, layers: int) -> None:
    """Write base and experts: one pool of random numbers, shifted for every tensor and model."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "num_hidden_layers": layers,
        "intermediate_size": width * 11 // 4,
        "vocab_size": WORDS,
        "num_attention_heads": width // 64,
        "num_key_value_heads": width // 64,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }
    tensors = specs(width, layers)
    longest = max(spec.size_bytes // 2 for spec in tensors)
    numbers = torch.Generator().manual_seed(0)
    pool = torch.randn(longest + 100_003, generator=numbers) * 0.02
    for number, name in enumerate(MODELS):
        (folder / name).mkdir(parents=True)
        _write(folder / name, tensors, pool, number)
        (folder / name / "config.json").write_text(json.dumps(config))


def _write(target: Path, tensors: list[TensorSpec], pool: torch.Tensor, number: int) -> None:
    groups: list[list[TensorSpec]] = [[]]
    for spec in tensors:
        if sum(s.size_bytes for s in groups[-1]) + spec.size_bytes > SHARD_BYTES and groups[-1]:
            groups.append([])
        groups[-1].append(spec)
    weight_map: dict[str, str] = {}
    for k, group in enumerate(groups, 1):
        file = f"model-{k:05d}-of-{len(groups):05d}.safetensors"
        with ShardWriter(LocalStorage(), str(target / file), group) as writer:
            for spec in group:
                writer.add(spec.name, _values(pool, spec, number))
                weight_map[spec.name] = file
            writer.commit()
    total = sum(spec.size_bytes for spec in tensors)
    (target / "model.safetensors.index.json").write_bytes(index_json(weight_map, total_size=total))


def _values(pool: torch.Tensor, spec: TensorSpec, number: int) -> torch.Tensor:
    """Return the base's tensor, moved by some 1 % for the experts."""
    count = spec.size_bytes // 2
    first = sum(map(ord, spec.name)) % 50_000
    values = pool[first : first + count]
    if number:
        other = first + 7919 * number
        values = values + 0.01 * pool[other : other + count]
    return values.reshape(spec.shape).to(torch.bfloat16)


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, default=Path("bench-output"))
    parser.add_argument("--sizes", default="0.1,0.3,1")
    parser.add_argument("--huge", action="store_true")
    parser.add_argument("--minutes", type=float, default=8.0)
    options = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", KMP_BLOCKTIME="0")
    end = time.monotonic() + 60 * options.minutes
    options.folder.mkdir(exist_ok=True)
    print(
        f"{'method':<17}{'B param.':>9}{'wall s':>8}{'CPU s':>8}{'peak MB':>9}"
        f"{'wall s/B':>10}{'CPU s/B':>9}"
    )
    for size in [*map(float, options.sizes.split(",")), *([3.0] if options.huge else [])]:
        if time.monotonic() > end:
            print(f"{size} B: left out, {options.minutes:g} minutes are over")
            continue
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="growth-") as folder:
            _rows(Path(folder).absolute(), *SHAPES[size])


def _rows(folder: Path, width: int, layers: int) -> None:
    parameters = sum(spec.size_bytes // 2 for spec in specs(width, layers))
    needed, free = 2 * DISK_FACTOR * parameters, shutil.disk_usage(folder).free
    if free < needed:
        print(f"{parameters / 1e9:.2f} B: left out, needs {needed} bytes of disk, {free} are free")
        return
    make(folder / "models", width, layers)
    for name in METHODS:
        run, billions = _merge(folder, name), parameters / 1e9
        print(
            f"{name:<17}{billions:>9.2f}{run.wall_seconds:>8.1f}{run.cpu_seconds:>8.1f}"
            f"{run.anonymous_bytes / 1e6:>9.0f}{run.wall_seconds / billions:>10.1f}"
            f"{run.cpu_seconds / billions:>9.1f}",
            flush=True,
        )


def _merge(folder: Path, name: str) -> Run:
    document = {
        "base": str(folder / "models" / "base"),
        "experts": [{"name": n, "model": str(folder / "models" / n)} for n in MODELS[1:]],
        "method": METHODS[name],
    }
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(document))
    output = folder / "merged"
    command = [sys.executable, "-m", "fda_core.cli", "merge", str(recipe), "--quiet"]
    run = measure([*command, "--output", str(output), "--workers", "1", "--device", "cpu"])
    shutil.rmtree(output)
    shutil.rmtree(folder / ".fda-workspace")
    return run


if __name__ == "__main__":
    main()
