"""A checkpoint from its headers: config, weight files, every tensor's place, side files.

The shards' own headers are the truth; the index names the files and is checked against
them. A tensor in a shard that the index does not list is taken, as every loader does that
reads whole shards; a listed tensor that its shard lacks is `MissingTensor`. Imports no torch.
"""

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from fda_core.checkpoints.header import is_unicode, read_header, shown
from fda_core.checkpoints.sidecars import sidecars
from fda_core.checkpoints.weight_files import INDEX, WeightFiles, find_weight_files
from fda_core.contract import uris
from fda_core.contract.plan import PinnedFile, TensorEntry
from fda_core.errors import CorruptShard, MissingConfig, MissingShard, MissingTensor, NotFound
from fda_core.storage.base import ObjectInfo, Storage

CONFIG: Final = "config.json"
ADAPTER_CONFIG: Final = "adapter_config.json"
MAX_CONFIG_BYTES: Final = 16 * 2**20
MAX_CONFIG_DEPTH: Final = 64
"""Objects and lists in one another; a plan with 200 could not be read by another process."""

_THREADS: Final = 8


@dataclass(frozen=True, kw_only=True)
class RawCheckpoint:
    """A checkpoint as it lies there, before anything is known of its architecture.

    `files` are the weight files only, by their names below `uri`, as are side files. Tensors
    are in the order of files and bytes; `start` and `end` are absolute in their file.
    """

    uri: str
    config: dict[str, Any]
    files: dict[str, PinnedFile]
    tensors: dict[str, TensorEntry]
    config_file: PinnedFile
    sidecars: dict[str, PinnedFile]


def open_checkpoint(storage: Storage, uri: str) -> RawCheckpoint:
    """Return a checkpoint from its config and headers alone.

    Raises `NotFound` if nothing is there, `MissingConfig`, `MissingShard`, `MissingTensor`,
    `CorruptShard`, `UnsupportedDtype`, `PickleRefused`, `ChangedInput` or a storage error.
    """
    config = read_config(storage, uri)
    listing = list_folder(storage, uri)
    weights = find_weight_files(storage, uri, listing)
    headers = _read_headers(storage, uri, {file: listing[file] for file in weights.files})
    tensors = _joined(uri, headers)
    _check_expected(uri, weights, headers)
    if not tensors:
        raise MissingShard(f"{uri}: the weight files hold no tensors", uri=uri)
    return RawCheckpoint(
        uri=uri,
        config=config,
        files={file: pin(listing[file]) for file in weights.files},
        tensors=tensors,
        config_file=pin(listing[CONFIG]),
        sidecars={file: pin(listing[file]) for file in sidecars(listing)},
    )


def read_config(storage: Storage, uri: str, file: str = CONFIG) -> dict[str, Any]:
    """Return a JSON object that lies in a checkpoint's folder, or raise `MissingConfig`."""
    where = uris.join(uri, file)
    try:
        info = storage.stat(where)
    except NotFound:
        raise _without_config(storage, uri) from None
    if info.size_bytes > MAX_CONFIG_BYTES:
        raise _bad_config(where, f"has {info.size_bytes} bytes; at most {MAX_CONFIG_BYTES}")
    try:
        config = json.loads(storage.read(where, etag=info.etag).decode("utf-8"))
    except RecursionError:
        raise _bad_config(where, "is nested too deeply") from None
    except ValueError as problem:
        raise _bad_config(where, f"is not JSON: {problem}") from None
    if not isinstance(config, dict):
        raise _bad_config(where, f"is {shown(config)}, not a JSON object")
    _check_values(where, config)
    return config


def _check_values(where: str, config: dict[str, Any]) -> None:
    """Refuse what a plan, which has the whole config, could not carry to other processes."""
    level: list[Any] = [config]
    for _ in range(MAX_CONFIG_DEPTH):
        level = [item for value in level for item in _inside(value)]
        for text in level:
            if isinstance(text, str) and not is_unicode(text):
                raise _bad_config(where, f"has {shown(text)}, which is not valid Unicode")
    if level:
        raise _bad_config(where, f"is nested too deeply: more than {MAX_CONFIG_DEPTH} levels")


def _inside(value: Any) -> Iterable[Any]:
    """Return what an object or list holds, keys included."""
    if isinstance(value, dict):
        return (*value.keys(), *value.values())
    return value if isinstance(value, list) else ()


def _without_config(storage: Storage, uri: str) -> NotFound | MissingConfig:
    if not storage.exists(uri):
        return NotFound(f"{uri}: there is nothing here", hint="Check the address.", uri=uri)
    if storage.exists(uris.join(uri, ADAPTER_CONFIG)):
        return MissingConfig(
            f"{uri}: is an adapter ({ADAPTER_CONFIG}), not a whole model",
            hint="An adapter can be an expert; give the model it was trained on as the base.",
            uri=uri,
        )
    return MissingConfig(
        f"{uri}: has no {CONFIG}",
        hint="Give the folder that holds config.json and the weights.",
        uri=uri,
    )


def _bad_config(where: str, what: str) -> MissingConfig:
    return MissingConfig(f"{where} {what}", hint="Fetch or save the checkpoint again.", uri=where)


def list_folder(storage: Storage, uri: str) -> dict[str, ObjectInfo]:
    """Return every file below an address, by its path from there."""
    skip = len(uri.rstrip("/")) + 1
    return {info.uri[skip:]: info for info in storage.list(uri)}


def _read_headers(
    storage: Storage, uri: str, infos: Mapping[str, ObjectInfo]
) -> dict[str, dict[str, TensorEntry]]:
    """Return every file's tensors; of several errors the first file's is raised."""

    def one(file: str) -> dict[str, TensorEntry]:
        info = infos[file]
        return read_header(storage, uris.join(uri, file), info.size_bytes, info.etag, file=file)

    with ThreadPoolExecutor(min(_THREADS, len(infos)), "fda-headers") as pool:
        return dict(zip(infos, pool.map(one, infos), strict=True))


def _joined(uri: str, headers: Mapping[str, Mapping[str, TensorEntry]]) -> dict[str, TensorEntry]:
    tensors: dict[str, TensorEntry] = {}
    for file, header in headers.items():
        for name, entry in header.items():
            if name in tensors:
                raise CorruptShard(
                    f"{uri}: tensor {shown(name)} is in two files, {tensors[name].file} and {file}",
                    hint="Remove the file that is left over from an earlier save.",
                    tensor=name,
                    file=file,
                )
            tensors[name] = entry
    return tensors


def _check_expected(
    uri: str, weights: WeightFiles, headers: Mapping[str, Mapping[str, TensorEntry]]
) -> None:
    for file, names in weights.expected.items():
        absent = [name for name in names if name not in headers[file]]
        if absent:
            raise MissingTensor(
                f"{uri}: {INDEX} puts tensor {shown(absent[0])} in {file}, which lacks it "
                f"({len(absent)} of {len(names)} there are lacking)",
                hint="Index and files are of different saves; fetch the checkpoint again.",
                tensor=absent[0],
                file=file,
            )


def pin(info: ObjectInfo) -> PinnedFile:
    """Return what a reader will hold a file to."""
    return PinnedFile(size_bytes=info.size_bytes, etag=info.etag)
