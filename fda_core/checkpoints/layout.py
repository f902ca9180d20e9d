"""How a weight file and its index are laid out, before any tensor is there.

Pure and without torch: planning sizes files with it. The bytes are those the safetensors
library and transformers write for the same tensors in the same order.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Final, NamedTuple

from fda_core.checkpoints.dtypes import DTYPES
from fda_core.errors import InternalError

METADATA: Final = "__metadata__"
_ALIGNMENT: Final = 8


class TensorSpec(NamedTuple):
    """One tensor to be written: name, safetensors dtype and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Return the tensor's length in its file."""
        return prod(self.shape) * DTYPES[self.dtype].size_bytes


def aligned_order(specs: Iterable[TensorSpec]) -> list[TensorSpec]:
    """Return tensors with wider elements first, else in the order given.

    In this order every tensor begins at a multiple of its element's size, which readers that
    map files into memory like. The safetensors library sorts likewise.
    """
    return sorted(specs, key=lambda spec: -DTYPES[spec.dtype].size_bytes)


def plan_header(specs: Sequence[TensorSpec]) -> bytes:
    """Return the first bytes of a file: length, header, padding to 8 bytes with spaces.

    Tensors follow in the order given. Names given twice or unknown dtypes are `InternalError`.
    """
    document: dict[str, object] = {METADATA: {"format": "pt"}}
    at = 0
    for spec in specs:
        if spec.name in document or spec.dtype not in DTYPES:
            raise InternalError(f"cannot lay out tensor {spec.name!r} of dtype {spec.dtype}")
        end = at + spec.size_bytes
        document[spec.name] = {
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "data_offsets": [at, end],
        }
        at = end
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def file_size_bytes(specs: Sequence[TensorSpec]) -> int:
    """Return the length of the whole file that holds these tensors."""
    return len(plan_header(specs)) + sum(spec.size_bytes for spec in specs)


def index_json(weight_map: Mapping[str, str], *, total_size: int) -> bytes:
    """Return `model.safetensors.index.json`; `total_size` is of the tensors, without headers."""
    document = {"metadata": {"total_size": total_size}, "weight_map": dict(weight_map)}
    return (json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
