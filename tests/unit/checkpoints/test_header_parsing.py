"""Sound headers, and headers of any kind: read rightly or refused, never worse."""

import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fda_core.checkpoints.dtypes import DTYPES
from fda_core.checkpoints.header import parse_header, read_header
from fda_core.checkpoints.layout import TensorSpec, plan_header
from fda_core.contract.plan import TensorEntry
from fda_core.errors import ChangedInput, CheckpointError, CorruptShard
from fda_core.storage.local import LocalStorage
from tests.unit.checkpoints.checkpoint_files import good_file, raw_file, tensor

BOUNDED = settings(
    max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


def parse(raw: bytes) -> dict[str, TensorEntry]:
    return parse_header(raw, file_size=len(raw), file="f")


def test_offsets_are_absolute_in_the_file() -> None:
    raw = raw_file({"a": tensor(0, 4), "b": tensor(4, 12, shape=[2])}, b"AAAABBBBCCCC")
    entries = parse(raw)
    assert raw[entries["a"].start : entries["a"].end] == b"AAAA"
    assert raw[entries["b"].start : entries["b"].end] == b"BBBBCCCC"
    assert entries["b"].shape == (2,)
    assert entries["b"].file == "f"


def test_tensors_come_in_the_order_of_their_bytes() -> None:
    raw = raw_file({"late": tensor(4, 8), "early": tensor(0, 4)}, b"12345678")
    assert list(parse(raw)) == ["early", "late"]


def test_only_the_first_bytes_of_the_file_are_needed() -> None:
    raw = good_file("a", "b")
    assert parse_header(raw[:-8], file_size=len(raw), file="f") == parse(raw)


def test_scalars_and_empty_tensors_are_tensors() -> None:
    header = {
        "empty": tensor(0, 0, shape=[3, 0]),
        "scalar": tensor(0, 4, shape=[]),
        "empty too": tensor(4, 4, shape=[0]),
    }
    entries = parse(raw_file(header, b"1234"))
    assert [entry.numel for entry in entries.values()] == [0, 1, 0]


def test_an_empty_tensor_may_follow_its_neighbour_in_the_header() -> None:
    header = {"full": tensor(0, 4), "empty": tensor(0, 0, shape=[0])}
    assert list(parse(raw_file(header, b"1234"))) == ["empty", "full"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_has_its_size(dtype: str) -> None:
    size = 6 * DTYPES[dtype].size_bytes
    raw = raw_file({"w": tensor(0, size, dtype=dtype, shape=[2, 3])}, b"x" * size)
    assert parse(raw)["w"].dtype == dtype


@pytest.mark.parametrize(
    "header",
    [
        b"{}",
        b"{}      \n\t ",
        b'{"__metadata__":{}}',
        b'{"__metadata__":{"format":"pt","\xc3\xa9":"\xc3\xa9"}}',
    ],
)
def test_headers_without_tensors_are_sound(header: bytes) -> None:
    assert parse(raw_file(header)) == {}


@pytest.mark.parametrize("name", ["", "a.b.c", "层.0", "\\u00e9", "__metadata", "x" * 10_000])
def test_names_are_taken_as_they_are(name: str) -> None:
    assert list(parse(good_file(name))) == [name]


def test_unknown_keys_of_an_entry_are_left_alone_as_the_library_does() -> None:
    assert list(parse(raw_file({"w": tensor(note="x")}, b"1234"))) == ["w"]


@pytest.mark.parametrize("length", [0x0280, 0x0380, 0x0480, 0x0580])
def test_header_whose_length_looks_like_a_pickle_is_read(length: int) -> None:
    text = json.dumps({"w": tensor()}).encode()
    assert list(parse(raw_file(text + b" " * (length - len(text)), b"1234"))) == ["w"]


def test_one_hundred_thousand_tensors_are_read() -> None:
    specs = [TensorSpec(f"model.layers.{at}.weight", "BF16", (1, 2)) for at in range(100_000)]
    head = plan_header(specs)
    entries = parse_header(head, file_size=len(head) + 400_000, file="f")
    assert len(entries) == 100_000
    assert entries["model.layers.99999.weight"].end == len(head) + 400_000


def test_reading_takes_the_header_and_no_more(tmp_path: Path) -> None:
    raw = good_file("a", "b")
    (tmp_path / "f").write_bytes(raw)
    storage = CountingStorage()
    info = storage.stat(f"{tmp_path}/f")
    entries = read_header(storage, info.uri, info.size_bytes, info.etag)
    assert entries == parse(raw)
    assert storage.bytes_read == len(raw) - 8


def test_reading_a_replaced_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(good_file("a"))
    storage = LocalStorage()
    info = storage.stat(f"{tmp_path}/f")
    storage.put(info.uri, good_file("b"))
    with pytest.raises(ChangedInput):
        read_header(storage, info.uri, info.size_bytes, info.etag)


@pytest.mark.parametrize("raw", [b"", b"123"])
def test_reading_a_file_without_a_length_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "f").write_bytes(raw)
    storage = LocalStorage()
    info = storage.stat(f"{tmp_path}/f")
    with pytest.raises(CorruptShard, match=f"{tmp_path}/f: .*{len(raw)} bytes"):
        read_header(storage, info.uri, info.size_bytes, info.etag)


class CountingStorage(LocalStorage):
    bytes_read = 0

    def read(
        self, uri: str, *, start: int = 0, end: int | None = None, etag: str | None = None
    ) -> bytes:
        data = super().read(uri, start=start, end=end, etag=etag)
        self.bytes_read += len(data)
        return data


# any bytes at all

names = st.text(max_size=12)
shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
specs = st.lists(
    st.builds(TensorSpec, names, st.sampled_from(sorted(DTYPES)), shapes),
    max_size=6,
    unique_by=lambda spec: spec.name,
)
odd_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["F32", "dtype", "shape", "data_offsets", "__metadata__"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


def never_worse_than_refused(raw: bytes, size: int) -> None:
    """Parse; whatever is accepted must tile the file, and little memory may be taken."""
    tracemalloc.start()
    try:
        entries = parse_header(raw, file_size=size, file="f")
    except CheckpointError as problem:
        assert "f: " in problem.message  # noqa: PT017
        return
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 200_000 + 40 * len(raw)
    at = 8 + int.from_bytes(raw[:8], "little")
    for entry in entries.values():
        assert (entry.start, entry.end) == (
            at,
            at + entry.numel * DTYPES[entry.dtype].size_bytes,
        )
        at = entry.end
    assert at == size


@BOUNDED
@given(specs.filter(lambda some: all(spec.name != "__metadata__" for spec in some)))
def test_what_we_lay_out_we_read(some: list[TensorSpec]) -> None:
    head = plan_header(some)
    size = len(head) + sum(spec.size_bytes for spec in some)
    entries = parse_header(head, file_size=size, file="f")
    assert {
        name: (entry.dtype, entry.shape, entry.size_bytes) for name, entry in entries.items()
    } == {spec.name: (spec.dtype, spec.shape, spec.size_bytes) for spec in some}


@BOUNDED
@given(specs, st.data())
def test_sound_headers_with_bytes_changed(some: list[TensorSpec], data: st.DataObject) -> None:
    some = [spec for spec in some if spec.name != "__metadata__"]
    raw = bytearray(plan_header(some))
    size = len(raw) + sum(spec.size_bytes for spec in some)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    never_worse_than_refused(bytes(raw), max(0, size + data.draw(st.sampled_from([0, 0, -1, 1]))))


@BOUNDED
@given(specs, st.data())
def test_sound_headers_with_values_swapped(some: list[TensorSpec], data: st.DataObject) -> None:
    some = [spec for spec in some if spec.name != "__metadata__"]
    head = plan_header(some)
    document = json.loads(head[8:])
    key = data.draw(st.sampled_from([*document, "new"]))
    if data.draw(st.booleans()) and isinstance(document.get(key), dict):
        inner = data.draw(st.sampled_from(["dtype", "shape", "data_offsets", "format"]))
        document[key][inner] = data.draw(odd_values)
    else:
        document[key] = data.draw(odd_values)
    raw = raw_file(document)
    never_worse_than_refused(raw, len(raw) + sum(spec.size_bytes for spec in some))


@BOUNDED
@given(st.binary(max_size=200), st.integers(0, 2**70))
def test_any_bytes_and_any_claimed_size(raw: bytes, size: int) -> None:
    never_worse_than_refused(raw, size)


@BOUNDED
@given(st.binary(max_size=100))
def test_any_header_bytes_of_the_right_length(text: bytes) -> None:
    raw = raw_file(b"{" + text)
    never_worse_than_refused(raw, len(raw))
