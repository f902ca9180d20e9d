"""`fda convert`: every tensor once or a refusal, and nothing left behind."""

import json
from pathlib import Path

import pytest
import torch

from tests.support.checkpoints import read_tensors
from tests.support.command import fda, tree


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return folder


def _save(file: Path, **tensors: torch.Tensor) -> None:
    torch.save(tensors, file)


def _refused(source: Path, code: str) -> dict:
    target = source.with_name("target")
    before = tree(source.parent)
    outcome = fda("convert", source, target, "--json")
    assert outcome.code == 3, outcome.err
    assert tree(source.parent) == before
    assert outcome.error["code"] == code
    return outcome.error


def test_sharded_pickles_are_joined(source):
    _save(source / "pytorch_model-00001-of-00002.bin", a=torch.ones(2))
    _save(source / "pytorch_model-00002-of-00002.bin", b=torch.zeros(3, dtype=torch.bfloat16))
    index = {
        "weight_map": {f: f"pytorch_model-0000{k}-of-00002.bin" for k, f in ((1, "a"), (2, "b"))}
    }
    (source / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    target = source.with_name("target")
    assert fda("convert", source, target).code == 0
    found = read_tensors(target)
    assert torch.equal(found["a"], torch.ones(2))
    assert found["b"].dtype is torch.bfloat16


def test_other_pickles_beside_the_weights_are_not_read(source):
    _save(source / "pytorch_model.bin", a=torch.ones(2))
    _save(source / "pytorch_model.fp16.bin", a=torch.zeros(2))
    target = source.with_name("target")
    assert fda("convert", source, target).code == 0
    assert torch.equal(read_tensors(target)["a"], torch.ones(2))


def test_a_shard_that_the_index_names_and_is_not_there_is_named(source):
    _save(source / "pytorch_model-00001-of-00002.bin", a=torch.ones(2))
    index = {"weight_map": {"a": "pytorch_model-00001-of-00002.bin", "b": "lost.bin"}}
    (source / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert "lost.bin" in _refused(source, "missing_shard")["message"]


def test_a_tensor_that_the_index_puts_in_a_file_without_it_is_named(source):
    _save(source / "pytorch_model-00001-of-00001.bin", a=torch.ones(2))
    index = {"weight_map": dict.fromkeys(("a", "lost"), "pytorch_model-00001-of-00001.bin")}
    (source / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    error = _refused(source, "missing_tensor")
    assert "lost" in error["message"]
    assert "1 of 2" in error["message"]


def test_side_files_go_along_those_in_subfolders_too(source):
    _save(source / "pytorch_model.bin", a=torch.ones(2))
    carried = ("vocab.txt", "additional_chat_templates/tool.jinja", "1_Pooling/config.json")
    for path in (*carried, "training_args.json", "runs/notes.txt"):
        (source / path).parent.mkdir(exist_ok=True)
        (source / path).write_text(path)
    target = source.with_name("target")
    assert fda("convert", source, target).code == 0
    found = {path for path, data in tree(target).items() if data is not None}
    assert found == {"model.safetensors", "config.json", *carried}


def test_a_tensor_in_two_files_is_named(source):
    _save(source / "part1.bin", same=torch.ones(2))
    _save(source / "part2.bin", same=torch.ones(2), other=torch.ones(2))
    index = {"weight_map": {"same": "part1.bin", "other": "part2.bin"}}
    (source / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert "same is in another file" in _refused(source, "checkpoint_invalid")["message"]


@pytest.mark.parametrize("cut", [0, 10, 200])
def test_a_damaged_pickle_is_refused_in_our_words(source, cut):
    file = source / "pytorch_model.bin"
    _save(file, a=torch.ones(200))
    file.write_bytes(file.read_bytes()[:cut])
    outcome = fda("convert", source, source.with_name("target"), "--json")
    assert outcome.code == 3
    assert "pytorch_model.bin" in outcome.error["message"]
    assert "weights_only" not in outcome.error["message"]


def test_a_pickle_that_would_run_code_is_refused_and_not_run(source, tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"a": Evil()}, source / "pytorch_model.bin")
    _refused(source, "pickle_refused")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [{1: torch.ones(1)}, {"__metadata__": torch.ones(1)}, {"a": 3}])
def test_what_is_no_named_tensor_is_refused(source, content):
    torch.save(content, source / "pytorch_model.bin")
    _refused(source, "checkpoint_invalid")
