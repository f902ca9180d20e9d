"""The anchor cache: constructed anchors, addressed by what they were constructed from.

The key is a digest of the base's layer, the expert's layer and the construction settings, so
that another job that shares an expert, under whatever name, does not construct again. The
metrics file is written last: an entry with one is whole.
"""

import hashlib
import json
from collections.abc import Mapping

import torch
from pydantic import ValidationError
from torch import Tensor

from fda_core.contract.artifacts import CACHE_METRICS_FILE, ArtifactFile, ConstructMetrics
from fda_core.contract.uris import join
from fda_core.errors import NotFound
from fda_core.storage.base import Storage


def layer_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return SHA-256 over names, dtypes, shapes and bytes of a layer's tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def cache_key(base: str, expert: str, layer: int, settings: Mapping[str, object]) -> str:
    """Return the key of the anchors for two layer digests under some settings."""
    facts = json.dumps([base, expert, layer, settings], sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()


class AnchorEntry:
    """One entry of the cache, there or not."""

    def __init__(self, storage: Storage, folder: str) -> None:
        self._storage = storage
        self._data = join(folder, "anchors.bin")
        self._metrics = join(folder, CACHE_METRICS_FILE)

    def find(self) -> tuple[ArtifactFile, ConstructMetrics] | None:
        """Return the anchors' file and metrics if the entry is whole and undamaged."""
        try:
            found = json.loads(self._storage.read(self._metrics))
            file = ArtifactFile.model_validate(found["file"])
            metrics = ConstructMetrics.model_validate(found["metrics"])
            if hashlib.sha256(self._storage.read(file.path)).hexdigest() != file.sha256:
                return None
        except (NotFound, ValidationError, ValueError, KeyError, TypeError):
            return None
        return file, metrics

    def write(self, anchors: Tensor, metrics: ConstructMetrics) -> ArtifactFile:
        """Write anchors (n, t, d), then metrics, and return the anchors' file."""
        data = anchors.detach().cpu().contiguous().numpy().tobytes()
        self._storage.put(self._data, data)
        file = ArtifactFile(
            path=self._data, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
        )
        entry = {"file": file.model_dump(), "metrics": metrics.model_dump()}
        self._storage.put(self._metrics, json.dumps(entry).encode())
        return file


def read_anchors(
    storage: Storage, file: ArtifactFile, *, shape: tuple[int, ...], dtype: torch.dtype
) -> Tensor | None:
    """Return anchors from the cache, or None if their bytes are not those written."""
    data = storage.read(file.path)
    if hashlib.sha256(data).hexdigest() != file.sha256:
        return None
    return torch.frombuffer(bytearray(data), dtype=dtype).reshape(shape)
