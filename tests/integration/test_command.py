"""The `fda` command from end to end on tiny models: what it writes and what it says.

Merges run in the test's process unless a test is about processes. Weights are read back by
the safetensors library and compared with sums written out here, in float64.
"""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from fda_core import __version__
from fda_core.methods.registry import METHODS, method_class
from tests.support.checkpoints import (
    DECODER,
    PREFIX,
    WORDS,
    Checkpoint,
    RecipeFile,
    base_model,
    expert_of,
    read_tensors,
    with_tied_copy,
)
from tests.support.command import fda, succeed, tree
from tests.support.models import MODELS, save_expert, save_model

FDA = {
    "name": "fda",
    "construct": {"anchors": 4, "steps": 6},
    "adapt": {"epochs": 2, "learning_rate": 1e-3},
}
HERE = ("--workers", 1, "--device", "cpu")
BASE = base_model()
A, B, C = (expert_of(BASE, seed) for seed in (1, 2, 3))
QUERY = "bert.encoder.layer.1.attention.self.query.weight"
POOLER = "bert.pooler.dense.weight"


class Bench:
    """A folder to save checkpoints and to merge in."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def save(self, **models: Checkpoint) -> None:
        for name, model in models.items():
            model.save(self.root / name)

    def recipe(
        self, *experts: str, output: str = "out", method: Any = "linear", **more: Any
    ) -> Path:
        recipe = RecipeFile(
            base=self.root / "base",
            experts={name: self.root / name for name in experts},
            output=self.root / output,
            method=method,
            more=more,
        )
        return recipe.write(self.root / f"{output}.yaml")

    def merge(self, *experts: str, output: str = "out", **more: Any) -> dict[str, Tensor]:
        """Merge and return the output's tensors."""
        succeed("merge", self.recipe(*experts, output=output, **more), *HERE)
        return read_tensors(self.root / output)

    def document(self, name: str, *, output: str = "out") -> Any:
        return json.loads((self.root / output / f"{name}.json").read_text())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    made.save(base=BASE, a=A, b=B)
    return made


def weighted(
    base: Mapping[str, Tensor], experts: list[tuple[Mapping[str, Tensor], float]], name: str
) -> Tensor:
    """Return base + Σ w τ in float64."""
    start = base[name].double()
    return start + sum((w * (expert[name].double() - start) for expert, w in experts), 0 * start)


def assert_same(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    """Check for the same names and the same bits."""
    assert set(ours) == set(theirs)
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype, name
        assert torch.equal(tensor, theirs[name]), name


# --- merging ----------------------------------------------------------------------------


def test_linear_is_the_mean_of_the_experts(bench: Bench) -> None:
    merged = bench.merge("a", "b")
    assert set(merged) == set(BASE.tensors)
    for name, tensor in merged.items():
        if name.startswith(PREFIX):
            mean = (A.tensors[name].double() + B.tensors[name].double()) / 2
            torch.testing.assert_close(tensor.double(), mean, rtol=1e-6, atol=1e-7)
        else:
            assert torch.equal(tensor, BASE.tensors[name]), "the base's head stays"


def test_weights_of_experts_count(bench: Bench) -> None:
    path = bench.recipe("a", "b")
    succeed("merge", path, *HERE, "--set", "experts.0.weight=3")
    merged = read_tensors(bench.root / "out")
    wanted = weighted(BASE.tensors, [(A.tensors, 0.75), (B.tensors, 0.25)], QUERY)
    torch.testing.assert_close(merged[QUERY].double(), wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "method",
    [
        "linear",
        {"name": "ties", "density": 0.5},
        "tsvm",
        {"name": "wudi", "steps": 20},
        FDA,
        {**FDA, "start": "tsvm"},
        {**FDA, "start": {"name": "task_arithmetic", "scale": 0.5}},
    ],
    ids=["linear", "ties", "tsvm", "wudi", "fda", "fda-from-tsvm", "fda-from-task-arithmetic"],
)
def test_output_is_whole_and_verifies(bench: Bench, method: Any) -> None:
    said = succeed("merge", bench.recipe("a", "b", method=method), *HERE)
    output = bench.root / "out"
    assert said["status"] == "succeeded"
    assert said["output"] == str(output)
    assert Path(said["report"]).is_file()
    assert said["already_done"] is False
    assert said["units"] == (8 if method != "linear" and "construct" in method else 2)
    assert [row["layer"] for row in said["layers"]] == [0, 1, None]

    merged = read_tensors(output)
    assert {n: (t.shape, t.dtype) for n, t in merged.items()} == {
        n: (t.shape, t.dtype) for n, t in BASE.tensors.items()
    }
    assert all(bool(t.isfinite().all()) for t in merged.values())
    assert not torch.equal(merged[QUERY], BASE.tensors[QUERY])

    files = {p.relative_to(output).as_posix() for p in output.rglob("*") if p.is_file()}
    assert files == {
        "README.md",
        "config.json",
        "heads/a.safetensors",
        "heads/b.safetensors",
        "merge_manifest.json",
        "merge_metrics.json",
        "merge_recipe.yaml",
        "merge_report.html",
        "model.safetensors",
    }
    checked = succeed("verify", output)
    assert checked == {"status": "intact", "job_id": said["job_id"], "files": len(files) - 1}
    left = {path.name for path in bench.root.iterdir()}
    assert left == {"a", "b", "base", "out", "out.yaml", ".fda-workspace"}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_in_the_registry_runs(bench: Bench, name: str) -> None:
    merged = bench.merge("a", "b", method=FDA if name == "fda" else name)
    assert not torch.equal(merged[QUERY], BASE.tensors[QUERY])
    assert torch.equal(merged["cls.predictions.bias"], BASE.tensors["cls.predictions.bias"])
    assert bench.document("merge_metrics")["method"] == name
    assert succeed("verify", bench.root / "out")["status"] == "intact"


def test_adaptation_brings_the_layer_nearer_to_the_experts(bench: Bench) -> None:
    method = {**FDA, "construct": {"anchors": 16, "steps": 60}, "adapt": {"epochs": 60}}
    method["adapt"]["learning_rate"] = 1e-3
    bench.merge("a", "b", method=method)
    metrics = bench.document("merge_metrics")
    assert len(metrics["adaptation"]) == 2
    for layer in metrics["adaptation"]:
        assert layer["loss"]["values"][-1] < layer["loss"]["values"][0]
        for drift in layer["drift"].values():
            assert drift["start"] == pytest.approx(1)
            assert drift["result"] < 0.9
    for built in metrics["construction"]:
        assert built["alignment_best"] > built["alignment_start"]


def test_transformers_loads_the_output(bench: Bench) -> None:
    from transformers import AutoModel, AutoModelForMaskedLM

    merged = bench.merge("a", "b", method=FDA)
    model, told = AutoModel.from_pretrained(bench.root / "out", output_loading_info=True)
    assert not told["missing_keys"]
    state = model.state_dict()
    for name, tensor in merged.items():
        if name.startswith(PREFIX):
            assert torch.equal(state[name.removeprefix(PREFIX)], tensor), name
    whole = AutoModelForMaskedLM.from_pretrained(bench.root / "out")
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    assert bool(whole(input_ids=ids).logits.isfinite().all())


def test_same_recipe_twice_is_done_already(bench: Bench) -> None:
    path = bench.recipe("a", "b")
    first = succeed("merge", path, *HERE)
    before = tree(bench.root)
    second = succeed("merge", path, *HERE)
    assert tree(bench.root) == before
    assert second["already_done"] is True
    assert second["job_id"] == first["job_id"]
    plain = fda("merge", path, *HERE)
    assert plain.code == 0
    assert "finished already" in plain.out


def test_same_recipe_elsewhere_gives_the_same_bytes(bench: Bench) -> None:
    for output in ("one", "two"):
        succeed("merge", bench.recipe("a", "b", output=output, method=FDA), *HERE)
    files = [bench.root / output / "model.safetensors" for output in ("one", "two")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.slow
def test_two_workers_give_the_bytes_of_one(bench: Bench) -> None:
    for workers in (1, 2):
        path = bench.recipe("a", "b", output=f"by{workers}", method=FDA)
        said = succeed(
            *("merge", path, "--workers", workers, "--device", "cpu"),
            *("--workspace", bench.root / f"work{workers}"),
        )
        assert said["units_from_cache"] == 0
    one, two = (bench.root / f"by{workers}" / "model.safetensors" for workers in (1, 2))
    assert one.read_bytes() == two.read_bytes()
    ran = json.loads((bench.root / "by2" / "merge_manifest.json").read_text())
    assert ran["threads"] == 1


def test_error_in_a_worker_process_is_told_in_full(bench: Bench) -> None:
    bad = A.tensors[QUERY].clone()
    bad[3, 5] = float("nan")
    A.with_tensors({QUERY: bad}).save(bench.root / "bad")
    outcome = fda("merge", bench.recipe("bad", "b"), "--workers", 2, "--device", "cpu", "--json")
    assert outcome.code == 5
    assert outcome.error["code"] == "non_finite"
    assert outcome.error["context"]["position"] == [3, 5]
    assert outcome.error["hint"]
    assert not (bench.root / "out").exists()


def test_words_for_people_name_output_and_report(bench: Bench) -> None:
    outcome = fda("merge", bench.recipe("a", "b", output="a[b]c", method=FDA), *HERE)
    assert outcome.code == 0
    assert f"output  {bench.root}/a[b]c\n" in outcome.out
    assert f"report  {bench.root}/a[b]c/merge_report.html\n" in outcome.out
    assert "fda of 2 experts, bert, 2 layers: 8 units" in " ".join(outcome.err.split())
    quiet = fda("merge", bench.recipe("a", "b", output="still"), *HERE, "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


def test_recipe_from_stdin(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    text = bench.recipe("a", "b", notes=["für später"]).read_text()
    piped = io.TextIOWrapper(io.BytesIO(text.encode()), encoding="ascii")
    monkeypatch.setattr("sys.stdin", piped)
    assert succeed("merge", "-", *HERE)["output"] == str(bench.root / "out")


def test_relative_addresses_are_taken_from_the_current_folder(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bench.root)
    experts = {"a": "a", "b": "./x/../b/"}
    path = RecipeFile(base="base", experts=experts, output="out").write(bench.root / "r.yaml")
    assert succeed("merge", path, *HERE)["output"] == str(bench.root / "out")


def test_recipe_written_beside_the_output_makes_the_same_model(bench: Bench) -> None:
    bench.merge("a", "b", method=FDA)
    again = bench.root / "again"
    succeed("merge", bench.root / "out" / "merge_recipe.yaml", *HERE, "--output", again)
    assert_same(read_tensors(again), read_tensors(bench.root / "out"))


# --- manifest and verification ----------------------------------------------------------


def test_manifest_has_the_digests_of_what_went_in_and_came_out(bench: Bench) -> None:
    bench.merge("a", "b")
    manifest = bench.document("merge_manifest")
    output = bench.root / "out"
    for name, file in manifest["outputs"].items():
        raw = (output / name).read_bytes()
        assert file["path"] == name
        assert file["size_bytes"] == len(raw)
        assert file["sha256"] == hashlib.sha256(raw).hexdigest()
    inputs = {file["role"]: file for file in manifest["inputs"]}
    assert set(inputs) == {"base", "a", "b"}
    for role, file in inputs.items():
        raw = (bench.root / role / "model.safetensors").read_bytes()
        assert file["uri"] == str(bench.root / role / "model.safetensors")
        assert file["sha256"] == hashlib.sha256(raw).hexdigest()
    assert manifest["method"] == "linear"
    assert manifest["parameters"]["normalize"] is True


PUBLISHED = [
    "model.safetensors",
    "config.json",
    "heads/b.safetensors",
    "merge_metrics.json",
    "merge_report.html",
    "README.md",
]


@pytest.mark.parametrize("name", PUBLISHED)
def test_one_flipped_bit_is_found(bench: Bench, name: str) -> None:
    bench.merge("a", "b")
    path = bench.root / "out" / name
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    outcome = fda("verify", bench.root / "out", "--json")
    assert (outcome.code, outcome.error["code"]) == (3, "output_corrupt")
    assert str(path) in outcome.error["message"]
    assert outcome.error["context"]["file"] == name
    assert outcome.error["hint"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_missing_file_is_found(bench: Bench, name: str) -> None:
    bench.merge("a", "b")
    (bench.root / "out" / name).unlink()
    outcome = fda("verify", bench.root / "out", "--json")
    assert (outcome.code, outcome.error["code"]) == (3, "output_corrupt")
    assert f"{bench.root}/out/{name} is missing" in outcome.error["message"]


def test_a_longer_file_is_found(bench: Bench) -> None:
    bench.merge("a", "b")
    with (bench.root / "out" / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    outcome = fda("verify", bench.root / "out", "--json")
    assert (outcome.code, outcome.error["code"]) == (3, "output_corrupt")


def test_a_damaged_manifest_is_found(bench: Bench) -> None:
    bench.merge("a", "b")
    manifest = bench.root / "out" / "merge_manifest.json"
    manifest.write_text(manifest.read_text()[:-20])
    outcome = fda("verify", bench.root / "out", "--json")
    assert (outcome.code, outcome.error["code"]) == (3, "output_corrupt")
    assert "merge_manifest.json" in outcome.error["message"]
    assert outcome.error["hint"]


# --- what becomes of which tensor -------------------------------------------------------


@pytest.mark.parametrize("heads", ["keep", "drop"])
def test_heads_are_kept_aside_or_dropped(bench: Bench, heads: str) -> None:
    bench.merge("a", "b", heads=heads)
    if heads == "drop":
        assert not (bench.root / "out" / "heads").exists()
        return
    for name, model in (("a", A), ("b", B)):
        kept = load_file(bench.root / "out" / "heads" / f"{name}.safetensors")
        own = {n: t for n, t in model.tensors.items() if not n.startswith(PREFIX)}
        assert_same(kept, own)


@pytest.mark.parametrize("method", ["linear", "ties", FDA], ids=["linear", "ties", "fda"])
def test_outside_base_keeps_the_bits_of_the_base(bench: Bench, method: Any) -> None:
    merged = bench.merge("a", "b", method=method, outside="base")
    for name, tensor in merged.items():
        if "encoder" not in name:
            assert torch.equal(tensor, BASE.tensors[name]), name
    assert not torch.equal(merged[QUERY], BASE.tensors[QUERY])


@pytest.mark.parametrize("method", ["ties", FDA], ids=["ties", "fda"])
def test_outside_average_is_the_mean_of_the_experts(bench: Bench, method: Any) -> None:
    merged = bench.merge("a", "b", method=method, outside="average")
    for name in (PREFIX + WORDS, POOLER, "bert.embeddings.LayerNorm.bias"):
        mean = (A.tensors[name].double() + B.tensors[name].double()) / 2
        torch.testing.assert_close(merged[name].double(), mean, rtol=1e-6, atol=1e-7)


def test_outside_average_does_not_weigh(bench: Bench) -> None:
    path = bench.recipe("a", "b", outside="average")
    succeed("merge", path, *HERE, "--set", "experts.0.weight=3")
    mean = (A.tensors[POOLER].double() + B.tensors[POOLER].double()) / 2
    found = read_tensors(bench.root / "out")[POOLER].double()
    torch.testing.assert_close(found, mean, rtol=1e-6, atol=1e-7)


def test_outside_start_is_what_the_start_makes_of_it(bench: Bench) -> None:
    start = {"name": "task_arithmetic", "scale": 0.4}
    merged = bench.merge("a", "b", output="fda", method={**FDA, "start": start}, outside="start")
    alone = bench.merge("a", "b", output="alone", method=start)
    outside = [name for name in merged if "encoder" not in name]
    assert outside
    for name in outside:
        assert torch.equal(merged[name], alone[name]), name
    wanted = weighted(BASE.tensors, [(A.tensors, 0.4), (B.tensors, 0.4)], PREFIX + WORDS)
    torch.testing.assert_close(merged[PREFIX + WORDS].double(), wanted, rtol=1e-6, atol=1e-7)


def test_fda_from_the_base_leaves_everything_outside_at_the_base(bench: Bench) -> None:
    merged = bench.merge("a", "b", method=FDA)
    for name, tensor in merged.items():
        assert torch.equal(tensor, BASE.tensors[name]) == ("encoder" not in name), name


def test_fda_without_epochs_is_its_start(bench: Bench) -> None:
    method = {**FDA, "start": "ties", "adapt": {"epochs": 0}}
    merged = bench.merge("a", "b", output="fda", method=method)
    assert_same(merged, bench.merge("a", "b", output="ties", method="ties"))


@pytest.mark.parametrize("outside", ["base", "average", "start"])
def test_tied_tensors_stay_tied(tmp_path: Path, outside: str) -> None:
    bench = Bench(tmp_path)
    bench.save(base=with_tied_copy(BASE), a=A, b=B)
    merged = bench.merge("a", "b", outside=outside)
    assert torch.equal(merged[DECODER], merged[PREFIX + WORDS])
    assert torch.equal(merged[DECODER], BASE.tensors[PREFIX + WORDS]) == (outside == "base")
    notes = bench.document("merge_manifest")["notes"]
    assert any(DECODER in note and PREFIX + WORDS in note for note in notes)


def test_tensors_that_config_unties_are_a_head_of_their_own(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    base = with_tied_copy(BASE).with_config(tie_word_embeddings=False)
    bench.save(base=base, a=A, b=B)
    merged = bench.merge("a", "b")
    assert torch.equal(merged[DECODER], base.tensors[DECODER])
    assert not torch.equal(merged[PREFIX + WORDS], base.tensors[PREFIX + WORDS])


@pytest.mark.parametrize("bare", [("base",), ("a",), ("a", "b"), ("base", "a", "b")])
def test_prefix_lacking_on_any_side_changes_no_number(bench: Bench, bare: tuple[str, ...]) -> None:
    usual = bench.merge("a", "b", output="usual", method="ties")
    other = Bench(bench.root / "other")
    models = {"base": BASE, "a": A, "b": B}
    other.save(**{n: m.without_prefix() if n in bare else m for n, m in models.items()})
    merged = other.merge("a", "b", method="ties")
    if "base" in bare:
        usual = {name.removeprefix(PREFIX): tensor for name, tensor in usual.items()}
    assert_same(merged, usual)
    notes = " ".join(other.document("merge_manifest")["notes"])
    for name in ("a", "b"):
        assert (f"{name}: its " in notes) == ((name in bare) != ("base" in bare)), notes


def test_old_spellings_of_norms_change_no_number(bench: Bench) -> None:
    usual = bench.merge("a", "b", output="usual")
    old = {
        n.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): t
        for n, t in A.tensors.items()
    }
    assert set(old) != set(A.tensors)
    Checkpoint(config=A.config, tensors=old).save(bench.root / "old")
    assert_same(bench.merge("old", "b"), usual)


def test_expert_without_pooler_takes_no_part_in_it(bench: Bench) -> None:
    B.without("pooler").save(bench.root / "nopool")
    merged = bench.merge("a", "nopool")
    for name in (POOLER, "bert.pooler.dense.bias"):
        alone = A.tensors[name].double()
        torch.testing.assert_close(merged[name].double(), alone, rtol=1e-6, atol=1e-7)
    mean = (A.tensors[QUERY].double() + B.tensors[QUERY].double()) / 2
    torch.testing.assert_close(merged[QUERY].double(), mean, rtol=1e-6, atol=1e-7)
    notes = bench.document("merge_manifest")["notes"]
    assert any("merged from a alone" in note and POOLER in note for note in notes)


def test_pooler_that_no_expert_has_stays_the_bases(bench: Bench) -> None:
    for name, model in (("x", A), ("y", B)):
        model.without("pooler").save(bench.root / name)
    merged = bench.merge("x", "y", method=FDA, outside="average")
    assert torch.equal(merged[POOLER], BASE.tensors[POOLER])
    notes = bench.document("merge_manifest")["notes"]
    assert any("no expert has it" in note and POOLER in note for note in notes)


def test_pooler_that_the_base_lacks_is_set_aside_and_said(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.save(base=BASE.without("pooler"), a=A)
    merged = bench.merge("a")
    assert POOLER not in merged
    kept = load_file(tmp_path / "out" / "heads" / "a.safetensors")
    assert torch.equal(kept[POOLER], A.tensors[POOLER])
    assert any(POOLER in warning for warning in bench.document("merge_manifest")["warnings"])


def test_buffers_stay_the_bases(tmp_path: Path) -> None:
    ids = "bert.embeddings.position_ids"
    bench = Bench(tmp_path)
    bench.save(base=BASE.with_tensors({ids: torch.arange(20)[None]}), a=A, b=B)
    merged = bench.merge("a", "b")
    assert torch.equal(merged[ids], torch.arange(20)[None])


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2fnuz", "float8_e8m0fnu"])
def test_a_buffer_of_any_dtype_stays_the_bases(bench: Bench, dtype: str) -> None:
    name = "bert.embeddings.token_type_ids"
    kept = torch.ones(3).to(getattr(torch, dtype))
    bench.save(odd=BASE.with_tensors({name: kept}))
    merged = bench.merge("a", "b", base=str(bench.root / "odd"))
    assert merged[name].dtype == kept.dtype
    assert torch.equal(merged[name].view(torch.uint8), kept.view(torch.uint8))


def test_a_head_in_eight_bit_floats_is_kept_aside(bench: Bench) -> None:
    head = A.tensors["classifier.weight"].to(torch.float8_e4m3fn)
    bench.save(odd=A.with_tensors({"classifier.weight": head}))
    bench.merge("odd", "b")
    kept = load_file(bench.root / "out" / "heads" / "odd.safetensors")["classifier.weight"]
    assert torch.equal(kept.view(torch.uint8), head.view(torch.uint8))


# --- degenerate experts -----------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_experts_that_changed_nothing_give_the_base(bench: Bench, name: str) -> None:
    for expert in ("x", "y"):
        expert_of(BASE, 1, size=0).save(bench.root / expert)
    merged = bench.merge("x", "y", method=FDA if name == "fda" else name)
    assert_same(merged, BASE.tensors)


def test_fda_with_an_expert_that_changed_nothing_follows_the_other(bench: Bench) -> None:
    expert_of(BASE, 1, size=0).save(bench.root / "x")
    said = succeed("merge", bench.recipe("a", "x", output="two", method=FDA), *HERE)
    assert said["units"] == 8
    alone = bench.merge("a", output="one", method=FDA)
    assert_same(read_tensors(bench.root / "two"), alone)


def test_fda_leaves_a_layer_that_nobody_changed_at_the_base(bench: Bench) -> None:
    for seed, name in enumerate(("x", "y")):
        expert_of(BASE, seed, layers=[1], outside=False).save(bench.root / name)
    merged = bench.merge("x", "y", method=FDA)
    for name, tensor in merged.items():
        assert torch.equal(tensor, BASE.tensors[name]) == ("layer.1" not in name), name


def test_linear_of_one_expert_is_that_expert(bench: Bench) -> None:
    merged = bench.merge("a")
    for name, tensor in merged.items():
        if name.startswith(PREFIX):
            torch.testing.assert_close(tensor, A.tensors[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", [n for n in METHODS if method_class(n).min_experts == 1])
def test_every_method_that_says_so_takes_one_expert(bench: Bench, name: str) -> None:
    merged = bench.merge("a", method=FDA if name == "fda" else name)
    assert all(bool(tensor.isfinite().all()) for tensor in merged.values())


def test_identical_experts_share_their_anchors(bench: Bench) -> None:
    A.save(bench.root / "again")
    said = succeed("merge", bench.recipe("a", "again", method=FDA), *HERE)
    assert said["units_from_cache"] == 2
    alone = bench.merge("a", output="alone")
    merged = bench.merge("a", "again", output="pair")
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, alone[name], rtol=1e-6, atol=1e-7)


def test_expert_that_is_the_base_itself(bench: Bench) -> None:
    bench.save(unchanged=BASE)
    assert_same(bench.merge("unchanged"), BASE.tensors)


# --- every family -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", MODELS)
def test_every_family_merges_with_fda_and_loads(tmp_path: Path, kind: str) -> None:
    model = save_model(kind, tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    base = Checkpoint(config=config, tensors=read_tensors(tmp_path / "base"))
    for seed, name in enumerate(("a", "b")):
        numbers = torch.Generator().manual_seed(seed)
        moved = {n: t + 0.02 * _noise(t, numbers) for n, t in base.tensors.items()}
        base.with_tensors(moved).save(tmp_path / name)
    bench = Bench(tmp_path)
    method = {**FDA, "start": "task_arithmetic"}
    merged = bench.merge("a", "b", method=method)
    assert {n: t.shape for n, t in merged.items()} == {n: t.shape for n, t in base.tensors.items()}
    assert bench.document("merge_metrics")["layers"] == 3
    changed = [name for name in merged if not torch.equal(merged[name], base.tensors[name])]
    assert len([name for name in changed if ".0." in name]) >= 6
    loaded, told = type(model).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    assert all(bool(p.isfinite().all()) for p in loaded.parameters())


def test_a_clip_that_leaves_out_what_is_as_by_default_has_the_same_plan(tmp_path: Path) -> None:
    """As transformers 4 wrote nested configs: a ViT-B/32 has next to nothing in its own."""
    from transformers import CLIPConfig, CLIPModel

    small = {"hidden_size": 24, "intermediate_size": 8}
    text = {**small, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=small, projection_dim=4))
    model.save_pretrained(tmp_path / "base")
    for seed, name in enumerate("ab"):
        save_expert(model, tmp_path / name, seed=seed)
    bench = Bench(tmp_path)
    recipe = bench.recipe("a", "b", method=FDA)
    full = succeed("plan", recipe)
    for folder in ("base", "b"):
        file = tmp_path / folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "vision_config": small}))
    sparse = succeed("plan", recipe)
    for plan in (full, sparse):
        assert plan["layers"] == 12
        assert plan["recipe"]["method"]["parameters"]["construct"]["tokens"] == 50
    assert sparse["units"] == full["units"]


def _noise(tensor: Tensor, numbers: torch.Generator) -> Tensor:
    return torch.randn(tensor.shape, generator=numbers)


# --- the anchor cache -------------------------------------------------------------------


def test_anchors_of_a_shared_expert_are_made_once(bench: Bench) -> None:
    C.save(bench.root / "c")
    first = succeed("merge", bench.recipe("a", "b", output="ab", method=FDA), *HERE)
    assert first["units_from_cache"] == 0
    path = bench.recipe("a", "c", output="ac", method=FDA)
    plan = succeed("plan", path)
    cached = {unit["id"] for unit in plan["units"] if unit["cached"]}
    assert cached == {"construct-000-a", "construct-001-a"}
    second = succeed("merge", path, *HERE)
    assert second["units_from_cache"] == 2
    again = bench.recipe("a", "c", output="fresh", method=FDA)
    fresh = succeed("merge", again, *HERE, "--workspace", bench.root / "empty")
    assert fresh["units_from_cache"] == 0
    assert_same(read_tensors(bench.root / "ac"), read_tensors(bench.root / "fresh"))


@pytest.mark.parametrize("setting", ["seed=1", "method.construct.steps=7", "dtype.compute=float64"])
def test_anchors_of_other_settings_are_not_taken(bench: Bench, setting: str) -> None:
    succeed("merge", bench.recipe("a", output="one", method=FDA), *HERE)
    other = bench.recipe("a", output="two", method=FDA)
    assert succeed("merge", other, *HERE, "--set", setting)["units_from_cache"] == 0


def test_anchors_are_kept_when_only_adaptation_changes(bench: Bench) -> None:
    succeed("merge", bench.recipe("a", output="one", method=FDA), *HERE)
    other = bench.recipe("a", output="two", method=FDA)
    said = succeed("merge", other, *HERE, "--set", "method.adapt.epochs=3")
    assert said["units_from_cache"] == 2


def test_damaged_anchors_are_made_again(bench: Bench) -> None:
    first = bench.merge("a", "b", output="one", method=FDA)
    for file in (bench.root / ".fda-workspace" / "anchors").rglob("anchors.bin"):
        raw = bytearray(file.read_bytes())
        raw[0] ^= 1
        file.write_bytes(raw)
    assert_same(bench.merge("a", "b", output="two", method=FDA), first)


def test_a_record_under_another_units_name_counts_as_none(bench: Bench) -> None:
    first = bench.merge("a", "b", method=FDA)
    shutil.rmtree(bench.root / "out")
    (records,) = (bench.root / ".fda-workspace" / "jobs").glob("*/records")
    shutil.copyfile(records / "construct-000-a.json", records / "construct-000-b.json")
    assert_same(bench.merge("a", "b", method=FDA), first)


# --- shards and dtypes ------------------------------------------------------------------


@pytest.mark.parametrize("method", ["linear", {**FDA, "adapt": {"epochs": 1}}])
def test_output_above_the_shard_size_is_sharded_with_a_right_index(
    tmp_path: Path, method: Any
) -> None:
    base = base_model(hidden_size=128, intermediate_size=192, num_hidden_layers=6)
    bench = Bench(tmp_path)
    bench.save(base=base, a=expert_of(base, 1), b=expert_of(base, 2))
    merged = bench.merge("a", "b", method=method, shard_size="1MiB")
    single = bench.merge("a", "b", output="single", method=method)
    assert_same(merged, single)

    output = tmp_path / "out"
    shards = sorted(path.name for path in output.glob("*.safetensors"))
    count = len(shards)
    assert count > 2
    assert shards == [f"model-{k:05d}-of-{count:05d}.safetensors" for k in range(1, count + 1)]
    index = bench.document("model.safetensors.index")
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in merged.values())
    held = {}
    for shard in shards:
        assert (output / shard).stat().st_size <= 2**20 + 2**14
        with safe_open(output / shard, framework="pt") as file:
            assert file.metadata() == {"format": "pt"}
            held |= dict.fromkeys(file.keys(), shard)
    assert index["weight_map"] == held
    layers = {n.split(".")[3]: f for n, f in held.items() if "encoder.layer" in n}
    for name, file in held.items():
        if "encoder.layer" in name:
            assert file == layers[name.split(".")[3]], "a layer is never split"
    assert succeed("verify", output)["status"] == "intact"
    assert not list(tmp_path.glob(".*.partial"))


def test_shard_left_over_beside_an_output_is_found(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.save(base=BASE, a=A)
    bench.merge("a")
    stray = tmp_path / "out" / "model.safetensors.index.json"
    stray.write_text(json.dumps({"weight_map": {"x": "model-2.safetensors"}}))
    assert fda("verify", tmp_path / "out", "--json").code == 3


@pytest.mark.parametrize("method", ["linear", FDA], ids=["linear", "fda"])
@pytest.mark.parametrize("name", ["bfloat16", "float16", "float64"])
def test_output_dtype_is_written_and_said(bench: Bench, method: Any, name: str) -> None:
    wide = bench.merge("a", "b", output="wide", method=method)
    merged = bench.merge("a", "b", method=method, dtype={"output": name})
    dtype = getattr(torch, name)
    assert {tensor.dtype for tensor in merged.values()} == {dtype}
    for key, tensor in merged.items():
        assert torch.equal(tensor.float(), wide[key].to(dtype).float()), key
    config = bench.document("config")
    assert config["dtype"] == name
    assert "torch_dtype" not in config
    assert {k: v for k, v in config.items() if k != "dtype"} == {
        k: v for k, v in BASE.config.items() if k != "dtype"
    }
    assert bench.document("config", output="wide") == BASE.config


def test_inputs_of_other_dtypes_give_the_bases_dtype(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    base = BASE.to(torch.bfloat16)
    bench.save(base=base, a=A.to(torch.float16), b=B.to(torch.float64))
    merged = bench.merge("a", "b")
    experts = [(A.to(torch.float16).tensors, 0.5), (B.tensors, 0.5)]
    for name, tensor in merged.items():
        assert tensor.dtype == torch.bfloat16
        if name.startswith(PREFIX):
            wanted = weighted(base.tensors, experts, name)
            torch.testing.assert_close(tensor.double(), wanted, rtol=2**-8, atol=1e-6)


def test_compute_in_float64_is_nearer_the_truth(bench: Bench) -> None:
    truth = (A.tensors[QUERY].double() + B.tensors[QUERY].double()) / 2
    merged = bench.merge("a", "b", dtype={"compute": "float64", "output": "float64"})
    torch.testing.assert_close(merged[QUERY], truth, rtol=1e-14, atol=1e-15)


def test_sharded_inputs_give_the_same_model(bench: Bench) -> None:
    usual = bench.merge("a", "b", output="usual", method=FDA)
    BASE.save(bench.root / "cut" / "base", shards=3)
    A.save(bench.root / "cut" / "a", shards=2)
    B.save(bench.root / "cut" / "b", shards=5)
    assert_same(Bench(bench.root / "cut").merge("a", "b", method=FDA), usual)


# --- the other commands -----------------------------------------------------------------


def test_plan_says_what_will_be_done_and_does_nothing(bench: Bench) -> None:
    path = bench.recipe("a", "b", method={"name": "fda", "start": "tsvm"})
    before = tree(bench.root)
    plan = succeed("plan", path)
    assert tree(bench.root) == before
    assert (plan["family"], plan["layers"], plan["width"]) == ("bert", 2, 16)
    assert plan["output"] == str(bench.root / "out")
    assert [e["name"] for e in plan["experts"]] == ["a", "b"]
    assert "tensors" not in plan["base"]
    parameters = plan["recipe"]["method"]["parameters"]
    assert parameters["construct"]["tokens"] == 5, "defaults are written out"
    assert parameters["adapt"]["learning_rate"] == 1e-2
    assert parameters["start"]["parameters"]["scale"] == 1.0

    units = {unit["id"]: unit for unit in plan["units"]}
    construct = {f"construct-{layer:03d}-{who}" for layer in (0, 1) for who in ("a", "b")}
    merges = {name for name in units if name.startswith("merge-")}
    assert set(units) == construct | merges | {"publish"}
    assert set(units["publish"]["needs"]) == merges
    needed = [set(units[name]["needs"]) for name in sorted(merges) if units[name]["needs"]]
    assert needed == [
        {"construct-000-a", "construct-000-b"},
        {"construct-001-a", "construct-001-b"},
    ]
    totals = plan["totals"]
    assert totals["units"] == len(units)
    assert totals["cached_units"] == 0
    assert totals["read_bytes"] == sum(unit["read_bytes"] for unit in plan["units"])
    assert totals["flops"] == sum(unit["flops"] for unit in plan["units"])
    rules = {tensor["name"]: tensor["rule"] for tensor in plan["tensors"]}
    assert set(rules) == set(BASE.tensors)
    assert rules[QUERY] == rules[POOLER] == "merge"
    assert rules["cls.predictions.bias"] == "base"

    said = fda("plan", path)
    assert said.code == 0
    for word in ("construct", "merge", "publish", "bert, 2 layers", "tokens: 5"):
        assert word in said.out


def test_plan_says_how_long_stages_and_other_methods_take(bench: Bench) -> None:
    path = bench.recipe("a", "b", method=FDA)
    costs = succeed("plan", path)["costs"]
    assert [row["name"] for row in costs["stages"]] == [
        "construct",
        "adapt",
        "merge",
        "publish",
        "all",
    ]
    assert [row["name"] for row in costs["other_methods"]] == ["task_arithmetic", "tsvm", "wudi"]
    for row in costs["stages"]:
        assert set(row["seconds"]) == set(costs["devices"]) == {"h100", "a100", "l4", "rtx4090"}
    said = fda("plan", path, "--on", "h100")
    assert said.code == 0
    for word in ("adapt", "tsvm", "NVIDIA H100 SXM", "Predicted for one worker"):
        assert word in said.out
    assert "rtx4090" not in said.out
    here = succeed("plan", path, "--on", "here", "--on", "l4")["costs"]
    assert set(here["devices"]) == {"here", "l4"}
    assert here["devices"]["here"]["memory_bytes"] is None


def test_plan_knows_no_device_of_another_name(bench: Bench) -> None:
    said = fda("plan", bench.recipe("a", "b"), "--on", "h1000")
    assert said.code == 2
    assert "h100, a100, l4, rtx4090, here" in said.err


def test_plan_and_merge_are_one_job(bench: Bench) -> None:
    path = bench.recipe("a", "b")
    assert succeed("plan", path)["job_id"] == succeed("merge", path, *HERE)["job_id"]


def test_settings_change_the_recipe(bench: Bench) -> None:
    settings = {
        "method.scale": "0.5",
        "method.exclude": "['*.bias']",
        "experts.1.weight": "2",
        "experts.0.name": "first",
        "dtype.output": "float16",
        "seed": "7",
        "outside": "average",
    }
    flags = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    plan = succeed(
        "plan", bench.recipe("a", "b", method="ties"), *flags, "--output", bench.root / "elsewhere"
    )
    recipe = plan["recipe"]
    assert recipe["method"]["name"] == "ties"
    assert recipe["method"]["parameters"]["scale"] == 0.5
    assert recipe["method"]["parameters"]["exclude"] == ["*.bias"]
    assert [(e["name"], e["weight"]) for e in recipe["experts"]] == [("first", 1), ("b", 2)]
    assert recipe["dtype"] == {"compute": "float32", "output": "float16"}
    assert (recipe["seed"], recipe["outside"]) == (7, "average")
    assert plan["output"] == str(bench.root / "elsewhere")


def test_settings_reach_into_a_start_given_by_name(bench: Bench) -> None:
    path = bench.recipe("a", "b", method={"name": "fda", "start": "ties"})
    plan = succeed("plan", path, "--set", "method.start.density=0.7")
    start = plan["recipe"]["method"]["parameters"]["start"]
    assert start["name"] == "ties"
    assert start["parameters"]["density"] == 0.7


@pytest.mark.parametrize(("number", "value"), [("1e-3", 1e-3), ("1E5", 1e5), ("-2e-1", -0.2)])
def test_scientific_numbers_are_numbers(bench: Bench, number: str, value: float) -> None:
    plan = succeed("plan", bench.recipe("a"), "--set", f"method.scale={number}")
    assert plan["recipe"]["method"]["parameters"]["scale"] == value


def test_recipe_as_json(bench: Bench) -> None:
    path = bench.recipe("a", "b")
    other = bench.root / "recipe.json"
    other.write_text(json.dumps(yaml.safe_load(path.read_text())))
    assert succeed("plan", other)["job_id"] == succeed("plan", path)["job_id"]


@pytest.mark.parametrize("shards", [1, 3])
def test_inspect_tells_what_the_headers_show(tmp_path: Path, shards: int) -> None:
    base = with_tied_copy(BASE)
    base.save(tmp_path / "base", shards=shards)
    (tmp_path / "base" / "vocab.txt").write_text("a\n")
    facts = succeed("inspect", tmp_path / "base")
    assert facts["uri"] == str(tmp_path / "base")
    assert (facts["family"], facts["prefix"], facts["layers"]) == ("bert", PREFIX, 2)
    assert facts["tensor_count"] == len(base.tensors)
    assert facts["parameters"] == sum(t.numel() for t in base.tensors.values())
    assert facts["bytes"] == 4 * facts["parameters"]
    assert facts["dtypes"] == {"F32": len(base.tensors)}
    assert facts["heads"] == sorted(n for n in base.tensors if n.startswith("cls."))
    assert facts["tied"] == [f"{DECODER} = {PREFIX}{WORDS}"]
    assert facts["side_files"] == ["vocab.txt"]
    assert facts["fda"] is True
    assert len(facts["files"]) == shards
    assert facts["tensors"][QUERY]["shape"] == [16, 16]
    said = fda("inspect", tmp_path / "base")
    assert said.code == 0
    assert "bert" in said.out


@pytest.mark.parametrize(("said", "tied"), [({}, True), ({"tie_word_embeddings": False}, False)])
def test_inspect_calls_tied_what_a_merge_ties(
    tmp_path: Path, said: dict[str, Any], tied: bool
) -> None:
    with_tied_copy(BASE).with_config(**said).save(tmp_path / "base")
    assert bool(succeed("inspect", tmp_path / "base")["tied"]) is tied


def test_inspect_of_a_llama_that_does_not_say_ties_nothing(tmp_path: Path) -> None:
    save_model("llama", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config.pop("tie_word_embeddings")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert succeed("inspect", tmp_path)["tied"] == []


def test_inspect_of_an_unknown_family_still_tells(tmp_path: Path) -> None:
    BASE.with_config(model_type="mamba").save(tmp_path / "odd")
    facts = succeed("inspect", tmp_path / "odd")
    assert "mamba" in facts["family"]
    assert facts["tensor_count"] == len(BASE.tensors)


def test_methods_lists_all_of_them() -> None:
    found = succeed("methods")
    assert [method["name"] for method in found] == list(METHODS)
    for method in found:
        assert method["summary"]
        assert method["paper"]
        assert "properties" in method["parameters"]
    said = fda("methods")
    assert said.code == 0
    assert all(name in said.out for name in METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_methods_shows_one_of_them(name: str) -> None:
    assert succeed("methods", name)["name"] == name
    said = fda("methods", name)
    assert said.code == 0
    assert "scale" in said.out or "construct.anchors" in said.out


def _naive_rows(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> dict[Any, tuple[float, float]]:
    rows: dict[Any, list[float]] = {}
    for name in sorted(set(a) & set(b)):
        parts = name.split(".")
        layer = int(parts[parts.index("layer") + 1]) if "layer" in parts else None
        x, y = a[name].double().flatten().tolist(), b[name].double().flatten().tolist()
        row = rows.setdefault(layer, [0.0, 0.0])
        row[0] += sum((v - u) ** 2 for u, v in zip(x, y, strict=True))
        row[1] += sum(u**2 for u in x)
    return {layer: (d**0.5, n**0.5) for layer, (d, n) in rows.items()}


def test_diff_of_the_base_with_itself_is_zero(bench: Bench) -> None:
    found = succeed("diff", bench.root / "base", bench.root / "base")
    assert [row["layer"] for row in found["layers"]] == [0, 1, None]
    for row in found["layers"]:
        assert (row["difference"], row["relative_change"]) == (0, 0)
        assert row["norm"] > 0
    assert found["only_a"] == found["only_b"] == []


def test_diff_of_the_merge_is_what_float64_says(bench: Bench) -> None:
    merged = bench.merge("a", "b", method="ties")
    found = succeed("diff", bench.root / "base", bench.root / "out")
    wanted = _naive_rows(BASE.tensors, merged)
    assert {row["layer"] for row in found["layers"]} == set(wanted)
    for row in found["layers"]:
        difference, norm = wanted[row["layer"]]
        assert row["difference"] == pytest.approx(difference, rel=1e-12)
        assert row["difference"] > 0
        assert row["norm"] == pytest.approx(norm, rel=1e-12)
        assert row["relative_change"] == pytest.approx(difference / norm, rel=1e-12)
    said = fda("diff", bench.root / "base", bench.root / "out")
    assert said.code == 0
    assert "outside" in said.out


@pytest.mark.parametrize("factor", [2.0**665, 2.0**-665])
def test_diff_of_float64_whose_squares_float64_cannot_hold(bench: Bench, factor: float) -> None:
    """About 1e200 the norms were Infinity, which is no JSON; about 1e-200 they were zero."""
    for name, checkpoint in (("base", BASE), ("b", B)):
        double = {n: t.double() for n, t in checkpoint.tensors.items() if t.is_floating_point()}
        checkpoint.with_tensors(double).save(bench.root / f"{name}-1")
        scaled = {n: t * factor for n, t in double.items()}
        checkpoint.with_tensors(scaled).save(bench.root / f"{name}-2")
    plain, found = (
        succeed("diff", bench.root / f"base-{k}", bench.root / f"b-{k}")["layers"] for k in (1, 2)
    )
    for row, wanted in zip(found, plain, strict=True):
        assert row["difference"] == pytest.approx(factor * wanted["difference"], rel=1e-12, abs=0)
        assert row["norm"] == pytest.approx(factor * wanted["norm"], rel=1e-12, abs=0)
        assert row["relative_change"] == pytest.approx(wanted["relative_change"], rel=1e-12)


def test_diff_of_ends_of_float64_says_what_it_can(bench: Bench) -> None:
    """The difference of the largest numbers with either sign is above all of float64."""
    name = "bert.encoder.layer.0.output.dense.bias"
    most = torch.full_like(BASE.tensors[name].double(), torch.finfo(torch.float64).max)
    bench.save(high=BASE.with_tensors({name: most}), low=BASE.with_tensors({name: -most}))
    row = succeed("diff", bench.root / "high", bench.root / "low")["layers"][0]
    assert (row["difference"], row["norm"]) == (None, None)
    assert "n/a" in fda("diff", bench.root / "high", bench.root / "low").out


def test_diff_names_what_only_one_side_has(bench: Bench) -> None:
    B.without_prefix().without("pooler").save(bench.root / "bare")
    found = succeed("diff", bench.root / "base", bench.root / "bare")
    assert POOLER in found["only_a"]
    assert "cls.predictions.bias" in found["only_a"]
    assert found["only_b"] == ["classifier.bias", "classifier.weight"]
    shared = {PREFIX + n: t for n, t in B.without_prefix().without("pooler").tensors.items()}
    wanted = _naive_rows(BASE.tensors, shared)
    for row in found["layers"]:
        assert row["difference"] == pytest.approx(wanted[row["layer"]][0], rel=1e-12)


def test_diff_names_what_it_does_not_compare(bench: Bench) -> None:
    """Heads of different classes, and whole numbers, were left out without a word."""
    ids = "bert.embeddings.position_ids"
    wider = {"classifier.weight": torch.zeros(5, 16), ids: torch.arange(20)[None]}
    bench.save(wide=B.with_tensors(wider), ids=A.with_tensors({ids: torch.arange(20)[None]}))
    found = succeed("diff", bench.root / "ids", bench.root / "wide")
    assert found["not_compared"] == [ids, "classifier.weight"]
    assert found["only_a"] == found["only_b"] == []
    said = fda("diff", bench.root / "ids", bench.root / "wide").out
    assert f"NOT COMPARED: {ids}, classifier.weight" in said
    B.without("pooler").save(bench.root / "bare")
    assert "and 2 more" in fda("diff", bench.root / "base", bench.root / "bare").out


def test_convert_makes_a_checkpoint_that_merges(bench: Bench) -> None:
    old = bench.root / "old"
    old.mkdir()
    torch.save(A.tensors, old / "pytorch_model.bin")
    (old / "config.json").write_text(json.dumps(A.with_config(model_type=None).config))
    assert fda("convert", old, bench.root / "new", "--model-type", "bert").code == 0
    assert_same(read_tensors(bench.root / "new"), A.tensors)
    assert_same(bench.merge("new", "b", output="one"), bench.merge("a", "b", output="two"))


def test_convert_refuses_a_pickle_that_would_run_code(bench: Bench) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(bench.root / "hacked"),))

    old = bench.root / "old"
    old.mkdir()
    torch.save({"x": Evil()}, old / "pytorch_model.bin")
    (old / "config.json").write_text(json.dumps(A.config))
    outcome = fda("convert", old, bench.root / "new")
    assert outcome.code == 3
    assert "pickle_refused" in outcome.err
    assert not (bench.root / "hacked").exists()
    assert not (bench.root / "new").exists()


def test_version_is_one_plain_line() -> None:
    outcome = fda("--version")
    assert (outcome.code, outcome.out, outcome.err) == (0, f"fda {__version__}\n", "")


def test_no_command_shows_help() -> None:
    outcome = fda("--help")
    assert outcome.code == 0
    for command in ("merge", "plan", "inspect", "methods", "verify", "diff", "convert"):
        assert command in outcome.out


@pytest.mark.parametrize("method", ["ties", {"name": "fda", "start": "tsvm"}], ids=str)
def test_planning_loads_no_torch(bench: Bench, method: Any) -> None:
    path = bench.recipe("a", "b", method=method)
    program = (
        "import sys\n"
        "from fda_core.cli.main import run\n"
        "for words in (['plan', sys.argv[1]], ['inspect', sys.argv[2]], ['methods', 'fda']):\n"
        "    try:\n"
        "        run([*words, '--json'])\n"
        "    except SystemExit as ending:\n"
        "        assert ending.code == 0, ending.code\n"
        "heavy = {'torch', 'transformers', 'numpy', 'safetensors'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(path), str(bench.root / "base")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr


IN_ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def _apart(*arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own, on a machine that knows ASCII only."""
    return subprocess.run(
        [sys.executable, "-m", "fda_core.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
        env={"PATH": os.environ["PATH"], **IN_ASCII},
        **more,
    )


def test_letters_that_the_terminal_lacks_are_escaped(tmp_path: Path) -> None:
    BASE.save(tmp_path / "größe")
    table = _apart("methods", "fda")
    assert (table.returncode, table.stderr) == (0, "")
    assert "\\u2265" in table.stdout
    document = _apart("inspect", tmp_path / "größe", "--json")
    assert document.returncode == 0, document.stderr
    assert json.loads(document.stdout)["tensor_count"] == len(BASE.tensors)


@pytest.mark.parametrize("command", [("inspect", "base"), ("plan", "{recipe}"), ("up",)])
def test_a_current_folder_that_was_removed_is_said(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    recipe = bench.recipe("linear")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    outcome = fda(*(word.format(recipe=recipe) for word in command))
    assert outcome.code == 4
    assert "the current folder is gone" in outcome.err


def test_the_command_is_a_module_too() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "fda_core.cli", "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stdout) == (0, f"fda {__version__}\n")
