"""Every bad input, through the command: its exit code, its words, and nothing written.

Refusals are made in the test's process. A refusal must name the culprit and the numbers, say
what to do, and leave the disk as it was: the whole folder is compared before and after.
"""

import io
import json
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from fda_core.engine import units
from fda_core.engine.plan import check_can_write, make_plan
from fda_core.engine.recipes import read_recipe
from fda_core.engine.run import RunOptions, run_plan
from fda_core.errors import ChangedInput, OutOfDisk
from fda_core.methods.registry import METHODS, describe
from fda_core.storage.base import FreeSpace
from fda_core.storage.local import LocalStorage
from fda_core.storage.resolve import storages
from tests.support.checkpoints import (
    PREFIX,
    WORDS,
    Checkpoint,
    RecipeFile,
    base_model,
    expert_of,
    with_tied_copy,
)
from tests.support.command import Outcome, fda, tree

QUERY = "bert.encoder.layer.1.attention.self.query.weight"
SMALL_FDA = {
    "name": "fda",
    "construct": {"anchors": 2, "tokens": 2, "steps": 1},
    "adapt": {"epochs": 1},
}
BASE = base_model()
RECIPE, CHECKPOINT, STORAGE, NUMERICS, RESOURCES, OUR_BUG, INTERRUPTED = 2, 3, 4, 5, 6, 70, 130


@dataclass
class World:
    """A folder with a base, two experts of it and a recipe that would merge them."""

    root: Path
    recipe: dict[str, Any]

    @property
    def output(self) -> Path:
        return self.root / "out"

    def path(self, name: str) -> Path:
        return self.root / name

    def weights(self, name: str = "a") -> Path:
        return self.root / name / "model.safetensors"

    def replace(self, name: str, checkpoint: Checkpoint, *, shards: int = 1) -> None:
        """Save another checkpoint in the place of one."""
        for file in self.path(name).iterdir():
            file.unlink()
        self.path(name).rmdir()
        checkpoint.save(self.path(name), shards=shards)

    def write(self) -> Path:
        path = self.root / "recipe.yaml"
        path.write_text(yaml.safe_dump(self.recipe))
        return path

    def merge(self, *arguments: object) -> Outcome:
        return fda(
            *("merge", self.write(), "--json", "--workers", 1, "--device", "cpu"), *arguments
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    experts = {"a": tmp_path / "a", "b": tmp_path / "b"}
    BASE.save(tmp_path / "base")
    for seed, path in enumerate(experts.values(), start=1):
        expert_of(BASE, seed).save(path)
    recipe = RecipeFile(base=tmp_path / "base", experts=experts, output=tmp_path / "out")
    return World(root=tmp_path, recipe=recipe.document())


def check_error(outcome: Outcome, exit_code: int, code: str, *words: object) -> dict[str, Any]:
    """Check how the command ended; every word must be in the message."""
    assert (outcome.code, outcome.error["code"]) == (exit_code, code), outcome.error["message"]
    error = outcome.error
    for word in words:
        assert str(word) in error["message"], f"{word!r} is not in: {error['message']}"
    assert error["hint"], f"no hint with: {error['message']}"
    said = " ".join(outcome.err.split())
    assert code in said
    assert " ".join(error["message"].split()) in said
    assert " ".join(error["hint"].split()) in said
    return error


def refuse(
    world: World, exit_code: int, code: str, *words: object, arguments: tuple[object, ...] = ()
) -> dict[str, Any]:
    """Check that the merge is refused before anything is written."""
    world.write()
    before = tree(world.root)
    error = check_error(world.merge(*arguments), exit_code, code, *words)
    assert tree(world.root) == before, "something was written"
    return error


def unharmed(world: World) -> None:
    """Check that a merge that failed underway left nothing that looks like an output."""
    assert not world.output.exists()
    assert not list(world.root.glob(".out.*")), "a partial folder is left"


def test_the_recipe_of_these_tests_is_good(world: World) -> None:
    outcome = world.merge()
    assert outcome.code == 0, outcome.err
    assert world.weights("out").exists()


# --- checkpoints: tensors ---------------------------------------------------------------


def test_tensor_missing_from_an_expert(world: World) -> None:
    world.replace("a", expert_of(BASE, 1).without(QUERY))
    error = refuse(world, CHECKPOINT, "missing_tensor", "'a'", QUERY)
    assert error["context"] == {"tensor": QUERY, "expert": "a"}


def test_tensor_missing_from_a_layer_of_the_base(world: World) -> None:
    world.replace("base", BASE.without(QUERY))
    refuse(
        world,
        CHECKPOINT,
        "missing_tensor",
        *("base", "layer 1", "attention.self.query.weight", "(16, 16)"),
    )


def test_base_without_one_of_its_layers(world: World) -> None:
    world.replace("base", BASE.without("encoder.layer.1."))
    refuse(world, CHECKPOINT, "missing_tensor", "base", "2 layers", "have 1", "layer 1 is missing")


def test_base_with_a_layer_its_config_does_not_know(world: World) -> None:
    world.replace("base", BASE.with_config(num_hidden_layers=1))
    refuse(world, CHECKPOINT, "missing_tensor", "base", "1 layers", "have 2", "layer 1 is one too")


@pytest.mark.parametrize("depth", [0, -1, "2", 2.0, True, None, 10**9])
def test_base_whose_config_has_no_sensible_depth(world: World, depth: Any) -> None:
    world.replace("base", BASE.with_config(num_hidden_layers=depth))
    refuse(world, CHECKPOINT, "checkpoint_invalid", "num_hidden_layers", repr(depth))


def test_tensor_of_another_shape(world: World) -> None:
    world.replace("a", expert_of(BASE, 1).with_tensors({QUERY: torch.zeros(16, 17)}))
    error = refuse(world, CHECKPOINT, "shape_mismatch", QUERY, "'a'", "(16, 17)", "(16, 16)")
    assert error["context"] == {"tensor": QUERY, "expert": "a"}


def test_expert_with_another_vocabulary(world: World) -> None:
    more_words = torch.zeros(43, 16)
    world.replace("a", expert_of(BASE, 1).with_tensors({PREFIX + WORDS: more_words}))
    error = refuse(
        world, CHECKPOINT, "shape_mismatch", PREFIX + WORDS, "'a'", "(43, 16)", "(41, 16)"
    )
    assert "vocabulary" in error["hint"]


def test_expert_with_a_tensor_too_many_in_a_layer(world: World) -> None:
    name = "bert.encoder.layer.0.attention.self.query.lora_A.weight"
    world.replace("b", expert_of(BASE, 2).with_tensors({name: torch.zeros(4, 16)}))
    error = refuse(world, CHECKPOINT, "unexpected_tensor", name, "'b'")
    assert "adapters" in error["hint"]


def test_expert_of_another_depth(world: World) -> None:
    world.replace("a", expert_of(base_model(num_hidden_layers=3), 1))
    error = refuse(world, CHECKPOINT, "not_same_base", "'a'", "num_hidden_layers", 3, 2)
    assert error["context"]["expert"] == "a"


@pytest.mark.parametrize(
    ("depth", "code", "word"),
    [(3, "unexpected_tensor", "encoder.layer.2."), (1, "missing_tensor", "encoder.layer.1.")],
)
def test_expert_of_another_depth_whose_config_lies(
    world: World, depth: int, code: str, word: str
) -> None:
    deeper = expert_of(base_model(num_hidden_layers=depth), 1)
    world.replace("a", deeper.with_config(num_hidden_layers=2))
    refuse(world, CHECKPOINT, code, "'a'", word)


def test_expert_of_another_width(world: World) -> None:
    world.replace("a", expert_of(base_model(hidden_size=32), 1))
    refuse(world, CHECKPOINT, "not_same_base", "'a'", "hidden_size", 32, 16)


def test_expert_of_another_width_whose_config_lies(world: World) -> None:
    wider = expert_of(base_model(hidden_size=32), 1)
    world.replace("a", wider.with_config(hidden_size=16))
    refuse(world, CHECKPOINT, "shape_mismatch", "'a'", "32", "16")


def test_expert_of_another_family(world: World) -> None:
    roberta = {n.replace("bert.", "roberta.", 1): t for n, t in expert_of(BASE, 1).tensors.items()}
    world.replace("a", Checkpoint(config={**BASE.config, "model_type": "roberta"}, tensors=roberta))
    refuse(world, CHECKPOINT, "not_same_base", "'a'", "roberta", "bert")


@pytest.mark.parametrize("whose", ["base", "a"])
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool])
def test_integer_weights_in_a_layer(world: World, whose: str, dtype: torch.dtype) -> None:
    model = BASE if whose == "base" else expert_of(BASE, 1)
    world.replace(whose, model.with_tensors({QUERY: torch.ones(16, 16, dtype=dtype)}))
    shown = {torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}[dtype]
    refuse(world, CHECKPOINT, "unsupported_dtype", QUERY, whose, shown)


@pytest.mark.parametrize("whose", ["base", "a"])
def test_eight_bit_floats_in_a_layer(world: World, whose: str) -> None:
    model = BASE if whose == "base" else expert_of(BASE, 1)
    small = model.tensors[QUERY].to(torch.float8_e4m3fn)
    world.replace(whose, model.with_tensors({QUERY: small}))
    refuse(world, CHECKPOINT, "unsupported_dtype", QUERY, whose, "F8_E4M3")


@pytest.mark.parametrize("whose", ["base", "a"])
@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_eight_bit_embeddings(world: World, whose: str, dtype: torch.dtype) -> None:
    """Outside the layers too: they were kept from the base as if they were a buffer."""
    model = BASE if whose == "base" else expert_of(BASE, 1)
    small = model.tensors[PREFIX + WORDS].to(dtype)
    world.replace(whose, model.with_tensors({PREFIX + WORDS: small}))
    refuse(world, CHECKPOINT, "unsupported_dtype", PREFIX + WORDS, whose)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
@pytest.mark.parametrize("whose", ["base", "a"])
def test_names_behind_a_prefix_of_a_wrapper(world: World, whose: str, prefix: str) -> None:
    model = BASE if whose == "base" else expert_of(BASE, 1)
    wrapped = {prefix + name: tensor for name, tensor in model.tensors.items()}
    world.replace(whose, Checkpoint(config=model.config, tensors=wrapped))
    refuse(world, CHECKPOINT, "missing_tensor", f"{prefix}bert.", whose)


@pytest.mark.parametrize("whose", ["base", "b"])
def test_quantised_config(world: World, whose: str) -> None:
    model = BASE if whose == "base" else expert_of(BASE, 2)
    world.replace(whose, model.with_config(quantization_config={"quant_method": "gptq", "bits": 4}))
    refuse(world, CHECKPOINT, "unsupported_dtype", whose, "quantization_config")


def test_one_tensor_under_two_spellings(world: World) -> None:
    name = "embeddings.LayerNorm.weight"
    again = {PREFIX + name.replace("weight", "gamma"): BASE.tensors[PREFIX + name].clone()}
    world.replace("base", BASE.with_tensors(again))
    refuse(world, CHECKPOINT, "checkpoint_invalid", "base", "gamma", name)


def test_fda_where_the_layers_are_not_those_of_the_library(world: World) -> None:
    world.recipe["method"] = SMALL_FDA
    odd = {f"bert.encoder.layer.{k}.adapter.weight": torch.zeros(2, 2) for k in (0, 1)}
    for name in ("base", "a", "b"):
        model = BASE if name == "base" else expert_of(BASE, 1)
        world.replace(name, model.with_tensors(odd))
    refuse(world, CHECKPOINT, "unknown_architecture", "bert.encoder.layer.", "adapter")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("num_attention_heads", 3, ("attention heads (3)",)),
        ("num_attention_heads", 0, ("bert layer", "by zero")),
        ("num_attention_heads", "2", ("'num_attention_heads'", "'2'")),
        ("hidden_act", "nonsense", ("'nonsense'",)),
        ("layer_norm_eps", "small", ("'layer_norm_eps'", "'small'")),
        ("intermediate_size", 25, ("intermediate.dense.weight", "(24, 16)", "(25, 16)")),
        ("hidden_size", 8, ("(16, 16)", "(8, 8)")),
    ],
)
def test_fda_with_a_config_that_does_not_fit_the_weights(
    world: World, key: str, value: Any, words: tuple[str, ...]
) -> None:
    world.recipe["method"] = SMALL_FDA
    for name, model in (("base", BASE), ("a", expert_of(BASE, 1)), ("b", expert_of(BASE, 2))):
        world.replace(name, model.with_config(**{key: value}))
    check_error(world.merge(), CHECKPOINT, "unknown_architecture", *words)
    unharmed(world)


# --- checkpoints: files -----------------------------------------------------------------

Damage = Callable[[Path], None]


def _rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the header of a safetensors file, with its length right and the data as it was."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _cut_in_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def _lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0" * 12)


def _overlap(path: Path) -> None:
    def change(header: dict[str, Any]) -> None:
        header[QUERY]["data_offsets"] = [0, 1024]

    _rewrite(path, change)


def _lie_about_the_shape(path: Path) -> None:
    _rewrite(path, lambda header: header[QUERY].update(shape=[16, 999]))


def _claim_too_much(path: Path) -> None:
    _rewrite(path, lambda header: header[QUERY].update(data_offsets=[0, 2**50]))


def _negative_shape(path: Path) -> None:
    _rewrite(path, lambda header: header[QUERY].update(shape=[-16, -16]))


def _huge_header(path: Path) -> None:
    path.write_bytes((2**60).to_bytes(8, "little") + path.read_bytes()[8:])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _no_json(path: Path) -> None:
    path.write_bytes((64).to_bytes(8, "little") + b"{" + b"x" * 100)


@pytest.mark.parametrize("whose", ["base", "b"])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_cut, ("tensor '", "data_offsets", "end beyond")),
        (_cut_in_the_header, ("200",)),
        (_lengthen, ("12 bytes",)),
        (_overlap, ("overlaps", "tensor")),
        (_lie_about_the_shape, (QUERY, "999", "63936", "1024")),
        (_claim_too_much, (QUERY, 2**50)),
        (_negative_shape, (QUERY, "-16")),
        (_huge_header, (2**60,)),
        (_empty, ("0 bytes",)),
        (_no_json, ("header is not JSON",)),
    ],
)
def test_damaged_weight_file(
    world: World, whose: str, damage: Damage, words: tuple[object, ...]
) -> None:
    damage(world.weights(whose))
    error = refuse(world, CHECKPOINT, "corrupt_shard", str(world.weights(whose)), *words)
    assert error["blame"] == "data"


def test_pickle_under_a_safetensors_name(world: World) -> None:
    world.weights().write_bytes(pickle.dumps({"bert.x": [1.0] * 100}))
    error = refuse(world, CHECKPOINT, "pickle_refused", world.weights())
    assert "fda convert" in error["hint"]


def test_zipped_pickle_under_a_safetensors_name(world: World) -> None:
    torch.save({"bert.x": torch.zeros(3)}, world.weights())
    error = refuse(world, CHECKPOINT, "pickle_refused", world.weights())
    assert "fda convert" in error["hint"]


def test_weights_only_as_a_pickle(world: World) -> None:
    torch.save({"bert.x": torch.zeros(3)}, world.path("a") / "pytorch_model.bin")
    world.weights().unlink()
    error = refuse(world, CHECKPOINT, "pickle_refused", world.path("a"), "pytorch_model.bin")
    assert "fda convert" in error["hint"]


def test_no_weights_at_all(world: World) -> None:
    world.weights().unlink()
    refuse(world, CHECKPOINT, "missing_shard", world.path("a"), "no weights")


def test_index_that_names_a_missing_shard(world: World) -> None:
    world.replace("a", expert_of(BASE, 1), shards=3)
    gone = world.path("a") / "model-00002-of-00003.safetensors"
    gone.unlink()
    refuse(world, CHECKPOINT, "missing_shard", world.path("a"), gone.name, "1 of 3")


@pytest.mark.parametrize("file", ["../b/model.safetensors", "/etc/passwd", "x/../y.safetensors"])
def test_index_that_names_a_file_outside(world: World, file: str) -> None:
    world.replace("a", expert_of(BASE, 1), shards=2)
    index = world.path("a") / "model.safetensors.index.json"
    document = json.loads(index.read_text())
    document["weight_map"][QUERY] = file
    index.write_text(json.dumps(document))
    refuse(world, CHECKPOINT, "corrupt_shard", index, QUERY, file)


def test_index_that_puts_a_tensor_where_it_is_not(world: World) -> None:
    world.replace("a", expert_of(BASE, 1), shards=2)
    index = world.path("a") / "model.safetensors.index.json"
    document = json.loads(index.read_text())
    first, second = sorted(set(document["weight_map"].values()))
    moved = second if document["weight_map"][QUERY] == first else first
    document["weight_map"][QUERY] = moved
    index.write_text(json.dumps(document))
    refuse(world, CHECKPOINT, "missing_tensor", world.path("a"), QUERY, moved)


@pytest.mark.parametrize("file", ["config.json", "vocab.txt", "model.safetensors"])
def test_a_file_of_the_base_that_changes_after_planning(world: World, file: str) -> None:
    """It would be published with weights that were not made for it."""
    (world.path("base") / "vocab.txt").write_text("a\n")
    storage = storages()
    plan = make_plan(read_recipe(world.write().read_text()), storage, cwd=str(world.root))
    changed = world.path("base") / file
    changed.write_bytes(changed.read_bytes() + b" ")
    options = RunOptions(workers=1, device="cpu")
    with pytest.raises(ChangedInput, match=file):
        run_plan(plan, storage, options=options, sink=lambda _: None, is_cancelled=lambda: False)
    assert not world.output.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "NaN", "{'a': 1}"])
def test_config_that_is_no_json_object(world: World, text: str) -> None:
    (world.path("base") / "config.json").write_text(text)
    refuse(world, CHECKPOINT, "missing_config", world.path("base") / "config.json")


def test_config_that_is_not_text(world: World) -> None:
    (world.path("a") / "config.json").write_bytes(b"\xff\xfe\x00")
    refuse(world, CHECKPOINT, "missing_config", world.path("a") / "config.json")


def test_checkpoint_without_config(world: World) -> None:
    (world.path("a") / "config.json").unlink()
    refuse(world, CHECKPOINT, "missing_config", world.path("a"), "config.json")


@pytest.mark.parametrize(("kind", "word"), [("a<b>", "'a<b>'"), (None, "no model_type")])
def test_unknown_family(world: World, kind: str | None, word: str) -> None:
    world.replace("base", BASE.with_config(model_type=kind))
    error = refuse(world, CHECKPOINT, "unknown_architecture", world.path("base"), word)
    assert "bert" in error["hint"]


@pytest.mark.parametrize("whose", ["base", "a"])
def test_checkpoint_that_is_not_there(world: World, whose: str) -> None:
    world.path(whose).rename(world.root / "elsewhere")
    refuse(world, STORAGE, "not_found", world.path(whose))


@pytest.mark.parametrize("whose", ["base", "a"])
def test_checkpoint_that_is_a_file(world: World, whose: str) -> None:
    world.path(whose).rename(world.root / "elsewhere")
    world.path(whose).write_text("a file")
    outcome = world.merge()
    assert outcome.code in (CHECKPOINT, STORAGE)
    assert str(world.path(whose)) in outcome.error["message"]
    assert outcome.error["hint"]


def test_checkpoint_that_is_a_loop_of_links(world: World) -> None:
    loop, back = world.root / "loop", world.root / "back"
    loop.symlink_to(back)
    back.symlink_to(loop)
    world.recipe["experts"][0]["model"] = str(loop)
    refuse(world, STORAGE, "not_found", loop, "symbolic links")


def test_weight_file_that_is_a_loop_of_links(world: World) -> None:
    world.weights().unlink()
    world.weights().symlink_to(world.weights())
    refuse(world, CHECKPOINT, "missing_shard", world.path("a"))


def test_loop_of_links_beside_the_weights_does_no_harm(world: World) -> None:
    (world.path("a") / "again").symlink_to(world.path("a"), target_is_directory=True)
    (world.path("base") / "self.txt").symlink_to("self.txt")
    assert world.merge().code == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_file_that_may_not_be_read(world: World, file: str) -> None:
    path = world.path("a") / file
    path.chmod(0)
    error = check_error(world.merge(), STORAGE, "forbidden", path)
    assert error["retryable"] is False
    unharmed(world)
    path.chmod(0o600)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_place_that_may_not_be_written(world: World) -> None:
    closed = world.root / "closed"
    closed.mkdir(mode=0o500)
    refuse(world, STORAGE, "forbidden", closed, arguments=("--output", closed / "out"))


def test_address_that_no_storage_serves(world: World) -> None:
    world.recipe["base"] = "ftp://host/base"
    refuse(world, STORAGE, "unsupported_scheme", "ftp://host/base")


# --- numbers in checkpoints -------------------------------------------------------------

BAD_NUMBERS = [
    pytest.param(float("nan"), id="nan"),
    pytest.param(float("inf"), id="inf"),
    pytest.param(float("-inf"), id="minus-inf"),
]


def _poisoned(model: Checkpoint, name: str, number: float, at: tuple[int, ...]) -> Checkpoint:
    tensor = model.tensors[name].clone()
    tensor[at] = number
    return model.with_tensors({name: tensor})


@pytest.mark.parametrize("number", BAD_NUMBERS)
@pytest.mark.parametrize("method", ["linear", SMALL_FDA], ids=["linear", "fda"])
@pytest.mark.parametrize("whose", ["base", "b"])
def test_one_element_that_is_no_number(
    world: World, whose: str, method: Any, number: float
) -> None:
    model = BASE if whose == "base" else expert_of(BASE, 2)
    world.replace(whose, _poisoned(model, QUERY, number, (3, 5)))
    world.recipe["method"] = method
    error = check_error(
        world.merge(), NUMERICS, "non_finite", QUERY, whose, "[3, 5]", number, "1 of 256"
    )
    assert error["context"]["tensor"] == QUERY
    assert error["context"]["expert"] == whose
    assert error["context"]["position"] == [3, 5]
    unharmed(world)


@pytest.mark.parametrize("outside", ["base", "average", "start"])
def test_nan_outside_the_layers_of_the_base(world: World, outside: str) -> None:
    world.replace("base", _poisoned(BASE, PREFIX + WORDS, float("nan"), (40, 15)))
    world.recipe["outside"] = outside
    check_error(world.merge(), NUMERICS, "non_finite", "base", PREFIX + WORDS, "[40, 15]")
    unharmed(world)


def test_nan_in_a_tied_copy_of_the_base_is_not_passed_on(world: World) -> None:
    base = with_tied_copy(BASE)
    world.replace("base", _poisoned(base, PREFIX + WORDS, float("nan"), (0, 0)))
    check_error(world.merge(), NUMERICS, "non_finite", "base", PREFIX + WORDS, "[0, 0]")
    unharmed(world)


def test_nan_in_an_experts_head_that_is_kept(world: World) -> None:
    world.replace("a", _poisoned(expert_of(BASE, 1), "classifier.bias", float("nan"), (2,)))
    check_error(world.merge(), NUMERICS, "non_finite", "a", "classifier.bias", "[2]")
    assert not world.output.exists()


def test_nan_in_an_experts_head_that_is_dropped_does_no_harm(world: World) -> None:
    world.replace("a", _poisoned(expert_of(BASE, 1), "classifier.bias", float("nan"), (2,)))
    assert world.merge("--set", "heads=drop").code == 0


def test_result_too_large_for_its_dtype(world: World) -> None:
    huge = {QUERY: torch.full((16, 16), 1e6)}
    for name, model in (("base", BASE), ("a", expert_of(BASE, 1)), ("b", expert_of(BASE, 2))):
        world.replace(name, model.with_tensors(huge))
    world.recipe["dtype"] = {"output": "float16"}
    error = check_error(world.merge(), NUMERICS, "non_finite", QUERY, "[0, 0]", "inf")
    assert "dtype.output" in error["hint"]
    unharmed(world)


def test_scale_that_makes_the_result_run_away(world: World) -> None:
    world.recipe["method"] = {"name": "task_arithmetic", "scale": 1e300}
    world.recipe["dtype"] = {"compute": "float64"}
    error = check_error(world.merge(), NUMERICS, "non_finite", "result", "bert.", "inf")
    assert "scale" in error["hint"]
    unharmed(world)


def test_scale_beyond_the_compute_dtype(world: World) -> None:
    world.recipe["method"] = {"name": "task_arithmetic", "scale": 1e300}
    error = check_error(world.merge(), NUMERICS, "non_finite", "merge-001", "float32")
    assert "scale" in error["hint"]
    unharmed(world)


@pytest.mark.parametrize("method", ["linear", "tsvm", SMALL_FDA], ids=["linear", "tsvm", "fda"])
def test_numbers_whose_norms_overflow(world: World, method: Any) -> None:
    experts = {"base": BASE, "a": expert_of(BASE, 1), "b": expert_of(BASE, 2)}
    for name, model in experts.items():
        world.replace(name, model.with_tensors({n: 1e25 * t for n, t in model.tensors.items()}))
    world.recipe["method"] = method
    error = check_error(world.merge(), NUMERICS, "non_finite")
    assert "layer" in error["context"]
    unharmed(world)


# --- the method and its parameters ------------------------------------------------------


def test_unknown_method_names_the_nearest(world: World) -> None:
    world.recipe["method"] = "tiess"
    error = refuse(world, RECIPE, "unknown_method", "'tiess'")
    assert "Did you mean 'ties'?" in error["hint"]


def test_unknown_start_of_fda(world: World) -> None:
    world.recipe["method"] = {"name": "fda", "start": "tsvmm"}
    error = refuse(world, RECIPE, "unknown_method", "'tsvmm'")
    assert "'tsvm'" in error["hint"]


def test_fda_does_not_start_from_itself(world: World) -> None:
    world.recipe["method"] = {"name": "fda", "start": "fda"}
    refuse(world, RECIPE, "bad_parameter", "method.start", "itself")


@pytest.mark.parametrize("name", METHODS)
def test_unknown_parameter_of_every_method(world: World, name: str) -> None:
    world.recipe["method"] = {"name": name, "densitty": 0.5}
    error = refuse(world, RECIPE, "unknown_key", "method.densitty")
    assert "Known here:" in error["hint"]


def test_unknown_parameter_names_the_nearest(world: World) -> None:
    world.recipe["method"] = {"name": "ties", "densitty": 0.5}
    error = refuse(world, RECIPE, "unknown_key", "method.densitty")
    assert "Did you mean 'density'?" in error["hint"]


def test_unknown_parameter_inside_construct_names_the_nearest(world: World) -> None:
    world.recipe["method"] = {"name": "fda", "construct": {"anchor": 3}}
    error = refuse(world, RECIPE, "unknown_key", "method.construct.anchor")
    assert "Did you mean 'anchors'?" in error["hint"]


def test_unknown_parameter_of_the_start(world: World) -> None:
    world.recipe["method"] = {"name": "fda", "start": {"name": "ties", "densitty": 0.5}}
    error = refuse(world, RECIPE, "unknown_key", "method.start.densitty")
    assert "Did you mean 'density'?" in error["hint"]


@pytest.mark.parametrize("stage", ["construct", "adapt"])
def test_unknown_distance(world: World, stage: str) -> None:
    world.recipe["method"] = {"name": "fda", stage: {"distance": "chebyshev"}}
    refuse(
        *(world, RECIPE, "bad_parameter", f"method.{stage}.distance"),
        *("'chebyshev'", "'cosine'", "'l2'", "'l1'"),
    )


@dataclass(frozen=True)
class Number:
    """One numeric parameter of one method, as `describe` declares it."""

    method: str
    path: tuple[str, ...]
    schema: dict[str, Any]

    @property
    def key(self) -> str:
        return ".".join(("method", *self.path))

    @property
    def whole(self) -> bool:
        return self.schema["type"] == "integer"

    def recipe(self, value: Any) -> dict[str, Any]:
        for part in reversed(self.path):
            value = {part: value}
        return {"name": self.method, **value}

    def beyond(self) -> Iterator[tuple[Any, Any]]:
        """Yield values just outside the range, each with the limit it breaks."""
        step = 1 if self.whole else 0.25
        for key, by in (
            *(("minimum", -step), ("exclusiveMinimum", 0)),
            *(("maximum", step), ("exclusiveMaximum", 0)),
        ):
            if key in self.schema:
                limit = int(self.schema[key]) if self.whole else float(self.schema[key])
                yield limit + by, limit


def _numbers(method: str) -> Iterator[Number]:
    root = describe(method)["parameters"]

    def walk(schema: dict[str, Any], path: tuple[str, ...]) -> Iterator[Number]:
        for name, field in schema.get("properties", {}).items():
            for part in (field, *field.get("anyOf", ()), *field.get("allOf", ())):
                if "$ref" in part:
                    inner = root["$defs"][part["$ref"].rpartition("/")[2]]
                    if inner.get("title") != "MethodSpec":
                        yield from walk(inner, (*path, name))
                elif part.get("type") in ("integer", "number"):
                    yield Number(method, (*path, name), part)

    return walk(root, ())


def _bare(number: Any) -> str:
    return str(number).removesuffix(".0")


NUMBERS = [number for name in METHODS for number in _numbers(name)]
BEYOND = [
    pytest.param(number, value, limit, id=f"{number.method}-{number.key}={value}")
    for number in NUMBERS
    for value, limit in number.beyond()
]


def test_the_parameters_to_break_are_found() -> None:
    found = {(number.method, number.key) for number in NUMBERS}
    assert ("ties", "method.density") in found
    assert ("wudi", "method.top_ratio") in found
    assert ("fda", "method.construct.microbatch") in found
    assert ("fda", "method.adapt.learning_rate") in found
    assert {method for method, _ in found} == set(METHODS)


@pytest.mark.parametrize(("number", "value", "limit"), BEYOND)
def test_number_just_outside_its_range(
    world: World, number: Number, value: Any, limit: Any
) -> None:
    world.recipe["method"] = number.recipe(value)
    error = refuse(world, RECIPE, "bad_parameter", number.key, _bare(limit), _bare(value))
    assert error["context"]["key"] == number.key


@pytest.mark.parametrize("number", NUMBERS, ids=lambda n: f"{n.method}-{n.key}")
def test_value_that_is_no_finite_number_of_its_kind(world: World, number: Number) -> None:
    values = [float("nan"), float("inf"), float("-inf"), "1", [1], True, {"a": 1}]
    if number.whole:
        values += [1.5, 1.0]
    for value in values:
        world.recipe["method"] = number.recipe(value)
        shown = value if isinstance(value, float) else repr(value)
        refuse(world, RECIPE, "bad_parameter", number.key, shown)


@pytest.mark.parametrize(
    ("method", "key"),
    [
        ({"name": "ties", "merge": "max"}, "method.merge"),
        ({"name": "ties", "merge": 1}, "method.merge"),
        ({"name": "linear", "normalize": "yes please"}, "method.normalize"),
        ({"name": "linear", "normalize": 1}, "method.normalize"),
        ({"name": "linear", "exclude": "*.bias"}, "method.exclude"),
        ({"name": "linear", "exclude": [""]}, "method.exclude.0"),
        ({"name": "linear", "exclude": [3]}, "method.exclude.0"),
        ({"name": "tsvm", "others": "median"}, "method.others"),
        ({"name": "wudi", "solver": "sgd"}, "method.solver"),
        ({"name": "wudi", "top_ratio": 0.5}, "top_ratio"),
        ({"name": "fda", "scope": "model"}, "method.scope"),
        ({"name": "fda", "start": 3}, "method.start"),
        ({"name": "fda", "start": {"name": "base", "scale": 1.0}}, "method.start"),
        ({"name": "fda", "start": {"name": "ties", "density": 2.0}}, "method.start.density"),
        ({"name": "fda", "construct": 3}, "method.construct"),
        ({"name": "fda", "construct": [3]}, "method.construct"),
        ({"name": "fda", "construct": {"init": "zeros"}}, "method.construct.init"),
        ({"name": "fda", "construct": {"cosine": "both"}}, "method.construct.cosine"),
        ({"name": 3}, "method.name"),
        ({"name": ""}, "method.name"),
        ({"scale": 1.0}, "method.scale"),
        (3, "method"),
        ([], "method"),
        (None, "method"),
    ],
    ids=str,
)
def test_method_or_parameter_of_the_wrong_kind(world: World, method: Any, key: str) -> None:
    world.recipe["method"] = method
    refuse_kind(world, key)


def refuse_kind(world: World, key: str) -> None:
    """Check for a refusal as a recipe error, whichever of the two codes fits."""
    before = tree(world.root) | {"recipe.yaml": world.write().read_bytes()}
    outcome = world.merge()
    assert outcome.code == RECIPE
    assert outcome.error["code"] in ("bad_parameter", "unknown_key")
    assert key in outcome.error["message"]
    assert outcome.error["hint"]
    assert tree(world.root) == before


def test_weight_for_a_method_that_does_not_weigh(world: World) -> None:
    world.recipe["method"] = "tsvm"
    world.recipe["experts"][1]["weight"] = 0.25
    error = refuse(world, RECIPE, "bad_parameter", "'b'", "0.25", "tsvm")
    assert "fda methods" in error["hint"]


def test_weights_that_sum_to_nothing(world: World) -> None:
    for expert, weight in zip(world.recipe["experts"], (0.5, -0.5), strict=True):
        expert["weight"] = weight
    error = refuse(world, RECIPE, "bad_parameter", "0.5", "-0.5", "sum to 0")
    assert "normalize" in error["hint"]


def test_weight_for_fda_whose_start_does_not_weigh(world: World) -> None:
    world.recipe["method"] = {"name": "fda", "start": "tsvm"}
    world.recipe["experts"][1]["weight"] = 0.25
    refuse(world, RECIPE, "bad_parameter", "'b'", "0.25", "fda")


# --- the recipe -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("seed", -1, ("greater than or equal to 0", "-1")),
        ("seed", 2**63, (2**63,)),
        ("seed", 1.5, ("1.5",)),
        ("seed", True, ("True",)),
        ("seed", "0", ("'0'",)),
        ("seed", float("nan"), ("nan",)),
        ("seed", float("inf"), ("inf",)),
        ("shard_size", 10**6 - 1, (10**6, 10**6 - 1)),
        ("shard_size", 2**40 + 1, (2**40, 2**40 + 1)),
        ("shard_size", "plenty", ("'plenty'",)),
        ("shard_size", "1kB", ("1000", 10**6)),
        ("shard_size", float("inf"), ("inf",)),
        ("outside", "median", ("'median'", "'average'")),
        ("heads", True, ("True", "'keep'")),
        ("dtype", "bfloat16", ("bfloat16",)),
        ("dtype.output", "int8", ("'int8'", "'bfloat16'")),
        ("dtype.compute", "bfloat16", ("'bfloat16'", "'float64'")),
        ("base", "", ("''",)),
        ("base", 3, ("3",)),
        ("base", None, ("None",)),
        ("output", "", ("''",)),
        ("output", ["out"], ("['out']",)),
        ("experts", "a", ("'a'",)),
        ("experts", {"a": "b"}, ("'a'",)),
        ("experts", ["a"], ("experts.0", "'a'")),
        ("experts", None, ("None",)),
    ],
)
def test_value_of_the_recipe_out_of_range_or_of_the_wrong_kind(
    world: World, key: str, value: Any, words: tuple[object, ...]
) -> None:
    first, _, second = key.partition(".")
    world.recipe[first] = {second: value} if second else value
    refuse(world, RECIPE, "bad_parameter", key, *words)


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), "1", True, None])
def test_weight_that_is_no_number(world: World, weight: Any) -> None:
    world.recipe["experts"][1]["weight"] = weight
    shown = weight if isinstance(weight, float) else repr(weight)
    refuse(world, RECIPE, "bad_parameter", "experts.1.weight", shown)


@pytest.mark.parametrize(
    "name", ["../a", "a/b", "", ".", "-a", "a b", "ä", "x" * 65, "a\nb", "a\n"]
)
def test_expert_name_that_is_no_file_name(world: World, name: str) -> None:
    world.recipe["experts"][0]["name"] = name
    refuse(world, RECIPE, "bad_parameter", "experts.0", repr(name)[1:-1][:40])


@pytest.mark.parametrize("names", [("a", "a"), ("a", "A")])
def test_two_experts_of_one_name(world: World, names: tuple[str, str]) -> None:
    for expert, name in zip(world.recipe["experts"], names, strict=True):
        expert["name"] = name
    error = refuse(world, RECIPE, "duplicate_expert", repr(names[1]))
    assert error["context"]["expert"] == names[1]


def test_no_experts(world: World) -> None:
    world.recipe["experts"] = []
    refuse(world, RECIPE, "no_experts", "no experts")


@pytest.mark.parametrize("key", ["base", "experts", "method"])
def test_key_that_is_missing(world: World, key: str) -> None:
    del world.recipe[key]
    refuse(world, RECIPE, "bad_parameter", key, "required")


def test_no_output(world: World) -> None:
    del world.recipe["output"]
    error = refuse(world, RECIPE, "recipe_invalid", "output")
    assert "--output" in error["hint"]


@pytest.mark.parametrize(
    ("place", "key", "near"),
    [
        ((), "expert", "experts"),
        ((), "ouput", "output"),
        (("experts", 0), "wieght", "weight"),
        (("dtype",), "outptu", "output"),
    ],
)
def test_unknown_key_names_the_nearest(
    world: World, place: tuple[Any, ...], key: str, near: str
) -> None:
    world.recipe["dtype"] = {}
    here: Any = world.recipe
    for step in place:
        here = here[step]
    here[key] = 1
    path = ".".join(map(str, (*place, key)))
    error = refuse(world, RECIPE, "unknown_key", path)
    assert f"Did you mean {near!r}?" in error["hint"]


def test_output_that_is_a_folder_already(world: World) -> None:
    world.output.mkdir()
    (world.output / "precious.txt").write_text("mine")
    refuse(world, RECIPE, "output_exists", world.output)


def test_output_that_is_a_file_already(world: World) -> None:
    world.output.write_text("mine")
    refuse(world, RECIPE, "output_exists", world.output)


def test_output_that_is_a_link(world: World) -> None:
    """To nothing or to an empty folder: a folder cannot be moved there, which took all the work."""
    world.output.symlink_to(world.path("elsewhere"))
    refuse(world, RECIPE, "output_exists", world.output, "link", world.path("elsewhere"))
    world.path("elsewhere").mkdir()
    refuse(world, RECIPE, "output_exists", world.output, "link", world.path("elsewhere"))


def test_output_that_holds_empty_folders(world: World) -> None:
    (world.output / "old").mkdir(parents=True)
    refuse(world, RECIPE, "output_exists", world.output, "empty folders")


def test_output_of_another_recipe(world: World) -> None:
    assert world.merge().code == 0
    world.recipe["method"] = "ties"
    refuse(world, RECIPE, "output_exists", world.output)


def test_output_where_a_folder_is_a_file(world: World) -> None:
    (world.root / "file").write_text("mine")
    world.recipe["output"] = str(world.root / "file" / "out")
    world.write()
    before = tree(world.root)
    outcome = world.merge()
    assert (outcome.code, outcome.error["code"]) == (STORAGE, "forbidden")
    assert f"{world.root}/file" in outcome.error["message"]
    assert "a file is in the way" in outcome.error["message"]
    assert tree(world.root) == before


@pytest.mark.parametrize(
    ("output", "culprit"),
    [("base", "base"), ("base/merged", "base"), ("a/x/y", "a"), ("b/../a/out", "a"), (".", "base")],
)
def test_output_and_input_inside_one_another(world: World, output: str, culprit: str) -> None:
    world.recipe["output"] = f"{world.root}/{output}"
    refuse(world, RECIPE, "output_inside_input", f"the input {culprit} at", world.path(culprit))


def test_output_whose_name_begins_like_an_inputs_is_not_inside_it(world: World) -> None:
    world.recipe["output"] = str(world.root / "base-merged")
    assert world.merge().code == 0


@pytest.mark.parametrize(
    ("workspace", "culprit"),
    [("out", "output"), ("out/work", "output"), ("base/work", "input base"), ("b", "input b")],
)
def test_workspace_inside_the_output_or_an_input(
    world: World, workspace: str, culprit: str
) -> None:
    arguments = ("--workspace", world.root / workspace)
    refuse(
        *(world, RECIPE, "output_inside_input", f"the {culprit} at", world.root / workspace),
        arguments=arguments,
    )


def _write_recipe(world: World, text: str | bytes) -> Path:
    path = world.root / "recipe.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("base: [unclosed", ("line 1",)),
        ("base: a\n  experts: b: c", ("line 2",)),
        ("base: a\nseed: 1\nbase: b\n", ("line 3", "'base'", "twice")),
        ("dtype:\n  output: float32\n  output: float16\n", ("line 3", "'output'", "twice")),
        ("method: {name: ties, name: linear}", ("line 1", "'name'", "twice")),
        ("", ("mapping",)),
        ("# only a comment\n", ("mapping",)),
        ("- base: a\n- output: b\n", ("mapping", "list")),
        ("just words", ("mapping", "str")),
        ("3", ("mapping", "int")),
        ("1: 2", ("line 1", "1")),
        ("? [a, b]\n: c", ("line 1",)),
        ("base: !!python/object/apply:os.system ['true']", ("line 1",)),
        ("a: &x 1\nb: *x\n", ("aliases",)),
        ("base: a\n---\nbase: b\n", ("line 2",)),
        ("base: \0", ()),
        ("[" * 5000, ()),
        ("seed: " + "9" * 5000, ()),
    ],
    ids=lambda value: repr(value)[:30] if isinstance(value, str) else "",
)
def test_text_that_is_no_recipe(world: World, text: str, words: tuple[str, ...]) -> None:
    path = _write_recipe(world, text)
    before = tree(world.root)
    check_error(fda("merge", path, "--json"), RECIPE, "recipe_invalid", *words)
    assert tree(world.root) == before


def test_recipe_that_is_not_text(world: World) -> None:
    path = _write_recipe(world, b"\xff\xfe\xfa")
    check_error(fda("merge", path, "--json"), RECIPE, "recipe_invalid", path)


def test_stdin_that_is_closed_or_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    check_error(fda("plan", "-", "--json"), RECIPE, "recipe_invalid", "stdin is closed")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"base: \xff")))
    check_error(fda("plan", "-", "--json"), RECIPE, "recipe_invalid", "stdin", "as text")


def test_recipe_that_is_a_folder(world: World) -> None:
    check_error(fda("merge", world.root, "--json"), RECIPE, "recipe_invalid", world.root)


@pytest.mark.parametrize("command", ["merge", "plan"])
def test_recipe_that_is_not_there(world: World, command: str) -> None:
    path = world.root / "nowhere.yaml"
    before = tree(world.root)
    check_error(fda(command, path, "--json"), STORAGE, "not_found", path)
    assert tree(world.root) == before


# --- the command line -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "code", "words"),
    [
        ("seed", "bad_parameter", ("'seed'", "key.path=value")),
        ("=3", "bad_parameter", ("'=3'",)),
        ("a..b=3", "bad_parameter", ("'a..b=3'",)),
        ("base.x=3", "bad_parameter", ("base",)),
        ("experts.9.weight=3", "bad_parameter", ("experts.9", "2 entries")),
        ("experts.first.weight=3", "bad_parameter", ("experts.first", "2 entries")),
        ("experts.-1.weight=3", "bad_parameter", ("experts.-1", "2 entries")),
        ("sed=3", "unknown_key", ("sed",)),
        ("seed=three", "bad_parameter", ("seed", "'three'")),
        ("seed=[", "recipe_invalid", ("line 1",)),
        ("method.sclae=3", "unknown_key", ("method.sclae",)),
        ("method=tiess", "unknown_method", ("'tiess'",)),
        ("method.scale=.nan", "bad_parameter", ("method.scale", "nan")),
        ("dtype.output=int8", "bad_parameter", ("dtype.output", "'int8'")),
        ("experts.0.name=b", "duplicate_expert", ("'b'",)),
    ],
)
def test_set_that_does_not_work(
    world: World, setting: str, code: str, words: tuple[str, ...]
) -> None:
    refuse(world, RECIPE, code, *words, arguments=("--set", setting))


@pytest.mark.parametrize("option", ["--workers", "--threads"])
@pytest.mark.parametrize("count", [0, -1])
def test_fewer_workers_or_threads_than_one(world: World, option: str, count: int) -> None:
    refuse(world, RECIPE, "bad_parameter", option, count, arguments=(option, count))


@pytest.mark.parametrize("arguments", [("--workers", "many"), ("--wrokers", "2")])
def test_option_that_the_command_does_not_have(world: World, arguments: tuple[str, str]) -> None:
    world.write()
    before = tree(world.root)
    outcome = world.merge(*arguments)
    assert outcome.code == RECIPE
    assert arguments[0] in outcome.err
    assert outcome.error["code"] == "bad_parameter"
    assert arguments[0] in outcome.error["message"]
    assert tree(world.root) == before


@pytest.mark.parametrize("words", [["plan"], ["mrge"], ["merge", "a", "b"], ["merge", "--set"]])
def test_wrong_arguments_are_a_json_document_too(words: list[str]) -> None:
    outcome = fda("--json", *words) if words == ["mrge"] else fda(*words, "--json")
    assert outcome.code == RECIPE
    assert outcome.error["code"] == "bad_parameter"
    assert outcome.error["message"]
    assert outcome.err


@pytest.mark.parametrize("device", ["nonsense", "", "mps", "meta", "cuda:x", "cpu:1x"])
@pytest.mark.parametrize("workers", [1, 2])
def test_device_that_is_none(world: World, device: str, workers: int) -> None:
    arguments = ("--device", device, "--workers", workers)
    error = refuse(world, RESOURCES, "no_device", repr(device), arguments=arguments)
    assert error["blame"] == "user"
    assert "auto, cpu, cuda" in error["hint"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_cuda_on_a_machine_without(world: World, device: str) -> None:
    refuse(world, RESOURCES, "no_device", device, "0 CUDA", arguments=("--device", device))


def test_disk_without_room_for_the_output(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    little = FreeSpace(disk="only", free_bytes=1000)
    monkeypatch.setattr(LocalStorage, "free_space", lambda *_: little)
    refuse(world, RESOURCES, "out_of_disk", world.root, "1000 are free")


@pytest.mark.parametrize("full", ["workspace", "output"])
@pytest.mark.parametrize("shards", [False, True])
def test_each_disk_must_have_room_for_what_goes_there(
    world: World, monkeypatch: pytest.MonkeyPatch, full: str, shards: bool
) -> None:
    """Final shards go beside the output at once; the workspace then needs no room for them."""
    if shards:
        large = base_model(vocab_size=20_000)
        world.replace("base", large)
        for seed, name in enumerate("ab"):
            world.replace(name, expert_of(large, seed))
        world.recipe["shard_size"] = 10**6
    apart = world.path("elsewhere")

    def free(_: LocalStorage, uri: str) -> FreeSpace:
        is_apart = uri.startswith(str(apart))
        left = 1000 if is_apart == (full == "workspace") else 10**12
        return FreeSpace(disk=f"apart {is_apart}", free_bytes=left)

    monkeypatch.setattr(LocalStorage, "free_space", free)
    if full == "workspace" and shards:
        assert world.merge("--workspace", apart).code == 0
        return
    where = apart if full == "workspace" else world.output
    refuse(
        world,
        RESOURCES,
        "out_of_disk",
        f"{where}: ",
        "1000 are free",
        arguments=("--workspace", apart),
    )


@pytest.mark.parametrize("is_one_disk", [False, True])
def test_places_share_a_disk_by_its_name_and_not_by_what_is_left(
    world: World, monkeypatch: pytest.MonkeyPatch, is_one_disk: bool
) -> None:
    """Two disks with equally much left have room that one of them has not."""
    apart = world.path("elsewhere")
    recipe = read_recipe(world.write().read_text())
    plan = make_plan(recipe, storages(), cwd=str(world.root), workspace=str(apart))
    largest = max(
        sum(unit.write_bytes for unit in plan.units if (unit.kind == "publish") is publishes)
        for publishes in (False, True)
    )

    def free(_: LocalStorage, uri: str) -> FreeSpace:
        disk = "one" if is_one_disk or uri.startswith(str(apart)) else "another"
        return FreeSpace(disk=disk, free_bytes=largest)

    monkeypatch.setattr(LocalStorage, "free_space", free)
    if is_one_disk:
        with pytest.raises(OutOfDisk, match=f"{largest} are free"):
            check_can_write(plan, storages(), done=())
    else:
        check_can_write(plan, storages(), done=())


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_other_commands_on_nothing(tmp_path: Path, command: str) -> None:
    nothing = tmp_path / "nothing"
    check_error(fda(command, nothing, "--json"), STORAGE, "not_found", nothing)
    check_error(fda("diff", nothing, nothing, "--json"), STORAGE, "not_found", nothing)


def test_verify_of_a_checkpoint_that_is_no_output(world: World) -> None:
    outcome = fda("verify", world.path("base"), "--json")
    check_error(outcome, STORAGE, "not_found", world.path("base"), "merge_manifest.json")


def test_methods_of_an_unknown_name() -> None:
    error = check_error(fda("methods", "tsvn", "--json"), RECIPE, "unknown_method", "'tsvn'")
    assert "'tsvm'" in error["hint"]


def test_diff_of_checkpoints_of_different_widths(world: World) -> None:
    world.replace("a", expert_of(base_model(hidden_size=32), 1))
    outcome = fda("diff", world.path("base"), world.path("a"), "--json")
    check_error(outcome, CHECKPOINT, "shape_mismatch", "bert.", "32", "16")


@pytest.mark.parametrize("number", BAD_NUMBERS)
def test_diff_of_a_checkpoint_with_a_bad_number(world: World, number: float) -> None:
    world.replace("a", _poisoned(expert_of(BASE, 1), QUERY, number, (3, 5)))
    outcome = fda("diff", world.path("base"), world.path("a"), "--json")
    check_error(outcome, NUMERICS, "non_finite", QUERY, "[3, 5]", number)


# --- bugs and interruptions -------------------------------------------------------------


def test_bug_of_ours_while_planning(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("fda_core.cli.merge.make_plan", broken)
    error = refuse(world, OUR_BUG, "internal_error", "KeyError", "a bug")
    assert error["blame"] == "us"
    assert "--debug" in error["hint"]


def test_bug_of_ours_in_a_unit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setitem(units.RUNNERS, "merge", broken)
    check_error(world.merge(), OUR_BUG, "internal_error", "ZeroDivisionError", "division by zero")
    unharmed(world)
    assert "Traceback" in world.merge("--debug").err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_merge_ends_with_130_and_goes_on_later(
    world: World, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    real = units.RUNNERS["merge"]

    def asked_to_stop(context: Any) -> Any:
        record = real(context)
        os.kill(os.getpid(), number)
        return record

    with monkeypatch.context() as patch:
        patch.setitem(units.RUNNERS, "merge", asked_to_stop)
        outcome = world.merge()
    assert outcome.code == INTERRUPTED
    assert "1 of 2 units are kept" in outcome.err
    assert str(world.root) in outcome.err
    assert signal.getsignal(number) is before
    unharmed(world)
    again = world.merge()
    assert again.code == 0
    assert again.data["units_from_journal"] == 1


def test_interrupted_while_planning(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fda_core.cli.merge.make_plan", interrupted)
    assert world.merge().code == INTERRUPTED
    unharmed(world)


def test_words_of_errors_survive_what_looks_like_markup(world: World) -> None:
    odd = world.root / "x[" / "b]" / "[red]out"
    outcome = world.merge("--output", odd)
    assert outcome.code == 0, outcome.err
    error = check_error(
        world.merge("--output", odd, "--set", "seed=1"), RECIPE, "output_exists", odd
    )
    assert error["context"]["output"] == str(odd)
