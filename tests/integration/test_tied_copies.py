"""Tied embeddings: stored under either name, under both, or as two tensors that differ."""

from pathlib import Path

import pytest
import torch

from tests.support.command import fda
from tests.support.merges import HERE, Models, fda_method

WORDS, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def store(models: Models, name: str, *as_: str) -> None:
    """Store a checkpoint's embeddings under these names alone."""
    words = models.tensors(name)[WORDS]
    models.change(name, {own: words.clone() for own in as_}, without=WORDS)


@pytest.mark.parametrize("method", ["linear", "tsvm", fda_method(scope="mlp", start="ties")])
@pytest.mark.parametrize("odd", ["base", "a", "experts"])
def test_either_name_gives_the_same_merge(tmp_path: Path, odd: str, method: object) -> None:
    models = Models(tmp_path, "qwen2")
    usual = models.merge(method, "usual")
    for name in ("a", "b") if odd == "experts" else (odd,):
        store(models, name, HEAD)
    merged = models.merge(method)
    if odd == "base":
        usual[HEAD] = usual.pop(WORDS)
    assert set(merged) == set(usual)
    for name, tensor in merged.items():
        assert torch.equal(tensor, usual[name]), name
    loaded = type(models.base).from_pretrained(tmp_path / "out")
    assert torch.equal(loaded.lm_head.weight, loaded.model.embed_tokens.weight)
    assert torch.equal(loaded.lm_head.weight, merged[HEAD if odd == "base" else WORDS])
    plan = models.plan(method)
    assert any(f"its {WORDS if odd == 'base' else HEAD} stands for" in note for note in plan.notes)
    assert not plan.warnings


@pytest.mark.parametrize("whose", ["base", "a"])
@pytest.mark.parametrize("method", ["linear", "tsvm"])
def test_two_copies_that_differ_are_refused(tmp_path: Path, method: str, whose: str) -> None:
    """The library loads such a model untied; its output matrix was lost without a word."""
    models = Models(tmp_path, "qwen2")
    for name in ("base", "a"):
        store(models, name, WORDS, HEAD)
    other = models.tensors(whose)[HEAD]
    other[2, 3] += 1
    models.change(whose, {HEAD: other})
    error = fda("merge", models.recipe(method), *HERE, "--json").error
    assert error["code"] == "checkpoint_invalid"
    for said in (whose, WORDS, HEAD, "element 35", "tie_word_embeddings"):
        assert said in error["message"]
    assert not (tmp_path / "out").exists()


def test_copies_longer_than_the_bases_may_differ_in_rows_nobody_reads(tmp_path: Path) -> None:
    models = Models(tmp_path, "qwen2")
    for name in ("base", "a"):
        store(models, name, WORDS, HEAD)
    longer = {
        name: torch.cat([models.tensors("a")[WORDS], torch.rand(2, 16)]) for name in (WORDS, HEAD)
    }
    models.change("a", longer)
    merged = models.merge("linear", vocabulary="base")
    assert torch.equal(merged[HEAD], merged[WORDS])
