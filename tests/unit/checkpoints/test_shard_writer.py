"""Weight files as they are written: the library's own bytes, whole or not at all."""

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from fda_core.checkpoints.dtypes import DTYPES, name_of
from fda_core.checkpoints.header import parse_header
from fda_core.checkpoints.reader import torch_dtype
from fda_core.checkpoints.writer import (
    ShardWriter,
    TensorSpec,
    WrittenFile,
    aligned_order,
    file_size_bytes,
    index_json,
    plan_header,
)
from fda_core.errors import InternalError, OutOfDisk, UnsupportedDtype
from fda_core.storage.local import LocalStorage

storage = LocalStorage()
FILE = "model.safetensors"


def spec_of(name: str, tensor: Tensor) -> TensorSpec:
    return TensorSpec(name, name_of(tensor.dtype), tuple(tensor.shape))


def write(folder: Path, tensors: dict[str, Tensor]) -> WrittenFile:
    specs = [spec_of(name, tensor) for name, tensor in tensors.items()]
    with ShardWriter(storage, f"{folder}/{FILE}", specs) as writer:
        for name, tensor in tensors.items():
            writer.add(name, tensor)
        return writer.commit()


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def some(dtype: torch.dtype, *shape: int) -> Tensor:
    """Return random bits of a dtype; booleans are 0 or 1."""
    count = torch.empty(shape).numel() * dtype.itemsize
    top = 2 if dtype == torch.bool else 256
    raw = torch.randint(0, top, (count,), dtype=torch.uint8)
    return raw.view(dtype).reshape(shape)


EVERY = {name: torch_dtype(name) for name in DTYPES}


@pytest.mark.parametrize("name", DTYPES)
def test_library_reads_what_we_write(tmp_path: Path, name: str) -> None:
    given = {
        "matrix": some(EVERY[name], 3, 5),
        "scalar": some(EVERY[name]),
        "empty": some(EVERY[name], 0, 4),
    }
    write(tmp_path, given)
    with safetensors.safe_open(tmp_path / FILE, "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert set(file.keys()) == set(given)
        for key, tensor in given.items():
            found = file.get_tensor(key)
            assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
            assert bits(found) == bits(tensor)


@pytest.mark.parametrize("name", DTYPES)
def test_bytes_are_those_of_the_library(tmp_path: Path, name: str) -> None:
    given = {
        "a": some(EVERY[name], 2, 3),
        "b.weight": some(EVERY[name], 7),
        "é": some(EVERY[name]),
    }
    write(tmp_path, given)
    assert (tmp_path / FILE).read_bytes() == safetensors.torch.save(given, {"format": "pt"})


def test_mixed_dtypes_in_one_file(tmp_path: Path) -> None:
    given = {name: some(dtype, 3) for name, dtype in EVERY.items()}
    specs = aligned_order(spec_of(name, tensor) for name, tensor in given.items())
    ordered = {spec.name: given[spec.name] for spec in specs}
    written = write(tmp_path, ordered)
    with safetensors.safe_open(tmp_path / FILE, "pt") as file:
        assert {key: bits(file.get_tensor(key)) for key in given} == {
            key: bits(tensor) for key, tensor in given.items()
        }
    raw = (tmp_path / FILE).read_bytes()
    for entry in parse_header(raw, file_size=len(raw), file=FILE).values():
        assert entry.start % DTYPES[entry.dtype].size_bytes == 0
    assert written.size_bytes == file_size_bytes(specs) == len(raw)


def test_tensors_that_are_views_are_written_as_seen(tmp_path: Path) -> None:
    base = torch.arange(24, dtype=torch.bfloat16).reshape(4, 6)
    given = {
        "transposed": base.T,
        "column": base[:, 1],
        "broadcast": torch.ones(1, dtype=torch.float16).expand(5),
        "parameter": torch.nn.Parameter(torch.ones(3)),
        "stepped": base[::2, ::3],
    }
    write(tmp_path, given)
    found = safetensors.torch.load_file(tmp_path / FILE)
    for name, tensor in given.items():
        assert torch.equal(found[name], tensor)


def test_commit_tells_length_digest_and_tag(tmp_path: Path) -> None:
    written = write(tmp_path, {"a": torch.ones(1000), "b": torch.zeros(0)})
    raw = (tmp_path / FILE).read_bytes()
    info = storage.stat(f"{tmp_path}/{FILE}")
    assert written == (len(raw), hashlib.sha256(raw).hexdigest(), info.etag)


def test_file_without_tensors_can_be_written(tmp_path: Path) -> None:
    write(tmp_path, {})
    assert safetensors.torch.load_file(tmp_path / FILE) == {}


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("b", torch.ones(2, 3)),
        ("a", torch.ones(3, 2)),
        ("a", torch.ones(6)),
        ("a", torch.ones(2, 3, dtype=torch.float16)),
        ("a", torch.ones(2, 3, dtype=torch.int32)),
    ],
)
def test_another_tensor_than_planned_is_refused(tmp_path: Path, name: str, tensor: Tensor) -> None:
    specs = [TensorSpec("a", "F32", (2, 3)), TensorSpec("b", "F32", (2, 3))]
    with ShardWriter(storage, f"{tmp_path}/{FILE}", specs) as writer:
        with pytest.raises(InternalError, match="planned"):
            writer.add(name, tensor)
        writer.add("a", torch.ones(2, 3))
        writer.add("b", torch.ones(2, 3))
        with pytest.raises(InternalError, match="planned"):
            writer.add("b", torch.ones(2, 3))


def test_commit_with_tensors_missing_is_refused(tmp_path: Path) -> None:
    specs = [TensorSpec("a", "F32", ()), TensorSpec("b", "F32", ())]
    with ShardWriter(storage, f"{tmp_path}/{FILE}", specs) as writer:
        writer.add("a", torch.tensor(1.0))
        with pytest.raises(InternalError, match="next 'b'"):
            writer.commit()
    assert list(tmp_path.iterdir()) == []


def test_outside_its_context_a_writer_takes_nothing(tmp_path: Path) -> None:
    writer = ShardWriter(storage, f"{tmp_path}/{FILE}", [TensorSpec("a", "F32", ())])
    with pytest.raises(InternalError, match="not open"):
        writer.add("a", torch.tensor(1.0))
    assert list(tmp_path.iterdir()) == []


def test_leaving_without_commit_leaves_nothing(tmp_path: Path) -> None:
    with ShardWriter(storage, f"{tmp_path}/{FILE}", [TensorSpec("a", "F32", ())]) as writer:
        writer.add("a", torch.tensor(1.0))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("calls", [0, 1])
def test_full_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    real, left = os.write, [calls]

    def full(fd: int, data: bytes) -> int:
        if left[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= 1
        return real(fd, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutOfDisk, match=FILE):
        write(tmp_path, {"a": torch.ones(10)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "specs",
    [
        [TensorSpec("a", "F32", ()), TensorSpec("a", "F32", ())],
        [TensorSpec("__metadata__", "F32", ())],
        [TensorSpec("a", "F33", ())],
    ],
)
def test_impossible_layouts_are_refused(specs: list[TensorSpec]) -> None:
    with pytest.raises(InternalError, match="lay out"):
        plan_header(specs)


def test_dtypes_without_a_name_are_refused() -> None:
    with pytest.raises(UnsupportedDtype, match="complex128"):
        name_of(torch.complex128)


@pytest.mark.parametrize("length", range(1, 18))
def test_header_ends_at_a_multiple_of_eight(length: int) -> None:
    assert len(plan_header([TensorSpec("x" * length, "F32", (1,))])) % 8 == 0


def test_aligned_order_keeps_the_order_within_a_width() -> None:
    specs = [
        TensorSpec(name, dtype, ())
        for name, dtype in zip("abcdef", ["BF16", "F32", "U8", "F32", "I64", "F16"], strict=True)
    ]
    assert "".join(spec.name for spec in aligned_order(specs)) == "ebdafc"


def test_index_is_as_transformers_writes_it() -> None:
    raw = index_json({"b": "two", "a": "one"}, total_size=12)
    assert json.loads(raw) == {
        "metadata": {"total_size": 12},
        "weight_map": {"a": "one", "b": "two"},
    }
    assert raw.endswith(b"}\n")
    assert raw.index(b'"a"') < raw.index(b'"b"')
