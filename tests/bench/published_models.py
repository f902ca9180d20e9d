"""Models of the sizes that FDA's paper merges, as headers and holes, and its settings for them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.llama_shapes import llama_shapes
from tests.bench.sparse_models import write_model

Shapes = Iterator[tuple[str, tuple[int, ...]]]


@dataclass(frozen=True, kw_only=True)
class Published:
    """A model, how many experts are merged, and FDA's settings for it (`fda.md` §2 to 4)."""

    title: str
    config: Mapping[str, Any]
    dtype: str
    shards: int
    experts: int
    fda: Mapping[str, Any]

    def shapes(self) -> Shapes:
        """Yield names and shapes of all tensors."""
        is_llama = self.config["model_type"] == "llama"
        return llama_shapes(self.config) if is_llama else _clip(self.config)

    def make(self, folder: Path) -> dict[str, Any]:
        """Write base and experts below a folder, and return the recipe that merges them."""
        names = [f"expert{number}" for number in range(1, self.experts + 1)]
        for name in ("base", *names):
            write_model(
                folder / name, self.config, self.shapes(), dtype=self.dtype, shards=self.shards
            )
        return {
            "base": f"{folder}/base",
            "experts": [{"name": name, "model": f"{folder}/{name}"} for name in names],
            "method": {"name": "fda", **self.fda},
            "output": f"{folder}/merged/out",
        }


def _vision(width: int, layers: int, heads: int, patch: int) -> dict[str, Any]:
    return {
        "model_type": "clip_vision_model",
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "image_size": 224,
        "patch_size": patch,
        "hidden_act": "quick_gelu",
    }


def _clip(config: Mapping[str, Any]) -> Shapes:
    width, inner, at = config["hidden_size"], config["intermediate_size"], "vision_model."
    patch = config["patch_size"]
    tokens = (config["image_size"] // patch) ** 2 + 1
    yield f"{at}embeddings.class_embedding", (width,)
    yield f"{at}embeddings.patch_embedding.weight", (width, 3, patch, patch)
    yield f"{at}embeddings.position_embedding.weight", (tokens, width)
    norms = ["pre_layrnorm", "post_layernorm"]
    for layer in range(config["num_hidden_layers"]):
        inside = f"encoder.layers.{layer}."
        norms += [f"{inside}layer_norm1", f"{inside}layer_norm2"]
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield f"{at}{inside}self_attn.{part}.weight", (width, width)
            yield f"{at}{inside}self_attn.{part}.bias", (width,)
        yield f"{at}{inside}mlp.fc1.weight", (inner, width)
        yield f"{at}{inside}mlp.fc1.bias", (inner,)
        yield f"{at}{inside}mlp.fc2.weight", (width, inner)
        yield f"{at}{inside}mlp.fc2.bias", (width,)
    for norm in norms:
        yield f"{at}{norm}.weight", (width,)
        yield f"{at}{norm}.bias", (width,)


IMAGES = {"construct": {"anchors": 64, "steps": 1200}, "adapt": {"epochs": 100}}

MODELS = (
    Published(
        title="CLIP ViT-B/32, 8 experts, 64 x 50 anchors, 1200 steps, 100 epochs",
        config=_vision(768, 12, 12, 32),
        dtype="F32",
        shards=1,
        experts=8,
        fda=IMAGES,
    ),
    Published(
        title="CLIP ViT-L/14, 8 experts, 64 x 257 anchors, 1200 steps, 100 epochs",
        config=_vision(1024, 24, 16, 14),
        dtype="F32",
        shards=1,
        experts=8,
        fda=IMAGES,
    ),
    Published(
        title="Llama-2-13B, MLPs, 2 experts, 8192 rows, 200 steps, 50 epochs of 8192",
        config={
            "model_type": "llama",
            "hidden_size": 5120,
            "intermediate_size": 13824,
            "num_hidden_layers": 40,
            "num_attention_heads": 40,
            "num_key_value_heads": 40,
            "vocab_size": 32000,
            "tie_word_embeddings": False,
        },
        dtype="BF16",
        shards=3,
        experts=2,
        fda={
            "scope": "mlp",
            "start": {"name": "task_arithmetic", "scale": 0.5},
            "construct": {"anchors": 8192, "steps": 200},
            "adapt": {"epochs": 50, "batch": 8192},
        },
    ),
)
