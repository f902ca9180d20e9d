"""A merge needs no more memory than its plan says, held to it by the kernel.

The limit is on a process's private writable memory, whether touched or not, so that it is
harder than one on resident memory.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fda_core.engine.plan import make_plan
from fda_core.engine.recipes import read_recipe
from fda_core.storage.resolve import storages
from tests.support.checkpoints import RecipeFile

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts so on Linux")

WORDS, WIDTH, EXPERTS = 16000, 1024, "abc"
LARGEST = WORDS * WIDTH * 4
PROCESS = 256 * 2**20
CHILD = """
import resource, sys
import fda_core.engine.units
from fda_core.cli.main import run
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
run(sys.argv[2:])
"""


def _tensors(words: int, gates: int, expert: int) -> dict[str, torch.Tensor]:
    width = WIDTH
    at = "model.layers.0."
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (words, width)}
    for part in "qkvo":
        shapes[f"{at}self_attn.{part}_proj.weight"] = (width, width)
    for part, rows in (("gate", gates), ("up", width), ("down", width)):
        shapes[f"{at}mlp.{part}_proj.weight"] = (rows, width)
    for norm in (f"{at}input_layernorm", f"{at}post_attention_layernorm", "model.norm"):
        shapes[f"{norm}.weight"] = (width,)
    numbers, moves = (torch.Generator().manual_seed(seed) for seed in (0, expert))
    found = {}
    for name, shape in shapes.items():
        found[name] = 0.02 * torch.randn(shape, generator=numbers)
        if expert:
            found[name] += 1e-3 * torch.randn(shape, generator=moves)
    return found


def _save(folder: Path, *, words: int, gates: int = WIDTH) -> Path:
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 1,
        "vocab_size": words,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "max_position_embeddings": 64,
    }
    for number, name in enumerate(("base", *EXPERTS)):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps(config))
        tensors = _tensors(words, gates, number)
        save_file(tensors, folder / name / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _save(tmp_path_factory.mktemp("large"), words=WORDS)


def _recipe(models: Path, folder: Path, method: Any) -> Path:
    folder.mkdir(exist_ok=True)
    experts = {name: models / name for name in EXPERTS}
    recipe = RecipeFile(
        base=models / "base", experts=experts, output=folder / "merged", method=method
    )
    return recipe.write(folder / "recipe.yaml")


def _planned_bytes(recipe: Path) -> int:
    plan = make_plan(read_recipe(recipe.read_text()), storages(), cwd=str(recipe.parent))
    return max(unit.memory_bytes for unit in plan.units)


def _merge(recipe: Path, *, limit: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CHILD, str(limit), "merge", str(recipe)]
    return subprocess.run(
        [*command, "--workers", "1", "--device", "cpu", "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def _digests(folder: Path) -> dict[str, str]:
    outputs = json.loads((folder / "merged" / "merge_manifest.json").read_text())["outputs"]
    return {name: file["sha256"] for name, file in outputs.items() if "safetensors" in name}


FDA = {"name": "fda", "construct": {"anchors": 16, "steps": 3}, "adapt": {"epochs": 2, "batch": 8}}


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "dare_ties", "slerp", "tsvm"])
def test_a_merge_gets_by_with_what_its_plan_says(method: str, models: Path, tmp_path: Path) -> None:
    recipe = _recipe(models, tmp_path, method)
    if method == "slerp":
        recipe.write_text(recipe.read_text().replace(f"- name: c\n  model: {models}/c\n", ""))
    planned = _planned_bytes(recipe)
    if method != "tsvm":
        assert planned <= LARGEST * (len(EXPERTS) + 4) + PROCESS
    ended = _merge(recipe, limit=planned)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_fda_gets_by_with_what_its_plan_says(models: Path, tmp_path: Path) -> None:
    recipe = _recipe(models, tmp_path, FDA)
    ended = _merge(recipe, limit=_planned_bytes(recipe))
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_too_little_memory_is_a_named_error_and_the_next_run_goes_on(
    tmp_path: Path,
) -> None:
    models = _save(tmp_path / "models", words=100, gates=WORDS)  # its layer is the second unit
    cut_short = _recipe(models, tmp_path / "short", "ties")
    ended = _merge(cut_short, limit=PROCESS + 160 * 2**20)
    assert ended.returncode == 6, ended.stdout + ended.stderr
    assert json.loads(ended.stdout)["error"]["code"] == "out_of_host_memory"
    assert not (tmp_path / "short" / "merged").exists()
    assert "merge-002" in ended.stdout
    assert list((tmp_path / "short").rglob("*merge-001*")), "what fitted is in the journal"
    again = _merge(cut_short, limit=2**40)
    assert again.returncode == 0, again.stdout + again.stderr
    undisturbed = _recipe(models, tmp_path / "whole", "ties")
    assert _merge(undisturbed, limit=2**40).returncode == 0
    assert _digests(tmp_path / "short") == _digests(tmp_path / "whole")
