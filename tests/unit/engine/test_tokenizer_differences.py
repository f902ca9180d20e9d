"""Experts whose tokenizers number other tokens are warned of, and no others."""

import json
from pathlib import Path
from typing import Any

import pytest

from fda_core.engine.tokenizer_differences import tokens_of
from tests.support.plans import plan_of
from tests.support.workers import save_models


def fast(vocab: Any, added: tuple[tuple[int, str], ...] = ()) -> str:
    tokens = [{"id": number, "content": token, "special": True} for number, token in added]
    return json.dumps({"model": {"vocab": vocab}, "added_tokens": tokens})


WORDS = {"a": 0, "b": 1, "c": 2}
CASES = {
    "words": ("tokenizer.json", fast(WORDS), {0: "a", 1: "b", 2: "c"}),
    "pieces": ("tokenizer.json", fast([["a", -1.5], ["b", 0]]), {0: "a", 1: "b"}),
    "added": ("tokenizer.json", fast({"a": 0}, ((1, "<x>"),)), {0: "a", 1: "<x>"}),
    "a list of words": ("vocab.txt", "a\nb\n", {0: "a", 1: "b"}),
    "numbers of words": ("vocab.json", json.dumps(WORDS), {0: "a", 1: "b", 2: "c"}),
    "words of languages": ("vocab.json", json.dumps({"en": WORDS}), {}),
    "no tokenizer": ("tokenizer.json", "[1, 2]", {}),
    "no JSON": ("tokenizer.json", "{", {}),
    "no text": ("vocab.txt", "\udcff", {}),
    "nested": ("vocab.json", "[" * 100_000, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_tokens_by_their_ids(case: str) -> None:
    file, text, tokens = CASES[case]
    assert tokens_of(file, text.encode("utf-8", "surrogateescape")) == tokens


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return save_models(tmp_path)


def said(models: Path) -> list[str]:
    return [w for w in plan_of(models, "linear").warnings if "rows of embeddings" in w]


def write(models: Path, who: str, text: str, file: str = "tokenizer.json") -> None:
    (models / who / file).write_text(text)


def test_an_id_that_is_another_token_is_named_with_both(models: Path) -> None:
    write(models, "base", fast(WORDS))
    write(models, "a", fast({"a": 0, "c": 1, "b": 2}))
    (warning,) = said(models)
    assert "a: its tokenizer.json gives 2 ids to other tokens" in warning
    assert "first 1: 'c', the base's 'b'" in warning


def test_more_tokens_and_another_spelling_of_the_same_are_no_difference(models: Path) -> None:
    write(models, "base", fast(WORDS))
    write(models, "a", json.dumps(json.loads(fast(WORDS, ((3, "<x>"),))), indent=2))
    assert said(models) == []


def test_what_one_side_lacks_says_nothing(models: Path) -> None:
    write(models, "base", fast(WORDS))
    write(models, "a", "z\ny\n", "vocab.txt")
    assert said(models) == []
    write(models, "base", "a\nb\n", "vocab.txt")
    assert "its vocab.txt" in said(models)[0]
