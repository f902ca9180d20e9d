"""Experts made of adapters are, tensor by tensor, what the peft library merges them into."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.adapters import Tuned, change_weights, materialised, plan_of, tune
from tests.support.checkpoints import read_tensors

pytestmark = pytest.mark.skipif(
    find_spec("peft") is None, reason="needs the peft library to compare with"
)

TEXT = ["query", "value", "dense"]
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "attention": ("bert", {"r": 3, "lora_alpha": 7, "target_modules": ["query", "value"]}),
    "attention and mlp": ("bert", {"r": 4, "target_modules": TEXT, "lora_dropout": 0.1}),
    "rank and alpha by module": (
        "bert",
        {
            "r": 2,
            "lora_alpha": 3,
            "target_modules": TEXT,
            "rank_pattern": {"layer.1.attention.self.query": 5, r"output\.dense": 4},
            "alpha_pattern": {r"layer\.[01]\.attention\.self\.(query|value)": 9, "dense": 0.5},
        },
    ),
    "rank-stabilised": (
        "bert",
        {"r": 4, "use_rslora": True, "target_modules": TEXT, "rank_pattern": {"value": 9}},
    ),
    "gaussian start": (
        "bert",
        {"r": 2, "target_modules": ["key"], "init_lora_weights": "gaussian"},
    ),
    "a whole tensor of the body": (
        "bert",
        {"r": 2, "target_modules": ["key"], "modules_to_save": ["position_embeddings"]},
    ),
    "embeddings": ("bert", {"r": 2, "target_modules": ["query", "token_type_embeddings"]}),
    "embeddings saved with their base": (
        "llama",
        {"r": 2, "target_modules": ["q_proj", "embed_tokens"]},
    ),
    "all biases": ("bert", {"r": 2, "target_modules": ["query"], "bias": "all"}),
    "biases of targets": ("bert", {"r": 2, "target_modules": ["query"], "bias": "lora_only"}),
    "biases of B": ("bert", {"r": 2, "target_modules": ["query"], "lora_bias": True}),
    "a classifier": ("roberta", {"r": 2, "target_modules": TEXT, "task_type": "SEQ_CLS"}),
    "Conv1D, square and not": (
        "gpt2",
        {"r": 3, "target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True},
    ),
    "every linear layer": ("llama", {"r": 2, "target_modules": "all-linear"}),
    "an untied output matrix": ("llama", {"r": 2, "target_modules": ["lm_head", "o_proj"]}),
    "names in memory are not those on disk": (
        "vit",
        {"r": 2, "target_modules": ["q_proj", "fc1", "fc2", "o_proj"], "bias": "all"},
    ),
    "a convolution": ("vit", {"r": 2, "target_modules": ["projection"]}),
    "no prefix": ("dinov2", {"r": 2, "target_modules": ["k_proj", "fc2"]}),
    "one matrix for three": ("gpt_neox", {"r": 2, "target_modules": ["query_key_value", "dense"]}),
    "norms of queries": ("gemma3_text", {"r": 2, "target_modules": ["q_proj", "down_proj"]}),
    "two classifiers": ("deit", {"r": 2, "target_modules": ["q_proj", "fc1"]}),
    "two towers": ("clip", {"r": 2, "target_modules": ["q_proj", "fc1"]}),
}


@pytest.mark.parametrize("case", CASES)
def test_every_tensor_is_what_peft_merges(case: str, tmp_path: Path) -> None:
    kind, settings = CASES[case]
    tuned = tune(tmp_path, kind, **settings)
    base, wanted = read_tensors(tuned.base), read_tensors(tuned.merged)
    plan = plan_of(tuned.base, tuned.adapter)
    found = materialised(plan, "adapter")
    changed = 0
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[name], rtol=2e-6, atol=2e-7, msg=name)
        differs = not torch.equal(wanted[name], base[name])
        assert plan.experts[0].changes(name) >= differs, name
        changed += differs
    assert changed
    heads = set(wanted) - set(found)
    assert all(torch.equal(wanted[n], base[n]) for n in heads if n not in plan.experts[0].heads)


def test_an_adapter_without_training_is_the_base(tmp_path: Path) -> None:
    tuned = tune(tmp_path, "bert", r=2, target_modules=["query"])
    stored = read_tensors(tuned.adapter)
    change_weights(tuned.adapter, {n: t * 0 for n, t in stored.items() if "lora_B" in n})
    base = read_tensors(tuned.base)
    for name, tensor in materialised(plan_of(tuned.base, tuned.adapter), "adapter").items():
        assert torch.equal(tensor, base[name])


def test_a_plan_tells_what_the_adapter_is(tmp_path: Path) -> None:
    tuned: Tuned = tune(tmp_path, "bert", r=4, lora_alpha=6, target_modules=["query", "value"])
    notes = plan_of(tuned.base, tuned.adapter).notes
    assert "adapter: LoRA adapter of rank 4, 6 targets, scale 1.5" in notes
