"""Merging models of families that no table describes, as the transformers library saves them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.command import fda, succeed
from tests.support.merges import HERE, Models, fda_method
from tests.support.models import UNLISTED

HEADS = ("discriminator_predictions", "classifier.")
STACKS = {
    "t5": ("encoder.block.", "decoder.block."),
    "mixtral": ("model.layers.",),
    "ernie": ("ernie.encoder.layer.",),
    "openai_gpt": ("transformer.h.",),
    "metaclip_2": ("text_model.encoder.layers.", "vision_model.encoder.layers."),
    "convnext": ("convnext.encoder.stages.",),
    "resnet": (),
}


def average(models: Models, name: str) -> Tensor:
    return torch.stack([models.tensors(who)[name].double() for who in "ab"]).mean(0)


def tsvm(base: Tensor, experts: list[Tensor]) -> Tensor:
    """Return TSV-M of one matrix (outputs, inputs) in float64, from its definition."""
    rank = min(base.shape) // len(experts)
    parts = [torch.linalg.svd(expert - base, full_matrices=False) for expert in experts]
    left = torch.cat([u[:, :rank] for u, _, _ in parts], 1)
    right = torch.cat([v[:rank] for _, _, v in parts], 0)
    values = torch.cat([s[:rank] for _, s, _ in parts])
    outer = [torch.linalg.svd(side, full_matrices=False) for side in (left, right)]
    first, second = (u @ v for u, _, v in outer)
    return base + first @ torch.diag(values) @ second


@pytest.mark.parametrize("kind", UNLISTED)
def test_matrices_of_layers_by_the_method_and_the_rest_averaged(tmp_path: Path, kind: str) -> None:
    models = Models(tmp_path, kind)
    base, merged = models.tensors("base"), models.merge("tsvm")
    assert set(merged) == set(base)
    for name, tensor in merged.items():
        assert tensor.dtype == base[name].dtype
        if name.startswith(HEADS) or not base[name].is_floating_point():
            assert torch.equal(tensor, base[name]), name
            continue
        wanted = average(models, name)
        if tensor.ndim == 2 and name.startswith(STACKS[kind]):
            experts = [models.tensors(who)[name].double() for who in "ab"]
            wanted = tsvm(base[name].double(), experts)
        torch.testing.assert_close(tensor.double(), wanted, rtol=1e-5, atol=1e-5, msg=name)
    type(models.base).from_pretrained(tmp_path / "out")
    assert any("told by their names" in n for n in models.document("merge_manifest")["notes"])
    assert succeed("diff", tmp_path / "base", tmp_path / "out")["only_a"] == []
    assert succeed("inspect", tmp_path / "base")["fda"] is False


@pytest.mark.parametrize("kind", ["t5", "resnet"])
def test_fda_is_refused_when_planned_and_another_way_offered(tmp_path: Path, kind: str) -> None:
    models = Models(tmp_path, kind)
    error = fda("plan", models.recipe(fda_method()), "--json").error
    assert error["code"] == "unknown_architecture"
    assert kind in error["message"]
    assert "swudi" in error["hint"]


def test_matrices_stored_the_other_way_round_are_turned(tmp_path: Path) -> None:
    """IWUDI's two sides differ; its matrices must be those of the turned weights."""
    models = Models(tmp_path, "openai_gpt")
    planned = {t.name.split(".", 3)[-1] for t in models.plan("iwudi").tensors if t.transposed}
    assert planned == {
        f"{part}.weight" for part in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }


@pytest.mark.parametrize("bare", [("base",), ("a", "b")])
def test_the_librarys_prefix_may_lack_on_a_side(tmp_path: Path, bare: tuple[str, ...]) -> None:
    models = Models(tmp_path, "ernie")
    usual = models.merge("ties", "usual")
    for who in bare:
        body = {
            name.removeprefix("ernie."): tensor
            for name, tensor in models.tensors(who).items()
            if name.startswith("ernie.")
        }
        models.change(who, body, without="e")
    merged = models.merge("ties")
    for name, tensor in merged.items():
        assert torch.equal(tensor, usual[name if name in usual else f"ernie.{name}"]), name


def test_a_negative_variance_is_refused_and_excluding_statistics_helps(tmp_path: Path) -> None:
    """Two experts with small variances and a sum of updates: a batch norm would make NaN of it."""
    models = Models(tmp_path, "resnet")
    name = "resnet.embedder.embedder.normalization.running_var"
    for who in "ab":
        models.change(who, {name: torch.full((8,), 0.1)})
    method = {"name": "task_arithmetic", "scale": 1.0}
    outcome = fda("merge", models.recipe(method), *HERE, "--json")
    assert (outcome.code, outcome.error["code"]) == (5, "non_finite")
    assert name in outcome.error["message"]
    assert "-0.8" in outcome.error["message"]
    kept = models.merge({**method, "exclude": ["*.running_mean", "*.running_var"]}, "kept")
    assert torch.equal(kept[name], torch.ones(8))


def test_integers_that_only_an_expert_has_in_a_layer_are_set_aside(tmp_path: Path) -> None:
    """Old releases stored masks there; they were taken for an adapter's weights."""
    models = Models(tmp_path, "mixtral")
    mask = "model.layers.0.self_attn.mask"
    models.change("a", {mask: torch.ones(2, 2, dtype=torch.bool)})
    assert mask not in models.merge("linear")
    assert any(mask in warning for warning in models.plan("linear").warnings)


def test_heads_of_other_lengths_are_set_aside(tmp_path: Path) -> None:
    models = Models(tmp_path, "convnext")
    models.change("a", {"classifier.weight": torch.rand(9, 16), "classifier.bias": torch.rand(9)})
    models.merge("linear")
    assert sorted(p.name for p in (tmp_path / "out" / "heads").iterdir()) == [
        "a.safetensors",
        "b.safetensors",
    ]


def test_rows_of_other_vocabularies_are_a_question_of_the_recipe(tmp_path: Path) -> None:
    models = Models(tmp_path, "t5")
    models.change(
        "a", {"shared.weight": torch.cat([models.tensors("a")["shared.weight"], torch.rand(3, 16)])}
    )
    error = fda("plan", models.recipe("linear"), "--json").error
    assert error["code"] == "shape_mismatch"
    assert "vocabulary: base" in error["hint"]
    assert models.merge("linear", vocabulary="base")["shared.weight"].shape == (41, 16)


@pytest.mark.parametrize("who", [("base",), ("a",), ("base", "a", "b")])
def test_copies_of_shared_embeddings_are_merged_as_one(
    tmp_path: Path, who: tuple[str, ...]
) -> None:
    """Pickles have all copies and safetensors one; the base's were kept and the model untied."""
    models = Models(tmp_path, "t5")
    method = {"name": "dare_linear", "scale": 1.0}
    usual = models.merge(method, "usual")
    copies = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    for name in who:
        words = models.tensors(name)["shared.weight"]
        models.change(name, {copy: words.clone() for copy in copies})
    merged = models.merge(method)
    assert not torch.equal(usual["shared.weight"], models.tensors("base")["shared.weight"])
    for name, tensor in merged.items():
        assert torch.equal(tensor, usual["shared.weight" if name in copies else name]), name
    assert set(merged) == {*usual, *(copies if "base" in who else ())}
    loaded = type(models.base).from_pretrained(tmp_path / "out")
    assert loaded.lm_head.weight is loaded.shared.weight
    assert not any("no expert has it" in note for note in models.plan(method).notes)


def test_another_model_type_is_no_expert(tmp_path: Path) -> None:
    models = Models(tmp_path, "t5")
    models.change_config("a", model_type="mt5")
    error = fda("plan", models.recipe("linear"), "--json").error
    assert error["code"] == "not_same_base"
    assert "mt5" in error["message"]


def test_buffers_of_old_checkpoints_keep_the_base_and_packed_weights_are_refused(
    tmp_path: Path,
) -> None:
    models = Models(tmp_path, "mixtral")
    mask = {"model.layers.0.self_attn.mask": torch.ones(2, 2, dtype=torch.bool)}
    models.change("base", mask)
    merged = models.merge("tsvm")
    assert torch.equal(
        merged["model.layers.0.self_attn.mask"], mask["model.layers.0.self_attn.mask"]
    )
    packed = "model.layers.0.self_attn.q_proj.qweight"
    models.change("base", {packed: torch.ones(2, 2, dtype=torch.int32)})
    error = fda("plan", models.recipe("tsvm", "other"), "--json").error
    assert error["code"] == "unsupported_dtype"
    assert packed in error["message"]
