"""Experts whose vocabulary is longer or shorter than the base's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.command import fda
from tests.support.merges import Models, fda_method

WORDS, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def resize(models: Models, expert: str, rows: int) -> None:
    """Give an expert more rows, or take its last ones away."""
    tensors = models.tensors(expert)
    changed = {}
    for name in (WORDS, HEAD):
        if name in tensors:
            extra = 50 + torch.randn(max(0, rows - len(tensors[name])), 16)
            changed[name] = torch.cat([tensors[name], extra])[:rows].contiguous()
    models.change(expert, changed)
    models.change_config(expert, vocab_size=rows)


def expected(models: Models, name: str, expert: str, method: str) -> Tensor:
    """Return what a method makes of the base and the rows both have, in float64."""
    base = models.tensors("base")[name].double()
    total = torch.zeros_like(base)
    for who in "ab":
        own = models.tensors(who)[name].double()
        rows = min(len(own), len(base)) if who == expert else len(base)
        total[:rows] += own[:rows] - base[:rows]
    return base + total * (0.5 if method == "linear" else 0.3)


@pytest.mark.parametrize("rows", [40, 43])
def test_another_vocabulary_is_refused_by_default_and_the_option_named(
    tmp_path: Path, rows: int
) -> None:
    models = Models(tmp_path, "llama")
    resize(models, "b", rows)
    error = fda("plan", models.recipe("linear"), "--json").error
    assert error["code"] == "shape_mismatch"
    assert any(name in error["message"] for name in (WORDS, HEAD))
    for said in ("'b'", f"({rows}, 16)", "(41, 16)"):
        assert said in error["message"]
    assert "vocabulary: base" in error["hint"]


@pytest.mark.parametrize("method", ["linear", "task_arithmetic"])
@pytest.mark.parametrize("rows", [38, 43])
def test_the_bases_rows_are_kept(tmp_path: Path, rows: int, method: str) -> None:
    models = Models(tmp_path, "llama")
    resize(models, "b", rows)
    merged = models.merge(method, vocabulary="base")
    for name in (WORDS, HEAD):
        assert merged[name].shape == (41, 16)
        wanted = expected(models, name, "b", method)
        torch.testing.assert_close(merged[name].double(), wanted, rtol=1e-6, atol=1e-6)
    assert models.document("config")["vocab_size"] == 41


def test_rows_a_lone_expert_lacks_are_the_bases_to_the_bit(tmp_path: Path) -> None:
    models = Models(tmp_path, "llama")
    for expert in "ab":
        resize(models, expert, 38)
    merged = models.merge("task_arithmetic", vocabulary="base")
    base = models.tensors("base")
    assert torch.equal(merged[WORDS][38:], base[WORDS][38:])
    assert (merged[WORDS][:38] != base[WORDS][:38]).any(dim=1).all()


@pytest.mark.parametrize(("rows", "said"), [(38, "takes no part"), (43, "left out")])
def test_the_plan_says_what_happens_to_the_rows(tmp_path: Path, rows: int, said: str) -> None:
    models = Models(tmp_path, "llama")
    resize(models, "b", rows)
    plan = models.plan("linear", vocabulary="base")
    for name in (WORDS, HEAD):
        notes = [note for note in plan.notes if name in note]
        assert len(notes) == 1
        assert notes[0].startswith("b: ")
        assert said in notes[0]
        assert str(rows) in notes[0]
        assert "41" in notes[0]


@pytest.mark.parametrize("outside", ["start", "average", "base"])
def test_every_rule_for_outside_takes_the_common_rows(tmp_path: Path, outside: str) -> None:
    models = Models(tmp_path, "llama")
    resize(models, "a", 45)
    merged = models.merge("linear", vocabulary="base", outside=outside)
    base = models.tensors("base")[WORDS]
    wanted = base.double() if outside == "base" else expected(models, WORDS, "a", "linear")
    torch.testing.assert_close(merged[WORDS].double(), wanted, rtol=1e-6, atol=1e-6)


def test_tied_embeddings_are_cut_once_and_written_twice(tmp_path: Path) -> None:
    models = Models(tmp_path, "qwen2")
    for name in ("base", "a", "b"):
        models.change(name, {HEAD: models.tensors(name)[WORDS].clone()})
    resize(models, "b", 44)
    merged = models.merge(fda_method(scope="mlp", start="linear"), vocabulary="base")
    assert torch.equal(merged[HEAD], merged[WORDS])
    wanted = expected(models, WORDS, "b", "linear")
    torch.testing.assert_close(merged[WORDS].double(), wanted, rtol=1e-6, atol=1e-6)


def test_an_encoders_words_can_be_cut_too(tmp_path: Path) -> None:
    models = Models(tmp_path, "roberta")
    words = "roberta.embeddings.word_embeddings.weight"
    longer = torch.cat([models.tensors("a")[words], torch.randn(2, 16)])
    models.change("a", {words: longer})
    assert fda("plan", models.recipe("linear"), "--json").code != 0
    merged = models.merge("linear", vocabulary="base")
    assert merged[words].shape == (41, 16)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (WORDS, (41, 15)),
        ("model.layers.1.mlp.up_proj.weight", (25, 16)),
        ("model.norm.weight", (17,)),
    ],
)
def test_the_option_covers_nothing_but_rows_of_tokens(
    tmp_path: Path, name: str, shape: Any
) -> None:
    models = Models(tmp_path, "llama")
    models.change("a", {name: torch.randn(shape)})
    error = fda("plan", models.recipe("linear", vocabulary="base"), "--json").error
    assert error["code"] == "shape_mismatch"
    assert name in error["message"]
    assert "vocabulary" not in error["hint"]


def test_any_other_word_for_the_option_is_refused(tmp_path: Path) -> None:
    models = Models(tmp_path, "llama")
    error = fda("plan", models.recipe("linear", vocabulary="union"), "--json").error
    assert error["code"] == "bad_parameter"
    assert "vocabulary" in error["message"]


def test_equal_vocabularies_are_merged_alike_under_either_word(tmp_path: Path) -> None:
    models = Models(tmp_path, "llama")
    refuse, base = (models.merge("linear", f"out-{w}", vocabulary=w) for w in ("refuse", "base"))
    assert all(torch.equal(refuse[name], base[name]) for name in refuse)
