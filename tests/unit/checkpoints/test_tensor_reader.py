"""Tensors by name from real files: right bits, few requests, and no changed file unnoticed."""

import hashlib
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fda_core.checkpoints import reader as reader_module
from fda_core.checkpoints.dtypes import DTYPES, name_of
from fda_core.checkpoints.index import open_checkpoint
from fda_core.checkpoints.layout import TensorSpec, index_json
from fda_core.checkpoints.reader import RANGE_BYTES, TensorReader, digest_file, torch_dtype
from fda_core.checkpoints.writer import ShardWriter
from fda_core.contract.plan import PinnedCheckpoint, PinnedFile
from fda_core.errors import ChangedInput, InternalError, MissingTensor, UnsupportedDtype
from fda_core.storage.base import Storage
from fda_core.storage.local import LocalStorage
from tests.unit.checkpoints.checkpoint_files import raw_file, tensor

EVERY = {name: torch_dtype(name) for name in DTYPES}
FLOATS = [name for name, dtype in EVERY.items() if dtype.is_floating_point]
WHOLE = [name for name in EVERY if name not in FLOATS and name != "C64"]


def save(folder: Path, tensors: dict[str, Tensor], file: str = "model.safetensors") -> str:
    """Save with the safetensors library beside a config; return the folder's address."""
    (folder / "config.json").write_text("{}")
    safetensors.torch.save_file(tensors, folder / file, {"format": "pt"})
    return str(folder)


def reader_of(uri: str, storage: Storage | None = None) -> TensorReader:
    storage = storage or LocalStorage()
    return TensorReader(storage, open_checkpoint(storage, uri))


def same(one: Tensor, two: Tensor) -> bool:
    flat = [tensor.reshape(-1).view(torch.uint8) for tensor in (one, two)]
    return one.dtype == two.dtype and one.shape == two.shape and torch.equal(*flat)


class Counting(LocalStorage):
    """Counts requests."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[tuple[int, int]] = []

    def read_into(
        self, uri: str, buffer: memoryview, *, start: int, etag: str | None = None
    ) -> None:
        assert etag is not None
        self.requests.append((start, len(buffer)))
        super().read_into(uri, buffer, start=start, etag=etag)


def numbers(name: str) -> Tensor:
    """Return numbers that the dtype has exactly."""
    return torch.tensor([[0.0, 1.0, 2.0], [4.0, 1.0, 0.0]]).to(EVERY[name])


# as stored, and converted


@pytest.mark.parametrize("name", DTYPES)
def test_we_read_what_the_library_writes(tmp_path: Path, name: str) -> None:
    given = {
        "matrix": numbers(name),
        "scalar": numbers(name)[0, 1],
        "empty": numbers(name)[:0],
    }
    reader = reader_of(save(tmp_path, given))
    many = reader.read_many(given)
    for key, expected in given.items():
        assert same(reader.read(key), expected)
        assert same(many[key], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", FLOATS)
def test_floats_are_converted(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    given = {"matrix": numbers(name), "scalar": numbers(name)[0, 1], "empty": numbers(name)[:0]}
    reader = reader_of(save(tmp_path, given))
    many = reader.read_many(given, dtype=dtype)
    for key, expected in given.items():
        assert same(reader.read(key, dtype=dtype), expected.to(dtype))
        assert same(many[key], expected.to(dtype))


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers_and_booleans_stay_what_they_are(tmp_path: Path, name: str) -> None:
    given = {"a": numbers(name), "b": numbers(name)}
    reader = reader_of(save(tmp_path, given))
    assert same(reader.read("a", dtype=torch.float32), given["a"])
    assert same(reader.read_many(given, dtype=torch.float32)["b"], given["b"])


def test_large_whole_numbers_keep_every_bit(tmp_path: Path) -> None:
    given = {"a": torch.tensor([2**53 + 1, -(2**63)])}
    assert same(reader_of(save(tmp_path, given)).read("a", dtype=torch.float64), given["a"])


def test_not_a_number_and_infinity_pass_through(tmp_path: Path) -> None:
    odd = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0]).bfloat16()
    reader = reader_of(save(tmp_path, {"a": odd}))
    assert same(reader.read("a"), odd)
    assert same(reader.read("a", dtype=torch.float32), odd.float())


def test_complex_numbers_do_not_lose_a_part(tmp_path: Path) -> None:
    given = {"a": torch.ones(2, dtype=torch.complex64), "b": torch.ones(2, dtype=torch.complex64)}
    reader = reader_of(save(tmp_path, given))
    with pytest.raises(UnsupportedDtype, match="a: "):
        reader.read("a", dtype=torch.float32)
    with pytest.raises(UnsupportedDtype, match="a: "):
        reader.read_many(given, dtype=torch.float32)


def test_conversion_in_pieces_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "STAGING_BYTES", 16)
    given = {"a": torch.randn(5, 7).bfloat16(), "b": torch.randn(8).double()}
    storage = Counting()
    reader = reader_of(save(tmp_path, given), storage)
    for name, expected in given.items():
        assert same(reader.read(name, dtype=torch.float32), expected.float())
    assert max(length for _, length in storage.requests) == 16
    assert reader.bytes_read == 5 * 7 * 2 + 8 * 8


# into given memory


def test_out_is_filled_and_returned(tmp_path: Path) -> None:
    reader = reader_of(save(tmp_path, {"a": torch.arange(6.0).reshape(2, 3).half()}))
    for dtype in (torch.float16, torch.float32, torch.float64):
        out = torch.zeros(2, 3, dtype=dtype)
        assert reader.read("a", out=out) is out
        assert torch.equal(out, torch.arange(6.0, dtype=dtype).reshape(2, 3))


def test_out_may_be_a_view_or_a_parameter(tmp_path: Path) -> None:
    reader = reader_of(save(tmp_path, {"a": torch.arange(6.0).reshape(2, 3)}))
    whole = torch.zeros(3, 4)
    reader.read("a", out=whole[:, 1:3].T)
    assert torch.equal(whole[:, 1:3].T, torch.arange(6.0).reshape(2, 3))
    assert torch.equal(whole[:, 0], torch.zeros(3))
    parameter = torch.nn.Parameter(torch.zeros(2, 3))
    with torch.no_grad():
        assert reader.read("a", out=parameter) is parameter
    assert torch.equal(parameter.detach(), torch.arange(6.0).reshape(2, 3))


def test_out_of_another_shape_is_refused(tmp_path: Path) -> None:
    reader = reader_of(save(tmp_path, {"a": torch.zeros(2, 3)}))
    with pytest.raises(InternalError, match="a: "):
        reader.read("a", out=torch.zeros(3, 2))


def test_results_do_not_share_memory(tmp_path: Path) -> None:
    given = {"a": torch.ones(4), "b": torch.ones(4), "c": torch.ones(4).half()}
    reader = reader_of(save(tmp_path, given))
    first = reader.read_many(given)
    for found in first.values():
        found.zero_()
    assert all(
        torch.equal(found.float(), torch.ones(4)) for found in reader.read_many(given).values()
    )
    assert not any(found.any() for found in first.values())


# requests


def test_neighbours_come_in_one_request(tmp_path: Path) -> None:
    given = {f"t{at}": torch.full((100,), float(at)) for at in range(10)}
    storage = Counting()
    reader = reader_of(save(tmp_path, given), storage)
    found = reader.read_many(["t7", "t3", "t4", "t5", "t6"])
    assert list(found) == ["t7", "t3", "t4", "t5", "t6"]
    assert all(same(found[name], given[name]) for name in found)
    assert len(storage.requests) == 1
    assert reader.bytes_read == 5 * 400


def test_small_gaps_are_read_over_and_large_ones_are_not(tmp_path: Path) -> None:
    given = {
        "a": torch.ones(10),
        "b_small": torch.ones(1000),
        "c": torch.ones(10),
        "d_large": torch.ones(100_000),
        "e": torch.ones(10),
    }
    storage = Counting()
    reader = reader_of(save(tmp_path, given), storage)
    reader.read_many(["a", "c", "e"])
    assert [length for _, length in storage.requests] == [40 + 4000 + 40, 40]
    assert reader.bytes_read == 4120


def test_ranges_are_not_longer_than_sixteen_mebibytes(tmp_path: Path) -> None:
    given = {name: torch.zeros(5 * 2**20, dtype=torch.uint8) for name in "abcdefg"}
    given["h"] = torch.zeros(17 * 2**20, dtype=torch.uint8)
    storage = Counting()
    reader = reader_of(save(tmp_path, given), storage)
    reader.read_many(given)
    lengths = [length for _, length in storage.requests]
    assert lengths == [15 * 2**20, 15 * 2**20, 5 * 2**20, 17 * 2**20]
    assert max(lengths[:3]) <= RANGE_BYTES


def test_same_name_twice_is_read_once(tmp_path: Path) -> None:
    storage = Counting()
    reader = reader_of(save(tmp_path, {"a": torch.ones(3)}), storage)
    assert list(reader.read_many(["a", "a"])) == ["a"]
    assert len(storage.requests) == 1


def test_nothing_asked_is_nothing_read(tmp_path: Path) -> None:
    storage = Counting()
    reader = reader_of(save(tmp_path, {"a": torch.ones(3), "empty": torch.ones(0)}), storage)
    assert reader.read_many([]) == {}
    assert reader.read("empty").shape == (0,)
    assert storage.requests == []


def test_tensors_at_odd_offsets_are_read(tmp_path: Path) -> None:
    data = b"\1\2\3" + torch.tensor([1.5, 2.5]).numpy().tobytes() + b"\4"
    header = {
        "bytes": tensor(0, 3, dtype="U8", shape=[3]),
        "odd": tensor(3, 11, dtype="F32", shape=[2]),
        "last": tensor(11, 12, dtype="U8", shape=[1]),
    }
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(raw_file(header, data))
    reader = reader_of(str(tmp_path))
    for dtype in (None, torch.float64):
        for found in (
            reader.read("odd", dtype=dtype),
            reader.read_many(header, dtype=dtype)["odd"],
        ):
            assert found.tolist() == [1.5, 2.5]


# refusals


def test_unknown_name_is_missing_tensor(tmp_path: Path) -> None:
    reader = reader_of(save(tmp_path, {"a": torch.ones(1)}))
    for call in (lambda: reader.read("b"), lambda: reader.read_many(["a", "b"])):
        with pytest.raises(MissingTensor, match="'b'"):
            call()


def test_file_replaced_since_planning_is_refused(tmp_path: Path) -> None:
    given = {"a": torch.ones(4), "b": torch.ones(4)}
    reader = reader_of(save(tmp_path, given))
    storage = LocalStorage()
    where = f"{tmp_path}/model.safetensors"
    storage.put(where, storage.read(where))
    for call in (lambda: reader.read("a"), lambda: reader.read_many(given)):
        with pytest.raises(ChangedInput, match=r"model\.safetensors"):
            call()


def test_digest_is_of_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "RANGE_BYTES", 1000)
    storage = LocalStorage()
    for size in (0, 1, 999, 1000, 1001, 5432):
        raw = bytes(range(256)) * 22
        storage.put(f"{tmp_path}/f", raw[:size])
        info = storage.stat(f"{tmp_path}/f")
        pinned = PinnedFile(size_bytes=info.size_bytes, etag=info.etag)
        assert digest_file(storage, info.uri, pinned) == hashlib.sha256(raw[:size]).hexdigest()


@pytest.mark.parametrize("after", [b"abd", b"ab", b"abcd"])
def test_digest_of_a_changed_file_is_refused(tmp_path: Path, after: bytes) -> None:
    storage = LocalStorage()
    storage.put(f"{tmp_path}/f", b"abc")
    info = storage.stat(f"{tmp_path}/f")
    storage.put(f"{tmp_path}/f", after)
    with pytest.raises(ChangedInput):
        digest_file(storage, info.uri, PinnedFile(size_bytes=info.size_bytes, etag=info.etag))


# there and back


def test_sharded_checkpoint_there_and_back(tmp_path: Path) -> None:
    storage = LocalStorage()
    given = {
        f"layers.{at}.{name}": numbers(name) for at, name in enumerate([*DTYPES, "BF16", "F32"])
    }
    weight_map = {name: f"model-{at % 3:05}.safetensors" for at, name in enumerate(given)}
    for file in sorted(set(weight_map.values())):
        mine = [name for name in given if weight_map[name] == file]
        specs = [TensorSpec(n, name_of(given[n].dtype), tuple(given[n].shape)) for n in mine]
        with ShardWriter(storage, f"{tmp_path}/{file}", specs) as writer:
            for name in mine:
                writer.add(name, given[name])
            writer.commit()
    total = sum(item.numel() * item.element_size() for item in given.values())
    storage.put(
        f"{tmp_path}/model.safetensors.index.json", index_json(weight_map, total_size=total)
    )
    storage.put(f"{tmp_path}/config.json", b"{}")
    reader = reader_of(str(tmp_path))
    found = reader.read_many(given)
    assert all(same(found[name], given[name]) for name in given)
    assert reader.bytes_read == total


def test_a_pinned_checkpoint_is_read_after_a_trip_through_json(tmp_path: Path) -> None:
    storage = LocalStorage()
    raw = open_checkpoint(storage, save(tmp_path, {"a": torch.ones(3).half()}))
    pinned = PinnedCheckpoint(
        uri=raw.uri,
        family="any",
        config=raw.config,
        prefix="",
        files=raw.files,
        tensors=raw.tensors,
        sidecars=raw.sidecars,
    )
    again = PinnedCheckpoint.model_validate(json.loads(pinned.model_dump_json()))
    assert same(TensorReader(storage, again).read("a"), torch.ones(3).half())


@settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_tensors_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    shapes = st.lists(st.integers(0, 4), max_size=3)
    drawn = data.draw(
        st.lists(st.tuples(st.sampled_from(sorted(DTYPES)), shapes), min_size=1, max_size=8)
    )
    given_tensors = {
        f"t{at}": torch.randint(0, 2, shape).to(EVERY[name])
        for at, (name, shape) in enumerate(drawn)
    }
    reader = reader_of(save(tmp_path_factory.mktemp("any"), given_tensors))
    asked = data.draw(st.lists(st.sampled_from(sorted(given_tensors)), unique=True))
    found = reader.read_many(asked)
    assert list(found) == asked
    assert all(same(found[name], given_tensors[name]) for name in asked)
