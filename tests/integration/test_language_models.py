"""Merging causal language models from end to end, whole layers and MLPs alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fda_core.checkpoints.layers import families
from fda_core.contract.recipe import MethodSpec
from fda_core.engine.cut import fitted_tensors
from fda_core.methods.base import TensorInputs
from fda_core.methods.registry import resolve
from tests.support.command import fda
from tests.support.merges import HERE, Models, fda_method
from tests.support.models import MASKED

FAMILIES = tuple(kind for kind in MASKED if kind in families())


def in_layers(name: str) -> bool:
    return ".layers." in name or ".h." in name


@pytest.mark.parametrize("scope", ["layer", "mlp"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_fda_fits_every_layer_and_the_library_loads_the_result(
    tmp_path: Path, kind: str, scope: str
) -> None:
    models = Models(tmp_path, kind)
    merged = models.merge(fda_method(scope=scope))
    base = models.tensors("base")
    assert set(merged) == set(base)
    for name, tensor in merged.items():
        fitted = in_layers(name) and (scope == "layer" or ".mlp." in name)
        assert torch.equal(tensor, base[name]) != fitted, name
    loaded = type(models.base).from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        logits = loaded(input_ids=torch.arange(6)[None]).logits
    assert logits.isfinite().all()
    metrics = models.document("merge_metrics")
    assert {(m["layer"], m["expert"]) for m in metrics["construction"]} == {
        (layer, expert) for layer in range(3) for expert in "ab"
    }
    for made in metrics["construction"]:
        assert made["alignment_best"] > made["alignment_start"] - 1e-9
        assert made["tokens"] == (5 if scope == "layer" else 0)
    for layer in metrics["adaptation"]:
        assert layer["loss"]["values"][-1] < layer["loss"]["values"][0]


def test_other_tensors_of_a_layer_get_what_the_start_makes_of_them(tmp_path: Path) -> None:
    models = Models(tmp_path, "llama")
    start = {"name": "task_arithmetic", "scale": 0.4}
    merged = models.merge(fda_method(scope="mlp", start=start))
    plain = models.merge(start, "plain")
    for name, tensor in merged.items():
        assert torch.equal(tensor, plain[name]) == (".mlp." not in name), name


def test_anchors_of_an_mlp_are_rows(tmp_path: Path) -> None:
    models = Models(tmp_path, "llama")
    models.merge(fda_method(scope="mlp"))
    files = list(tmp_path.rglob("anchors.bin"))
    assert len(files) == 6
    assert {file.stat().st_size for file in files} == {6 * 16 * 4}
    report = (tmp_path / "out" / "merge_report.html").read_text()
    assert "6 rows" in report


def test_the_plan_of_an_mlp_counts_its_tensors_only_and_no_attention(tmp_path: Path) -> None:
    models = Models(tmp_path, "llama")
    plan = models.plan(fda_method(scope="mlp"))
    tensors = fitted_tensors(plan, resolve(plan.recipe.method))
    assert {t.part for t in tensors[1]} == {
        f"mlp.{part}_proj.weight" for part in ("gate", "up", "down")
    }
    unit = plan.unit("construct-001-a")
    gate_and_up, down = 7, 9  # the first read the input itself, which needs no gradient at first
    assert unit.flops == (2 * gate_and_up + down) * 8 * (2 * 16 * 24 * 6)
    assert unit.read_bytes == 2 * 3 * 16 * 24 * 4
    assert any("scope mlp" in note for note in plan.notes)


def test_tokens_are_refused_with_an_mlp(tmp_path: Path) -> None:
    models = Models(tmp_path, "llama")
    recipe = models.recipe(fda_method(scope="mlp", construct={"tokens": 5}))
    error = fda("plan", recipe, "--json").error
    assert error["code"] == "bad_parameter"
    assert "construct.tokens" in error["message"]


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_family_without_an_mlp_module_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    models = Models(tmp_path, kind)
    error = fda("plan", models.recipe(fda_method(scope="mlp")), "--json").error
    assert error["code"] == "bad_parameter"
    assert "method.scope" in error["message"]
    assert kind in error["message"]


@pytest.mark.parametrize("kind", ["distilbert", "vit", "dinov2_swiglu", "clip_vision"])
def test_an_encoders_mlp_is_fitted_alone(tmp_path: Path, kind: str) -> None:
    models = Models(tmp_path, kind)
    merged, base = models.merge(fda_method(scope="mlp")), models.tensors("base")
    moved = {name for name, tensor in merged.items() if not torch.equal(tensor, base[name])}
    assert moved
    mlp = ("ffn.", ".mlp.", "intermediate.dense", "output.dense")
    assert all(any(part in name for part in mlp) for name in moved)
    assert not any("attention" in name or "norm" in name for name in moved)


# --- GPT-2: matrices stored the other way round, buffers among the weights ------------------


def _by_method(method: Any, name: str, base: Tensor, experts: list[Tensor]) -> Tensor:
    inputs = TensorInputs(
        name=name,
        layer=1,
        base=base.clone(),
        deltas=[expert - base for expert in experts],
        weights=[1.0, 1.0],
        experts=["a", "b"],
        seed=0,
    )
    return resolve(MethodSpec.model_validate(method)).merge_tensor(inputs)


@pytest.mark.parametrize("method", ["iwudi", {"name": "wudi", "solver": "closed"}])
@pytest.mark.parametrize("part", ["h.1.attn.c_attn", "h.1.attn.c_proj", "h.2.mlp.c_proj"])
def test_methods_see_gpt2s_matrices_as_outputs_by_inputs(
    tmp_path: Path, method: Any, part: str
) -> None:
    models = Models(tmp_path, "gpt2")
    name = f"transformer.{part}.weight"
    merged = models.merge(method)[name]
    base, *experts = (models.tensors(who)[name] for who in ("base", "a", "b"))
    turned = _by_method(method, name, base.T.contiguous(), [e.T.contiguous() for e in experts])
    torch.testing.assert_close(merged, turned.T, rtol=0, atol=1e-5)
    as_stored = _by_method(method, name, base, experts)
    assert (merged - as_stored).abs().max() > 1e-3


def test_the_weight_init_takes_gpt2s_columns(tmp_path: Path) -> None:
    models = Models(tmp_path, "gpt2")
    construct = {"steps": 1, "anchors": 30, "tokens": 4, "init": "weight"}
    models.merge(fda_method(construct=construct))
    expert = models.tensors("a")
    metrics = models.document("merge_metrics")["construction"]
    assert all(made["init"] == "weight" for made in metrics)
    columns = torch.cat(
        [
            expert[f"transformer.h.0.{part}.weight"].T
            for part in ("attn.c_attn", "attn.c_proj", "mlp.c_fc")
        ]
    )
    assert columns.shape == (48 + 16 + 24, 16)
    anchors = [
        torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.float32).reshape(-1, 16)
        for file in tmp_path.rglob("anchors.bin")
    ]
    matches = [
        int((found[:, None] == columns[None]).all(dim=-1).any(dim=1).sum()) for found in anchors
    ]
    assert max(matches) == len(columns), "every column is drawn once, means of two fill up"


def test_buffers_of_old_gpt2_checkpoints_stay_the_bases(tmp_path: Path) -> None:
    models = Models(tmp_path, "gpt2")
    causal = torch.tril(torch.ones(20, 20))[None, None]
    names = [f"transformer.h.{layer}.attn.bias" for layer in range(3)]
    models.change("base", {name: causal.clone() for name in names})
    models.change("a", {name: causal[..., :8, :8].bool().contiguous() for name in names})
    merged = models.merge(fda_method())
    for name in names:
        assert torch.equal(merged[name], causal)


def test_a_gpt2_without_its_prefix_is_the_same_model(tmp_path: Path) -> None:
    models = Models(tmp_path, "gpt2")
    first = models.merge(fda_method())
    bare = {n.removeprefix("transformer."): t for n, t in models.tensors("a").items()}
    save_file(bare, tmp_path / "a" / "model.safetensors", metadata={"format": "pt"})
    second = models.merge(fda_method(), "again")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_only_the_first_layer_may_lack_what_its_family_gives_others(
    tmp_path: Path,
) -> None:
    models = Models(tmp_path, "modernbert")
    assert "model.layers.0.attn_norm.weight" not in models.tensors("base")
    models.change("base", {}, without="layers.2.attn_norm")
    error = fda("plan", models.recipe("linear"), "--json").error
    assert error["code"] == "missing_tensor"
    assert "layer 2 does not have the same tensors" in error["message"]
    assert "attn_norm" in error["message"]


# --- embeddings, heads, positions -----------------------------------------------------------


@pytest.mark.parametrize(("kind", "tied"), [("gemma2", True), ("gpt2", True), ("llama", False)])
def test_without_a_tie_key_a_family_does_what_its_library_does(
    tmp_path: Path, kind: str, tied: bool
) -> None:
    models = Models(tmp_path, kind)
    for name in ("base", "a", "b"):
        models.change_config(name, tie_word_embeddings=None)
        models.change(name, {"lm_head.weight": torch.randn(41, 16)})
    recipe = models.recipe("linear")
    outcome = fda("merge", recipe, *HERE, "--json")
    if tied:
        assert outcome.error["code"] == "checkpoint_invalid"
        assert "config.json ties them" in outcome.error["message"]
    else:
        words = load_file(tmp_path / "out" / "model.safetensors")
        assert not torch.equal(words["lm_head.weight"], words["model.embed_tokens.weight"])


@pytest.mark.parametrize("outside", ["start", "base", "average"])
def test_the_language_models_head_follows_the_rule_for_outside(
    tmp_path: Path, outside: str
) -> None:
    models = Models(tmp_path, "llama")
    start = {"name": "task_arithmetic", "scale": 0.4}
    merged = models.merge(fda_method(scope="mlp", start=start), outside=outside)
    base, a, b = (models.tensors(name)["lm_head.weight"].double() for name in ("base", "a", "b"))
    factor = {"start": 0.4, "base": 0.0, "average": 0.5}[outside]
    wanted = base + factor * (a - base) + factor * (b - base)
    torch.testing.assert_close(merged["lm_head.weight"].double(), wanted, rtol=1e-6, atol=1e-7)


def test_a_classifiers_head_is_set_aside_and_the_base_keeps_its_own(tmp_path: Path) -> None:
    models = Models(tmp_path, "llama")
    models.change("a", {"score.weight": torch.randn(3, 16)}, without="lm_head")
    merged = models.merge("linear")
    assert "score.weight" not in merged
    base, b = models.tensors("base"), models.tensors("b")
    torch.testing.assert_close(merged["lm_head.weight"], b["lm_head.weight"])
    assert not torch.equal(base["lm_head.weight"], merged["lm_head.weight"])
    aside = [load_file(file) for file in (tmp_path / "out" / "heads").rglob("*.safetensors")]
    assert any("score.weight" in tensors for tensors in aside)


def test_anchors_are_not_reused_under_other_positions(tmp_path: Path) -> None:
    """Equal weights under another config are another function."""
    models = Models(tmp_path, "llama")
    models.merge(fda_method(), "first")
    models.merge(fda_method(), "second")
    rows = models.document("merge_metrics", "second")["units"]
    assert {row["source"] for row in rows if row["kind"] == "construct"} == {"cache"}
    for name in ("base", "a", "b"):
        models.change_config(name, rope_parameters={"rope_type": "default", "rope_theta": 5.0})
    models.merge(fda_method(), "third")
    rows = models.document("merge_metrics", "third")["units"]
    assert {row["source"] for row in rows if row["kind"] == "construct"} == {"run"}


def test_an_expert_with_other_positions_is_warned_of(tmp_path: Path) -> None:
    models = Models(tmp_path, "llama")
    models.change_config("a", rope_parameters={"rope_type": "default", "rope_theta": 5.0})
    models.merge({"name": "task_arithmetic"})
    (warning,) = models.document("merge_manifest")["warnings"]
    assert warning.startswith("a: its config has rope's rope_theta 5.0, the base ")
    assert warning.endswith("; the output gets the base's")


@pytest.mark.parametrize(("key", "value"), [("rms_norm_eps", 0.1), ("sliding_window", 3)])
def test_an_expert_of_other_settings_is_warned_of(tmp_path, key, value):
    models = Models(tmp_path, "mistral")
    assert models.plan("linear").warnings == ()
    models.change_config("b", **{key: value})
    (warning,) = models.plan("linear").warnings
    assert warning.startswith(f"b: its config has {key} {value}, the base ")
