"""Safetensors headers, read with suspicion.

A file is 8 bytes of little-endian header length, the header as JSON, then the tensors' bytes
without holes (https://huggingface.co/docs/safetensors). Everything a header claims is checked
against the file's length before anything of that size is allocated. Stricter than the
safetensors library in three places: names given twice, leading white space and a null
`__metadata__` are refused. Imports no torch.
"""

import json
import re
import reprlib
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from fda_core.checkpoints.dtypes import DTYPES
from fda_core.checkpoints.layout import METADATA
from fda_core.contract import uris
from fda_core.contract.plan import TensorEntry
from fda_core.errors import CheckpointError, CorruptShard, PickleRefused, UnsupportedDtype
from fda_core.storage.base import Storage

PREFIX_BYTES: Final = 8
MAX_HEADER_BYTES: Final = 100_000_000
CONVERT_HINT: Final = "Convert it without running it: fda convert SOURCE TARGET."
_FETCH_HINT: Final = "Fetch or save the file again."
_MAX_COUNT: Final = 2**63 - 1
_PICKLE = re.compile(rb"PK\x03\x04|\x80[\x02-\x05]")


@dataclass(frozen=True)
class _Shard:
    """The file under suspicion, and how to refuse it."""

    file: str
    label: str
    size_bytes: int

    def refuse(
        self, what: str, *, tensor: str | None = None, hint: str = _FETCH_HINT
    ) -> CorruptShard:
        named = f"{self.label}: " if tensor is None else f"{self.label}: tensor {shown(tensor)}: "
        return CorruptShard(f"{named}{what}", hint=hint, file=self.label, tensor=_plain(tensor))


def shown(value: object) -> str:
    """Return a short, printable form of something from an untrusted file."""
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 160
_SHORT.maxlong = 40
_SHORT.maxlist = 8


def is_unicode(name: str) -> bool:
    """Say whether a name can be written as UTF-8; JSON can smuggle in lone surrogates."""
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def _plain(name: str | None) -> str | None:
    """Return a name fit for logs and JSON: cut, without lone surrogates."""
    return name and name[:200].encode("utf-8", "backslashreplace").decode()


def read_header(
    storage: Storage, uri: str, size: int, etag: str, *, file: str | None = None
) -> dict[str, TensorEntry]:
    """Return the tensors of a file in the order of their bytes.

    Reads the 8 bytes of length, then the header and no more. `file` is what the entries call
    it, by default the last part of the address. Raises `ChangedInput` for another tag, else
    as `parse_header`.
    """
    file = file or uris.basename(uri)
    shard = _Shard(file, uri, size)
    end = min(PREFIX_BYTES, size)
    prefix = storage.read(uri, start=0, end=end, etag=etag) if end else b""
    stop = PREFIX_BYTES + _header_length(shard, prefix)
    header = storage.read(uri, start=PREFIX_BYTES, end=stop, etag=etag)
    return _parse(shard, prefix + header)


def parse_header(raw: bytes, *, file_size: int, file: str) -> dict[str, TensorEntry]:
    """Return the tensors of a file in the order of their bytes, from its first bytes.

    `raw` is the 8 bytes of length and the header; what follows is ignored. Offsets in the
    entries are absolute. Raises `CorruptShard`, `UnsupportedDtype` or `PickleRefused`, each
    naming the file, and the tensor where one is to blame.
    """
    shard = _Shard(file, file, file_size)
    return _parse(shard, raw[: PREFIX_BYTES + _header_length(shard, raw)])


def _parse(shard: _Shard, raw: bytes) -> dict[str, TensorEntry]:
    text = raw[PREFIX_BYTES:]
    if text and not text.startswith(b"{"):
        raise _foreign(shard, raw) or shard.refuse(
            f"header is not a JSON object: it starts with {shown(text[:8])}"
        )
    if len(text) < (length := _header_length(shard, raw)):
        raise shard.refuse(f"header of {length} bytes is cut off after {len(text)}")
    document = _document(shard, text)
    _check_metadata(shard, document.pop(METADATA, {}))
    first = PREFIX_BYTES + length
    entries = [(name, _entry(shard, name, spec, first)) for name, spec in document.items()]
    entries.sort(key=lambda item: (item[1].start, item[1].end))
    _check_tiling(shard, entries, first)
    return dict(entries)


def _header_length(shard: _Shard, raw: bytes) -> int:
    """Return the header's length, or refuse one that cannot be."""
    size = shard.size_bytes
    if size < PREFIX_BYTES or len(raw) < PREFIX_BYTES:
        what = "is empty (0 bytes)" if size == 0 else f"has {size} bytes; a header alone needs 8"
        raise shard.refuse(what)
    length = int.from_bytes(raw[:PREFIX_BYTES], "little")
    if length == 0:
        raise shard.refuse("header length is 0")
    if length > min(MAX_HEADER_BYTES, size - PREFIX_BYTES):
        raise _foreign(shard, raw) or shard.refuse(
            f"header claims {length} bytes; the file has {size} "
            f"and a header may have {MAX_HEADER_BYTES}"
        )
    return length


def _foreign(shard: _Shard, raw: bytes) -> CheckpointError | None:
    """Say what a file is that cannot be safetensors; asked only then.

    A good header may begin like a pickle: its length decides the first bytes.
    """
    if _PICKLE.match(raw):
        return PickleRefused(
            f"{shard.label}: a pickle under a safetensors name; reading it could run code",
            hint=CONVERT_HINT,
            file=shard.label,
        )
    if raw.startswith(b"version "):
        return shard.refuse(
            "a Git LFS pointer, not the weights", hint="Run `git lfs pull` in the folder."
        )
    return None


class _GivenTwiceError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise _GivenTwiceError(twice)
    return made


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _document(shard: _Shard, text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(
            text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except UnicodeDecodeError as problem:
        raise shard.refuse(f"header is not UTF-8 at its byte {problem.start}") from None
    except RecursionError:
        raise shard.refuse("header is nested too deeply") from None
    except _GivenTwiceError as problem:
        raise shard.refuse("given twice in the header", tensor=problem.args[0]) from None
    except ValueError as problem:
        raise shard.refuse(f"header is not JSON: {problem}") from None
    assert isinstance(document, dict), "the header starts with a brace"
    return document


def _check_metadata(shard: _Shard, metadata: object) -> None:
    if not isinstance(metadata, dict):
        raise shard.refuse(f"{METADATA} is {shown(metadata)}, not an object of strings")
    for key, value in metadata.items():
        if not isinstance(value, str):
            raise shard.refuse(f"{METADATA}: {shown(key)} is {shown(value)}, not a string")


def _entry(shard: _Shard, name: str, spec: object, first: int) -> TensorEntry:
    """Return one tensor's entry after checking it by itself."""
    if not is_unicode(name):
        raise shard.refuse("its name is not valid Unicode", tensor=name)
    if not isinstance(spec, dict):
        raise shard.refuse(f"described by {shown(spec)}, not an object", tensor=name)
    dtype = _dtype(shard, name, spec.get("dtype"))
    shape = _shape(shard, name, spec.get("shape"))
    begin, end = _offsets(shard, name, spec.get("data_offsets"), first)
    needed = _bytes_needed(shard, name, shape, DTYPES[dtype].size_bytes)
    if end - begin != needed:
        raise shard.refuse(
            f"{dtype} of shape {shown(list(shape))} needs {needed} bytes, "
            f"but its data_offsets [{begin}, {end}] hold {end - begin}",
            tensor=name,
        )
    return TensorEntry(
        file=shard.file, dtype=dtype, shape=shape, start=first + begin, end=first + end
    )


def _dtype(shard: _Shard, name: str, dtype: object) -> str:
    if not isinstance(dtype, str):
        raise shard.refuse(f"dtype is {shown(dtype)}, not a string", tensor=name)
    if dtype not in DTYPES:
        raise UnsupportedDtype(
            f"{shard.label}: tensor {shown(name)}: dtype {shown(dtype)} cannot be merged",
            hint=f"Known: {', '.join(DTYPES)}.",
            file=shard.label,
            tensor=_plain(name),
        )
    return dtype


def _shape(shard: _Shard, name: str, shape: object) -> tuple[int, ...]:
    if not _are_counts(shape):
        raise shard.refuse(
            f"shape is {shown(shape)}, not a list of whole numbers from 0", tensor=name
        )
    return tuple(shape)


def _offsets(shard: _Shard, name: str, offsets: object, first: int) -> tuple[int, int]:
    if not _are_counts(offsets) or len(offsets) != 2:
        raise shard.refuse(
            f"data_offsets is {shown(offsets)}, not two whole numbers from 0", tensor=name
        )
    begin, end = offsets
    available = shard.size_bytes - first
    if begin > end:
        raise shard.refuse(f"data_offsets {shown(offsets)} end before they begin", tensor=name)
    if end > available:
        raise shard.refuse(
            f"data_offsets {shown(offsets)} end beyond the {available} bytes of data in the file",
            tensor=name,
            hint="The file is cut off. " + _FETCH_HINT,
        )
    return begin, end


_INTEGERS = {int}


def _are_counts(value: object) -> TypeGuard[list[int]]:
    """Say whether a value is a list of whole numbers from 0; `true` is none."""
    return (
        isinstance(value, list)
        and _INTEGERS.issuperset(map(type, value))
        and min(value, default=0) >= 0
    )


def _bytes_needed(shard: _Shard, name: str, shape: tuple[int, ...], size_bytes: int) -> int:
    count = size_bytes
    for axis in shape:
        count *= axis
        if count > _MAX_COUNT or axis > _MAX_COUNT:
            raise shard.refuse(f"shape {shown(list(shape))} overflows 2^63 bytes", tensor=name)
    return count


def _check_tiling(shard: _Shard, entries: list[tuple[str, TensorEntry]], first: int) -> None:
    """Refuse overlaps, holes and trailing bytes; the entries are in order of their bytes."""
    at, before = first, None
    for name, entry in entries:
        if entry.start != at:
            kind = "overlaps" if entry.start < at else "leaves a hole after"
            other = "the header" if before is None else f"tensor {shown(before)}"
            raise shard.refuse(
                f"begins at byte {entry.start} and {kind} {other}, which ends at byte {at}",
                tensor=name,
            )
        at, before = entry.end, name
    if at != shard.size_bytes:
        raise shard.refuse(
            f"{shard.size_bytes - at} bytes after the last tensor belong to none "
            f"(data ends at byte {at} of {shard.size_bytes})"
        )
