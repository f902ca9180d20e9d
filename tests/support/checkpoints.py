"""Tiny BERT checkpoints in Hugging Face layout, made without the transformers library.

Everything is small and random; a task vector changes every tensor of the body unless told
otherwise. Files are written by the safetensors library, so that ours is never its own judge.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

PREFIX = "bert."
WORDS = "embeddings.word_embeddings.weight"
DECODER = "cls.predictions.decoder.weight"
CLASSES = 3


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model in memory: what config.json says, and tensors by their names on disk."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]

    def with_config(self, **changes: Any) -> "Checkpoint":
        """Return it with keys of config.json changed; None removes one."""
        merged = {**self.config, **changes}
        kept = {key: value for key, value in merged.items() if value is not None}
        return dataclasses.replace(self, config=kept)

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> "Checkpoint":
        """Return it with tensors added or replaced."""
        return dataclasses.replace(self, tensors={**self.tensors, **tensors})

    def without(self, *parts: str) -> "Checkpoint":
        """Return it without the tensors whose names contain any of these."""
        kept = {n: t for n, t in self.tensors.items() if not any(part in n for part in parts)}
        assert len(kept) < len(self.tensors), "nothing was removed"
        return dataclasses.replace(self, tensors=kept)

    def without_prefix(self) -> "Checkpoint":
        """Return it as a bare encoder's checkpoint names its tensors."""
        bare = {name.removeprefix(PREFIX): tensor for name, tensor in self.tensors.items()}
        return dataclasses.replace(self, tensors=bare)

    def to(self, dtype: torch.dtype) -> "Checkpoint":
        """Return it with floats in another dtype."""
        cast = {n: t.to(dtype) if t.is_floating_point() else t for n, t in self.tensors.items()}
        return dataclasses.replace(self, tensors=cast)

    def save(self, folder: Path, *, shards: int = 1) -> Path:
        """Write config.json and the weights, in one file or in several with an index."""
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(self.config, indent=2) + "\n")
        names = sorted(self.tensors)
        if shards == 1:
            self._save(folder / "model.safetensors", names)
            return folder
        files = {f"model-{k + 1:05d}-of-{shards:05d}.safetensors": k for k in range(shards)}
        for file, k in files.items():
            self._save(folder / file, names[k::shards])
        weight_map = {name: file for file, k in files.items() for name in names[k::shards]}
        size = sum(tensor.nbytes for tensor in self.tensors.values())
        index = {"metadata": {"total_size": size}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        return folder

    def _save(self, file: Path, names: Iterable[str]) -> None:
        tensors = {name: self.tensors[name].contiguous() for name in names}
        save_file(tensors, file, metadata={"format": "pt"})


def bert_config(**changes: Any) -> dict[str, Any]:
    """Return what config.json says of the tiny BERT."""
    config = {
        "architectures": ["BertForMaskedLM"],
        "model_type": "bert",
        "num_hidden_layers": 2,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "vocab_size": 41,
        "max_position_embeddings": 20,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "pad_token_id": 0,
        "dtype": "float32",
    }
    return {**config, **changes}


def base_model(*, seed: int = 0, **config: Any) -> Checkpoint:
    """Return a base with pooler and masked-language head, prefixed as transformers saves it."""
    settings = bert_config(**config)
    numbers = torch.Generator().manual_seed(1000 + seed)
    shapes = {**_body_shapes(settings), **_head_shapes(settings)}
    return Checkpoint(
        config=settings, tensors={n: _random(n, shape, numbers) for n, shape in shapes.items()}
    )


def expert_of(
    base: Checkpoint,
    seed: int,
    *,
    size: float = 0.02,
    layers: Iterable[int] | None = None,
    outside: bool = True,
) -> Checkpoint:
    """Return a fine-tune of the base for classification, with a head of its own.

    `size` is the standard deviation of its task vector; `layers` the only layers it changed,
    all by default; `outside` says whether it changed embeddings and pooler. The base's masked
    language head is gone, as after real fine-tuning.
    """
    numbers = torch.Generator().manual_seed(2000 + seed)
    changed = None if layers is None else {f"{PREFIX}encoder.layer.{k}." for k in layers}
    tensors = {}
    for name, tensor in base.tensors.items():
        if not name.startswith(PREFIX):
            continue
        noise = size * torch.randn(tensor.shape, generator=numbers)
        in_layer = name.startswith(f"{PREFIX}encoder.")
        moves = outside if not in_layer else changed is None or name.startswith(tuple(changed))
        tensors[name] = (tensor + noise).to(tensor.dtype) if moves else tensor.clone()
    width = base.config["hidden_size"]
    tensors["classifier.weight"] = torch.randn(CLASSES, width, generator=numbers)
    tensors["classifier.bias"] = torch.randn(CLASSES, generator=numbers)
    config = {**base.config, "architectures": ["BertForSequenceClassification"]}
    return Checkpoint(config=config, tensors=tensors)


def with_tied_copy(base: Checkpoint) -> Checkpoint:
    """Return a base that stores its output matrix a second time, beside the embeddings."""
    return base.with_tensors({DECODER: base.tensors[PREFIX + WORDS].clone()})


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Return every tensor of a saved checkpoint, through the safetensors library."""
    tensors: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors.update(load_file(file))
    return tensors


@dataclass(frozen=True, kw_only=True)
class RecipeFile:
    """A recipe to be written: experts by name, everything else as the document has it."""

    base: Path | str
    experts: Mapping[str, Path | str]
    output: Path | str
    method: Any = "linear"
    more: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return the recipe as plain data."""
        return {
            "base": str(self.base),
            "experts": [{"name": n, "model": str(path)} for n, path in self.experts.items()],
            "method": self.method,
            "output": str(self.output),
            **self.more,
        }

    def write(self, path: Path) -> Path:
        """Write the recipe as YAML and return where it is."""
        path.write_text(yaml.safe_dump(self.document(), sort_keys=False))
        return path


def _body_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    width, inner = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        WORDS: (config["vocab_size"], width),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], width),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], width),
        **_norm("embeddings.LayerNorm", width),
        **_linear("pooler.dense", width, width),
    }
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}."
        for part in ("query", "key", "value"):
            shapes |= _linear(f"{at}attention.self.{part}", width, width)
        shapes |= _linear(f"{at}attention.output.dense", width, width)
        shapes |= _norm(f"{at}attention.output.LayerNorm", width)
        shapes |= _linear(f"{at}intermediate.dense", inner, width)
        shapes |= _linear(f"{at}output.dense", width, inner)
        shapes |= _norm(f"{at}output.LayerNorm", width)
    return {PREFIX + name: shape for name, shape in shapes.items()}


def _head_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    width = config["hidden_size"]
    return {
        "cls.predictions.bias": (config["vocab_size"],),
        **_linear("cls.predictions.transform.dense", width, width),
        **_norm("cls.predictions.transform.LayerNorm", width),
    }


def _linear(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _random(name: str, shape: tuple[int, ...], numbers: torch.Generator) -> Tensor:
    if "LayerNorm.weight" in name:
        return 1 + 0.1 * torch.randn(shape, generator=numbers)
    return 0.15 * torch.randn(shape, generator=numbers)
