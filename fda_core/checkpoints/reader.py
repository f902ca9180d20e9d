"""Tensors of a checkpoint by name, over ranged reads.

Nothing but the tensors asked for and one reused staging buffer is held. Every read carries
the pinned tag, so a file replaced since planning is `ChangedInput`, never other numbers.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor

from fda_core.checkpoints.dtypes import DTYPES
from fda_core.contract import uris
from fda_core.contract.plan import PinnedFile, TensorEntry
from fda_core.errors import ChangedInput, InternalError, MissingTensor, UnsupportedDtype
from fda_core.storage.base import Storage

RANGE_BYTES: Final = 16 * 2**20
"""Neighbouring tensors are read together up to this length."""

STAGING_BYTES: Final = 64 * 2**20
"""One tensor that is converted is read in pieces of this length."""

DIGEST_BYTES: Final = 8 * 2**20
"""A file is digested in pieces of this length."""

_GAP_BYTES: Final = 64 * 2**10
"""Reading over a gap this small costs less than another request."""


class ReadableCheckpoint(Protocol):
    """What a reader needs to know: a `PinnedCheckpoint` or a `RawCheckpoint`."""

    @property
    def uri(self) -> str:
        """Return the folder's address."""
        ...

    @property
    def files(self) -> Mapping[str, PinnedFile]:
        """Return the weight files by their names below the address."""
        ...

    @property
    def tensors(self) -> Mapping[str, TensorEntry]:
        """Return every tensor's place."""
        ...


@dataclass
class _Range:
    """Neighbouring tensors of one file, read in one go."""

    file: str
    start: int
    end: int
    names: list[str]


class TensorReader:
    """Reads one checkpoint's tensors to main memory. Not to be shared between threads.

    `bytes_read` counts what was asked of storage. Memory beyond the results: at most
    `STAGING_BYTES`, kept for the next read.
    """

    def __init__(self, storage: Storage, checkpoint: ReadableCheckpoint) -> None:
        self.bytes_read = 0
        self._storage = storage
        self._checkpoint = checkpoint
        self._buffer = torch.empty(0, dtype=torch.uint8)

    def read(
        self, name: str, *, dtype: torch.dtype | None = None, out: Tensor | None = None
    ) -> Tensor:
        """Return one tensor: as stored, with floats in `dtype`, or copied into `out`.

        Integers and booleans keep their dtype unless `out` has another. `out` may lie on any
        device and must have the tensor's shape. Raises `MissingTensor` for an unknown name.
        """
        entry = self._entry(name)
        stored = torch_dtype(entry.dtype)
        wanted = out.dtype if out is not None else _result_dtype(stored, dtype)
        _check_conversion(name, stored, wanted)
        if out is not None and tuple(out.shape) != entry.shape:
            raise InternalError(f"{name}: out has shape {tuple(out.shape)}, not {entry.shape}")
        direct = out is None or (out.device.type == "cpu" and out.is_contiguous())
        result = out if direct and out is not None else torch.empty(entry.shape, dtype=wanted)
        self._fill(result.detach().reshape(-1), entry, stored)
        return result if direct or out is None else out.copy_(result)

    def read_elements(self, name: str, first: int, out: Tensor) -> None:
        """Fill flat memory of the stored dtype with a tensor's elements from `first` on."""
        entry = self._entry(name)
        start = entry.start + first * out.itemsize
        if out.dtype != torch_dtype(entry.dtype) or start + out.nbytes > entry.end:
            raise InternalError(f"{name}: {out.numel()} of {out.dtype} from {first} on are not its")
        self._read_bytes(entry.file, start, out.view(torch.uint8))

    def read_many(
        self, names: Iterable[str], *, dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        """Return tensors by name, in the order given; neighbours are read in one request."""
        wanted = dict.fromkeys(names)
        found: dict[str, Tensor] = {}
        for piece in _ranges({name: self._entry(name) for name in wanted}):
            if len(piece.names) == 1:
                found[piece.names[0]] = self.read(piece.names[0], dtype=dtype)
            else:
                found.update(self._read_range(piece, dtype))
        return {name: found[name] for name in wanted}

    def _read_range(self, piece: _Range, dtype: torch.dtype | None) -> Iterator[tuple[str, Tensor]]:
        staging = self._staging(piece.end - piece.start)
        self._read_bytes(piece.file, piece.start, staging)
        for name in piece.names:
            entry = self._entry(name)
            stored = torch_dtype(entry.dtype)
            wanted = _result_dtype(stored, dtype)
            _check_conversion(name, stored, wanted)
            raw = staging[entry.start - piece.start : entry.end - piece.start]
            result = torch.empty(entry.shape, dtype=wanted)
            _copy_bytes(raw, result.reshape(-1), stored)
            yield name, result

    def _fill(self, flat: Tensor, entry: TensorEntry, stored: torch.dtype) -> None:
        """Read a tensor into flat memory: at once if it is stored like that, else in pieces."""
        if flat.dtype == stored:
            self._read_bytes(entry.file, entry.start, flat.view(torch.uint8))
            return
        step = STAGING_BYTES // stored.itemsize
        for first in range(0, entry.numel, step):
            part = flat[first : first + step]
            staging = self._staging(part.numel() * stored.itemsize)
            self._read_bytes(entry.file, entry.start + first * stored.itemsize, staging)
            _copy_bytes(staging, part, stored)

    def _read_bytes(self, file: str, start: int, flat: Tensor) -> None:
        if flat.numel() == 0:
            return
        pinned = self._checkpoint.files[file]
        where = uris.join(self._checkpoint.uri, file)
        self._storage.read_into(where, flat.numpy().data, start=start, etag=pinned.etag)
        self.bytes_read += flat.numel()

    def _staging(self, size_bytes: int) -> Tensor:
        if self._buffer.numel() < size_bytes:
            self._buffer = torch.empty(size_bytes, dtype=torch.uint8)
        return self._buffer[:size_bytes]

    def _entry(self, name: str) -> TensorEntry:
        entry = self._checkpoint.tensors.get(name)
        if entry is None:
            raise MissingTensor(
                f"{self._checkpoint.uri}: has no tensor {name!r}",
                tensor=name,
                uri=self._checkpoint.uri,
            )
        return entry


def torch_dtype(name: str) -> torch.dtype:
    """Return the `torch.dtype` of a safetensors dtype."""
    found = getattr(torch, DTYPES[name].torch_name, None) if name in DTYPES else None
    if not isinstance(found, torch.dtype):
        raise UnsupportedDtype(f"dtype {name} is not known to torch {torch.__version__}")
    return found


def digest_file(storage: Storage, uri: str, pinned: PinnedFile) -> str:
    """Return a file's SHA-256 as hex, reading it in pieces into one reused buffer."""
    size = storage.stat(uri).size_bytes
    if size != pinned.size_bytes:
        raise ChangedInput(
            f"{uri}: has {size} bytes, had {pinned.size_bytes}",
            hint="Plan again, and leave files alone while a job runs.",
            uri=uri,
        )
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(min(size, DIGEST_BYTES)))
    for start in range(0, size, DIGEST_BYTES):
        piece = buffer[: min(DIGEST_BYTES, size - start)]
        storage.read_into(uri, piece, start=start, etag=pinned.etag)
        digest.update(piece)
    return digest.hexdigest()


def _ranges(entries: Mapping[str, TensorEntry]) -> Sequence[_Range]:
    """Join tensors that lie side by side into ranges of up to `RANGE_BYTES`."""
    ranges: list[_Range] = []
    ordered = sorted(entries.items(), key=lambda item: (item[1].file, item[1].start, item[1].end))
    for name, entry in ordered:
        last = ranges[-1] if ranges else None
        if (
            last is not None
            and last.file == entry.file
            and entry.start - last.end <= _GAP_BYTES
            and entry.end - last.start <= RANGE_BYTES
        ):
            last.names.append(name)
            last.end = max(last.end, entry.end)
        else:
            ranges.append(_Range(entry.file, entry.start, entry.end, [name]))
    return ranges


def _result_dtype(stored: torch.dtype, wanted: torch.dtype | None) -> torch.dtype:
    return wanted if wanted is not None and _is_number_line(stored) else stored


def _is_number_line(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point or dtype.is_complex


def _check_conversion(name: str, stored: torch.dtype, wanted: torch.dtype) -> None:
    if stored.is_complex and not wanted.is_complex:
        raise UnsupportedDtype(
            f"{name}: {stored} would lose its imaginary part as {wanted}", tensor=name
        )


def _copy_bytes(raw: Tensor, flat: Tensor, stored: torch.dtype) -> None:
    """Copy raw bytes of one dtype into flat memory of another; bytes may be unaligned."""
    if raw.numel() == 0:
        return
    if flat.dtype == stored:
        flat.view(torch.uint8).copy_(raw)
        return
    aligned = raw if raw.storage_offset() % stored.itemsize == 0 else raw.clone()
    flat.copy_(aligned.view(stored))
