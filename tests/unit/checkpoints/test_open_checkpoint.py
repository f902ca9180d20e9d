"""A checkpoint is opened from names and headers, or refused with the reason."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fda_core.checkpoints.index import RawCheckpoint, open_checkpoint
from fda_core.errors import (
    CheckpointError,
    CorruptShard,
    FdaError,
    MissingConfig,
    MissingShard,
    MissingTensor,
    NotFound,
    PickleRefused,
    UnsupportedDtype,
)
from fda_core.storage.local import LocalStorage
from tests.unit.checkpoints.checkpoint_files import good_file, raw_file, tensor, write

CONFIG = {"model_type": "bert", "hidden_size": 4}
INDEX = "model.safetensors.index.json"
ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def open_files(folder: Path, files: dict[str, Any]) -> RawCheckpoint:
    return open_checkpoint(LocalStorage(), write(folder, {"config.json": CONFIG, **files}))


def sharded(**changes: Any) -> dict[str, Any]:
    """Return two shards with an index; keyword arguments replace the weight map's entries."""
    weight_map = {"a": ONE, "b": ONE, "c": TWO} | changes
    return {
        INDEX: {"metadata": {"total_size": 12}, "weight_map": weight_map},
        ONE: good_file("a", "b"),
        TWO: good_file("c"),
    }


def test_single_file(tmp_path: Path) -> None:
    found = open_files(tmp_path, {"model.safetensors": good_file("a", "b"), "vocab.txt": b"x"})
    assert found.uri == str(tmp_path)
    assert found.config == CONFIG
    assert list(found.tensors) == ["a", "b"]
    assert list(found.sidecars) == ["vocab.txt"]
    info = LocalStorage().stat(f"{tmp_path}/model.safetensors")
    assert list(found.files) == ["model.safetensors"]
    assert found.files["model.safetensors"].etag == info.etag
    assert found.files["model.safetensors"].size_bytes == info.size_bytes


def test_sharded(tmp_path: Path) -> None:
    found = open_files(tmp_path, sharded())
    assert {name: entry.file for name, entry in found.tensors.items()} == {
        "a": ONE,
        "b": ONE,
        "c": TWO,
    }
    assert sorted(found.files) == [ONE, TWO]
    assert not found.sidecars


def test_shards_in_a_subfolder(tmp_path: Path) -> None:
    files = {INDEX: {"weight_map": {"a": "weights/x.safetensors"}}}
    found = open_files(tmp_path, files | {"weights/x.safetensors": good_file("a")})
    assert found.tensors["a"].file == "weights/x.safetensors"


def test_a_single_file_of_another_name(tmp_path: Path) -> None:
    found = open_files(tmp_path, {"diffusion_model.safetensors": good_file("a")})
    assert found.tensors["a"].file == "diffusion_model.safetensors"


def test_model_safetensors_goes_before_other_files(tmp_path: Path) -> None:
    files = {"model.safetensors": good_file("a"), "consolidated.safetensors": good_file("b")}
    assert list(open_files(tmp_path, files).tensors) == ["a"]


def test_pickles_beside_safetensors_are_left_alone(tmp_path: Path) -> None:
    files = {"model.safetensors": good_file("a"), "pytorch_model.bin": b"\x80\x02."}
    found = open_files(tmp_path, files)
    assert list(found.tensors) == ["a"]
    assert not found.sidecars


def test_files_the_index_does_not_name_are_left_alone(tmp_path: Path) -> None:
    found = open_files(tmp_path, sharded() | {"consolidated.safetensors": good_file("a")})
    assert sorted(found.files) == [ONE, TWO]


def test_tensor_the_index_does_not_list_is_taken(tmp_path: Path) -> None:
    files = sharded() | {TWO: good_file("c", "extra")}
    assert open_files(tmp_path, files).tensors["extra"].file == TWO


def test_one_index_for_the_single_file(tmp_path: Path) -> None:
    files = {
        INDEX: {"weight_map": {"a": "model.safetensors"}},
        "model.safetensors": good_file("a"),
    }
    assert list(open_files(tmp_path, files).tensors) == ["a"]


def test_config_may_have_infinity_as_transformers_writes_it(tmp_path: Path) -> None:
    config = b'{"model_type": "mamba", "limit": [0.0, Infinity]}'
    files = {"config.json": config, "model.safetensors": good_file("a")}
    assert open_files(tmp_path, files).config["limit"] == [0.0, float("inf")]


def test_three_hundred_shards_are_read_side_by_side(tmp_path: Path) -> None:
    names = [f"model-{at:05}.safetensors" for at in range(300)]
    files: dict[str, Any] = {name: good_file(f"t{at}") for at, name in enumerate(names)}
    files[INDEX] = {"weight_map": {f"t{at}": name for at, name in enumerate(names)}}
    storage = MeetingStorage()
    found = open_checkpoint(storage, write(tmp_path, {"config.json": CONFIG, **files}))
    assert list(found.tensors) == [f"t{at}" for at in range(300)]


class MeetingStorage(LocalStorage):
    """The first eight reads of weight files wait for each other."""

    def __init__(self) -> None:
        super().__init__()
        self.barrier = threading.Barrier(8)
        self.waiting = 8
        self.lock = threading.Lock()

    def read(
        self, uri: str, *, start: int = 0, end: int | None = None, etag: str | None = None
    ) -> bytes:
        with self.lock:
            meets = self.waiting > 0 and uri.endswith(".safetensors")
            self.waiting -= meets
        if meets:
            self.barrier.wait(timeout=20)
        return super().read(uri, start=start, end=end, etag=etag)


# refusals

WEIGHTS = {"model.safetensors": good_file("a")}


def refusals() -> Iterator[Any]:
    """Yield files, the expected error, and what its message must have."""

    def case(name: str, files: dict[str, Any], kind: type[FdaError], *says: str) -> Any:
        return pytest.param(files, kind, says, id=name)

    yield case("config not JSON", {"config.json": b"{", **WEIGHTS}, MissingConfig, "config.json")
    yield case("config empty", {"config.json": b"", **WEIGHTS}, MissingConfig, "not JSON")
    yield case("config a list", {"config.json": b"[]", **WEIGHTS}, MissingConfig, "not a JSON")
    yield case("config binary", {"config.json": b"\xff\xfe", **WEIGHTS}, MissingConfig, "JSON")
    deep = b'{"a":' + b"[" * 100_000
    yield case("config deep", {"config.json": deep, **WEIGHTS}, MissingConfig, "deeply")

    yield case("no weights", {}, MissingShard, "no weights")
    yield case("pickle", {"pytorch_model.bin": b""}, PickleRefused, "pytorch_model.bin")
    for name in ("model.pt", "model.pth", "last.ckpt", "model.pkl", "pytorch_model-00001.bin"):
        yield case(name, {name: b""}, PickleRefused, name)
    yield case("only training state", {"training_args.bin": b"", "optimizer.pt": b""}, MissingShard)
    for name in ("model.gguf", "tf_model.h5", "flax_model.msgpack", "model.onnx"):
        yield case(name, {name: b""}, MissingShard, name, "other formats")
    adapter = {"adapter_model.safetensors": good_file("a")}
    yield case("adapter", adapter, MissingShard, "adapter")
    yield case(
        "two unknown",
        {"x.safetensors": good_file("a"), "y.safetensors": good_file("b")},
        MissingShard,
        "x.safetensors, y.safetensors",
        INDEX,
    )
    shards = {name: data for name, data in sharded().items() if name != INDEX}
    yield case("shards without index", shards, MissingShard, ONE, INDEX)
    yield case(
        "index and another model",
        sharded() | WEIGHTS,
        CorruptShard,
        "model.safetensors",
        "disagree",
    )

    for name, raw in {
        "not JSON": b"{",
        "empty": b"",
        "a list": b"[]",
        "without weight_map": b"{}",
        "empty weight_map": b'{"weight_map": {}}',
        "weight_map a list": b'{"weight_map": []}',
        "deep": b"[" * 100_000,
        "binary": b"\xff",
    }.items():
        yield case(f"index {name}", sharded() | {INDEX: raw}, CorruptShard, INDEX)
    for file in ("/etc/passwd", "../x.safetensors", "a/../../x", "a//b", "./x", "..\\x", "x\0y"):
        yield case(f"index to {file!r}", sharded(c=file), CorruptShard, "'c'", "not in the folder")
    for odd in (None, 1, "", ["x"], {"x": 1}):
        yield case(f"index to {odd!r}", sharded(c=odd), CorruptShard, "'c'", "not a file name")
    yield case("index to a pickle", sharded(c="pytorch_model.bin"), PickleRefused, "'c'")

    gone = {name: data for name, data in sharded().items() if name != ONE}
    yield case("shard missing", gone, MissingShard, ONE, "a, b", "1 of 2")
    lacking = sharded() | {TWO: good_file("other")}
    yield case("tensor missing", lacking, MissingTensor, "'c'", TWO)
    yield case("tensor in another shard", sharded(b=TWO), MissingTensor, "'b'", TWO)
    twice = sharded() | {TWO: good_file("c", "a")}
    yield case("tensor twice", twice, CorruptShard, "'a'", ONE, TWO)

    yield case(
        "zero bytes", {"model.safetensors": b""}, CorruptShard, "model.safetensors", "0 bytes"
    )
    yield case(
        "zip", {"model.safetensors": b"PK\x03\x04" + b"x" * 99}, PickleRefused, "model.safet"
    )
    yield case(
        "pickled", {"model.safetensors": b"\x80\x04\x95" + b"x" * 99}, PickleRefused, "pickle"
    )
    yield case("no tensors", {"model.safetensors": raw_file(b"{}")}, MissingShard, "no tensors")
    odd_dtype = {"model.safetensors": raw_file({"w": tensor(dtype="Q4")}, b"1234")}
    yield case("dtype", odd_dtype, UnsupportedDtype, "'w'", "Q4")
    cut = sharded() | {TWO: good_file("c")[:-1]}
    yield case("second shard cut off", cut, CorruptShard, TWO, "'c'")


@pytest.mark.parametrize(("files", "kind", "says"), list(refusals()))
def test_refused_with_the_reason(
    tmp_path: Path, files: dict[str, Any], kind: type[FdaError], says: tuple[str, ...]
) -> None:
    with pytest.raises(FdaError) as caught:
        open_files(tmp_path, files)
    assert type(caught.value) is kind
    assert str(tmp_path) in caught.value.message
    for part in says:
        assert part in caught.value.message


def test_nothing_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        open_checkpoint(LocalStorage(), f"{tmp_path}/nowhere")


@pytest.mark.parametrize("uri", ["folder", "folder/model.safetensors"])
def test_without_config_is_missing_config(tmp_path: Path, uri: str) -> None:
    write(tmp_path / "folder", WEIGHTS)
    with pytest.raises(MissingConfig, match=uri):
        open_checkpoint(LocalStorage(), f"{tmp_path}/{uri}")


def test_pickles_are_told_how_to_become_safe(tmp_path: Path) -> None:
    with pytest.raises(PickleRefused) as caught:
        open_files(tmp_path, {"pytorch_model.bin": b""})
    assert caught.value.hint is not None
    assert "fda convert" in caught.value.hint


def test_of_several_bad_shards_the_first_is_named(tmp_path: Path) -> None:
    files = sharded() | {ONE: b"", TWO: b""}
    for _ in range(5):
        with pytest.raises(CheckpointError, match=ONE):
            open_files(tmp_path, files)


def test_planning_imports_no_torch() -> None:
    script = """
import sys
import fda_core.checkpoints.index, fda_core.checkpoints.layout, fda_core.storage.resolve
print([name for name in ("torch", "numpy", "safetensors") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"
