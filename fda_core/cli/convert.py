"""`fda convert`: pickled weights to safetensors, without running what a pickle may carry.

torch's restricted unpickler (`weights_only`) reads tensors and plain containers and refuses
everything else.
"""

import json
import pickle
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from fda_core.checkpoints.layout import TensorSpec, aligned_order
from fda_core.checkpoints.sidecars import is_sidecar
from fda_core.cli.console import err, size
from fda_core.errors import (
    CheckpointError,
    MissingConfig,
    MissingShard,
    OutputExists,
    PickleRefused,
)
from fda_core.storage.local import LocalStorage

if TYPE_CHECKING:
    from torch import Tensor


def convert_checkpoint(source: Path, target: Path, *, model_type: str | None) -> None:
    """Write `target` with model.safetensors, config and side files of `source`.

    Tensors that share memory are written under each of their names. `model_type` completes
    configs from before it was written. The target appears whole or not at all.
    """
    from fda_core.checkpoints.dtypes import name_of
    from fda_core.checkpoints.writer import ShardWriter

    if target.exists():
        raise OutputExists(f"{target} exists already; nothing is overwritten", hint="Remove it.")
    config = _config(source, model_type)
    tensors = _tensors(source)
    staging = target.absolute().with_name(f".{target.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    specs = aligned_order(
        TensorSpec(name, name_of(t.dtype), tuple(t.shape)) for name, t in sorted(tensors.items())
    )
    storage = LocalStorage()
    with ShardWriter(storage, str(staging / "model.safetensors"), specs) as writer:
        for spec in specs:
            writer.add(spec.name, tensors[spec.name])
        written = writer.commit()
    (staging / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for file in sorted(source.iterdir()):
        if (
            file.is_file()
            and file.name != "config.json"
            and is_sidecar(file.name, size_bytes=file.stat().st_size)
        ):
            shutil.copyfile(file, staging / file.name)
    storage.move_into_place(str(staging), str(target.absolute()))
    done = f"{target}: {len(tensors)} tensors, {size(written.size_bytes)}"
    err.print(escape(done), soft_wrap=True)


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
    """Return every tensor of every pytorch_model*.bin, by name."""
    import torch

    files = sorted(source.glob("pytorch_model*.bin"))
    if not files:
        raise MissingShard(f"{source} has no pytorch_model*.bin to convert")
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            found = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as problem:
            raise PickleRefused(
                f"{file}: it holds more than tensors: {str(problem).splitlines()[0]}",
                hint="Only pickles of plain tensors are converted.",
            ) from None
        if not isinstance(found, dict):
            raise CheckpointError(f"{file} holds a {type(found).__name__}, not named tensors")
        for name, value in found.items():
            if not isinstance(value, torch.Tensor):
                raise CheckpointError(f"{file}: {name} is a {type(value).__name__}, no tensor")
            tensors[str(name)] = value
    return tensors
