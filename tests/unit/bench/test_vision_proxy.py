"""The data-free proxy: its formula, whom it compares, and what the command says."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.bench.vision import proxy as command
from tests.bench.vision.contenders import Contender
from tests.bench.vision.evaluate import Correct
from tests.bench.vision.layers import Tensors, block_of, layers_of
from tests.bench.vision.merging import Merged, Models
from tests.bench.vision.model_folder import read_config
from tests.bench.vision.proxy import Probe, compared, markdown, measure, probe, proxy
from tests.bench.vision.run import Suite
from tests.support.small_dinov2 import SMALL, write_small
from tests.unit.bench.vision_rows import COST, IMAGES, suite

TASKS = ("mnist", "kanji")


def linear(tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    return x @ tensors["weight"].T


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def of_linear(seed: int, *, layer: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor], Probe]:
    base, delta = {"weight": random(6, 6, seed=seed)}, random(6, 6, seed=seed + 1)
    expert = {"weight": base["weight"] + delta}
    anchors = random(5, 3, 6, seed=seed + 2)
    return base, expert, probe(linear, base, expert, anchors=anchors, layer=layer)


def test_the_expert_itself_has_one_and_the_base_zero() -> None:
    base, expert, found = of_linear(0)
    assert proxy([found], {0: expert}) == pytest.approx(1.0, abs=1e-6)
    assert proxy([found], {0: base}) == 0.0


def test_the_update_taken_backwards_has_minus_one_in_a_linear_layer() -> None:
    base, expert, found = of_linear(0)
    backwards = {"weight": 2 * base["weight"] - expert["weight"]}
    assert proxy([found], {0: backwards}) == pytest.approx(-1.0, abs=1e-6)


def test_the_proxy_is_the_mean_cosine_over_layers_and_experts() -> None:
    made = [of_linear(10 * k, layer=k // 2) for k in range(4)]
    merged = {layer: {"weight": random(6, 6, seed=90 + layer)} for layer in range(2)}
    cosines = []
    for base, expert, found in made:
        x = found.anchors.numpy().astype(np.float64).reshape(-1, 6)
        start, theta = (t["weight"].numpy().astype(np.float64) for t in (base, expert))
        moved = x @ (merged[found.layer]["weight"].numpy().astype(np.float64) - start).T
        wanted = x @ (theta - start).T
        cosines.append((moved * wanted).sum() / (moved**2).sum() ** 0.5 / (wanted**2).sum() ** 0.5)
    assert proxy([found for *_, found in made], merged) == pytest.approx(sum(cosines) / 4, abs=1e-6)


@pytest.fixture
def models(tmp_path: Path) -> Models:
    write_small(tmp_path / "base")
    for number, name in enumerate(TASKS, 1):
        write_small(tmp_path / name, noise=0.02 * number)
    return Models.of(tmp_path / "base", {name: tmp_path / name for name in TASKS})


def anchors_of(_: object, models: Models, *, seed: int, **__: object) -> dict[Any, Tensor]:
    """Give random anchors for those FDA would construct: two layers of every expert."""
    width = SMALL["hidden_size"]
    return {
        (layer, name): random(4, 5, width, seed=seed + layer)
        for name in models.experts
        for layer in range(SMALL["num_hidden_layers"])
    }


class Cache:
    """A cache of merges by a method's name: the folder that is the merge, or None if dropped.

    A dropped merge comes back as the first expert, and has no accuracy with `is_judged` off.
    """

    def __init__(self, models: Models, merges: Mapping[str, Path | None]) -> None:
        self.models = models
        self.merges = dict(merges)
        self.again: list[str] = []
        self.dropped: list[Path] = []
        self.not_judged: set[str] = set()

    def merge(
        self, method: Mapping[str, Any], *_: object, again: bool = False, **__: Any
    ) -> Merged:
        name = str(method["name"])
        if again:
            self.again.append(name)
        folder = self.models.experts["mnist"] if again else self.merges[name] or Path("nowhere")
        return Merged(
            folder=folder, weights=name, seed=0, cost=COST, construction=None, alignment=None
        )

    def is_there(self, _: Suite, contender: Contender) -> bool:
        method = contender.method or {}
        return method.get("name") in self.merges and "transfer" not in method

    def is_judged(self, weights: str, *_: object, **__: object) -> bool:
        return weights not in self.not_judged

    def evaluate(self, *_: object, weights: str, **__: object) -> dict[str, Correct]:
        right = {"ties": 300, "linear": 200, "tsvm": 100}[weights]
        return {task: np.arange(IMAGES) < right for task in TASKS}

    def drop(self, merged: Merged) -> None:
        self.dropped.append(merged.folder)


@pytest.fixture
def cache(models: Models, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """Hold two merges with weights, the base and the second expert, and one without."""
    merges = {"linear": models.base, "tsvm": models.experts["kanji"], "ties": None}
    made = Cache(models, merges)
    monkeypatch.setattr(command, "anchors_of", anchors_of)
    monkeypatch.setattr(command, "drop_weights", made.drop)
    for name in ("merge", "is_there", "is_judged", "evaluate"):
        monkeypatch.setattr(command, name, getattr(made, name))
    return made


@pytest.fixture
def small(models: Models, tmp_path: Path) -> Suite:
    return replace(suite(TASKS), models=models, cache=tmp_path)


def test_the_layers_of_a_model_are_judged_as_the_library_computes_them(models: Models) -> None:
    base, expert = (layers_of(at) for at in (models.base, models.experts["mnist"]))
    block, x = block_of(base[1], read_config(models.base), layer=1), random(4, 5, 24, seed=3)
    half: Tensors = {name: (base[1][name] + expert[1][name]) / 2 for name in base[1]}
    wide = [{n: t.double() for n, t in given.items()} for given in (base[1], expert[1], half)]
    before, after, between = (block(tensors, x.double()).flatten() for tensors in wide)
    moved, wanted = between - before, after - before
    naive = float((moved @ wanted) / (moved.norm() * wanted.norm()))
    found = probe(block, base[1], expert[1], anchors=x, layer=1)
    assert found.cosine(half) == pytest.approx(naive, abs=1e-5)
    assert 0 < naive < 1


def test_methods_whose_merge_or_accuracy_is_not_in_the_cache_are_left_out(
    cache: Cache, small: Suite
) -> None:
    assert {contender.name for contender in compared(small)} == {"linear", "tsvm", "ties"}
    del cache.merges["tsvm"]
    cache.not_judged.add("linear")
    assert [contender.name for contender in compared(small)] == ["ties"]


def test_fda_is_not_compared_as_it_is_fitted_to_anchors(cache: Cache, small: Suite) -> None:
    cache.merges["fda"] = None
    assert all(contender.group == "data-free" for contender in compared(small))


def test_only_weights_that_were_dropped_are_merged_again_and_dropped(
    cache: Cache, small: Suite
) -> None:
    measure(small)
    assert cache.again == ["ties"]
    assert cache.dropped == [small.models.experts["mnist"]]


@pytest.mark.usefixtures("cache")
def test_the_command_writes_methods_by_their_proxy_and_says_the_correlation(
    small: Suite, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "prepare", lambda _: small)
    command.main(["--cache", str(small.cache)])
    found = json.loads((small.cache / "proxy.json").read_text())
    values = [each["proxy"] for each in found]
    assert values == sorted(values, reverse=True)
    assert {each["method"]: each["accuracy"] for each in found} == {
        "ties": 0.75,
        "linear": 0.5,
        "tsvm": 0.25,
    }
    assert {each["method"]: each["proxy"] for each in found}["linear"] == 0.0
    said = capsys.readouterr().out
    assert markdown(found) in said
    assert "report.html" in said
    assert (small.cache / "report.html").exists()


def test_the_table_keeps_the_order_and_ends_with_the_correlation() -> None:
    rows = [("swudi", 0.9, 0.7), ("ties", 0.5, 0.8), ("della", 0.125, 0.2)]
    said = markdown([{"method": m, "proxy": p, "accuracy": a} for m, p, a in rows])
    lines = said.splitlines()
    assert lines[2:5] == [
        "| swudi | 0.9000 | 70.0 |",
        "| ties | 0.5000 | 80.0 |",
        "| della | 0.1250 | 20.0 |",
    ]
    assert lines[-1] == "Spearman's rank correlation is +0.50 over 3 methods."
