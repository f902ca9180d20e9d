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
from typing import TYPE_CHECKING, Final

from rich.markup import escape

from fda_core.checkpoints.index import list_folder
from fda_core.checkpoints.layout import TensorSpec, aligned_order
from fda_core.checkpoints.sidecars import sidecars
from fda_core.cli.console import err, print_json, size
from fda_core.errors import (
    CheckpointError,
    Forbidden,
    MissingConfig,
    MissingShard,
    MissingTensor,
    OutputExists,
    PickleRefused,
)
from fda_core.storage.local import LocalStorage

if TYPE_CHECKING:
    from torch import Tensor

INDEX: Final = "pytorch_model.bin.index.json"


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
    for path in sidecars(list_folder(LocalStorage(), str(source.absolute()))):
        (staging / path).parent.mkdir(exist_ok=True)
        shutil.copyfile(source / path, staging / path)
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
    for file, expected in _files(source).items():
        found = _load(file)
        absent = [name for name in expected if name not in found]
        if absent:
            raise MissingTensor(
                f"{source}: {INDEX} puts tensor {absent[0]} in {file.name}, which lacks it "
                f"({len(absent)} of {len(expected)} there are lacking)",
                hint="Index and files are of different saves; fetch the checkpoint again.",
                tensor=absent[0],
                file=file.name,
            )
        for name, tensor in found.items():
            if name in tensors:
                raise CheckpointError(f"{file}: {name} is in another file, too", tensor=name)
            tensors[name] = tensor
    if not tensors:
        raise MissingShard(f"{source}: its weight files hold no tensors")
    return tensors


def _files(source: Path) -> dict[Path, list[str]]:
    """Return the files of the index, each with the tensors it must hold, or the one file."""
    index = source / INDEX
    if not index.exists():
        single = source / "pytorch_model.bin"
        if not single.is_file():
            raise MissingShard(
                f"{source} has neither pytorch_model.bin nor {INDEX}",
                hint="Only checkpoints in Hugging Face layout are converted.",
            )
        return {single: []}
    expected: dict[str, list[str]] = {}
    try:
        for name, file in json.loads(index.read_text(encoding="utf-8"))["weight_map"].items():
            expected.setdefault(file, []).append(name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise CheckpointError(f"{index} cannot be read: {problem}") from None
    for file in expected:
        if Path(str(file)).name != file or not (source / file).is_file():
            raise MissingShard(f"{INDEX} names {file!r}, which is not in {source}", file=file)
    return {source / file: names for file, names in sorted(expected.items())}


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
