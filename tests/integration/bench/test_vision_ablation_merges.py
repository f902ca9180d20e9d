"""The ablations run `fda merge` for their points and write their files from the cache."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.bench.vision import ablation_points, ablations
from tests.bench.vision.evaluate import Judged
from tests.bench.vision.heads import Head
from tests.bench.vision.merging import Models
from tests.bench.vision.run import Suite
from tests.bench.vision.split import PARTS
from tests.bench.vision.task import SIDE, Examples, Task
from tests.support.small_dinov2 import SMALL, write_small

NAMES = ("mnist", "kanji")


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    write_small(tmp_path / "base")
    for number, name in enumerate(NAMES, 1):
        write_small(tmp_path / name, noise=0.01 * number)
    return Suite(
        cache=tmp_path / "cache",
        part="test",
        tasks=[judged(name) for name in NAMES],
        models=Models.of(tmp_path / "base", {name: tmp_path / name for name in NAMES}),
        keeps_models=False,
    )


def judged(name: str) -> Judged:
    numbers = np.random.default_rng(0)
    examples = Examples(
        images=numbers.integers(0, 256, (12, SIDE, SIDE, 3)).astype(np.uint8),
        labels=np.arange(12) % 2,
    )
    weight = torch.randn(2, SMALL["hidden_size"], generator=torch.Generator().manual_seed(0))
    head = Head(task=name, key=f"{name}-head", weight=weight, bias=torch.zeros(2), scale=1.0)
    task = Task(name=name, classes=("a", "b"), parts=dict.fromkeys(PARTS, examples))
    return Judged(task=task, head=head)


@pytest.mark.slow
def test_a_group_is_measured_once_and_its_files_say_so(
    suite: Suite, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {
        "construct": {"anchors": 4, "tokens": 5, "init": "spectral", "steps": 2},
        "adapt": {"epochs": 1, "batch": 4, "distance": "l2"},
    }
    monkeypatch.setattr(ablation_points, "REFERENCE", small)
    monkeypatch.setattr(ablation_points, "SUB_SUITE", NAMES)
    levels = {"2": {"construct": {"steps": 2}}, "3": {"construct": {"steps": 3}}}
    monkeypatch.setattr(ablation_points, "VARIED", {"steps": levels})
    monkeypatch.setattr(ablations, "GROUPS", ("steps",))
    ablations.run(suite, ["steps"])
    found = json.loads((suite.cache / "ablations.json").read_text())
    assert [(p["name"], p["is_reference"]) for p in found["points"]] == [("2", True), ("3", False)]
    assert found["points"][1]["alignment"] > found["points"][0]["alignment"]
    assert all(point["construct"]["flops"] > 0 for point in found["points"])
    assert not list(suite.cache.glob("merges/*/merged/*.safetensors"))
    capsys.readouterr()
    ablations.run(suite, ["steps"])
    assert capsys.readouterr().out.count("in the cache") == 2
    assert "| 2 (reference) |" in (suite.cache / "ablations.md").read_text()
