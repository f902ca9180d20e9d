"""Which files of a checkpoint hold its weights, from names and the index alone.

The order of looking: `model.safetensors.index.json`, `model.safetensors`, then the one
`*.safetensors` there is. A folder with both an index of other files and a
`model.safetensors` is refused: transformers would load the one, mergekit the other.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final

from fda_core.checkpoints.header import CONVERT_HINT, is_unicode, shown
from fda_core.contract import uris
from fda_core.errors import CheckpointError, CorruptShard, MissingShard, PickleRefused
from fda_core.storage.base import ObjectInfo, Storage

INDEX: Final = "model.safetensors.index.json"
SINGLE: Final = "model.safetensors"
MAX_INDEX_BYTES: Final = 100_000_000

_PICKLES: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
_FOREIGN: Final = ("*.gguf", "*.onnx", "*.h5", "*.msgpack", "*.npz", "*.tflite", "*.ot")
_NOT_WEIGHTS: Final = ("training_args*", "optimizer*", "scheduler*", "scaler*", "rng_state*")


@dataclass(frozen=True)
class WeightFiles:
    """The weight files in order, and which tensors the index expects in each, if any."""

    files: tuple[str, ...]
    expected: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def find_weight_files(storage: Storage, uri: str, listing: Mapping[str, ObjectInfo]) -> WeightFiles:
    """Return a checkpoint's weight files, all of which exist.

    Raises `CorruptShard` for an index that lies, `MissingShard` if a file or all weights are
    missing, `PickleRefused` if there are only pickles.
    """
    if INDEX in listing:
        return _from_index(storage, uri, listing)
    if SINGLE in listing:
        return WeightFiles((SINGLE,))
    found = sorted(
        name
        for name in listing
        if fnmatchcase(name, "*.safetensors") and "/" not in name and not name.startswith(".")
    )
    if len(found) == 1 and not found[0].startswith("adapter_"):
        return WeightFiles((found[0],))
    raise _no_weights(uri, listing, found)


def parse_index(raw: bytes, *, label: str) -> dict[str, str]:
    """Return the weight map of an index: tensor name to file below the checkpoint's folder."""
    try:
        document: Any = json.loads(raw.decode("utf-8"))
    except RecursionError:
        raise _lies(label, "nested too deeply") from None
    except ValueError as problem:
        raise _lies(label, f"not JSON: {problem}") from None
    weight_map = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise _lies(label, "has no weight_map with tensor names and files")
    for name, file in weight_map.items():
        if not is_unicode(name):
            raise _lies(label, f"tensor name {shown(name)} is not valid Unicode")
        _check_place(label, name, file)
    return weight_map


def _check_place(label: str, name: str, file: object) -> None:
    """Refuse a file that is not plainly below the checkpoint's folder."""
    if not isinstance(file, str) or not file:
        raise _lies(label, f"tensor {shown(name)} is in {shown(file)}, not a file name")
    parts = file.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in file or not file.isprintable():
        raise _lies(label, f"tensor {shown(name)} is in {shown(file)}, which is not in the folder")
    if _matches(file, _PICKLES):
        raise PickleRefused(
            f"{label}: tensor {shown(name)} is in {shown(file)}, a pickle, which can run code",
            hint=CONVERT_HINT,
            file=file,
        )


def _from_index(storage: Storage, uri: str, listing: Mapping[str, ObjectInfo]) -> WeightFiles:
    label, info = uris.join(uri, INDEX), listing[INDEX]
    if info.size_bytes > MAX_INDEX_BYTES:
        raise _lies(label, f"has {info.size_bytes} bytes; at most {MAX_INDEX_BYTES} are read")
    weight_map = parse_index(storage.read(label, etag=info.etag), label=label)
    expected: dict[str, list[str]] = {}
    for name, file in weight_map.items():
        expected.setdefault(file, []).append(name)
    if SINGLE in listing and SINGLE not in expected:
        raise CorruptShard(
            f"{uri}: has both {SINGLE} and an index of {len(expected)} other files; "
            "loaders disagree on which of them is the model",
            hint="Remove the one that is out of date.",
            file=SINGLE,
        )
    _check_present(uri, listing, expected)
    return WeightFiles(
        tuple(sorted(expected)), {file: tuple(names) for file, names in expected.items()}
    )


def _check_present(
    uri: str, listing: Mapping[str, ObjectInfo], expected: Mapping[str, list[str]]
) -> None:
    missing = sorted(file for file in expected if file not in listing)
    if missing:
        names = expected[missing[0]]
        first = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise MissingShard(
            f"{uri}: {missing[0]} is not there; the index puts {len(names)} tensors in it "
            f"({first}). Missing files: {len(missing)} of {len(expected)}",
            hint="Fetch the missing files, or all of the checkpoint again.",
            uri=uri,
            file=missing[0],
            missing=missing[:20],
        )


def _no_weights(uri: str, listing: Mapping[str, ObjectInfo], found: list[str]) -> CheckpointError:
    names = [name for name in listing if "/" not in name and not _matches(name, _NOT_WEIGHTS)]
    pickles = sorted(name for name in names if _matches(name, _PICKLES))
    foreign = sorted(name for name in names if _matches(name, _FOREIGN))
    if found and found[0].startswith("adapter_"):
        what, hint = f"holds an adapter ({found[0]}), not a model's weights", "Give its base."
    elif found:
        what = f"{len(found)} safetensors files ({_few(found)}) and no {INDEX} that orders them"
        hint = f"Add {INDEX}, or leave only one safetensors file in the folder."
    elif pickles:
        return PickleRefused(
            f"{uri}: weights only as pickles ({_few(pickles)}), which can run code when read",
            hint=CONVERT_HINT,
            uri=uri,
            file=pickles[0],
        )
    elif foreign:
        what = f"weights only in other formats ({_few(foreign)})"
        hint = "Save the model with save_pretrained() as safetensors."
    else:
        what, hint = "no weights in the folder", "A checkpoint has one or more *.safetensors."
    return MissingShard(f"{uri}: {what}", hint=hint, uri=uri)


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _lies(label: str, what: str) -> CorruptShard:
    return CorruptShard(f"{label}: {what}", hint="Fetch or save the checkpoint again.", file=label)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name.lower(), pattern) for pattern in patterns)
