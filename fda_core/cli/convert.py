"""`fda convert`: pickled weights to safetensors, without running what a pickle may carry.

torch's restricted unpickler (`weights_only`) reads tensors and plain containers and refuses
everything else.
"""

import json
import pickle
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from fda_core.checkpoints.layout import TensorSpec, aligned_order
from fda_core.checkpoints.sidecars import is_sidecar
from fda_core.cli.console import err, print_json, size
from fda_core.errors import (
    CheckpointError,
    Forbidden,
    MissingConfig,
    MissingShard,
    OutputExists,
    PickleRefused,
)
from fda_core.storage.local import LocalStorage

if TYPE_CHECKING:
    from torch import Tensor


def convert_checkpoint(
    source: Path, target: Path, *, model_type: str | None, as_json: bool = False
) -> None:
    """Write `target` with model.safetensors, config and side files of `source`.

    Tensors that share memory are written under each of their names. `model_type` completes
    configs from before it was written. The target appears whole or not at all.
    """
    if target.exists():
        raise OutputExists(f"{target} exists already; nothing is overwritten", hint="Remove it.")
    config = _config(source, model_type)
    tensors = _tensors(source)
    try:
        target.absolute().parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.absolute().parent))
    except OSError as problem:
        raise Forbidden(
            f"{target.absolute().parent} cannot be written: {problem.strerror}",
            hint="Choose another target.",
        ) from None
    try:
        length = _write(source, staging, tensors, config)
        staging.chmod(0o755)
        LocalStorage().move_into_place(str(staging), str(target.absolute()))
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if as_json:
        print_json({"output": str(target.absolute()), "tensors": len(tensors), "bytes": length})
    else:
        err.print(escape(f"{target}: {len(tensors)} tensors, {size(length)}"), soft_wrap=True)


def _write(
    source: Path, staging: Path, tensors: Mapping[str, "Tensor"], config: Mapping[str, object]
) -> int:
    """Write weights, config and side files, and return the weights' length."""
    from fda_core.checkpoints.dtypes import name_of
    from fda_core.checkpoints.writer import ShardWriter

    specs = aligned_order(
        TensorSpec(name, name_of(t.dtype), tuple(t.shape)) for name, t in sorted(tensors.items())
    )
    weights = str(staging / "model.safetensors")
    with ShardWriter(LocalStorage(), weights, specs) as writer:
        for spec in specs:
            writer.add(spec.name, tensors[spec.name])
        length = writer.commit().size_bytes
    (staging / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for file in sorted(source.iterdir()):
        if file.is_file() and is_sidecar(file.name, size_bytes=file.stat().st_size):
            shutil.copyfile(file, staging / file.name)
    return length


def _config(source: Path, model_type: str | None) -> dict[str, object]:
    try:
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise MissingConfig(f"{source}: config.json cannot be read: {problem}") from None
    if not isinstance(config, dict):
        raise MissingConfig(f"{source}: config.json is no object")
    if model_type is not None:
        config.setdefault("model_type", model_type)
    return config


def _tensors(source: Path) -> dict[str, "Tensor"]:
    """Return every tensor of the checkpoint by name; none comes from two files."""
    tensors: dict[str, Tensor] = {}
    for file in _files(source):
        for name, tensor in _load(file).items():
            if name in tensors:
                raise CheckpointError(f"{file}: {name} is in another file, too", tensor=name)
            tensors[name] = tensor
    if not tensors:
        raise MissingShard(f"{source}: its weight files hold no tensors")
    return tensors


def _files(source: Path) -> list[Path]:
    """Return the files of the index, or pytorch_model.bin; nothing is guessed."""
    index = source / "pytorch_model.bin.index.json"
    if not index.exists():
        single = source / "pytorch_model.bin"
        if not single.is_file():
            raise MissingShard(
                f"{source} has neither pytorch_model.bin nor {index.name}",
                hint="Only checkpoints in Hugging Face layout are converted.",
            )
        return [single]
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise CheckpointError(f"{index} cannot be read: {problem}") from None
    for name in names:
        if Path(str(name)).name != name or not (source / name).is_file():
            raise MissingShard(f"{index.name} names {name!r}, which is not in {source}", file=name)
    return [source / name for name in names]


def _load(file: Path) -> dict[str, "Tensor"]:
    """Return the tensors of one pickle, read by torch's restricted unpickler."""
    import torch

    refused = f"{file} cannot be read as named tensors"
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise PickleRefused(
            f"{refused}: it is no pickle, or holds more than tensors and plain containers",
            hint="Only pickles of plain tensors are converted, since others can run code. Check "
            "also that it is no Git LFS pointer.",
        ) from None
    except (OSError, EOFError, RuntimeError, KeyError, ValueError, AttributeError) as problem:
        raise CheckpointError(
            f"{refused}: {type(problem).__name__}: {str(problem).splitlines()[:1]}",
            hint="The file is damaged or cut off; fetch it again.",
        ) from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{refused}: it holds a {type(found).__name__}")
    for name, value in found.items():
        plain = isinstance(value, torch.Tensor) and value.layout is torch.strided
        if not isinstance(name, str) or name == "__metadata__" or not plain or value.is_meta:
            raise CheckpointError(f"{file}: {name!r} is no plain tensor with a name of its own")
    return found
