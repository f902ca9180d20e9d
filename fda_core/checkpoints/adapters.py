"""A PEFT folder with a LoRA adapter, from its config and header alone.

Such a folder holds adapter_config.json and adapter_model.safetensors. Tensors are named by
the modules of the model in memory, wrapped: `base_model.model.<module>.lora_A.weight`. Here
they go by their names without the wrapping. Beside factors there may be whole tensors: of
`modules_to_save`, of trained biases and of saved embeddings. Imports no torch.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from fda_core.checkpoints.adapter_config import MERGE_HINT, AdapterConfig, parse_adapter_config
from fda_core.checkpoints.header import read_header, shown
from fda_core.checkpoints.index import ADAPTER_CONFIG, CONFIG, list_folder, pin, read_config
from fda_core.checkpoints.weight_files import INDEX, SINGLE
from fda_core.contract import uris
from fda_core.contract.plan import PinnedFile, TensorEntry
from fda_core.errors import (
    CorruptShard,
    MissingShard,
    MissingTensor,
    PickleRefused,
    UnsupportedAdapter,
)
from fda_core.storage.base import ObjectInfo, Storage

WEIGHTS: Final = "adapter_model.safetensors"
PICKLE: Final = "adapter_model.bin"

_WRAPPING: Final = "base_model.model."
_INNER_WRAPPING: Final = re.compile(
    r"\.(?:base_layer(?=\.[^.]+$)|modules_to_save(?:\.default)?(?=\.))"
)
_FACTOR: Final = re.compile(
    r"(?P<module>.+)\.(?:"
    r"lora_(?P<matrix>[AB])(?:\.default)?\.weight"
    r"|lora_embedding_(?P<table>[AB])(?:\.default)?(?:\.weight)?"
    r"|lora_B(?:\.default)?\.(?P<bias>bias)"
    r")"
)
_STRANGE: Final = re.compile(r"\.(?:lora_\w+|token_adapter|original_module)(?:\.|$)")


@dataclass(frozen=True, kw_only=True)
class Factors:
    """The factors of one module's update, by tensor name; `bias` is what B adds to the bias."""

    a: str
    b: str
    bias: str | None
    embedding: bool


@dataclass(frozen=True, kw_only=True)
class RawAdapter:
    """An adapter as it lies there, before it is matched to a base.

    `tensors` go by their names without PEFT's wrapping. `files` are the weights and
    adapter_config.json: both decide the numbers.
    """

    uri: str
    config: AdapterConfig
    files: dict[str, PinnedFile]
    tensors: dict[str, TensorEntry]
    targets: dict[str, Factors] = field(default_factory=dict)
    """The factors by the module's path in the model."""
    whole: tuple[str, ...] = ()
    """The names of tensors that replace the base's, or that it lacks."""

    @property
    def ranks(self) -> tuple[int, ...]:
        """Return the ranks that occur, ascending."""
        return tuple(sorted({self.config.rank(module) for module in self.targets}))

    @property
    def scales(self) -> tuple[float, ...]:
        """Return the scales that occur, ascending."""
        return tuple(sorted({self.config.scale(module) for module in self.targets}))

    def describe(self) -> str:
        """Return rank, targets and scale in a few words."""
        more = f", {len(self.whole)} whole tensors" if self.whole else ""
        return (
            f"LoRA adapter of rank {_span(self.ranks)}, {len(self.targets)} targets, "
            f"scale {_span(self.scales)}{more}"
        )


def is_adapter(storage: Storage, uri: str) -> bool:
    """Say whether a folder is an adapter's: it has adapter_config.json and is no whole model."""
    if not storage.exists(uris.join(uri, ADAPTER_CONFIG)):
        return False
    listing = list_folder(storage, uri)
    weights = [name for name in (WEIGHTS, PICKLE) if name in listing]
    model = [name for name in (INDEX, SINGLE) if name in listing]
    if weights and model:
        raise CorruptShard(
            f"{uri}: has both an adapter ({weights[0]}) and a model ({model[0]}); loaders "
            "disagree on which of them is meant",
            hint="Keep the two in folders of their own.",
            uri=uri,
            file=weights[0],
        )
    return bool(weights) or CONFIG not in listing


def open_adapter(storage: Storage, uri: str) -> RawAdapter:
    """Return an adapter from its config and header.

    Raises `UnsupportedAdapter`, `MissingConfig`, `MissingShard`, `MissingTensor`,
    `PickleRefused`, `CorruptShard`, `UnsupportedDtype` or a storage error.
    """
    config = parse_adapter_config(read_config(storage, uri, ADAPTER_CONFIG), where=uri)
    listing = list_folder(storage, uri)
    if WEIGHTS not in listing:
        raise _no_weights(uri, listing)
    info = listing[WEIGHTS]
    stored = read_header(storage, uris.join(uri, WEIGHTS), info.size_bytes, info.etag, file=WEIGHTS)
    tensors = _unwrapped(uri, stored)
    targets, whole = _sorted_out(uri, tensors)
    return RawAdapter(
        uri=uri,
        config=config,
        files={name: pin(listing[name]) for name in (ADAPTER_CONFIG, WEIGHTS)},
        tensors=tensors,
        targets=targets,
        whole=whole,
    )


def _no_weights(uri: str, listing: Mapping[str, ObjectInfo]) -> PickleRefused | MissingShard:
    if PICKLE in listing:
        return PickleRefused(
            f"{uri}: weights only as a pickle ({PICKLE}), which can run code when read",
            hint="Load it with PEFT and save it with save_pretrained(), which writes safetensors.",
            uri=uri,
            file=PICKLE,
        )
    return MissingShard(
        f"{uri}: has {ADAPTER_CONFIG} but no {WEIGHTS}",
        hint="Give the folder that PEFT's save_pretrained() wrote.",
        uri=uri,
        file=WEIGHTS,
    )


def _unwrapped(uri: str, stored: Mapping[str, TensorEntry]) -> dict[str, TensorEntry]:
    tensors: dict[str, TensorEntry] = {}
    for name, entry in stored.items():
        plain = _INNER_WRAPPING.sub("", name.removeprefix(_WRAPPING))
        if plain in tensors:
            raise _twice(uri, plain, name)
        tensors[plain] = entry
    return tensors


def _sorted_out(
    uri: str, tensors: Mapping[str, TensorEntry]
) -> tuple[dict[str, Factors], tuple[str, ...]]:
    """Return the factors by module, and the whole tensors; refuse what is neither."""
    parts: dict[str, dict[str, str]] = {}
    whole = []
    for name in tensors:
        found = _FACTOR.fullmatch(name)
        if found is not None:
            _add(uri, parts.setdefault(found["module"], {}), found)
        elif _STRANGE.search(name):
            raise UnsupportedAdapter(
                f"{uri}: tensor {shown(name)} is no factor of plain LoRA",
                hint=MERGE_HINT,
                uri=uri,
                tensor=name,
            )
        else:
            whole.append(name)
    if not parts:
        raise MissingTensor(f"{uri}: the adapter has no LoRA factors", hint=MERGE_HINT, uri=uri)
    return {module: _factors(uri, module, found) for module, found in parts.items()}, tuple(whole)


def _add(uri: str, parts: dict[str, str], found: re.Match[str]) -> None:
    table = found["table"]
    part = found["bias"] or found["matrix"] or f"embedding {table}"
    if part in parts:
        raise _twice(uri, parts[part], found.string)
    parts[part] = found.string


def _factors(uri: str, module: str, parts: Mapping[str, str]) -> Factors:
    embedding = any(part.startswith("embedding") for part in parts)
    sides = [f"embedding {side}" if embedding else side for side in "AB"]
    for side in sides:
        if side not in parts:
            raise MissingTensor(
                f"{uri}: {shown(module)} has no factor {side[-1]}",
                hint="The file is not whole; save the adapter again.",
                tensor=module,
                uri=uri,
            )
    if embedding and len(parts) > len(sides):
        raise _twice(uri, module, next(part for part in parts if part not in sides))
    a, b = (parts[side] for side in sides)
    return Factors(a=a, b=b, bias=parts.get("bias"), embedding=embedding)


def _twice(uri: str, name: str, other: str) -> CorruptShard:
    return CorruptShard(
        f"{uri}: {shown(name)} is there twice, also as {shown(other)}",
        hint="Save the adapter again, one adapter to a folder.",
        tensor=name,
        file=WEIGHTS,
    )


def _span(values: tuple[float, ...]) -> str:
    low, high = f"{values[0]:g}", f"{values[-1]:g}"
    return low if low == high else f"{low} to {high}"
