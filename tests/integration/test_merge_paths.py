"""Tensors merged in blocks of stored bytes, and as a whole as accelerators do, are the same."""

import json
import math
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fda_core.engine import merge_unit
from tests.support.command import fda
from tests.support.merges import HERE, Models

METHODS: list[Any] = [
    "linear",
    "ties",
    {"name": "ties", "rules": "mergekit"},
    "dare_ties",
    "della",
    {"name": "breadcrumbs_ties", "scope": "tensor", "keep": 0.3},
    "breadcrumbs",
    "slerp",
    {"name": "model_stock", "filter_wise": True},
    "iso_c",
]


@pytest.fixture(params=["llama", "gpt2"])
def models(request, tmp_path) -> Models:
    return Models(tmp_path, request.param)


def _both(models: Models, method: Any, monkeypatch: pytest.MonkeyPatch, **more: Any) -> None:
    blocks = models.merge(method, "blocks", **more)
    with monkeypatch.context() as patch:
        patch.setattr(merge_unit, "merges_blocks", lambda *_: False)
        whole = models.merge(method, "whole", **more)
    assert blocks.keys() == whole.keys()
    for name, tensor in blocks.items():
        assert tensor.dtype == whole[name].dtype
        assert torch.equal(tensor.view(torch.uint8), whole[name].view(torch.uint8)), name
    found, expected = (models.document("merge_metrics", output) for output in ("blocks", "whole"))
    for ours, theirs in zip(found["task_vectors"], expected["task_vectors"], strict=True):
        assert ours["base_norm"] == pytest.approx(theirs["base_norm"], rel=1e-6)
        for figure in ("sign_conflict_ratio", "rounded_away_ratio"):
            assert ours[figure] == theirs[figure]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_both_ways_give_the_same_bytes_and_figures(models, method, monkeypatch):
    _both(models, method, monkeypatch)


@pytest.mark.parametrize("dtype", [{"output": "bfloat16"}, {"compute": "float64"}])
def test_other_dtypes_do_too(models, dtype, monkeypatch):
    _both(models, "ties", monkeypatch, dtype=dtype)


def test_the_average_outside_does_too(models, monkeypatch):
    _both(models, "iso_c", monkeypatch, outside="average")


@pytest.mark.parametrize("whose", ["base", "b"])
@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_the_first_bad_number_is_named_alike(models, whose, bad, monkeypatch):
    tensors = load_file(models.root / whose / "model.safetensors")
    name = max(tensors, key=lambda name: tensors[name].numel())
    tensors[name][3, 5] = tensors[name][4, 1] = bad
    models.change(whose, {name: tensors[name]})
    messages = []
    for in_blocks in (True, False):
        if not in_blocks:
            monkeypatch.setattr(merge_unit, "merges_blocks", lambda *_: False)
        ended = fda("merge", models.recipe("ties"), *HERE, "--json")
        assert ended.code == 5
        messages.append(json.loads(ended.out)["error"]["message"])
    assert messages[0] == messages[1]
    assert f"{whose}: {name}[3, 5] is {bad}" in messages[0]


def test_a_result_that_runs_away_is_named_alike(models, monkeypatch):
    messages = []
    for in_blocks in (True, False):
        if not in_blocks:
            monkeypatch.setattr(merge_unit, "merges_blocks", lambda *_: False)
        method = {"name": "task_arithmetic", "scale": 1e7}
        recipe = models.recipe(method, dtype={"output": "float16"})
        ended = fda("merge", recipe, *HERE, "--json")
        assert ended.code == 5
        messages.append(json.loads(ended.out)["error"]["message"])
    assert messages[0] == messages[1]
    assert "result: " in messages[0]
