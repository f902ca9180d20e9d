"""A corpus of wrong headers: each is refused with the right code, and the culprit is named."""

import json
import struct
from typing import Any, NamedTuple

import pytest

from fda_core.checkpoints.header import parse_header
from fda_core.errors import CheckpointError
from tests.unit.checkpoints.checkpoint_files import raw_file, tensor


class Bad(NamedTuple):
    raw: bytes
    says: str
    """What the message has, beside the file's name."""
    code: str = "corrupt_shard"
    size: int | None = None
    """The file's length, where it is not that of `raw`."""


def one(spec: Any, data: bytes = b"1234") -> bytes:
    return raw_file({"w": spec}, data)


def text(header: str, data: bytes = b"1234") -> bytes:
    return raw_file(header.encode(), data)


W = '"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
DEEP = 100_000

CORPUS = {
    # the frame
    "empty": Bad(b"", "empty"),
    "one byte": Bad(b"\0", "1 bytes"),
    "seven bytes": Bad(b"\0" * 7, "7 bytes"),
    "length zero": Bad(b"\0" * 8, "length is 0"),
    "length zero with data": Bad(b"\0" * 8 + b"{}", "length is 0"),
    "length 2^60": Bad(raw_file(b"{}", length=2**60), str(2**60)),
    "length 2^64-1": Bad(b"\xff" * 8 + b"{}", str(2**64 - 1)),
    "length one more than the file": Bad(raw_file(b"{}", length=3), "claims 3 bytes"),
    "length over 100 MB": Bad(raw_file(b"{}", length=100_000_001), "100000001", size=2**40),
    "header cut off": Bad(raw_file(b"{}", length=50), "cut off after 2", size=1000),
    # not JSON
    "not UTF-8": Bad(text("{}").replace(b"{}", b'{"\xff":1}').replace(b"\x02", b"\x07"), "UTF-8"),
    "encoded surrogate": Bad(raw_file(b'{"\xed\xa0\x80":{}}'), "UTF-8"),
    "UTF-16": Bad(raw_file(json.dumps({}).encode("utf-16")), "not a JSON object"),
    "byte order mark": Bad(raw_file(b"\xef\xbb\xbf{}"), "not a JSON object"),
    "half an object": Bad(text('{"w":'), "not JSON"),
    "two objects": Bad(text("{}{}"), "not JSON"),
    "NUL padding": Bad(raw_file(b"{}\0\0"), "not JSON"),
    "leading space": Bad(text(" {" + W + "}"), "not a JSON object"),
    "a list": Bad(text("[]"), "not a JSON object"),
    "a number": Bad(text("1234"), "not a JSON object"),
    "nested lists": Bad(text('{"w":' + "[" * DEEP), "nested too deeply"),
    "nested objects": Bad(text('{"w":' * DEEP), "nested too deeply"),
    "NaN": Bad(text('{"w":NaN}'), "NaN"),
    "a number of 5000 digits": Bad(text('{"w":' + "9" * 5000 + "}"), "not JSON"),
    "name twice": Bad(text("{" + W + "," + W + "}"), "'w': given twice"),
    "key twice in an entry": Bad(text('{"w":{"dtype":"F32","dtype":"F16"}}'), "'dtype': given"),
    # names and entries
    "lone surrogate in a name": Bad(text('{"\\ud800":{}}'), "not valid Unicode"),
    "entry null": Bad(one(None), "'w': described by None"),
    "entry a list": Bad(one([]), "'w': described by []"),
    "entry empty": Bad(one({}), "'w': dtype is None"),
    # dtype
    "dtype missing": Bad(text('{"w":{"shape":[1],"data_offsets":[0,4]}}'), "'w': dtype is None"),
    "dtype a number": Bad(one(tensor(dtype=32)), "'w': dtype is 32"),
    "dtype a list": Bad(one(tensor(dtype=["F32"])), "'w': dtype is ['F32']"),
    "dtype unknown": Bad(one(tensor(dtype="F12")), "'w': dtype 'F12'", "unsupported_dtype"),
    "dtype in lower case": Bad(one(tensor(dtype="f32")), "dtype 'f32'", "unsupported_dtype"),
    "dtype of four bits": Bad(one(tensor(dtype="F4")), "dtype 'F4'", "unsupported_dtype"),
    # shape
    "shape missing": Bad(text('{"w":{"dtype":"F32","data_offsets":[0,4]}}'), "'w': shape is None"),
    "shape a number": Bad(text('{"w":{"dtype":"F32","shape":1}}'), "'w': shape is 1"),
    "shape negative": Bad(one(tensor(shape=[-1])), "'w': shape is [-1]"),
    "shape two negatives": Bad(one(tensor(shape=[-1, -1])), "'w': shape is [-1, -1]"),
    "shape true": Bad(one(tensor(shape=[True])), "'w': shape is [True]"),
    "shape a float": Bad(one(tensor(shape=[1.0])), "'w': shape is [1.0]"),
    "shape huge float": Bad(text('{"w":{"dtype":"F32","shape":[1e999]}}'), "shape is [inf]"),
    "shape strings": Bad(one(tensor(shape=["1"])), "'w': shape is ['1']"),
    "shape null": Bad(one(tensor(shape=[None])), "'w': shape is [None]"),
    "shape overflow": Bad(one(tensor(shape=[2**32, 2**32])), "'w': shape [4294967296, "),
    "shape overflow to 4 bytes": Bad(one(tensor(shape=[2**62 + 1, 4])), "overflows"),
    "shape overflow before a zero": Bad(one(tensor(0, 0, shape=[2**62, 4, 0])), "overflows"),
    "shape overflow after a zero": Bad(one(tensor(0, 0, shape=[0, 2**64])), "overflows"),
    "shape of 1000 digits": Bad(text('{"w":' + json.dumps(tensor(shape=[10**999])) + "}"), "'w'"),
    # offsets
    "offsets missing": Bad(text('{"w":{"dtype":"F32","shape":[1]}}'), "'w': data_offsets is None"),
    "offsets of one": Bad(one(tensor() | {"data_offsets": [0]}), "data_offsets is [0]"),
    "offsets of three": Bad(one(tensor() | {"data_offsets": [0, 4, 8]}), "is [0, 4, 8]"),
    "offsets negative": Bad(one(tensor(-4, 0)), "'w': data_offsets is [-4, 0]"),
    "offsets true": Bad(one(tensor(False, True)), "'w': data_offsets is [False, True]"),
    "offsets floats": Bad(one(tensor(0.0, 4.0)), "'w': data_offsets is [0.0, 4.0]"),
    "offsets strings": Bad(one(tensor("0", "4")), "'w': data_offsets is ['0', '4']"),
    "offsets reversed": Bad(one(tensor(4, 0)), "'w': data_offsets [4, 0] end before"),
    "offsets beyond the file": Bad(one(tensor(0, 8, shape=[2])), "beyond the 4 bytes"),
    "offsets 2^63": Bad(one(tensor(2**63, 2**63 + 4)), "beyond the 4 bytes"),
    "offsets of 1000 digits": Bad(one(tensor(0, 10**999)), "beyond the 4 bytes"),
    "data cut off": Bad(one(tensor(), b"123"), "'w': data_offsets [0, 4] end beyond the 3"),
    # sizes
    "too few bytes": Bad(one(tensor(shape=[2])), "'w': F32 of shape [2] needs 8 bytes"),
    "too many bytes": Bad(one(tensor(shape=[]) | {"dtype": "F16"}), "needs 2 bytes"),
    "bytes for a zero axis": Bad(one(tensor(shape=[3, 0])), "'w': F32 of shape [3, 0] needs 0"),
    # the whole
    "overlap": Bad(
        raw_file({"a": tensor(0, 4), "b": tensor(2, 6)}, b"123456"), "'b': begins at byte"
    ),
    "same bytes twice": Bad(
        raw_file({"a": tensor(0, 4), "b": tensor(0, 4)}, b"1234"), "overlaps tensor 'a'"
    ),
    "hole": Bad(
        raw_file({"a": tensor(0, 4), "b": tensor(5, 9)}, b"123456789"), "a hole after tensor 'a'"
    ),
    "hole at the start": Bad(one(tensor(1, 5), b"12345"), "'w': begins at byte"),
    "trailing byte": Bad(one(tensor(), b"12345"), "1 bytes after the last tensor"),
    "bytes without tensors": Bad(text("{}"), "4 bytes after the last tensor"),
    "metadata a list": Bad(text('{"__metadata__":[],' + W + "}"), "__metadata__ is []"),
    "metadata null": Bad(text('{"__metadata__":null,' + W + "}"), "__metadata__ is None"),
    "metadata of numbers": Bad(text('{"__metadata__":{"a":1},' + W + "}"), "'a' is 1"),
    "metadata nested": Bad(text('{"__metadata__":{"a":{}},' + W + "}"), "'a' is {}"),
    # other files under this name
    "zip": Bad(b"PK\x03\x04\x00\x00\x08\x08" + b"archive/data.pkl" * 9, "pickle", "pickle_refused"),
    "zip whose length could be": Bad(
        b"PK\x03\x04\0\0\0\0" + b" " * 99, "pickle", "pickle_refused", size=2**30
    ),
    "pickle": Bad(b"\x80\x02}q\x00X\x01\x00\x00\x00wq\x01K\x01s.", "pickle", "pickle_refused"),
    "pickle whose length could be": Bad(
        struct.pack("<Q", 0x0280) + b"}q\0." * 160, "pickle", "pickle_refused"
    ),
    "LFS pointer": Bad(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
    "HTML page": Bad(b"<!DOCTYPE html><html>404</html>", "header claims"),
}


@pytest.mark.parametrize("bad", CORPUS.values(), ids=CORPUS.keys())
def test_bad_header_is_refused_and_the_culprit_named(bad: Bad) -> None:
    size = len(bad.raw) if bad.size is None else bad.size
    with pytest.raises(CheckpointError) as caught:
        parse_header(bad.raw, file_size=size, file="model-7.safetensors")
    problem = caught.value
    assert problem.code == bad.code
    assert bad.says in problem.message
    assert problem.message.startswith("model-7.safetensors: ")
    assert problem.context["file"] == "model-7.safetensors"
    assert problem.hint
    assert len(problem.message) < 700
    assert json.dumps(problem.as_dict()).encode("utf-8")


def test_tensor_to_blame_is_in_the_context() -> None:
    with pytest.raises(CheckpointError) as caught:
        parse_header(one(tensor(shape=[2])), file_size=1000, file="x")
    assert caught.value.context["tensor"] == "w"


def test_endless_names_are_shown_short() -> None:
    raw = raw_file({"x" * 1_000_000: None})
    with pytest.raises(CheckpointError) as caught:
        parse_header(raw, file_size=len(raw), file="x")
    assert len(caught.value.message) < 300


def test_pickles_are_told_how_to_become_safe() -> None:
    with pytest.raises(CheckpointError) as caught:
        parse_header(CORPUS["pickle"].raw, file_size=20, file="x")
    assert caught.value.hint is not None
    assert "fda convert" in caught.value.hint
