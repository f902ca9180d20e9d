"""Merging adapters: the same bytes as merging the checkpoints they stand for, and far less read.

No peft here: adapters are made by hand in its layout, on a BERT made by hand.
"""

import json
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fda_core.contract.plan import Plan
from fda_core.engine.layer_tensors import Inputs
from tests.support.adapters import factors_of, materialised, plan_of, save_adapter
from tests.support.checkpoints import PREFIX, WORDS, RecipeFile, base_model, expert_of
from tests.support.command import fda, succeed

HERE = ("--workers", 1, "--device", "cpu")
FILE = "model.safetensors"
LAYERS = 2
MODULES = {
    f"{PREFIX}encoder.layer.{layer}.{part}": shape
    for layer in range(LAYERS)
    for part, shape in {
        "attention.self.query": (16, 16),
        "attention.self.value": (16, 16),
        "intermediate.dense": (24, 16),
        "output.dense": (16, 24),
    }.items()
}
INHERITED = f"{PREFIX}encoder.layer.0.attention.self.key.weight"
UPDATED = f"{PREFIX}encoder.layer.0.attention.self.query.weight"
METHODS: dict[str, Any] = {
    "linear": {"name": "linear"},
    "task_arithmetic": {"name": "task_arithmetic", "scale": 0.3},
    "ties": {"name": "ties", "density": 0.3},
    "tsvm": {"name": "tsvm"},
    "fda": {
        "name": "fda",
        "start": "task_arithmetic",
        "construct": {"anchors": 4, "steps": 5},
        "adapt": {"epochs": 2, "learning_rate": 1e-3},
    },
}


class Bench:
    """A base, two adapters on it, and the checkpoints that the two stand for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.base = base_model().save(root / "base")
        head = {"classifier.weight": torch.ones(3, 16), "classifier.bias": torch.zeros(3)}
        table = {
            f"{PREFIX}embeddings.word_embeddings.lora_embedding_A": torch.randn(2, 41),
            f"{PREFIX}embeddings.word_embeddings.lora_embedding_B": 0.1 * torch.randn(16, 2),
        }
        whole = {f"{PREFIX}pooler.dense.weight": torch.randn(16, 16)}
        self.adapters = {
            "one": save_adapter(
                root / "one", {**factors_of(MODULES, seed=1), **head}, task_type="SEQ_CLS"
            ),
            "two": save_adapter(
                root / "two",
                {**factors_of(MODULES, seed=2, rank=3), **table, **whole},
                r=3,
                use_rslora=True,
                rank_pattern={"word_embeddings": 2},
                alpha_pattern={"query": 1},
            ),
        }

    def plan(self, **recipe: Any) -> Plan:
        return plan_of(self.base, *self.adapters.values(), **recipe)

    def materialise(self) -> dict[str, Path]:
        """Write every adapter as the checkpoint it stands for, heads and all."""
        plan, folders = self.plan(), {}
        for name, adapter in self.adapters.items():
            folder = self.root / f"{name}-whole"
            folder.mkdir()
            (folder / "config.json").write_text((self.base / "config.json").read_text())
            stored = load_file(adapter / "adapter_model.safetensors")
            head = {n.removeprefix("base_model.model."): t for n, t in stored.items()}
            tensors = {n: t for n, t in head.items() if n.startswith("classifier")}
            tensors |= materialised(plan, name)
            save_file(tensors, folder / "model.safetensors")
            folders[name] = folder
        return folders

    def merge(self, experts: dict[str, Path], output: str, **recipe: Any) -> dict[str, Any]:
        document = RecipeFile(
            base=self.base, experts=experts, output=self.root / output, more=recipe
        ).document()
        document.update(recipe)
        path = self.root / f"{output}.json"
        path.write_text(json.dumps(document))
        done: dict[str, Any] = succeed("merge", path, *HERE)
        return done

    def weights(self, output: str) -> bytes:
        return (self.root / output / "model.safetensors").read_bytes()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    torch.manual_seed(0)
    return Bench(tmp_path)


@pytest.mark.parametrize("outside", ["start", "average"])
@pytest.mark.parametrize("method", METHODS)
def test_adapters_merge_to_the_bytes_of_the_checkpoints_they_stand_for(
    method: str, outside: str, bench: Bench
) -> None:
    recipe = {"method": METHODS[method], "outside": outside}
    bench.merge(bench.adapters, "from-adapters", **recipe)
    bench.merge(bench.materialise(), "from-whole", **recipe)
    assert bench.weights("from-adapters") == bench.weights("from-whole")
    assert bench.weights("from-adapters") != (bench.base / "model.safetensors").read_bytes()


def test_an_adapter_and_a_whole_checkpoint_merge_together(bench: Bench) -> None:
    whole = expert_of(base_model(), 5).save(bench.root / "five")
    bench.merge({"one": bench.adapters["one"], "five": whole}, "mixed", method="linear")
    base = load_file(bench.base / "model.safetensors")
    one = materialised(bench.plan(), "one")
    five, merged = load_file(whole / "model.safetensors"), load_file(bench.root / "mixed" / FILE)
    for name in (INHERITED, UPDATED):
        wanted = base[name] + (one[name] - base[name] + five[name] - base[name]) / 2
        torch.testing.assert_close(merged[name], wanted, rtol=1e-5, atol=1e-6)


def test_heads_of_an_adapter_are_written_aside_under_the_models_names(bench: Bench) -> None:
    bench.merge(bench.adapters, "merged", method="linear")
    heads = load_file(bench.root / "merged" / "heads" / "one.safetensors")
    assert set(heads) == {"classifier.weight", "classifier.bias"}
    assert torch.equal(heads["classifier.weight"], torch.ones(3, 16))
    assert not (bench.root / "merged" / "heads" / "two.safetensors").exists()


def test_the_model_cards_example_loads_the_head_of_an_adapter(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.merge(bench.adapters, "merged", method="linear")
    card = (bench.root / "merged" / "README.md").read_text()
    example = next(part for part in card.split("```") if "load_state_dict(head" in part)
    assert "AutoModelForSequenceClassification" in example
    monkeypatch.chdir(bench.root)
    names: dict[str, Any] = {}
    exec(example.removeprefix("python"), names)
    assert torch.equal(names["model"].classifier.weight, torch.ones(3, 16))


def test_a_head_that_an_adapter_updates_is_written_aside_updated(bench: Bench) -> None:
    module = "cls.predictions.transform.dense"
    factors = factors_of({module: (16, 16)})
    adapter = save_adapter(bench.root / "head", {**factors_of(MODULES), **factors})
    bench.merge({"head": adapter}, "merged", method="linear")
    base = load_file(bench.base / FILE)[f"{module}.weight"]
    found = load_file(bench.root / "merged" / "heads" / "head.safetensors")
    update = 2 * factors[f"{module}.lora_B.weight"] @ factors[f"{module}.lora_A.weight"]
    torch.testing.assert_close(found[f"{module}.weight"], base + update)
    merged = load_file(bench.root / "merged" / FILE)
    assert torch.equal(merged[f"{module}.weight"], base)


def test_a_low_precision_base_does_not_swallow_the_update(tmp_path: Path) -> None:
    base = base_model().to(torch.bfloat16).save(tmp_path / "base")
    factors = {n: (t * 1e-3).to(torch.bfloat16) for n, t in factors_of(MODULES).items()}
    adapter = save_adapter(tmp_path / "lora", factors)
    found = materialised(plan_of(base, adapter), "lora")[UPDATED]
    module = UPDATED.removesuffix(".weight")
    a, b = (factors[f"{module}.lora_{side}.weight"].double() for side in "AB")
    wanted = load_file(base / FILE)[UPDATED].double() + 2 * b @ a
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=1e-7)


def test_only_the_factors_and_the_base_are_read(bench: Bench) -> None:
    plan = bench.plan(outside="start")
    base = sum(e.size_bytes for n, e in plan.base.tensors.items() if n.startswith(PREFIX))
    factors = sum(
        entry.size_bytes
        for expert in plan.experts
        for name, entry in expert.checkpoint.tensors.items()
        if not name.startswith("classifier")
    )
    planned = sum(unit.read_bytes for unit in plan.units if unit.kind == "merge")
    heads = sum(e.size_bytes for n, e in plan.base.tensors.items() if not n.startswith(PREFIX))
    assert planned == base + factors + heads
    bench.merge(bench.adapters, "merged", method="linear", outside="start")
    metrics = json.loads((bench.root / "merged" / "merge_metrics.json").read_text())
    read = sum(u["cost"]["read_bytes"] for u in metrics["units"] if u["kind"] == "merge")
    assert read == planned


def test_an_experts_tensors_are_made_one_by_one_and_let_go(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Tensor]] = []
    most = 0
    real = Inputs.expert

    def watched(self: Inputs, name: str, expert: str, base: Tensor) -> Tensor:
        nonlocal most
        tensor = real(self, name, expert, base)
        made.append(weakref.ref(tensor))
        most = max(most, sum(1 for ref in made if ref() is not None))
        return tensor

    monkeypatch.setattr(Inputs, "expert", watched)
    bench.merge(bench.adapters, "merged", method="linear", outside="start")
    assert len(made) == 2 * len(MODULES) + 1  # only what adapters update, not all they share
    assert most <= 2 * len(bench.adapters)


def test_manifest_and_plan_name_the_adapters_files(bench: Bench) -> None:
    bench.merge(bench.adapters, "merged", method="linear")
    manifest = json.loads((bench.root / "merged" / "merge_manifest.json").read_text())
    read = {Path(i["uri"]).name for i in manifest["inputs"] if i["role"] == "one"}
    assert read == {"adapter_config.json", "adapter_model.safetensors"}
    assert "one: LoRA adapter of rank 2, 8 targets, scale 2, 2 whole tensors" in manifest["notes"]
    assert (
        "two: LoRA adapter of rank 2 to 3, 9 targets, scale 0.57735 to 2.82843, 1 whole tensors"
        in manifest["notes"]
    )


def test_another_alpha_is_another_job(bench: Bench) -> None:
    before = bench.plan().job_id
    config = bench.adapters["one"] / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 4', '"lora_alpha": 5'))
    assert bench.plan().job_id != before


def test_anchors_of_adapters_are_found_again(bench: Bench) -> None:
    bench.merge(bench.adapters, "first", method=METHODS["fda"])
    again = bench.plan(method=METHODS["fda"], output=str(bench.root / "second"))
    cached = [unit.cached for unit in again.units if unit.kind == "construct"]
    assert cached == [True] * LAYERS * 2


def test_a_layer_that_an_adapter_leaves_alone_has_no_anchors(bench: Bench) -> None:
    factors = {n: t for n, t in factors_of(MODULES, seed=3).items() if ".layer.1." in n}
    adapter = save_adapter(bench.root / "upper", factors)
    bench.merge({"upper": adapter, "one": bench.adapters["one"]}, "merged", method=METHODS["fda"])
    metrics = json.loads((bench.root / "merged" / "merge_metrics.json").read_text())
    steps = {(c["layer"], c["expert"]): c["steps_run"] for c in metrics["construction"]}
    assert steps[0, "upper"] == 0
    assert steps[1, "upper"] > 0


def test_inspect_tells_what_an_adapter_is(bench: Bench) -> None:
    facts = succeed("inspect", bench.adapters["two"])
    assert facts["adapter"].startswith("LoRA adapter of rank 2 to 3, 9 targets")
    assert facts["ranks"] == [2, 3]
    assert f"{PREFIX}embeddings.word_embeddings" in facts["targets"]
    assert facts["whole"] == [f"{PREFIX}pooler.dense.weight"]
    text = fda("inspect", bench.adapters["two"])
    assert text.code == 0
    assert "LoRA adapter of rank 2 to 3" in text.out


def test_planning_with_adapters_loads_no_torch(bench: Bench) -> None:
    recipe = RecipeFile(
        base=bench.base, experts=bench.adapters, output=bench.root / "merged"
    ).write(bench.root / "recipe.yaml")
    program = (
        "import sys\n"
        "from fda_core.engine.plan import make_plan\n"
        "from fda_core.engine.recipes import read_recipe\n"
        "from fda_core.storage.resolve import storages\n"
        f"plan = make_plan(read_recipe(open({str(recipe)!r}).read()), storages(), cwd='/')\n"
        "assert plan.experts[0].adapter\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_an_adapter_is_no_model_to_compare_with(bench: Bench) -> None:
    outcome = fda("diff", bench.base, bench.adapters["one"])
    assert outcome.code == 3
    assert "adapter" in outcome.err


def test_an_embeddings_update_has_tokens_as_rows(bench: Bench) -> None:
    found = materialised(bench.plan(), "two")[PREFIX + WORDS]
    stored = load_file(bench.adapters["two"] / "adapter_model.safetensors")
    key = "base_model.model.bert.embeddings.word_embeddings.lora_embedding_"
    a, b = stored[key + "A"].double(), stored[key + "B"].double()
    base = load_file(bench.base / FILE)[PREFIX + WORDS].double()
    wanted = base + 4 / 2**0.5 * (b @ a).T
    torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=1e-6)
